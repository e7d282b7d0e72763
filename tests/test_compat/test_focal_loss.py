"""The stand-in's sigmoid focal loss, called as ``mmcv.ops`` calls it on CUDA."""

import importlib
import math

import pytest
import torch
from mmcv.ops import sigmoid_focal_loss
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from mmdet_gfl.compat import mmcv_ext

DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA'))]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(importlib.import_module('mmcv.ops.focal_loss'), 'ext_module', mmcv_ext)


def random_input(dtype=torch.float32, device='cpu', count=50, num_classes=7):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, num_classes, generator=generator) * 4
    target = torch.randint(0, num_classes + 1, (count,), generator=generator)  # num_classes is background
    return logits.to(device, dtype).requires_grad_(), target.to(device)


def test_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/2 and 3/4
    loss = sigmoid_focal_loss(logits, torch.tensor([0]), 2.0, 0.25, None, 'none')
    expected = [[0.25 * 0.5**2 * math.log(2), 0.75 * 0.75**2 * math.log(4)]]
    torch.testing.assert_close(loss, torch.tensor(expected))


@pytest.mark.agreement
@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (1.5, 0.4), (1.0, 0.5), (0.0, 0.3)])
def test_equals_python_loss_of_mmdetection(gamma, alpha, device):
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    logits, target = random_input(device=device)
    other = logits.detach().clone().requires_grad_()
    loss = sigmoid_focal_loss(logits, target, gamma, alpha, None, 'none')
    labels = one_hot(target, 8)[:, :7]
    expected = py_sigmoid_focal_loss(other, labels, gamma=gamma, alpha=alpha, reduction='none')
    torch.testing.assert_close(loss, expected, rtol=2e-5, atol=1e-6)
    incoming = torch.rand_like(loss)
    (loss * incoming).sum().backward()
    (expected * incoming).sum().backward()
    torch.testing.assert_close(logits.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0, 3.0])
def test_gradient_equals_finite_differences(gamma):
    logits, target = random_input(torch.float64, count=6)
    weight = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, target, gamma, 0.25, weight, 'mean'), logits)


def test_gamma_zero_is_cross_entropy():
    logits, target = random_input()
    loss = sigmoid_focal_loss(logits, target, 0.0, 0.5, None, 'sum')
    labels = one_hot(target, 8)[:, :7].float()
    torch.testing.assert_close(loss, 0.5 * binary_cross_entropy_with_logits(logits, labels, reduction='sum'))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_far_logits(dtype):
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], dtype=dtype, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 1]), 2.0, 0.25, None, 'none')
    assert loss.dtype == dtype
    assert loss.tolist() == [[0, 0], [150, 50]]  # 0.75 · 200 and 0.25 · 200
    loss.sum().backward()
    assert logits.grad.tolist() == [[0, 0], [0.75, -0.25]]


def test_halves_are_computed_in_float32():
    logits, target = random_input(torch.float16)
    loss = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    expected = sigmoid_focal_loss(logits.float(), target, 2.0, 0.25, None, 'none')
    assert torch.equal(loss, expected.half())
    loss.sum().backward()
    assert logits.grad.dtype == torch.float16


def test_weight_is_that_of_the_own_class_and_background_counts_once():
    logits = torch.zeros(3, 2)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 1, 2]), 2.0, 0.25, torch.tensor([10.0, 100.0]), 'none')
    own, other = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    torch.testing.assert_close(loss, torch.tensor([[10 * own, 10 * other], [100 * other, 100 * own], [other, other]]))


def test_labels_outside_are_background():
    logits, _ = random_input(count=3)
    outside, background = torch.tensor([-1, 8, 999]), torch.tensor([7, 7, 7])
    weight = torch.full((7,), 5.0)
    for given in (None, weight):
        losses = [sigmoid_focal_loss(logits, target, 2.0, 0.25, given, 'none') for target in (outside, background)]
        assert torch.equal(*losses)


def test_nothing_to_do():
    logits = torch.zeros(0, 4, requires_grad=True)
    sigmoid_focal_loss(logits, torch.zeros(0, dtype=torch.int64), 2.0, 0.25, torch.ones(4), 'sum').backward()
    assert logits.grad.shape == (0, 4)
