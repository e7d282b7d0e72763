"""What each quality measures, weighs and adds, by hand."""

import pytest
import torch

from mmdet_gfl.models.quality.centerness_branch import CenternessBranch
from mmdet_gfl.models.quality.centerness_guided import CenternessGuided
from mmdet_gfl.models.quality.iou_branch import IoUBranch
from mmdet_gfl.models.quality.iou_guided import IoUGuided
from mmdet_gfl.models.quality.joint import JointQuality
from mmdet_gfl.models.quality.none import NoQuality
from mmdet_gfl.models.task_modules import Locations, Positives, Targets


def positives():
    """One location a quarter into a 100 x 40 object (centerness sqrt(1/3)), its box the left half (IoU 0.5)."""
    at = Locations.of_priors(torch.tensor([[25.0, 20.0]]), torch.tensor([8.0]))
    gt = torch.tensor([[0.0, 0.0, 100.0, 40.0]])
    aim = Targets(torch.zeros(1), torch.ones(1), torch.zeros(1).long(), gt, at, 1.0, 1)
    return Positives(torch.tensor([[-1.0, 2.0]]), torch.tensor([[0.0, 0.0, 50.0, 40.0]]), aim)


MEASURES = dict(centerness=(1 / 3) ** 0.5, iou=0.5, score=0.880797, one=1.0)


@pytest.mark.parametrize(
    'quality, target, auto, branch, key',
    [
        (JointQuality, 'iou', 'score', False, None),
        (NoQuality, 'iou', 'one', False, None),
        (CenternessBranch, 'centerness', 'centerness', True, 'loss_centerness'),
        (IoUBranch, 'iou', 'one', True, 'loss_iou'),
        (CenternessGuided, 'centerness', 'centerness', False, None),
        (IoUGuided, 'iou', 'one', False, None),
    ],
)
def test_measures_and_weights(quality, target, auto, branch, key):
    found = positives()
    assert quality().target(found).item() == pytest.approx(MEASURES[target])
    assert quality().box_weights(found).item() == pytest.approx(MEASURES[auto])
    assert quality().box_weights(found, 'uniform').item() == 1  # what a host that weights nothing asks for
    assert quality.branch == branch and (not branch or quality.branch_loss_key == key)
    assert quality(box_weight='score').box_weights(found, 'uniform').item() == pytest.approx(MEASURES['score'])
    assert quality(box_weight='uniform').box_weights(found).item() == 1
    if quality is not NoQuality:
        assert quality(box_weight='quality').box_weights(found).item() == pytest.approx(MEASURES[target])


def test_no_quality_weighs_nothing_by_quality():
    with pytest.raises(ValueError, match="box_weight='quality'.*accepted: auto, score, uniform"):
        NoQuality(box_weight='quality')


@pytest.mark.parametrize('quality', [NoQuality, CenternessBranch, IoUBranch, CenternessGuided, IoUGuided])
@pytest.mark.parametrize('loss', ['mmdet_gfl.QualityFocalLoss', 'QualityFocalLoss'])
def test_a_loss_for_qualities_is_refused(quality, loss):
    with pytest.raises(ValueError, match=rf'loss_cls={loss}.*{quality.__name__}.*JointQuality.*FocalLoss'):
        quality().class_loss_cfg(dict(type=loss))


def test_a_one_hot_loss_is_left_alone():
    cfg = dict(type='FocalLoss', gamma=1.5)
    assert NoQuality().class_loss_cfg(cfg) is cfg and NoQuality().class_loss_cfg(None) is None
