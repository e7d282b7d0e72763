"""Distribution Focal Loss: values by hand and by eq. (6), agreement with MMDetection, limits, and messages."""

import math

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
from mmdet.models.losses import DistributionFocalLoss as MMDetDistributionFocalLoss
from torch import Tensor

from mmdet_gfl.models.losses import DistributionFocalLoss, distribution_focal_loss, side_loss, utils
from mmdet_gfl.registry import MODELS


def sample(seed: int, m: int = 60, n: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, n + 1, generator=generator) * 3, torch.rand(m, generator=generator) * n


def value_and_grad(loss, pred: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    value.sum().backward()
    return value.detach(), leaf.grad


def test_by_hand():
    # Softmax (1/2, 1/4, 1/4); y = 0.25: 0.75 ln 2 + 0.25 ln 4; y = 1: ln 4; y = 1.5: ln 4; y = 2: ln 4
    pred = torch.tensor([0.5, 0.25, 0.25]).log().expand(5, 3)
    loss = distribution_focal_loss(pred, torch.tensor([0.0, 0.25, 1.0, 1.5, 2.0]))
    torch.testing.assert_close(loss, torch.tensor([1, 1.25, 2, 2, 2]) * math.log(2))


def test_equals_equation_6_in_float64():
    pred, target = sample(0)
    pred, target = pred.double(), target.double()
    want = []
    for logits, y in zip(pred.tolist(), target.tolist(), strict=True):
        i = math.floor(y)
        total = sum(math.exp(logit) for logit in logits)
        s_left, s_right = math.exp(logits[i]) / total, math.exp(logits[i + 1]) / total
        want.append(-((i + 1 - y) * math.log(s_left) + (y - i) * math.log(s_right)))
    torch.testing.assert_close(distribution_focal_loss(pred, target), torch.tensor(want, dtype=torch.float64))
    torch.testing.assert_close(
        distribution_focal_loss(pred.float(), target.float()), torch.tensor(want), rtol=1e-5, atol=2e-5
    )


def test_gradcheck():
    pred, target = sample(1, m=8, n=5)
    target[:4] = torch.tensor([0.0, 5.0, 2.0, 7.0])
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, target), (pred.double().requires_grad_(),))


@pytest.mark.parametrize('n', [1, 7, 16])
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_equals_mmdetection(seed, n):
    pred, target = sample(seed, n=n)
    target[:2] = torch.tensor([0.0, n - 1.0])
    weight = torch.rand(len(pred))
    calls = [
        dict(),
        dict(weight=weight),
        dict(weight=weight, avg_factor=4.0),
        dict(weight=weight, avg_factor=torch.tensor(12.5)),
        dict(weight=weight, reduction_override='sum'),
        dict(weight=weight, reduction_override='none'),
    ]
    for call in calls:
        value, grad = value_and_grad(DistributionFocalLoss(loss_weight=0.25), pred, target, **call)
        want, want_grad = value_and_grad(MMDetDistributionFocalLoss(loss_weight=0.25), pred, target, **call)
        torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(grad, want_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('y', [0.0, 0.3, 2.5, 3.0, 4.0])
def test_the_minimum_is_the_entropy_of_the_two_weights(y):
    n = 4
    weights = torch.zeros(n + 1, dtype=torch.float64)
    left = min(int(y), n - 1)
    weights[left], weights[left + 1] = left + 1 - y, y - left
    entropy = -(weights * weights.clamp(min=1e-300).log()).sum()
    target = torch.tensor(y, dtype=torch.float64)
    at_minimum, grad = value_and_grad(distribution_focal_loss, weights.clamp(min=1e-30).log(), target)
    torch.testing.assert_close(at_minimum, entropy)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)
    others = torch.randn(500, n + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (distribution_focal_loss(others, target.expand(500)) > entropy).all()


def test_the_last_bin_counts():
    """At exactly n, where MMDetection has an index error, and in the limit towards it."""
    pred = sample(2, m=1)[0].double()
    at_n = distribution_focal_loss(pred, torch.tensor([16.0]).double())
    torch.testing.assert_close(at_n, -pred.log_softmax(1)[:, 16])
    torch.testing.assert_close(distribution_focal_loss(pred, torch.tensor([16 - 1e-9]).double()), at_n)


def test_finite_targets_outside_the_range_are_clamped():
    pred = sample(3, m=6)[0]
    loss = distribution_focal_loss(pred, torch.tensor([-1e-6, -3.0, -1e30, 16.0001, 99.0, 3e38]))
    inside = distribution_focal_loss(pred, torch.tensor([0.0, 0.0, 0.0, 16.0, 16.0, 16.0]))
    assert torch.equal(loss, inside)


def test_an_infinite_logit_of_weight_0_costs_nothing():
    pred = torch.tensor([[0.0, 0.0, -math.inf]])
    value, grad = value_and_grad(distribution_focal_loss, pred, torch.tensor([1.0]))
    assert value.item() == pytest.approx(math.log(2)) and grad.isfinite().all()
    assert distribution_focal_loss(pred, torch.tensor([1.5])).item() == math.inf


@pytest.mark.parametrize('shape', [(), (3,), (2, 4), (2, 3, 4)])
def test_any_leading_shape(shape):
    pred, target = torch.randn(*shape, 9), torch.rand(shape) * 8
    loss = distribution_focal_loss(pred, target)
    assert loss.shape == shape
    flat = distribution_focal_loss(pred.reshape(-1, 9), target.reshape(-1))
    assert torch.equal(loss.reshape(-1), flat)


def test_integer_targets():
    pred = torch.randn(3, 5)
    loss = distribution_focal_loss(pred, torch.tensor([0, 2, 4]))
    torch.testing.assert_close(loss, -pred.log_softmax(1)[torch.arange(3), torch.tensor([0, 2, 4])])


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    pred, target = sample(4)
    pred = pred.to(dtype)
    value, grad = value_and_grad(distribution_focal_loss, pred, target)
    want, want_grad = value_and_grad(distribution_focal_loss, pred.float(), target)
    assert value.dtype == torch.float32 and grad.dtype == dtype
    assert torch.equal(value, want) and torch.equal(grad, want_grad.to(dtype))
    with torch.autocast('cpu', dtype=dtype):
        value, grad = value_and_grad(distribution_focal_loss, pred, target)
    assert torch.equal(value, want) and torch.equal(grad, want_grad.to(dtype))


def test_the_target_gets_no_gradient():
    target = torch.tensor([1.5], requires_grad=True)
    distribution_focal_loss(torch.randn(1, 4, requires_grad=True), target).sum().backward()
    assert target.grad is None


@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_empty_input_keeps_the_graph(reduction):
    pred = torch.zeros(0, 17, requires_grad=True)
    loss = DistributionFocalLoss(reduction=reduction)(pred, torch.zeros(0))
    loss.sum().backward()
    assert loss.sum().item() == 0 and pred.grad.shape == (0, 17)


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_targets_that_are_not_finite_raise(bad, monkeypatch):
    pred, target = torch.randn(3, 17), torch.tensor([1.0, bad, 16.0])
    with pytest.raises(ValueError, match=r'finite targets.*boxes.*\(wrong: 1 of 3\)'):
        distribution_focal_loss(pred, target)
    monkeypatch.setattr(utils, 'on_cpu', lambda tensor: False)
    value, grad = value_and_grad(distribution_focal_loss, pred, target)
    assert value.isnan().tolist() == [False, True, False]
    assert grad[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    'pred, target',
    [
        (torch.randn(5, 4), torch.rand(5, 4)),  # as a box loss in a stock head gets them
        (torch.randn(5, 1), torch.rand(5)),
        (torch.randn(5, 17), torch.rand(5, 1)),
        (torch.randn(5, 17), torch.rand(4)),
        (torch.tensor(1.0), torch.tensor(1.0)),
        (torch.randn(5, 17), 3.0),
    ],
)
def test_wrong_shapes_raise(pred, target):
    loss = MODELS.build(dict(type='mmdet_gfl.DistributionFocalLoss'))
    with pytest.raises(ValueError, match=r'needs pred \(\.\.\., n \+ 1\).*got a torch.float32.*GFLHead.*GeneralBox'):
        loss(pred, target)


def test_a_wrong_prediction_raises():
    with pytest.raises(ValueError, match='floating-point tensor as pred, got a torch.int64'):
        distribution_focal_loss(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2))


# Sides of boxes in a head -------------------------------------------------------------------------------------------


class DoubledDFL(MMDetDistributionFocalLoss):
    """A user's change of MMDetection's loss."""

    def forward(self, *args, **kwargs):
        return 2 * super().forward(*args, **kwargs)


@pytest.mark.parametrize('kind', [DistributionFocalLoss, MMDetDistributionFocalLoss, DoubledDFL])
def test_side_loss_equals_the_module(kind):
    pred, target = sample(5)
    weight, loss = torch.rand(len(pred)), kind(loss_weight=0.25)
    value, grad = value_and_grad(lambda x: side_loss(loss, x, target, weight, torch.tensor(7.0)), pred)
    want, want_grad = value_and_grad(lambda x: loss(x, target, weight=weight, avg_factor=torch.tensor(7.0)), pred)
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, want_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('kind, calls', [(DistributionFocalLoss, 1), (MMDetDistributionFocalLoss, 0), (DoubledDFL, 1)])
def test_mmdetections_loss_is_computed_as_ours_and_a_subclass_is_called(kind, calls, monkeypatch):
    pred, target = sample(6)
    loss, seen = kind(), []
    forward = loss.forward
    monkeypatch.setattr(loss, 'forward', lambda *args, **kwargs: seen.append(args) or forward(*args, **kwargs))
    side_loss(loss, pred, target, torch.ones(len(pred)), torch.tensor(2.0))
    assert len(seen) == calls


def test_mmdetections_loss_takes_the_last_bin_in_a_head():
    """Alone it has an index error there."""
    pred, target = sample(7, m=3)[0], torch.tensor([16.0, 16.0, 3.5])
    with pytest.raises((IndexError, RuntimeError)):
        MMDetDistributionFocalLoss()(pred, target)
    found = side_loss(MMDetDistributionFocalLoss(), pred, target, torch.ones(3), torch.tensor(1.0))
    torch.testing.assert_close(found, distribution_focal_loss(pred, target).sum())


@pytest.mark.parametrize('reduction', ['sum', 'none'])
def test_the_reduction_of_mmdetections_loss_is_kept(reduction):
    pred, target = sample(8)
    weight = torch.rand(len(pred))
    losses = [kind(reduction=reduction) for kind in (MMDetDistributionFocalLoss, DistributionFocalLoss)]
    if reduction == 'sum':
        for loss in losses:
            with pytest.raises(ValueError, match='avg_factor can not be used with reduction="sum"'):
                side_loss(loss, pred, target, weight, torch.tensor(2.0))
    else:
        one, two = (side_loss(loss, pred, target, weight, torch.tensor(2.0)) for loss in losses)
        assert one.shape == (len(pred),) and torch.equal(one, two)
