"""The pass over the levels against the losses of flattened logits, in value and gradient."""

import pytest
import torch
from mmdet.models.losses import FocalLoss

from mmdet_gfl.models.losses import QualityFocalLoss
from mmdet_gfl.models.losses import focal_loss_of_levels as module
from mmdet_gfl.models.losses.focal_loss_of_levels import focal_loss_of_levels, one_hot_focal_loss
from mmdet_gfl.models.task_modules import Layout, Outputs, Picked

SIZES = [(5, 7), (3, 4), (1, 1)]
CLASSES = 4
FORMS = {
    'contiguous': lambda level: level,
    'channels-last': lambda level: level.to(memory_format=torch.channels_last),
    'transposed': lambda level: level.transpose(2, 3).contiguous().transpose(2, 3),
    'sliced': lambda level: torch.cat((level, level), dim=1)[:, : level.size(1)],
    'half': lambda level: level.half(),
    'bfloat16': lambda level: level.bfloat16(),
    'float64': lambda level: level.double(),
}


def batch(num_priors, positives, form='contiguous', images=2):
    """Logits, and labels, qualities and weights of all locations."""
    layout = Layout(SIZES, images, [num_priors] * 3)
    levels = [FORMS[form](torch.randn(images, num_priors * CLASSES, *size) * 3).requires_grad_() for size in SIZES]
    pos = torch.randperm(layout.total)[:positives].sort().values
    labels = torch.full((layout.total,), CLASSES)
    labels[pos] = torch.randint(CLASSES, (positives,))
    quality = torch.zeros(layout.total)
    quality[pos] = torch.rand(positives)
    weights = (torch.rand(layout.total) > 0.3).float()
    weights[pos] = 2.0
    return Outputs(levels, CLASSES, Picked(layout, pos)), labels, quality, weights


def assert_same(outputs, found, expected, rtol=1e-5, atol=1e-6):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    grads, plain = (torch.autograd.grad(value, outputs.levels) for value in (found, expected))
    for grad, other in zip(grads, plain):
        assert grad.dtype == other.dtype and grad.shape == other.shape
        torch.testing.assert_close(grad, other, rtol=rtol, atol=atol)


@pytest.mark.parametrize('block', [2**17, 8])
@pytest.mark.parametrize('num_priors, positives', [(1, 0), (1, 10), (3, 25)])
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('beta', [0.0, 0.5, 2.0])
def test_quality_focal_loss(beta, weighted, num_priors, positives, block, monkeypatch):
    monkeypatch.setattr(module, 'BLOCK_ON_CPU', block)
    outputs, labels, quality, weights = batch(num_priors, positives)
    loss = QualityFocalLoss(beta=beta, loss_weight=1.5)
    args = dict(weight=weights if weighted else None, avg_factor=torch.tensor(7.0))
    assert_same(outputs, loss(outputs, (labels, quality), **args), loss(outputs.rows, (labels, quality), **args))


@pytest.mark.parametrize('form', FORMS)
def test_other_strides_and_dtypes(form):
    outputs, labels, quality, weights = batch(1, 10, form)
    loss = QualityFocalLoss()
    rough = form in ('half', 'bfloat16')  # their gradients are rounded to them
    for weight in (None, weights):
        args = dict(weight=weight, avg_factor=3.0)
        found, expected = (loss(pred, (labels, quality), **args) for pred in (outputs, outputs.rows))
        assert found.dtype == expected.dtype
        assert_same(outputs, found, expected, *((1e-2, 1e-3) if rough else (1e-5, 1e-6)))


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (1.5, 0.4), (0.0, 0.5), (2.0, 1.0)])
def test_mmdetections_focal_loss(gamma, alpha, weighted):
    outputs, labels, _, weights = batch(3, 25)
    pos = outputs.picked.pos
    found = focal_loss_of_levels(
        outputs,
        labels[pos],
        lambda logits: one_hot_focal_loss(logits, gamma, alpha),
        weights if weighted else None,
        gamma,
        1 - alpha,
    )
    plain = FocalLoss(gamma=gamma, alpha=alpha, reduction='sum')
    assert_same(outputs, found, plain(outputs.rows, labels, weights if weighted else None))


@pytest.mark.parametrize('extreme', [-torch.inf, -200.0, 60.0, 200.0])
def test_extreme_logits_of_positives(extreme):
    # With quality 1 a logit of +inf costs nothing; nothing of the background's infinite loss may be left.
    outputs, labels, quality, _ = batch(1, 10)
    pos = outputs.picked.pos
    quality[pos] = float(extreme > 0)
    at = outputs.picked.entries(CLASSES, labels[pos])
    flat = torch.cat([level.detach().reshape(-1) for level in outputs.levels])
    flat[at] = extreme
    parts = flat.split([level.numel() for level in outputs.levels])
    levels = [part.view(level.shape).requires_grad_() for part, level in zip(parts, outputs.levels)]
    extremes = Outputs(levels, CLASSES, outputs.picked)
    loss = QualityFocalLoss()
    found, expected = (loss(pred, (labels, quality), avg_factor=1.0) for pred in (extremes, extremes.rows))
    assert torch.isfinite(found)
    assert_same(extremes, found, expected)


def test_what_only_one_of_them_can_goes_through_rows():
    outputs, labels, quality, _ = batch(1, 10)
    for loss in (QualityFocalLoss(reduction='sum'), QualityFocalLoss(reduction='none'), QualityFocalLoss()):
        assert torch.equal(loss(outputs, (labels, quality)), loss(outputs.rows, (labels, quality)))


def test_a_wrong_quality_is_refused():
    outputs, labels, quality, _ = batch(1, 10)
    quality[outputs.picked.pos[3]] = 1.5
    with pytest.raises(ValueError, match=r'scores \(IoU\) in \[0, 1\]'):
        QualityFocalLoss()(outputs, (labels, quality), avg_factor=1.0)


def test_one_tensor_of_the_size_of_the_logits_is_kept():
    outputs, labels, quality, weights = batch(3, 5)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        QualityFocalLoss()(outputs, (labels, quality), weight=weights, avg_factor=1.0)
    logits = 4 * sum(level.numel() for level in outputs.levels)
    assert logits <= sum(kept.values()) < 1.1 * logits


def test_the_gradient_can_be_taken_twice():
    outputs, labels, quality, _ = batch(1, 10)
    value = QualityFocalLoss()(outputs, (labels, quality), avg_factor=1.0)
    first = torch.autograd.grad(value, outputs.levels, retain_graph=True)
    second = torch.autograd.grad(3 * value, outputs.levels)
    for one, three in zip(first, second):
        torch.testing.assert_close(3 * one, three)


@pytest.mark.parametrize('label', [-1, CLASSES, CLASSES + 9])
@pytest.mark.parametrize('weighted', [False, True])
def test_a_label_that_is_no_class_is_nan_and_no_index_error(label, weighted):
    """On a GPU nobody looks at the labels beforehand: the address must be valid and the loss must show it."""
    outputs, labels, _, weights = batch(1, 6)
    at = labels[outputs.picked.pos].clone()
    at[-1] = label  # the last location of all: one channel further there is nothing
    loss = focal_loss_of_levels(
        outputs, at, lambda x: one_hot_focal_loss(x, 2.0, 0.25), weights if weighted else None, 2.0
    )
    assert loss.isnan()
