"""Pretrained backbones of stock configs without torchvision."""

import pytest
import torch
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmdet_gfl.compat import torchvision_weights
from mmdet_gfl.compat.checkpoint import install_checkpoint_support


@pytest.fixture
def asked(monkeypatch):
    """Addresses that are downloaded, with torchvision absent."""
    addresses = []
    monkeypatch.setattr(torchvision_weights, 'torchvision_ops', lambda: None)
    monkeypatch.setattr(
        mmengine_checkpoint,
        'load_from_http',
        lambda address, map_location: addresses.append(address) or {'conv1.weight': torch.ones(1)},
    )
    install_checkpoint_support()
    return addresses


@pytest.mark.parametrize('prefix', ['torchvision', 'modelzoo'])
def test_the_address_is_the_one_of_the_model_zoo(asked, prefix):
    loaded = CheckpointLoader.load_checkpoint(f'{prefix}://resnet50', map_location='cpu')
    assert asked == ['https://download.pytorch.org/models/resnet50-0676ba61.pth'] and 'conv1.weight' in loaded


def test_an_unknown_name_is_named(asked):
    with pytest.raises(ValueError, match=r'torchvision://resnet51 .*resnet50'):
        CheckpointLoader.load_checkpoint('torchvision://resnet51')


def test_torchvision_is_asked_where_it_is_there(monkeypatch):
    monkeypatch.setattr(torchvision_weights, 'torchvision_ops', lambda: object())
    monkeypatch.setattr(mmengine_checkpoint, 'load_from_torchvision', lambda name, where: ('torchvision', name))
    assert torchvision_weights.load_from_torchvision_address('torchvision://r') == ('torchvision', 'torchvision://r')


def test_the_shipped_config_starts_from_them(asked, root):
    from mmdet.registry import MODELS
    from mmengine.config import Config

    backbone = MODELS.build(Config.fromfile(root / 'configs/gfl/gfl_r50_fpn_1x_coco.py').model.backbone)
    backbone.init_weights()
    assert len(asked) == 1
