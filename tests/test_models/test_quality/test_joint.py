"""JointQuality: whose loss it takes, and what it refuses."""

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_gfl.models.quality.joint import JointQuality, takes_quality_targets


@pytest.mark.parametrize(
    'cfg, takes',
    [
        (dict(type='mmdet_gfl.QualityFocalLoss'), True),
        (dict(type='QualityFocalLoss'), True),
        (dict(type='QualityFocalLoss', activated=True), True),
        (dict(type='FocalLoss'), False),
        (dict(type='CrossEntropyLoss', use_sigmoid=True), False),
        (dict(type='VarifocalLoss'), False),
        (dict(type='GHMC'), False),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else str(value),
)
def test_which_losses_take_qualities(cfg, takes):
    assert takes_quality_targets(MODELS.build(cfg)) == takes


def test_a_loss_for_one_hot_labels_is_refused():
    with pytest.raises(ValueError, match='FocalLoss.*QualityFocalLoss'):
        JointQuality(loss_cls=dict(type='FocalLoss'))


@pytest.mark.parametrize(
    'own, head, chosen',
    [
        (None, None, dict(type='mmdet_gfl.QualityFocalLoss', beta=2.0, loss_weight=1.0)),
        (None, dict(type='FocalLoss'), dict(type='mmdet_gfl.QualityFocalLoss', beta=2.0, loss_weight=1.0)),
        (None, dict(type='QualityFocalLoss', beta=1.0), dict(type='QualityFocalLoss', beta=1.0)),
        (dict(type='QualityFocalLoss', beta=0.0), None, dict(type='QualityFocalLoss', beta=0.0)),
        (dict(type='QualityFocalLoss', beta=0.0), dict(type='FocalLoss'), dict(type='QualityFocalLoss', beta=0.0)),
    ],
    ids=['default', 'one-hot-superseded', "head's", 'own', 'own-before-one-hot'],
)
def test_which_loss_is_built(own, head, chosen):
    assert JointQuality(loss_cls=own).class_loss_cfg(head) == dict(chosen, use_sigmoid=True)


def test_it_holds_no_state():
    assert not any(isinstance(value, (torch.nn.Module, torch.Tensor)) for value in vars(JointQuality()).values())
