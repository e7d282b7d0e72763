"""Guided weighting: the share of each positive changes, their sum does not."""

import pytest
import torch
from cases import row_targets
from mmdet.registry import MODELS

from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.quality.guided import CenternessGuided, rescaled_weights
from mmdet_gfl.models.quality.none import NoQuality
from mmdet_gfl.models.task_modules import Locations, Positives
from mmdet_gfl.ops import LevelPredictions, LocationIndex


def test_rescaled_weights_by_hand():
    # ΣL = 4, Σ(wL) = 0.5 + 0.6 + 0 = 1.1: each w times 4 / 1.1.
    weights, losses = torch.tensor([0.5, 0.3, 0.0]), torch.tensor([1.0, 2.0, 1.0])
    found = rescaled_weights(weights, losses)
    torch.testing.assert_close(found, weights * 4 / 1.1)
    torch.testing.assert_close((found * losses).sum(), losses.sum())


@pytest.mark.parametrize('scale', [1e-12, 1e-3, 1.0, 1e6])
def test_the_total_is_kept_at_any_scale_of_the_weights(scale):
    weights, losses = torch.rand(40) * scale, torch.rand(40) * 5
    found = rescaled_weights(weights, losses)
    torch.testing.assert_close((found * losses).sum(), losses.sum(), rtol=1e-4, atol=0)
    torch.testing.assert_close(found / found.sum(), weights / weights.sum(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    'weights, losses', [([0.0, 0.0], [1.0, 2.0]), ([1.0, 0.0], [0.0, 2.0]), ([1e-45, 0.0], [1.0, 2.0])]
)
def test_weights_are_1_where_the_weighted_sum_is_0(weights, losses):
    assert rescaled_weights(torch.tensor(weights), torch.tensor(losses)).tolist() == [1.0, 1.0]


def test_no_positives():
    assert rescaled_weights(torch.zeros(0), torch.zeros(0)).shape == (0,)


def test_weights_are_detached():
    weights, losses = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    assert not rescaled_weights(weights, losses).requires_grad


class Head:
    """The class loss of a host."""

    hard_label_loss = DenseGFLMixin.hard_label_loss

    def __init__(self, loss, num_classes=3):
        self.loss_cls = MODELS.build(loss)
        self.num_classes = num_classes


LOSSES = {
    'focal': (dict(type='FocalLoss', use_sigmoid=True, loss_weight=2.0), 3),
    'bce': (dict(type='CrossEntropyLoss', use_sigmoid=True), 3),
    'softmax': (dict(type='CrossEntropyLoss', use_sigmoid=False), 4),
}
each_loss = pytest.mark.parametrize('loss, channels', LOSSES.values(), ids=LOSSES)


def four_cells(channels, label_weights):
    """Logits of four cells, of which 0 and 2 are positive: in the middle of an object and a quarter into it."""
    locations = Locations.of_priors(torch.tensor([[50.0, 20.0], [25.0, 20.0]]), torch.full((2,), 8.0))
    index = LocationIndex([(1, 4)], 1, [1])
    targets = row_targets(
        locations,
        torch.tensor([[0.0, 0.0, 100.0, 40.0]] * 2),
        pos=index.coords(torch.tensor([0, 2])),
        labels=torch.tensor([1, 0]),
        label_weights=label_weights,
    )
    rows = torch.randn(4, channels, requires_grad=True)
    predictions = LevelPredictions([rows.t().reshape(1, channels, 1, 4)], channels, index)
    return rows, predictions, targets


@each_loss
@pytest.mark.parametrize('label_weights', [torch.tensor([2.0, 1.0, 1.0, 0.0]), None], ids=['weighted', 'all-1'])
def test_only_the_positives_are_reweighted(loss, channels, label_weights):
    head = Head(loss)
    rows, logits, targets = four_cells(channels, label_weights)
    inds = targets.pos.flat_inds
    positives = Positives(rows[inds], targets.gt_bboxes, targets)
    before = None if label_weights is None else label_weights.clone()
    args = (logits, targets, positives, torch.tensor(1.7), head)
    guided, plain = CenternessGuided().class_loss(*args), NoQuality().class_loss(*args)
    torch.testing.assert_close(guided, plain)
    assert label_weights is None or torch.equal(label_weights, before)  # the targets are not changed
    grads = [torch.autograd.grad(value, rows, retain_graph=True)[0] for value in (guided, plain)]
    torch.testing.assert_close(grads[0][[1, 3]], grads[1][[1, 3]])
    ratio = (grads[0] / grads[1])[inds].mean(1)  # the factor on the weight of each positive
    torch.testing.assert_close(ratio[1] / ratio[0], torch.tensor((1 / 3) ** 0.5))


@each_loss
def test_hard_label_loss_by_rows(loss, channels):
    head = Head(loss)
    label_weights = torch.tensor([2.0, 1.0, 1.0, 0.0])
    rows, logits, targets = four_cells(channels, label_weights)
    labels = torch.tensor([1, 3, 0, 3])
    for weights in (None, label_weights):
        expected = head.loss_cls(rows, labels, torch.ones(4) if weights is None else weights, avg_factor=1.7)
        torch.testing.assert_close(head.hard_label_loss(logits, targets, weights, 1.7), expected)
    each = head.loss_cls(rows[[0, 2]], labels[[0, 2]], reduction_override='none')
    each = each if each.dim() == 1 else each.sum(dim=1)
    torch.testing.assert_close(head.hard_label_loss(logits, targets, reduction='none'), each)


@each_loss
def test_hard_label_losses_of_no_positive(loss, channels):
    _, logits, targets = four_cells(channels, None)
    none = logits.index.coords(torch.zeros(0, dtype=torch.long))
    targets = targets._replace(pos=none, labels=targets.labels[:0])
    assert Head(loss).hard_label_loss(logits, targets, reduction='none').shape == (0,)
