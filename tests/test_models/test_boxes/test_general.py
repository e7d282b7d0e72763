"""GeneralBox by hand: decoding, targets at the ends of the range, statistics, and the losses that it builds."""

from types import SimpleNamespace

import pytest
import torch
from cases import row_targets
from mmdet.models.losses import BoundedIoULoss, CIoULoss, GIoULoss, SmoothL1Loss
from mmdet.models.losses import DistributionFocalLoss as MMDetDistributionFocalLoss
from torch import nn

from mmdet_gfl.models.boxes.general import GeneralBox, entropic_slopes
from mmdet_gfl.models.losses import DistributionFocalLoss
from mmdet_gfl.models.task_modules import Locations


def modules_of(box, loss_bbox):
    return box.build_modules(SimpleNamespace(loss_bbox=loss_bbox))


def head_of(box: GeneralBox) -> SimpleNamespace:
    """The modules that a head registers for the box."""
    return SimpleNamespace(**modules_of(box, nn.L1Loss()))


def targets_of(centers, strides, gt_bboxes):
    locations = Locations(torch.tensor(centers), torch.tensor(centers), torch.tensor(strides))
    return row_targets(locations, torch.tensor(gt_bboxes))


def peaked(bins, n: int) -> torch.Tensor:
    """Logits (1, 4(n+1)) of distributions with all probability on one bin each."""
    logits = torch.full((1, 4, n + 1), -100.0)
    for side, index in enumerate(bins):
        logits[0, side, index] = 100.0
    return logits.reshape(1, -1)


def losses_of(box, bbox_pred, targets, weight=1.0, avg_factor=1.0):
    """Box losses of one positive, whose decoded box is one pixel off."""
    return box.losses(
        bbox_pred, targets.gt_bboxes + 1, targets, torch.tensor([weight]), torch.tensor(avg_factor), head_of(box)
    )


@pytest.mark.parametrize('delta', [0.5, 1.0, 2.0])
def test_decode_by_hand(delta):
    # From (100, 50) on a level of stride 8: l, t, r, b = 1, 2, 3, 4 bins of 8 * delta px each.
    box = GeneralBox(reg_max=4, delta=delta)
    locations = targets_of([[100.0, 50.0]], [8.0], [[0.0, 0, 1, 1]]).locations
    step = 8 * delta
    found = box.decode(peaked([1, 2, 3, 4], 4), locations, head_of(box))
    expected = torch.tensor([[100 - step, 50 - 2 * step, 100 + 3 * step, 50 + 4 * step]])
    torch.testing.assert_close(found, expected)
    assert box.max_distance == 4 * delta and box.channels == 5


def test_distances_and_boxes_are_inverse():
    locations = Locations(torch.rand(20, 2), torch.rand(20, 2) * 500, torch.tensor([8.0, 16, 32, 64] * 5))
    distances = torch.randn(20, 4, dtype=torch.float64).float() * 5
    torch.testing.assert_close(locations.distances(locations.boxes(distances)), distances, rtol=1e-4, atol=1e-4)


def test_clipped_share_by_hand():
    # From (112, 80), stride 16, n = 4: at most 64 px. l, t, r, b are 100, 20, 64, 66 px; 64 is not clipped.
    targets = targets_of([[112.0, 80.0]], [16.0], [[12.0, 60.0, 176.0, 146.0]])
    assert losses_of(GeneralBox(reg_max=4), torch.zeros(1, 20), targets)['clipped_share'] == 0.5


def test_dfl_by_hand():
    # Distances of 20, 24, 40, 48 px on stride 16 are 1.25, 1.5, 2.5, 3 bins; a flat distribution over five bins costs
    # log 5 whatever the target. The weight of the positive is 0.5, the avg_factor 2, the loss weight 0.25, and the
    # mean is over four sides.
    box = GeneralBox(reg_max=4)
    targets = targets_of([[100.0, 100.0]], [16.0], [[80.0, 76.0, 140.0, 148.0]])
    found = losses_of(box, torch.zeros(1, 20), targets, weight=0.5, avg_factor=2.0)
    torch.testing.assert_close(found['loss_dfl'], 0.25 * 0.5 / 2 * torch.log(torch.tensor(5.0)))
    # Probability on the two neighbours alone, with the weights of the target: the loss is their entropy.
    p = torch.tensor([[0, 0.75, 0.25, 0, 0], [0, 0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 1.0, 0]])
    found = losses_of(box, p.clamp(min=1e-30).log().reshape(1, 20), targets)
    entropy = -(p[p > 0] * p[p > 0].log()).sum()
    torch.testing.assert_close(found['loss_dfl'], 0.25 * entropy / 4)


def test_targets_outside_the_range_are_clamped():
    # MMDetection's margin: 200 px on stride 8 is 25 bins, above n = 4, and trains bin 3.9; -16 px trains bin 0.
    targets = targets_of([[100.0, 100.0]], [8.0], [[116.0, 76.0, 300.0, 124.0]])
    bbox_pred = torch.randn(1, 20, requires_grad=True)
    loss = losses_of(GeneralBox(reg_max=4), bbox_pred, targets)['loss_dfl']
    logp = bbox_pred.reshape(4, 5).log_softmax(1)
    by_hand = -(logp[0, 0] + logp[1, 3] + 0.1 * logp[2, 3] + 0.9 * logp[2, 4] + logp[3, 3]) / 4 * 0.25
    torch.testing.assert_close(loss, by_hand)


def test_statistics_by_hand():
    # Half on bin 1 and half on bin 3: mean 2, standard deviation 1, in steps of delta.
    box = GeneralBox(reg_max=4, delta=0.5)
    logits = torch.full((1, 4, 5), -100.0)
    logits[..., [1, 3]] = 0.0
    sides = box.side_statistics(logits.reshape(1, 20), head_of(box))
    torch.testing.assert_close(sides.mean, torch.full((1, 4), 1.0))
    torch.testing.assert_close(sides.std, torch.full((1, 4), 0.5))
    assert sides.step == 0.5 and sides.distribution.shape == (1, 4, 5)
    torch.testing.assert_close(sides.distribution.sum(-1), torch.ones(1, 4))


def test_the_iou_loss_of_the_head_is_used_and_any_other_superseded():
    ciou = CIoULoss(loss_weight=3.0)
    assert modules_of(GeneralBox(), ciou)['loss_bbox'] is ciou
    own = modules_of(GeneralBox(), SmoothL1Loss())['loss_bbox']
    assert type(own) is GIoULoss and own.loss_weight == 2.0


def test_bounded_iou_loss_is_superseded():
    # It is a loss of each side, whatever its name says.
    assert isinstance(modules_of(GeneralBox(), BoundedIoULoss())['loss_bbox'], GIoULoss)


@pytest.mark.parametrize('prefix', ['mmdet_gfl.', ''])
def test_mmdetections_dfl_gives_the_same_loss(prefix):
    box = GeneralBox(reg_max=4, loss_dfl=dict(type=f'{prefix}DistributionFocalLoss', loss_weight=0.5))
    kind = DistributionFocalLoss if prefix else MMDetDistributionFocalLoss
    assert type(modules_of(box, GIoULoss())['loss_dfl']) is kind
    targets = targets_of([[100.0, 100.0]], [16.0], [[80.0, 76.0, 140.0, 148.0]])
    bbox_pred = torch.randn(1, 20)
    bins = targets.locations.distances(targets.gt_bboxes).reshape(-1)
    expected = MMDetDistributionFocalLoss(loss_weight=0.5)(bbox_pred.reshape(4, 5), bins, avg_factor=4 * 2.0)
    torch.testing.assert_close(losses_of(box, bbox_pred, targets, avg_factor=2.0)['loss_dfl'], expected)


@pytest.mark.parametrize('delta', [0.5, 2.0])
def test_a_start_at_the_priors(delta):
    box = GeneralBox(reg_max=4, delta=delta)
    conv = nn.Conv2d(1, 2 * 4 * 5, 1)
    nn.init.zeros_(conv.weight)
    distances = torch.tensor([[1.0, 0.5, 1.0, 1.5], [0.25, 1.0, 1.25, 0.75]])
    box.init_at_priors(conv, distances)
    mean = head_of(box).integral(conv(torch.ones(1, 1, 1, 1)).flatten()[None])
    torch.testing.assert_close(mean.view(2, 4), distances)


def test_the_slope_of_a_geometric_distribution_by_hand():
    # Of 1, r, r² the mean is (r + 2 r²) / (1 + r + r²): 4/7 at r = 1/2, 10/7 at r = 2, 1 if uniform.
    slopes = entropic_slopes(torch.tensor([4 / 7, 10 / 7, 1.0]), 2)
    torch.testing.assert_close(slopes, torch.tensor([-0.6931472, 0.6931472, 0.0]).double(), atol=1e-6, rtol=0)


def test_the_usual_start_is_uniform():
    conv = nn.Conv2d(1, 4 * 17, 1)
    before = conv.bias.detach().clone()
    GeneralBox().init_weights(conv, torch.full((1, 4), 1.0))
    assert torch.equal(conv.bias, before)


def test_no_dfl():
    box = GeneralBox(loss_dfl=None)
    assert set(modules_of(box, GIoULoss())) == {'integral', 'loss_bbox'}
    targets = targets_of([[100.0, 100.0]], [16.0], [[80.0, 76.0, 140.0, 148.0]])
    assert set(losses_of(box, torch.zeros(1, 68), targets)) == {'loss_bbox', 'clipped_share'}


def test_a_dfl_that_is_not_a_config_raises():
    with pytest.raises(ValueError, match='box.loss_dfl=True; give the config of a loss as a dict, or None'):
        GeneralBox(loss_dfl=True)
