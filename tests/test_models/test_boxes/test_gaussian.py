"""GaussianBox by hand: decoding, likelihood, initialization, statistics."""

from types import SimpleNamespace

import pytest
import torch
from cases import row_targets
from torch import nn

from mmdet_gfl.models.boxes.gaussian import GaussianBox
from mmdet_gfl.models.task_modules import Locations

BOX = GaussianBox()


def head_of(box=BOX):
    """The modules that a head registers for the box."""
    return SimpleNamespace(**box.build_modules(SimpleNamespace(loss_bbox=nn.L1Loss())))


def targets_of(gt_bboxes, stride=8.0):
    centers = torch.tensor([[100.0, 50.0]]).repeat(len(gt_bboxes), 1)
    return row_targets(Locations(centers, centers, torch.full((len(gt_bboxes),), stride)), torch.tensor(gt_bboxes))


def test_the_mean_is_decoded_in_strides():
    # Mean and log-variance side by side: l, t, r, b = 1, 2, 3, -4 strides of 8 px; a distance is not below 0.
    bbox_pred = torch.tensor([[1.0, 5.0, 2.0, -5.0, 3.0, 0.0, -4.0, 9.0]])
    found = BOX.decode(bbox_pred, targets_of([[0.0, 0, 1, 1]]).locations, head_of())
    assert found.tolist() == [[92.0, 34.0, 124.0, 50.0]]


def test_decode_is_the_inverse_of_the_distances():
    targets = targets_of([[92.0, 34.0, 124.0, 82.0], [10.0, 49.0, 101.0, 60.0]])
    distances = targets.locations.distances(targets.gt_bboxes)
    bbox_pred = torch.stack((distances, torch.randn(2, 4)), dim=-1).reshape(2, 8)
    torch.testing.assert_close(BOX.decode(bbox_pred, targets.locations, head_of()), targets.gt_bboxes)


def test_the_loss_equals_its_formula_in_float64():
    # (y - μ)² / (2σ²) + log σ, summed over the sides, weighted as an IoU loss is, divided by its avg_factor.
    targets = targets_of([[92.0, 34.0, 124.0, 82.0], [10.0, 49.0, 101.0, 60.0]])
    bbox_pred, weights, avg_factor = torch.randn(2, 8), torch.tensor([0.3, 0.9]), torch.tensor(1.7)
    found = BOX.losses(bbox_pred, targets.gt_bboxes, targets, weights, avg_factor, head_of())['loss_bbox']
    mean, log_var = bbox_pred.double().reshape(2, 4, 2).unbind(-1)
    y = targets.locations.distances(targets.gt_bboxes).double()
    nll = (y - mean) ** 2 / (2 * log_var.exp()) + log_var.exp().sqrt().log()
    expected = (nll.sum(1) * weights.double()).sum() / avg_factor.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_location_outside_its_object_learns_distance_0():
    # 16 px left of the object: l is -2 strides, and a mean of 0 is correct.
    targets = targets_of([[116.0, 42.0, 124.0, 58.0]])
    bbox_pred = torch.tensor([[0.0, 0.0, 1.0, 0.0, 3.0, 0.0, 1.0, 0.0]])
    losses = BOX.losses(bbox_pred, targets.gt_bboxes, targets, torch.ones(1), torch.tensor(1.0), head_of())
    assert losses['loss_bbox'] == 0


def test_init_weights_sets_the_means_to_the_priors():
    conv = nn.Conv2d(4, 2 * 8, 3)
    BOX.init_weights(conv, torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]))
    assert conv.bias.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0]
    BOX.init_weights(nn.Conv2d(4, 8, 3, bias=False), torch.ones(1, 4))  # nothing to set


@pytest.mark.parametrize('log_var, sigma', [(0.0, 1.0), (2.0, 2.718281828), (50.0, 2.718281828), (-50.0, 0.367879441)])
def test_statistics_by_hand(log_var, sigma):
    # σ = exp(log σ² / 2), with the log-variance bounded by the loss's range.
    box = GaussianBox(dict(type='mmdet_gfl.GaussianNLLLoss', log_var_range=(-2.0, 2.0)))
    bbox_pred = torch.tensor([[1.5, log_var] * 3 + [-1.0, log_var]])
    sides = box.side_statistics(bbox_pred, head_of(box))
    assert sides.mean.tolist() == [[1.5, 1.5, 1.5, 0.0]] and sides.distribution is None and sides.step is None
    torch.testing.assert_close(sides.std, torch.full((1, 4), sigma))


def test_it_holds_no_state():
    assert BOX.channels == 2 and BOX.statistics == ('stats',) and not BOX.uses_host_coder
    assert BOX.max_distance == float('inf')
    assert not any(isinstance(value, (nn.Module, torch.Tensor)) for value in vars(BOX).values())


def test_a_loss_that_is_not_a_likelihood_raises():
    with pytest.raises(ValueError, match=r'box.loss_bbox=L1Loss is not a likelihood.*GaussianNLLLoss'):
        head_of(GaussianBox(loss_bbox=dict(type='L1Loss')))
