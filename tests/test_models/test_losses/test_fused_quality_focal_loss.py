"""The one-pass form against the plain formula, in value and gradient, on random and on nasty inputs."""

import pytest
import torch

from mmdet_gfl.models.losses import quality_focal_loss as public
from mmdet_gfl.models.losses.fused_quality_focal_loss import FusedQualityFocalLoss
from mmdet_gfl.models.losses.quality_focal_loss import equation_2, labelled_by_formula

BETAS = (0.0, 0.25, 1.0, 1.5, 2.0, 4.0)


def both(pred, index, quality, beta):
    """Values and gradients of the two forms, under a different weight of each location."""
    results = []
    for form in (
        lambda x: FusedQualityFocalLoss.apply(x, index, quality, beta, equation_2),
        lambda x: labelled_by_formula(x, index, quality, beta),
    ):
        leaf = pred.detach().clone().requires_grad_()
        value = form(leaf)
        (value * torch.linspace(0.5, 2, len(value), dtype=value.dtype)).sum().backward()
        results.append((value.detach(), leaf.grad))
    return results


def assert_same(pred, index, quality, beta, rtol=1e-9, atol=1e-12):
    (value, grad), (expected, expected_grad) = both(pred, index, quality, beta)
    torch.testing.assert_close(value, expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(grad, expected_grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize('beta', BETAS)
@pytest.mark.parametrize('num_classes', [1, 2, 80])
def test_random_inputs(beta, num_classes):
    pred = torch.randn(50, num_classes, dtype=torch.float64) * 4
    assert_same(pred, torch.randint(num_classes, (50, 1)), torch.rand(50, 1, dtype=torch.float64), beta)


@pytest.mark.parametrize('beta', BETAS)
def test_extreme_inputs(beta):
    values = torch.tensor([-torch.inf, -200.0, -88.0, -30.0, 0.0, 20.5, 30.0, 88.0, 200.0], dtype=torch.float64)
    pred = torch.cartesian_prod(values, values)  # each value at the label beside each value of another class
    for quality in (0.0, 0.5, 1.0):
        assert_same(
            pred, torch.zeros(len(pred), 1, dtype=torch.long), torch.full((len(pred), 1), quality).double(), beta
        )


@pytest.mark.parametrize('beta', [0.5, 1.0, 2.0])
def test_a_prediction_that_is_the_quality(beta):
    pred = torch.zeros(3, 2, dtype=torch.float64)
    assert_same(pred, torch.zeros(3, 1, dtype=torch.long), torch.full((3, 1), 0.5, dtype=torch.float64), beta)


def test_float32_and_other_strides():
    pred = torch.randn(2, 5, 6, 7).to(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, 5)
    index, quality = torch.randint(5, (84, 1)), torch.rand(84, 1)
    assert_same(pred, index, quality, 2.0, rtol=1e-5, atol=1e-7)
    transposed = torch.randn(5, 84).t()
    assert not transposed.is_contiguous()
    assert_same(transposed, index, quality, 2.0, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('form', ['fused', 'plain'])
def test_what_is_kept_for_the_backward(form):
    """One tensor of the size of the logits; the plain formula keeps more."""
    pred = torch.randn(1000, 80, requires_grad=True)
    label, score = torch.randint(80, (1000,)), torch.rand(1000)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if form == 'fused':
            public(pred, (label, score))
        else:
            labelled_by_formula(pred, label[:, None], score[:, None], 2.0)
    large = [count for count in kept.values() if count == pred.numel()]  # the entries at the labels are small
    assert len(large) == 1 if form == 'fused' else len(large) > 1


def test_without_a_gradient_nothing_is_kept():
    value = public(torch.randn(4, 3), (torch.tensor([0, 1, 2, 3]), torch.rand(4)))
    assert not value.requires_grad
