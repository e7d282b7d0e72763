"""Guided weighting: who counts changes, how much they count together does not."""

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.quality.centerness_guided import CenternessGuided
from mmdet_gfl.models.quality.guided import rescaled_weights
from mmdet_gfl.models.quality.none import NoQuality
from mmdet_gfl.models.task_modules import Layout, Locations, Outputs, Picked, Positives, Targets


def test_rescaled_weights_by_hand():
    # ΣL = 4, Σ(wL) = 0.5 + 0.6 + 0 = 1.1: each w times 4 / 1.1.
    weights, losses = torch.tensor([0.5, 0.3, 0.0]), torch.tensor([1.0, 2.0, 1.0])
    found = rescaled_weights(weights, losses)
    torch.testing.assert_close(found, weights * 4 / 1.1)
    torch.testing.assert_close((found * losses).sum(), losses.sum())


@pytest.mark.parametrize('scale', [1e-12, 1e-3, 1.0, 1e6])
def test_the_total_stays_whatever_the_scale_of_the_weights(scale):
    weights, losses = torch.rand(40) * scale, torch.rand(40) * 5
    found = rescaled_weights(weights, losses)
    torch.testing.assert_close((found * losses).sum(), losses.sum(), rtol=1e-4, atol=0)
    torch.testing.assert_close(found / found.sum(), weights / weights.sum(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    'weights, losses', [([0.0, 0.0], [1.0, 2.0]), ([1.0, 0.0], [0.0, 2.0]), ([1e-45, 0.0], [1.0, 2.0])]
)
def test_where_nothing_would_be_left_all_count_alike(weights, losses):
    assert rescaled_weights(torch.tensor(weights), torch.tensor(losses)).tolist() == [1.0, 1.0]


def test_no_positives():
    assert rescaled_weights(torch.zeros(0), torch.zeros(0)).shape == (0,)


def test_weights_are_detached():
    weights, losses = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    assert not rescaled_weights(weights, losses).requires_grad


class Head:
    """The class-loss part of a host."""

    one_hot_loss = DenseGFLMixin.one_hot_loss
    one_hot_losses = DenseGFLMixin.one_hot_losses

    def __init__(self, loss):
        self.loss_cls = MODELS.build(loss)


@pytest.mark.parametrize(
    'loss, channels',
    [
        (dict(type='FocalLoss', use_sigmoid=True, loss_weight=2.0), 3),
        (dict(type='CrossEntropyLoss', use_sigmoid=True), 3),
        (dict(type='CrossEntropyLoss', use_sigmoid=False), 4),
    ],
    ids=['focal', 'bce', 'softmax'],
)
def test_only_the_positives_are_reweighted(loss, channels):
    # Two positives, in the middle and a quarter in, and two background locations; label weights 2 and 1 and 1 and 0.
    head = Head(loss)
    at = Locations.of_priors(torch.tensor([[50.0, 20.0], [25.0, 20.0]]), torch.full((2,), 8.0))
    gt = torch.tensor([[0.0, 0.0, 100.0, 40.0]] * 2)
    label_weights = torch.tensor([2.0, 1.0, 1.0, 0.0])
    aim = Targets(torch.tensor([1, 3, 0, 3]), label_weights[[0, 2, 1, 3]], torch.tensor([0, 2]), gt, at, 2.0, 1)
    logits = torch.randn(4, channels, requires_grad=True)
    found = Positives(logits[aim.pos], gt, aim)
    level = logits.t().reshape(1, channels, 1, 4)  # four cells in a row
    outputs = Outputs([level], channels, Picked(Layout([(1, 4)], 1, [1]), aim.pos))
    args = (outputs, aim, found, torch.tensor(1.7), head)
    guided, plain = CenternessGuided().class_loss(*args), NoQuality().class_loss(*args)
    torch.testing.assert_close(guided, plain)
    grads = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (guided, plain)]
    torch.testing.assert_close(grads[0][[1, 3]], grads[1][[1, 3]])
    ratio = (grads[0] / grads[1])[aim.pos].mean(1)  # what each positive weighs now
    torch.testing.assert_close(ratio[1] / ratio[0], torch.tensor((1 / 3) ** 0.5))


def test_losses_of_no_location():
    head = Head(dict(type='FocalLoss', use_sigmoid=True))
    losses = head.one_hot_losses(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert losses.shape == (0,)
