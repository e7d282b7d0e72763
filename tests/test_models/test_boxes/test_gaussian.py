"""GaussianBox by hand: decoding, likelihood, start, statistics."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmdet_gfl.models.boxes.gaussian import GaussianBox
from mmdet_gfl.models.task_modules import Locations, Targets

BOX = GaussianBox()


def host(box=BOX):
    return SimpleNamespace(**box.modules(nn.L1Loss()))


def targets(gt, stride=8.0):
    count = len(gt)
    centers = torch.tensor([[100.0, 50.0]]).repeat(count, 1)
    at = Locations(centers, centers, torch.full((count,), stride))
    return Targets(torch.zeros(count), torch.ones(count), torch.arange(count), torch.tensor(gt), at, float(count), 1)


def test_the_mean_is_decoded_in_strides():
    # Mean and log-variance side by side: l, t, r, b = 1, 2, 3, -4 strides of 8 px; a distance is not below 0.
    raw = torch.tensor([[1.0, 5.0, 2.0, -5.0, 3.0, 0.0, -4.0, 9.0]])
    found = BOX.decode(raw, targets([[0.0, 0, 1, 1]]).at, host())
    assert found.tolist() == [[92.0, 34.0, 124.0, 50.0]]


def test_decode_is_the_inverse_of_the_distances():
    aim = targets([[92.0, 34.0, 124.0, 82.0], [10.0, 49.0, 101.0, 60.0]])
    raw = torch.stack((aim.at.distances(aim.gt), torch.randn(2, 4)), dim=-1).reshape(2, 8)
    torch.testing.assert_close(BOX.decode(raw, aim.at, host()), aim.gt)


def test_the_loss_equals_its_formula_in_float64():
    # (y - μ)² / (2σ²) + log σ, summed over the sides, weighted as an IoU loss is, divided by its normaliser.
    aim = targets([[92.0, 34.0, 124.0, 82.0], [10.0, 49.0, 101.0, 60.0]])
    raw, weights, norm = torch.randn(2, 8), torch.tensor([0.3, 0.9]), torch.tensor(1.7)
    found = BOX.losses(raw, aim.gt, aim, weights, norm, host())['loss_bbox']
    mean, log_var = raw.double().reshape(2, 4, 2).unbind(-1)
    y = aim.at.distances(aim.gt).double()
    nll = (y - mean) ** 2 / (2 * log_var.exp()) + log_var.exp().sqrt().log()
    expected = (nll.sum(1) * weights.double()).sum() / norm.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_location_outside_its_object_learns_distance_0():
    # 16 px left of the object: l is -2 strides, and a mean of 0 is right.
    aim = targets([[116.0, 42.0, 124.0, 58.0]])
    raw = torch.tensor([[0.0, 0.0, 1.0, 0.0, 3.0, 0.0, 1.0, 0.0]])
    assert BOX.losses(raw, aim.gt, aim, torch.ones(1), torch.tensor(1.0), host())['loss_bbox'] == 0


def test_start():
    conv = nn.Conv2d(4, 2 * 8, 3)
    BOX.start(conv, torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]))
    assert conv.bias.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0]
    BOX.start(nn.Conv2d(4, 8, 3, bias=False), torch.ones(1, 4))  # nothing to set


@pytest.mark.parametrize('log_var, sigma', [(0.0, 1.0), (2.0, 2.718281828), (50.0, 2.718281828), (-50.0, 0.367879441)])
def test_statistics_by_hand(log_var, sigma):
    # σ = exp(log σ² / 2), with the log-variance bounded by the loss's range.
    box = GaussianBox(dict(type='mmdet_gfl.GaussianNLLLoss', log_var_range=(-2.0, 2.0)))
    raw = torch.tensor([[1.5, log_var] * 3 + [-1.0, log_var]])
    sides = box.side_statistics(raw, host(box))
    assert sides.mean.tolist() == [[1.5, 1.5, 1.5, 0.0]] and sides.distribution is None
    torch.testing.assert_close(sides.std, torch.full((1, 4), sigma))


def test_it_holds_no_state():
    assert BOX.channels == 2 and BOX.statistics == ('stats',) and not BOX.in_host_coding
    assert not any(isinstance(value, (nn.Module, torch.Tensor)) for value in vars(BOX).values())


def test_a_loss_that_is_no_likelihood_is_refused():
    with pytest.raises(ValueError, match=r'box.loss_bbox=L1Loss is no likelihood.*GaussianNLLLoss'):
        GaussianBox(loss_bbox=dict(type='L1Loss')).modules(nn.Identity())
