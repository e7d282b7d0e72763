"""Generalized Focal Loss: by hand, its special cases, limits, and messages."""

import math

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_gfl.models.losses import (
    GeneralizedFocalLoss,
    distribution_focal_loss,
    generalized_focal_loss,
    quality_focal_loss,
    utils,
)
from mmdet_gfl.registry import MODELS


def pair(logit: Tensor) -> Tensor:
    """A sigmoid's logit as the two logits of (p_l, p_r) = (1 - σ, σ)."""
    return torch.stack((torch.zeros_like(logit), logit), dim=-1)


def value_and_grad(loss, pred: Tensor) -> tuple[Tensor, Tensor]:
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf)
    value.sum().backward()
    return value.detach(), leaf.grad


def assert_same(one, other, pred: Tensor) -> None:
    for a, b in zip(value_and_grad(one, pred), value_and_grad(other, pred), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_by_hand():
    # p = (1/4, 3/4), y_l = 2, y_r = 4, y = 3: estimate 3.5, 0.5² · (ln 4 + ln 4/3)
    pred = torch.tensor([[0.25, 0.75]])
    want = torch.tensor([0.25 * (math.log(4) + math.log(4 / 3))])
    target = torch.tensor([3.0])
    torch.testing.assert_close(generalized_focal_loss(pred.log(), target, 2.0, 4.0), want)
    torch.testing.assert_close(generalized_focal_loss(pred, target, 2.0, 4.0, activated=True), want)


@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('beta', [0.0, 0.5, 2.0])
def test_gradcheck(beta, activated):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(10, 2, generator=generator, dtype=torch.float64)
    pred = (pred.softmax(-1) if activated else pred).requires_grad_()
    left = torch.arange(10.0)
    y = left + 2 * torch.rand(10, generator=generator)
    assert torch.autograd.gradcheck(lambda x: generalized_focal_loss(x, y, left, left + 2, beta, activated), (pred,))


@pytest.mark.parametrize('gamma', [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_a_case(gamma):
    """Eq. (1), ``-(1 - p_t)^γ log p_t``: binary labels, β = γ, values 0 and 1."""
    logit = torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    label = (torch.arange(50) % 2).double()

    def focal(x: Tensor) -> Tensor:
        p_t = torch.where(label == 1, x.sigmoid(), 1 - x.sigmoid())
        return -((1 - p_t) ** gamma) * p_t.log()

    assert_same(lambda x: generalized_focal_loss(pair(x), label, 0.0, 1.0, beta=gamma), focal, logit)


@pytest.mark.parametrize('beta', [0.0, 0.5, 1.0, 2.0, 2.5])
def test_qfl_is_a_case(beta):
    """Eq. (2): values 0 and 1, a quality in between."""
    generator = torch.Generator().manual_seed(2)
    logit = torch.randn(50, generator=generator, dtype=torch.float64) * 3
    y = torch.rand(50, generator=generator, dtype=torch.float64)
    y[:2] = torch.tensor([0.0, 1.0])
    assert_same(
        lambda x: generalized_focal_loss(pair(x), y, beta=beta),
        lambda x: quality_focal_loss(x[:, None], y[:, None], beta=beta),
        logit,
    )


@pytest.mark.parametrize('n', [1, 8, 16])
def test_dfl_is_a_case(n):
    """Eq. (6): β = 0 and the bins around y; for n > 1 the two probabilities do not sum to 1."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50, n + 1, generator=generator, dtype=torch.float64)
    y = torch.rand(50, generator=generator, dtype=torch.float64) * n
    left = y.floor()

    def gfl(x: Tensor) -> Tensor:
        neighbours = torch.stack((left, left + 1), dim=-1).long()
        return generalized_focal_loss(x.softmax(-1).gather(-1, neighbours), y, left, left + 1, beta=0, activated=True)

    assert_same(gfl, lambda x: distribution_focal_loss(x, y), logits)
    if n == 1:
        assert_same(lambda x: generalized_focal_loss(x, y, beta=0), lambda x: distribution_focal_loss(x, y), logits)


@pytest.mark.parametrize('beta', [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize('left, right, y', [(0, 1, 0.3), (0, 1, 0.5), (3, 4, 3.8), (-1, 4, 1.0)])
def test_the_stated_minimum(beta, left, right, y):
    p_left = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)  # the grid holds every stated p_l
    pred = torch.stack((p_left, 1 - p_left), dim=-1).log()
    loss = generalized_focal_loss(pred, torch.full((999,), float(y)), float(left), float(right), beta)
    stated = (right - y) / (right - left)
    assert p_left[loss.argmin()].item() == pytest.approx(stated, abs=1e-9)
    if beta > 0:
        assert loss.min().item() == pytest.approx(0, abs=2e-3 if beta < 1 else 1e-6)
    else:
        entropy = -(stated * math.log(stated) + (1 - stated) * math.log(1 - stated))
        assert loss.min().item() == pytest.approx((right - left) * entropy, abs=1e-6)


@pytest.mark.parametrize('beta', [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize('activated', [False, True])
def test_finite_gradient_at_the_estimate_and_at_the_ends(beta, activated):
    pred = torch.tensor([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    pred = pred if activated else (pred * 400 - 200)
    y = torch.tensor([0.5, 1.0, 0.0, 0.2])
    value, grad = value_and_grad(lambda x: generalized_focal_loss(x, y, beta=beta, activated=activated), pred)
    assert value.isfinite().all() and grad.isfinite().all()
    assert value[1] == value[2] == 0


def test_module():
    y = torch.tensor([0.2, 1.5])
    left, right = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])
    pred, weight = torch.randn(2, 2), torch.tensor([1.0, 3.0])
    loss = MODELS.build(dict(type='mmdet_gfl.GeneralizedFocalLoss', beta=1.0, y_right=2.0, loss_weight=0.5))
    plain = generalized_focal_loss(pred, y, 0.0, 2.0, 1.0)
    torch.testing.assert_close(loss(pred, y, weight, avg_factor=4.0), 0.5 * (plain * weight).sum() / 4)
    varying = generalized_focal_loss(pred, y, left, right, 1.0)
    torch.testing.assert_close(loss(pred, (y, left, right)), 0.5 * varying.mean())
    torch.testing.assert_close(loss(pred, (y, left, right), reduction_override='none'), 0.5 * varying)


def test_half_precision_autocast_empty_and_detached():
    pred = torch.randn(5, 2).bfloat16()
    y = torch.rand(5, requires_grad=True)
    want = generalized_focal_loss(pred.float(), y)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = generalized_focal_loss(pred.requires_grad_(), y)
    assert torch.equal(loss, want) and loss.dtype == torch.float32
    loss.sum().backward()
    assert pred.grad.dtype == torch.bfloat16 and y.grad is None
    empty = torch.zeros(0, 2, requires_grad=True)
    GeneralizedFocalLoss()(empty, torch.zeros(0)).backward()
    assert empty.grad.shape == (0, 2)


def test_wrong_values_become_nan_off_the_cpu(monkeypatch):
    monkeypatch.setattr(utils, 'on_cpu', lambda tensor: False)
    y = torch.tensor([0.5, 1.5, 0.5, 0.5])
    left, right = torch.tensor([0.0, 0.0, 1.0, 0.5]), torch.tensor([1.0, 1.0, 0.0, 0.5])
    assert generalized_focal_loss(torch.randn(4, 2), y, left, right).isnan().tolist() == [False, True, True, True]


Y = torch.tensor([0.5, 0.5])


@pytest.mark.parametrize(
    'arguments, words',
    [
        ((torch.randn(2), Y), r'needs pred \(\.\.\., 2\).*got a torch.float32 tensor of shape \(2,\)'),
        ((torch.randn(2, 3), Y), r'shape \(2, 3\)'),
        ((torch.randn(2, 2), Y[:1]), r'shape \(1,\)'),
        ((torch.randn(2, 2), 0.5), r'got .* and 0.5 \(float\)'),
        ((torch.zeros(2, 2, dtype=torch.int), Y), r'floating-point tensor as pred'),
        ((torch.randn(2, 2), Y + 0.6), r'y_left <= target <= y_right; got 1.1, 1.1 \(wrong: 2 of 2\)'),
        ((torch.randn(2, 2), Y, 0.6, 1.0), r'y_left <= target <= y_right; got 0.5'),
        ((torch.randn(2, 2), Y, 1.0, 0.0), r'y_right - y_left > 0; got -1'),
        ((torch.randn(2, 2), Y, Y, Y), r'y_right - y_left > 0; got 0'),
        ((torch.randn(2, 2), Y, torch.zeros(3)), r'shape of target, \(2,\); got .* shape \(3,\)'),
        ((torch.randn(2, 2), Y, '0'), r"y_left or y_right must be a finite number, got '0'"),
        ((torch.randn(2, 2), Y, 0.0, 1.0, -1.0), r'beta must be a finite number >= 0, got -1'),
        ((torch.full((2, 2), 3.0), Y, 0.0, 1.0, 2.0, True), r'probabilities in \[0, 1\].*got 3, 3, 3 \(wrong: 4'),
    ],
)
def test_wrong_inputs_raise(arguments, words):
    with pytest.raises(ValueError, match=words):
        generalized_focal_loss(*arguments)


def test_wrong_settings_raise():
    with pytest.raises(ValueError, match='y_left < y_right, got 1.0 and 1.0'):
        GeneralizedFocalLoss(y_left=1.0)
    with pytest.raises(ValueError, match='beta must be a finite number >= 0, got'):
        GeneralizedFocalLoss(beta=-1)
    with pytest.raises(ValueError, match=r'target=\(y, y_left, y_right\), got a tuple of'):
        GeneralizedFocalLoss()(torch.randn(2, 2), (Y, Y))


def test_a_sigmoid_is_the_softmax_of_zero_and_its_logit():
    logit = torch.randn(9)
    torch.testing.assert_close(pair(logit).softmax(-1)[:, 1], F.sigmoid(logit))
