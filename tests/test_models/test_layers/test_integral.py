"""The integral of a distribution over bins and its standard deviation, by hand and against MMDetection."""

import math

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
from mmdet.models.dense_heads.gfl_head import Integral as MMDetIntegral

from mmdet_gfl.models.layers import Integral, distribution_std, integral
from mmdet_gfl.registry import MODELS


def test_by_hand():
    # P = (1/2, 1/4, 1/4): mean 3/4, variance 1/4 + 4/4 - 9/16 = 11/16
    logits = torch.tensor([0.5, 0.25, 0.25]).log()
    torch.testing.assert_close(integral(logits), torch.tensor(0.75))
    torch.testing.assert_close(integral(logits, delta=0.5), torch.tensor(0.375))
    torch.testing.assert_close(distribution_std(logits), torch.tensor(math.sqrt(11) / 4))
    torch.testing.assert_close(distribution_std(logits, delta=2.0), torch.tensor(math.sqrt(11) / 2))
    torch.testing.assert_close(Integral(2, delta=4.0)(logits.repeat(4)), torch.full((4,), 3.0))


@pytest.mark.parametrize('reg_max', [1, 7, 16, 18])
def test_uniform_and_one_hot(reg_max):
    layer = Integral(reg_max)
    flat = torch.zeros(3, 4 * (reg_max + 1))
    torch.testing.assert_close(layer(flat), torch.full((3, 4), reg_max / 2))
    bins = torch.arange(reg_max + 1)
    peaked = torch.eye(reg_max + 1) * 1000
    assert torch.equal(integral(peaked), bins.float())
    assert torch.equal(distribution_std(peaked), torch.zeros(reg_max + 1))


@pytest.mark.parametrize('reg_max', [7, 16])
def test_equals_mmdetection(reg_max):
    ours, theirs = Integral(reg_max), MMDetIntegral(reg_max)
    generator = torch.Generator().manual_seed(reg_max)
    for shape in ((0,), (1,), (57,)):
        x = torch.randn(*shape, 4 * (reg_max + 1), generator=generator) * 3
        one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.testing.assert_close(ours(one), theirs(other), rtol=1e-5, atol=1e-6)
        ours(one).square().sum().backward()
        theirs(other).square().sum().backward()
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_state_dicts_are_exchangeable():
    ours, theirs = Integral(12, delta=0.5), MMDetIntegral(12)
    assert ours.state_dict().keys() == theirs.state_dict().keys() == {'project'}
    assert torch.equal(ours.project, theirs.project) and ours.project.dtype == theirs.project.dtype
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize('shape, sides', [((), 4), ((5,), 4), ((2, 3), 4), ((2, 3, 5), 4), ((0, 3), 4), ((6,), 1)])
def test_any_leading_shape(shape, sides):
    x = torch.randn(*shape, sides * 9, requires_grad=True)
    y = Integral(8)(x)
    assert y.shape == (*shape, sides)
    y.sum().backward()
    assert x.grad.shape == x.shape
    one_by_one = [integral(logits) for logits in x.detach().reshape(-1, 9)]
    if one_by_one:
        torch.testing.assert_close(y.detach().reshape(-1), torch.stack(one_by_one))


@pytest.mark.parametrize('shape', [(9, 3, 5), (9, 5), (4, 9, 2, 5)])
def test_logits_of_any_strides(shape):
    logits = torch.randn(shape, dtype=torch.float64)
    columns = logits.movedim(0, -1).contiguous().movedim(-1, 0).requires_grad_()
    assert columns.stride(0) == 1
    torch.testing.assert_close(integral(columns, delta=0.5), integral(logits, delta=0.5))
    torch.testing.assert_close(integral(columns, 1.0, torch.arange(5.0)), integral(logits))
    assert torch.autograd.gradcheck(integral, columns)


def test_delta_is_not_in_the_buffer():
    x = torch.randn(5, 4 * 17)
    for delta in (0.5, 2.0, 4):
        layer = Integral(16, delta)
        assert torch.equal(layer.project, torch.arange(17.0))
        torch.testing.assert_close(layer(x), delta * Integral(16)(x))


def test_float64_and_gradients():
    x = torch.randn(3, 4 * 6, dtype=torch.float64, requires_grad=True)
    assert Integral(5)(x).dtype == torch.float64
    assert torch.autograd.gradcheck(Integral(5, delta=0.5), (x,))
    assert torch.autograd.gradcheck(distribution_std, (x.detach().reshape(-1, 6).requires_grad_(),))


def test_std_equals_the_moments_in_float64():
    logits = torch.randn(200, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    probability, bins = logits.softmax(-1), torch.arange(17, dtype=torch.float64)
    variance = (probability * bins**2).sum(-1) - (probability * bins).sum(-1) ** 2
    torch.testing.assert_close(distribution_std(logits), variance.sqrt())
    torch.testing.assert_close(distribution_std(logits.float()).double(), variance.sqrt(), rtol=1e-4, atol=1e-6)


def test_std_of_a_peaked_distribution():
    # Nearly all in bin 14; the difference of moments is rounding only (196 · 6e-8) and can be negative.
    logits = torch.zeros(17)
    logits[14] = 30.0
    exact = distribution_std(logits.double())
    assert 0 < exact.item() < 1e-5
    torch.testing.assert_close(distribution_std(logits).double(), exact, rtol=1e-3, atol=0)
    one_hot = torch.tensor([0.0, 1000.0, 0.0], requires_grad=True)
    distribution_std(one_hot).backward()
    assert torch.equal(one_hot.grad, torch.zeros(3))


def test_std_is_at_most_half_the_range():
    ends = torch.tensor([0.0] + [-1000.0] * 15 + [0.0])
    torch.testing.assert_close(distribution_std(ends, delta=0.5), torch.tensor(4.0))


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_half_precision_gives_float32(dtype):
    x = torch.randn(6, 4 * 17).to(dtype)
    want = Integral()(x.float())
    for layer in (Integral(), Integral().to(dtype)):  # the bins are exact in half precision
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        assert y.dtype == torch.float32 and torch.equal(y, want)
        y.sum().backward()
        assert leaf.grad.dtype == dtype
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(Integral()(x), want)
    assert distribution_std(x.reshape(-1, 17)).dtype == torch.float32


@pytest.mark.parametrize('reg_max', [0, -3, 16.0, '16', None, True])
def test_a_wrong_reg_max_raises(reg_max):
    with pytest.raises(ValueError, match='reg_max must be an integer >= 1, got'):
        Integral(reg_max)


@pytest.mark.parametrize('delta', [0, -1.0, math.nan, math.inf, '1', None, True])
def test_a_wrong_delta_raises(delta):
    with pytest.raises(ValueError, match='delta must be a finite number > 0, got'):
        Integral(16, delta)


@pytest.mark.parametrize('shape', [(3, 4), (3, 64), (3, 69), (3, 0), ()])
def test_a_wrong_shape_raises(shape):
    words = r'reg_max=16 needs \(\.\.\., K \* 17\).*4 \* 17 = 68\), got a tensor of shape \('
    with pytest.raises(ValueError, match=words):
        Integral()(torch.zeros(shape))


def test_registered():
    layer = MODELS.build(dict(type='mmdet_gfl.Integral', reg_max=8, delta=2.0))
    assert type(layer) is Integral and repr(layer) == 'Integral(reg_max=8, delta=2.0)'
