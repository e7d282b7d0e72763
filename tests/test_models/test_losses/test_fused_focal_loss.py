"""The one-pass forms, of rows and of levels, against plain formulas in value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from cases import flat_rows

from mmdet_gfl.models.losses import fused_focal_loss as module
from mmdet_gfl.models.losses import quality_focal_loss
from mmdet_gfl.models.losses.fused_focal_loss import (
    FusedForm,
    FusedRows,
    background_loss_,
    fused_focal_loss,
    modulating_factor,
)
from mmdet_gfl.models.losses.quality_focal_loss import equation_2
from mmdet_gfl.ops import LevelPredictions, LocationIndex

BETAS = (0.0, 0.25, 1.0, 1.5, 2.0, 4.0)

# Rows ---------------------------------------------------------------------------------------------------------------


def values_and_gradients(pred, label, quality, beta):
    """Values and gradients of the two forms, with a different weight of each location."""
    results = []
    for form in (
        lambda x: FusedRows.apply(x, label, lambda logits: equation_2(logits, quality, beta), beta),
        lambda x: quality_focal_loss(x, (label[:, 0], quality[:, 0]), beta, fused=False),
    ):
        leaf = pred.detach().clone().requires_grad_()
        value = form(leaf)
        (value * torch.linspace(0.5, 2, len(value), dtype=value.dtype)).sum().backward()
        results.append((value.detach(), leaf.grad))
    return results


def assert_same_rows(pred, label, quality, beta, rtol=1e-9, atol=1e-12):
    (value, grad), (expected, expected_grad) = values_and_gradients(pred, label, quality, beta)
    torch.testing.assert_close(value, expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(grad, expected_grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize('beta', BETAS)
@pytest.mark.parametrize('num_classes', [1, 2, 80])
def test_random_rows(beta, num_classes):
    pred = torch.randn(50, num_classes, dtype=torch.float64) * 4
    assert_same_rows(pred, torch.randint(num_classes, (50, 1)), torch.rand(50, 1, dtype=torch.float64), beta)


@pytest.mark.parametrize('beta', BETAS)
def test_extreme_rows(beta):
    values = torch.tensor([-torch.inf, -200.0, -88.0, -30.0, 0.0, 20.5, 30.0, 88.0, 200.0], dtype=torch.float64)
    pred = torch.cartesian_prod(values, values)  # each value at the label beside each value of another class
    for quality in (0.0, 0.5, 1.0):
        assert_same_rows(
            pred, torch.zeros(len(pred), 1, dtype=torch.long), torch.full((len(pred), 1), quality).double(), beta
        )


@pytest.mark.parametrize('beta', [0.5, 1.0, 2.0])
def test_a_prediction_equal_to_its_quality(beta):
    pred = torch.zeros(3, 2, dtype=torch.float64)
    assert_same_rows(pred, torch.zeros(3, 1, dtype=torch.long), torch.full((3, 1), 0.5, dtype=torch.float64), beta)


def test_float32_and_other_strides():
    pred = torch.randn(2, 5, 6, 7).to(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, 5)
    label, quality = torch.randint(5, (84, 1)), torch.rand(84, 1)
    assert_same_rows(pred, label, quality, 2.0, rtol=1e-5, atol=1e-7)
    transposed = torch.randn(5, 84).t()
    assert not transposed.is_contiguous()
    assert_same_rows(transposed, label, quality, 2.0, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('form', ['fused', 'plain'])
def test_one_tensor_of_the_size_of_the_rows_is_kept(form):
    """The plain formula keeps more for its backward."""
    pred = torch.randn(1000, 80, requires_grad=True)
    label, score = torch.randint(80, (1000,)), torch.rand(1000)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        quality_focal_loss(pred, (label, score), fused=form == 'fused')
    large = [count for count in kept.values() if count == pred.numel()]  # the entries at the labels are small
    assert len(large) == 1 if form == 'fused' else len(large) > 1


def test_nothing_is_kept_without_a_gradient():
    value = quality_focal_loss(torch.randn(4, 3), (torch.tensor([0, 1, 2, 3]), torch.rand(4)))
    assert not value.requires_grad


# Background ---------------------------------------------------------------------------------------------------------


def background(x, beta):
    """-σ^β log(1 - σ), by another route: log-sigmoid."""
    return -(x.sigmoid() ** beta) * F.logsigmoid(-x)


@pytest.mark.parametrize('beta', BETAS)
@pytest.mark.parametrize('weighted', [False, True])
def test_background_loss_and_its_slope(beta, weighted):
    x = torch.cat((torch.randn(40).double() * 4, torch.tensor([-60.0, -1.0, 0.0, 49.0, 51.0, 300.0]).double()))
    weight = torch.rand_like(x) if weighted else None
    leaf = x.clone().requires_grad_()
    expected = background(leaf, beta) * (1 if weight is None else weight)
    expected.sum().backward()
    loss = background_loss_(x, beta, weight)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(x, leaf.grad, rtol=1e-9, atol=1e-12)


def test_background_loss_of_minus_infinity_is_0():
    for beta in BETAS:
        x = torch.tensor([-torch.inf])
        assert background_loss_(x, beta).item() == 0 and x.item() == 0


@pytest.mark.parametrize('beta', [0.5, 1.0, 1.5, 2.0])
def test_modulating_factor_by_hand(beta):
    # Its slope is beta · distance^(beta - 1); at 0 it is 0 for every beta but 1, also where the true one is infinite.
    distance = torch.tensor([0.0, 0.25], requires_grad=True)
    factor = modulating_factor(distance, beta)
    factor.sum().backward()
    assert factor.tolist() == pytest.approx([0.0, 0.25**beta])
    assert distance.grad.tolist() == pytest.approx([float(beta == 1), beta * 0.25 ** (beta - 1)])


def test_modulating_factor_of_beta_0_is_1():
    assert modulating_factor(torch.tensor([0.0, 0.25]), 0.0).tolist() == [1.0, 1.0]


# Levels -------------------------------------------------------------------------------------------------------------

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


def random_batch(num_priors, num_positives, form='contiguous', num_images=2):
    """Logits, coordinates of the positives, their labels, and weights of all locations, of which some are 0."""
    index = LocationIndex(SIZES, num_images, num_priors)
    levels = [
        FORMS[form](torch.randn(num_images, a * CLASSES, *size) * 3).requires_grad_()
        for a, size in zip(num_priors, SIZES)
    ]
    flat_inds = torch.randperm(index.total)[:num_positives].sort().values
    weights = (torch.rand(index.total) > 0.3).float()
    weights[flat_inds] = 2.0
    return (
        LevelPredictions(levels, CLASSES, index),
        index.coords(flat_inds),
        torch.randint(CLASSES, (num_positives,)),
        weights,
    )


def positive_loss(logits):
    """Any loss of logits; of no relation to the background's."""
    return (logits - 1).square()


def by_formula(logits, pos, labels, weights, beta, factor):
    """The sum of all entries, one by one."""
    rows = flat_rows(logits.levels, CLASSES).double()
    losses = factor * background(rows, beta)
    mask = torch.zeros_like(rows, dtype=torch.bool).index_put((pos.flat_inds, labels), torch.tensor(True))
    losses = torch.where(mask, positive_loss(rows), losses).sum(dim=1)
    return (losses if weights is None else losses * weights.double()).sum()


def assert_same_levels(logits, found, expected, rtol=1e-5, atol=1e-6):
    torch.testing.assert_close(found.double(), expected.double(), rtol=rtol, atol=atol)
    grads, expected_grads = (torch.autograd.grad(value, logits.levels) for value in (found, expected))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.dtype == expected_grad.dtype and grad.shape == expected_grad.shape
        torch.testing.assert_close(grad, expected_grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize('block', [2**17, 8])
@pytest.mark.parametrize(
    'num_priors, num_positives', [([1, 1, 1], 0), ([1, 1, 1], 10), ([3, 3, 3], 25), ([1, 3, 2], 25)], ids=str
)
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('beta, factor', [(0.0, 1.0), (0.5, 0.75), (2.0, 1.0), (2.0, 0.0), (1.5, 0.25)])
def test_levels_equal_the_formula(beta, factor, weighted, num_priors, num_positives, block, monkeypatch):
    monkeypatch.setattr(module, 'BLOCK_ON_CPU', block)
    logits, pos, labels, weights = random_batch(num_priors, num_positives)
    weights = weights if weighted else None
    found = fused_focal_loss(logits, pos, labels, FusedForm(positive_loss, beta, factor), weights)
    assert_same_levels(logits, found, by_formula(logits, pos, labels, weights, beta, factor))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('weighted', [False, True])
def test_levels_of_other_strides_and_dtypes(form, weighted):
    logits, pos, labels, weights = random_batch([1, 3, 2], 20, form)
    weights = weights if weighted else None
    found = fused_focal_loss(logits, pos, labels, FusedForm(positive_loss, 2.0, 0.75), weights)
    assert found.dtype == torch.promote_types(logits.levels[0].dtype, torch.float32)
    expected = by_formula(logits, pos, labels, weights, 2.0, 0.75)
    rounded = form in ('half', 'bfloat16')  # as their gradients are
    assert_same_levels(logits, found, expected, *((1e-2, 1e-3) if rounded else (1e-5, 1e-6)))


@pytest.mark.parametrize('extreme', [-torch.inf, -200.0, 60.0, 200.0, torch.inf])
def test_extreme_logits_of_positives(extreme):
    # Of the background's infinite loss and slope nothing may remain at a positive.
    logits, pos, labels, _ = random_batch([1, 3, 2], 10)
    levels = [level.detach().clone() for level in logits.levels]
    extremes = LevelPredictions(levels, CLASSES, logits.index)
    for image, cell, prior, label, level in zip(pos.image, pos.cell, pos.prior, labels, pos.level):
        levels[level].flatten(2)[image, prior * CLASSES + label, cell] = extreme
    levels = [level.requires_grad_() for level in levels]
    found = fused_focal_loss(extremes, pos, labels, FusedForm(lambda x: x.clamp(-3, 3), 2.0))
    rows = flat_rows(levels, CLASSES)
    at_labels = torch.zeros(len(rows), CLASSES, dtype=torch.bool)
    at_labels[pos.flat_inds, labels] = True
    expected = background(rows[~at_labels], 2.0).sum() + rows[at_labels].clamp(-3, 3).sum()
    assert torch.isfinite(found)
    assert_same_levels(extremes, found, expected)


def test_one_tensor_of_the_size_of_the_levels_is_kept():
    logits, pos, labels, weights = random_batch([3, 3, 3], 5)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fused_focal_loss(logits, pos, labels, FusedForm(positive_loss, 2.0), weights)
    num_bytes = 4 * sum(level.numel() for level in logits.levels)
    assert num_bytes <= sum(kept.values()) < 1.1 * num_bytes


def test_the_gradient_can_be_taken_twice():
    logits, pos, labels, _ = random_batch([1, 1, 1], 10)
    value = fused_focal_loss(logits, pos, labels, FusedForm(positive_loss, 2.0))
    first = torch.autograd.grad(value, logits.levels, retain_graph=True)
    second = torch.autograd.grad(3 * value, logits.levels)
    for one, three in zip(first, second):
        torch.testing.assert_close(3 * one, three)


@pytest.mark.parametrize('form', ['rows', 'levels'])
def test_a_second_derivative_raises_and_names_the_plain_form(form):
    logits, pos, labels, _ = random_batch([1, 1, 1], 10)
    if form == 'rows':
        value = quality_focal_loss(logits.levels[0].flatten(1), (torch.tensor([0, 3]), torch.rand(2))).sum()
    else:
        value = fused_focal_loss(logits, pos, labels, FusedForm(positive_loss, 2.0))
    first = torch.autograd.grad(value, logits.levels[0], create_graph=True, retain_graph=True)[0]
    torch.testing.assert_close(first.detach(), torch.autograd.grad(value, logits.levels[0])[0], rtol=0, atol=0)
    with pytest.raises(RuntimeError, match='plain form: give a loss of mmdet_gfl fused=False, and take a subclass'):
        first.square().sum().backward()


@pytest.mark.parametrize('label', [-1, CLASSES, CLASSES + 9])
@pytest.mark.parametrize('weighted', [False, True])
def test_a_label_outside_the_classes_gives_nan_without_an_index_error(label, weighted):
    """On a GPU labels are not validated: the address must be valid and the loss must show it."""
    logits, pos, labels, weights = random_batch([1, 1, 1], 6)
    labels[-1] = label  # the last location of all: there is no further channel
    assert fused_focal_loss(logits, pos, labels, FusedForm(positive_loss, 2.0), weights if weighted else None).isnan()


def test_in_inference_mode_the_value_is_the_same():
    logits, pos, labels, weights = random_batch([1, 3, 2], 20)
    expected = fused_focal_loss(logits, pos, labels, FusedForm(positive_loss, 2.0), weights)
    with torch.inference_mode():
        assert torch.equal(fused_focal_loss(logits, pos, labels, FusedForm(positive_loss, 2.0), weights), expected)
