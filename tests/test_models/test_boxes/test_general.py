"""GeneralBox by hand: decoding, targets at the edges, statistics."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmdet_gfl.models.boxes.general import GeneralBox
from mmdet_gfl.models.task_modules import Locations, Targets


def host(box: GeneralBox) -> SimpleNamespace:
    """What a head registers for the box."""
    return SimpleNamespace(**box.modules(nn.L1Loss()))


def targets(centers, strides, gt) -> Targets:
    at = Locations(torch.tensor(centers), torch.tensor(centers), torch.tensor(strides))
    count = len(centers)
    pos = torch.arange(count)
    return Targets(torch.zeros(count), torch.ones(count), pos, torch.tensor(gt), at, float(count), 1)


def peaked(bins, n: int) -> torch.Tensor:
    """Logits (1, 4(n+1)) of distributions that stand on one bin each."""
    logits = torch.full((1, 4, n + 1), -100.0)
    for side, index in enumerate(bins):
        logits[0, side, index] = 100.0
    return logits.reshape(1, -1)


@pytest.mark.parametrize('delta', [0.5, 1.0, 2.0])
def test_decode_by_hand(delta):
    # From (100, 50) on a level of stride 8: l, t, r, b = 1, 2, 3, 4 bins of 8 * delta px each.
    box = GeneralBox(reg_max=4, delta=delta)
    at = targets([[100.0, 50.0]], [8.0], [[0.0, 0, 1, 1]]).at
    step = 8 * delta
    found = box.decode(peaked([1, 2, 3, 4], 4), at, host(box))
    expected = torch.tensor([[100 - step, 50 - 2 * step, 100 + 3 * step, 50 + 4 * step]])
    torch.testing.assert_close(found, expected)


def test_distances_and_boxes_are_inverse():
    at = Locations(torch.rand(20, 2), torch.rand(20, 2) * 500, torch.tensor([8.0, 16, 32, 64] * 5))
    distances = torch.randn(20, 4, dtype=torch.float64).float() * 5
    torch.testing.assert_close(at.distances(at.boxes(distances)), distances, rtol=1e-4, atol=1e-4)


def test_clipped_share_by_hand():
    # From (112, 80), stride 16, n = 4: 64 px are within reach. l, t, r, b are 100, 20, 64, 66 px; 64 is no clip.
    box = GeneralBox(reg_max=4)
    aim = targets([[112.0, 80.0]], [16.0], [[12.0, 60.0, 176.0, 146.0]])
    raw = torch.zeros(1, 20)
    found = box.losses(raw, aim.gt + 1, aim, torch.ones(1), torch.tensor(1.0), host(box))
    assert found['clipped_share'] == 0.5


def test_dfl_by_hand():
    # Distances of 20, 24, 40, 48 px on stride 16 are 1.25, 1.5, 2.5, 3 bins; a flat distribution over five bins costs
    # log 5 whatever the target. The weight of the positive is 0.5, the normaliser 2, the loss weight 0.25, and the
    # mean is over four sides.
    box = GeneralBox(reg_max=4)
    aim = targets([[100.0, 100.0]], [16.0], [[80.0, 76.0, 140.0, 148.0]])
    found = box.losses(torch.zeros(1, 20), aim.gt + 1, aim, torch.tensor([0.5]), torch.tensor(2.0), host(box))
    torch.testing.assert_close(found['loss_dfl'], 0.25 * 0.5 / 2 * torch.log(torch.tensor(5.0)))
    # Probability on the two neighbours alone, with the weights of the target: the loss is their entropy.
    p = torch.tensor([[0, 0.75, 0.25, 0, 0], [0, 0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 1.0, 0]])
    found = box.losses(
        p.clamp(min=1e-30).log().reshape(1, 20), aim.gt + 1, aim, torch.ones(1), torch.tensor(1.0), host(box)
    )
    entropy = -(p[p > 0] * p[p > 0].log()).sum()
    torch.testing.assert_close(found['loss_dfl'], 0.25 * entropy / 4)


def test_targets_outside_the_range_are_clamped():
    # MMDetection's margin: 200 px on stride 8 is 25 bins, above n = 4, and trains bin 3.9; -16 px trains bin 0.
    box = GeneralBox(reg_max=4)
    aim = targets([[100.0, 100.0]], [8.0], [[116.0, 76.0, 300.0, 124.0]])
    raw = torch.randn(1, 20, requires_grad=True)
    loss = box.losses(raw, aim.gt + 1, aim, torch.ones(1), torch.tensor(1.0), host(box))['loss_dfl']
    logp = raw.reshape(4, 5).log_softmax(1)
    by_hand = -(logp[0, 0] + logp[1, 3] + 0.1 * logp[2, 3] + 0.9 * logp[2, 4] + logp[3, 3]) / 4 * 0.25
    torch.testing.assert_close(loss, by_hand)


def test_statistics_by_hand():
    # Half on bin 1 and half on bin 3: mean 2, standard deviation 1, in steps of delta.
    box = GeneralBox(reg_max=4, delta=0.5)
    logits = torch.full((1, 4, 5), -100.0)
    logits[..., [1, 3]] = 0.0
    sides = box.side_statistics(logits.reshape(1, 20), host(box))
    torch.testing.assert_close(sides.mean, torch.full((1, 4), 1.0))
    torch.testing.assert_close(sides.std, torch.full((1, 4), 0.5))
    assert sides.step == 0.5 and sides.distribution.shape == (1, 4, 5)
    torch.testing.assert_close(sides.distribution.sum(-1), torch.ones(1, 4))


def test_which_box_loss_it_owns():
    from mmdet.registry import MODELS

    ciou = MODELS.build(dict(type='CIoULoss', loss_weight=3.0))
    smooth = MODELS.build(dict(type='SmoothL1Loss'))
    assert GeneralBox().modules(ciou)['loss_bbox'] is ciou
    owned = GeneralBox().modules(smooth)['loss_bbox']
    assert type(owned).__name__ == 'GIoULoss' and owned.loss_weight == 2.0


def test_a_loss_of_single_sides_is_superseded_whatever_it_is_called():
    from mmdet.models.losses import BoundedIoULoss, GIoULoss

    assert isinstance(GeneralBox().modules(BoundedIoULoss())['loss_bbox'], GIoULoss)


def test_a_dfl_that_is_no_config_is_refused():
    with pytest.raises(ValueError, match='box.loss_dfl=True; give the config of a loss as a dict, or None'):
        GeneralBox(loss_dfl=True)
