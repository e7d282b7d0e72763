"""A host registered from outside is known wherever hosts are asked for, and no file has to list it."""

import pytest
import torch
from cases import host_config, stock_config
from mmdet.models.dense_heads import ATSSHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config, ConfigDict

from mmdet_gfl.analysis.counterparts import build_head, build_heads, head_config, nearest_host
from mmdet_gfl.engine import type_checks
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.models.dense_heads import ATSSGFLHead
from mmdet_gfl.registry import MODELS, host_names, hosts_of_stock_heads, registered_hosts


class NewHead(ATSSHead):
    """A head of MMDetection that no host of ours stands for."""


class NewGFLHead(ATSSGFLHead):
    """The host for it, which differs from ATSS's in its baseline."""

    stock_head = NewHead
    baseline_quality = 'NoQuality'


class SpecialATSSHead(ATSSGFLHead):
    """A subclass of a host, with the same stock head."""


@pytest.fixture
def registered():
    MMDET_MODELS.register_module(module=NewHead)
    for host in (NewGFLHead, SpecialATSSHead):
        MODELS.register_module(module=host)
    yield
    MMDET_MODELS.module_dict.pop('NewHead')
    for host in (NewGFLHead, SpecialATSSHead):
        MODELS.module_dict.pop(host.__name__)


def test_hosts_by_their_stock_heads(registered):
    assert registered_hosts()['NewGFLHead'] is NewGFLHead and 'mmdet_gfl.NewGFLHead' in host_names()
    assert hosts_of_stock_heads()[NewHead] is NewGFLHead
    assert hosts_of_stock_heads()[ATSSHead] is ATSSGFLHead  # not the subclass that inherits it


def test_a_misplaced_loss_names_the_new_host(registered):
    head = dict(stock_config('ATSS'), type='NewHead', loss_cls=dict(type='QualityFocalLoss'))
    model = torch.nn.ModuleDict(dict(bbox_head=MMDET_MODELS.build(head)))
    with pytest.raises(UserError, match=r"use model\.bbox_head\.type='mmdet_gfl\.NewGFLHead'"):
        type_checks.check_losses(model)


def test_distance_targets_of_the_new_head(registered):
    cfg = stock_config('ATSS', type='NewHead')
    head = build_head(head_config(ConfigDict(bbox_head=cfg, train_cfg=cfg.train_cfg, test_cfg=cfg.test_cfg)))
    assert type(head) is NewGFLHead and type(head.quality).__name__ == 'NoQuality'
    with pytest.raises(UserError, match=r'NewHead or mmdet_gfl\.NewGFLHead'):
        head_config(ConfigDict(bbox_head=[]))


def test_the_new_host_is_measured_beside_its_stock_head(registered):
    cfg = host_config('ATSS', 'NoQuality', 'dirac', type='mmdet_gfl.NewGFLHead')
    model = dict(bbox_head=cfg, train_cfg=cfg.pop('train_cfg'), test_cfg=cfg.pop('test_cfg'))
    heads = build_heads(Config(dict(model=model)), None, torch.device('cpu'))
    assert type(heads.theirs) is NewHead and heads.equal and heads.type_changed is None


def test_a_subclass_of_a_host_is_held_against_the_hosts_stock_head(registered):
    head = MODELS.build(host_config('ATSS', 'IoUBranch', 'dirac', type='mmdet_gfl.SpecialATSSHead'))
    assert nearest_host(head) is ATSSGFLHead
