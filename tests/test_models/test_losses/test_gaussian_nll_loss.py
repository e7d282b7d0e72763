"""Likelihood of a Gaussian side: by hand, against torch in float64, its clamped log-variance, and messages."""

import math

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_gfl.models.losses import GaussianNLLLoss, gaussian_nll_loss, gaussian_std, utils
from mmdet_gfl.registry import MODELS


def sample(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 2, generator=generator).clamp(-3, 3) * 2, torch.rand(shape, generator=generator) * 8


def log_var_grad(log_var: float, error: float) -> float:
    pred = torch.tensor([0.0, log_var], requires_grad=True)
    gaussian_nll_loss(pred, torch.tensor(error)).backward()
    return pred.grad[1].item()


def test_by_hand():
    # σ = 2, so log σ² = ln 4; error 3: 9 / 8 + ln 2
    loss = gaussian_nll_loss(torch.tensor([1.0, math.log(4)]), torch.tensor(4.0))
    assert loss.item() == pytest.approx(9 / 8 + math.log(2))


def test_equals_the_formula_and_torch_in_float64():
    pred, target = sample(0, 50, 4)
    pred, target = pred.double(), target.double()
    mean, log_var = pred.unbind(-1)
    sigma = (log_var / 2).exp()
    loss = gaussian_nll_loss(pred, target)
    torch.testing.assert_close(loss, (target - mean) ** 2 / (2 * sigma**2) + sigma.log())
    torch_loss = F.gaussian_nll_loss(mean, target, log_var.exp(), full=False, eps=1e-12, reduction='none')
    torch.testing.assert_close(loss, torch_loss)
    torch.testing.assert_close(gaussian_nll_loss(pred.float(), target).double(), loss, rtol=1e-5, atol=1e-5)
    # With the constant left out it is the negative log-density of the normal distribution.
    density = torch.distributions.Normal(mean, sigma).log_prob(target)
    torch.testing.assert_close(loss + math.log(2 * math.pi) / 2, -density)


def test_gradcheck():
    pred, target = sample(1, 6, 4)
    assert torch.autograd.gradcheck(lambda x: gaussian_nll_loss(x, target), (pred.double().requires_grad_(),))


def test_the_best_variance_is_the_squared_error():
    log_var = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    pred = torch.stack((torch.zeros_like(log_var), log_var), dim=-1)
    loss = gaussian_nll_loss(pred, torch.full((1201,), 1.5))
    assert log_var[loss.argmin()].item() == pytest.approx(2 * math.log(1.5), abs=0.006)


def test_the_log_variance_is_clamped():
    error = torch.tensor([0.5, 0.5])
    wide = gaussian_nll_loss(torch.tensor([[0.0, -50.0], [0.0, math.inf]]), error)
    assert torch.equal(wide, gaussian_nll_loss(torch.tensor([[0.0, -7.0], [0.0, 7.0]]), error))
    narrow = gaussian_nll_loss(torch.tensor([[0.0, -50.0], [0.0, 50.0]]), error, (-1.0, 2.0))
    assert torch.equal(narrow, gaussian_nll_loss(torch.tensor([[0.0, -1.0], [0.0, 2.0]]), error))


def test_the_gradient_outside_the_range_leads_back_only():
    # Surer than allowed and wrong: the gradient of the end, -(error² e^7 - 1) / 2, leads back up.
    assert log_var_grad(-9.0, 1.0) == pytest.approx((1 - math.exp(7)) / 2)
    # Surer than allowed and right: descent would lead farther down.
    assert log_var_grad(-9.0, 0.0) == 0
    # Less sure than allowed, and the error is smaller than that: back down.
    assert log_var_grad(9.0, 1.0) == pytest.approx((1 - math.exp(-7)) / 2)
    assert log_var_grad(math.inf, 1.0) == pytest.approx((1 - math.exp(-7)) / 2)
    # Less sure than allowed, and the error is larger still: it would lead farther up.
    assert log_var_grad(9.0, 100.0) == 0
    # Inside, both ways.
    assert log_var_grad(0.0, 0.0) == 0.5 and log_var_grad(0.0, 3.0) == -4


@pytest.mark.parametrize('start', [-30.0, 30.0])
def test_descent_returns_into_the_range(start):
    log_var = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.SGD([log_var], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        gaussian_nll_loss(torch.stack((torch.tensor(0.0), log_var)), torch.tensor(1.0)).backward()
        torch.nn.utils.clip_grad_norm_([log_var], 1.0)
        optimizer.step()
    assert log_var.item() == pytest.approx(0, abs=0.1)


def test_std_by_hand():
    pred = torch.tensor([[5.0, 0.0], [5.0, math.log(9)], [5.0, 99.0], [5.0, -99.0]])
    want = torch.tensor([1.0, 3.0, math.exp(3.5), math.exp(-3.5)])
    torch.testing.assert_close(gaussian_std(pred), want)
    assert gaussian_std(pred.half()).dtype == torch.float32
    torch.testing.assert_close(gaussian_std(pred, (0.0, 2.0)), torch.tensor([1.0, math.e, math.e, 1.0]))


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    pred, target = sample(2, 20)
    pred = pred.to(dtype)
    want = gaussian_nll_loss(pred.float(), target)
    with torch.autocast('cpu', dtype=dtype):
        loss = gaussian_nll_loss(pred.requires_grad_(), target)
    loss.sum().backward()
    assert torch.equal(loss, want) and pred.grad.dtype == dtype


def test_module():
    pred, target = sample(3, 5, 4)
    weight = torch.rand(5, 4)
    loss = MODELS.build(dict(type='mmdet_gfl.GaussianNLLLoss', loss_weight=2.0, log_var_range=[-1.0, 1.0]))
    plain = gaussian_nll_loss(pred, target, (-1.0, 1.0))
    torch.testing.assert_close(loss(pred, target), 2 * plain.mean())
    torch.testing.assert_close(loss(pred, target, weight, avg_factor=3.0), 2 * (plain * weight).sum() / 3)
    torch.testing.assert_close(loss(pred, target, weight, reduction_override='sum'), 2 * (plain * weight).sum())
    empty = torch.zeros(0, 4, 2, requires_grad=True)
    loss(empty, torch.zeros(0, 4)).backward()
    assert empty.grad.shape == (0, 4, 2)


def test_the_target_gets_no_gradient():
    target = torch.rand(3, requires_grad=True)
    gaussian_nll_loss(torch.randn(3, 2, requires_grad=True), target).sum().backward()
    assert target.grad is None


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_targets_that_are_not_finite_raise(bad, monkeypatch):
    pred, target = torch.randn(3, 2), torch.tensor([1.0, bad, 2.0])
    with pytest.raises(ValueError, match=r'GaussianNLLLoss needs finite targets.*\(wrong: 1 of 3\)'):
        gaussian_nll_loss(pred, target)
    monkeypatch.setattr(utils, 'on_cpu', lambda tensor: False)
    assert gaussian_nll_loss(pred, target).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize('pred_shape, target_shape', [((5, 4), (5, 4)), ((5, 4, 2), (5,)), ((5, 3), (5,)), ((), ())])
def test_wrong_shapes_raise(pred_shape, target_shape):
    with pytest.raises(ValueError, match=r'needs pred \(\.\.\., 2\), mean and .*got .*GFLHead.*GaussianBox'):
        gaussian_nll_loss(torch.randn(pred_shape), torch.randn(target_shape))
    with pytest.raises(ValueError, match='floating-point tensor as pred'):
        gaussian_nll_loss(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3))


@pytest.mark.parametrize('bad', [(1.0,), (1.0, 1.0), (2.0, -2.0), 7.0, (-math.inf, 2.0), ('a', 2.0)])
def test_a_wrong_range_raises(bad):
    with pytest.raises(ValueError, match='log_var_range must be'):
        GaussianNLLLoss(log_var_range=bad)
    with pytest.raises(ValueError, match='log_var_range must be'):
        gaussian_nll_loss(torch.randn(2, 2), torch.rand(2), bad)
