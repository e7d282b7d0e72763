"""Shared by all loss modules: weighting, reduction, and errors of wrong settings."""

import math

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from mmdet_gfl.analysis.fake_gpu import DEVICE, FakeGPU, moved, values
from mmdet_gfl.registry import MODELS

SOFT_LABEL_LOSSES = ('QualityFocalLoss', 'VarifocalLoss', 'MatchabilityAwareLoss')
NAMES = (*SOFT_LABEL_LOSSES, 'DistributionFocalLoss', 'GeneralizedFocalLoss', 'GaussianNLLLoss')


def inputs(name: str) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(6, generator=generator)
    if name in SOFT_LABEL_LOSSES:
        return torch.randn(6, 3, generator=generator), (torch.tensor([0, 1, 2, 3, 3, 3]), target)
    return torch.randn(6, 2, generator=generator), target


every_loss = pytest.mark.parametrize('name', NAMES)


def build(name: str, **settings) -> nn.Module:
    return MODELS.build(dict(type=f'mmdet_gfl.{name}', **settings))


@every_loss
def test_the_prefix_finds_ours_in_the_registry_of_mmdetection(name):
    loss = MMDET_MODELS.build(dict(type=f'mmdet_gfl.{name}', loss_weight=0.5))
    assert type(loss).__module__.startswith('mmdet_gfl.') and type(loss).__name__ == name
    if name in ('QualityFocalLoss', 'DistributionFocalLoss'):
        assert type(MMDET_MODELS.build(dict(type=name))).__module__.startswith('mmdet.')
    assert not list(loss.parameters()) and not list(loss.buffers())


@every_loss
def test_reductions(name):
    pred, target = inputs(name)
    each = build(name, reduction='none')(pred, target)
    assert each.shape == (6,) and (each != 0).all()
    weight = torch.arange(6.0)
    loss = build(name, loss_weight=3.0)
    torch.testing.assert_close(loss(pred, target), 3 * each.mean())
    torch.testing.assert_close(loss(pred, target, weight), 3 * (each * weight).mean())
    torch.testing.assert_close(loss(pred, target, torch.tensor(2.0)), 6 * each.mean())
    torch.testing.assert_close(loss(pred, target, weight, avg_factor=5), 3 * (each * weight).sum() / 5)
    torch.testing.assert_close(loss(pred, target, avg_factor=torch.tensor(5.0)), 3 * each.sum() / 5)
    torch.testing.assert_close(loss(pred, target, weight, reduction_override='sum'), 3 * (each * weight).sum())
    torch.testing.assert_close(loss(pred, target, weight, 5.0, 'none'), 3 * each * weight)
    torch.testing.assert_close(build(name, reduction='sum')(pred, target), each.sum())


@every_loss
def test_in_inference_mode_the_value_is_the_same(name):
    expected = build(name)(*inputs(name))
    with torch.inference_mode():
        assert torch.equal(build(name)(*inputs(name)), expected)


@every_loss
def test_an_avg_factor_of_0_gives_a_finite_loss(name):
    assert build(name)(*inputs(name), avg_factor=0.0).isfinite()


@every_loss
@pytest.mark.parametrize('shape', [(6, 1), (1, 6), (5,), (6, 3), (0,), (1, 1)])
def test_a_weight_of_another_shape_raises(name, shape):
    with pytest.raises(ValueError, match=r'unreduced loss, \(6,\).*got a torch.float32 tensor of shape'):
        build(name)(*inputs(name), torch.ones(shape))


@every_loss
def test_wrong_settings_raise(name):
    with pytest.raises(ValueError, match="reduction must be one of .*'sum'.*got 'average'"):
        build(name, reduction='average')
    with pytest.raises(ValueError, match="reduction_override must be None or one of .*got 'avg'"):
        build(name)(*inputs(name), reduction_override='avg')
    for bad in (math.nan, '1', None):
        with pytest.raises(ValueError, match='loss_weight must be a finite number, got'):
            build(name, loss_weight=bad)
    with pytest.raises(ValueError, match='avg_factor can not be used with reduction="sum"'):
        build(name, reduction='sum')(*inputs(name), avg_factor=2.0)


@every_loss
def test_no_host_synchronization(name):
    pred, target = inputs(name)
    loss = build(name)(pred.requires_grad_(), target)
    loss.backward()
    with FakeGPU() as gpu:
        module, there, labels = build(name).to(DEVICE), moved(pred), moved(target)
        gpu.host_syncs.clear()
        result = module(there, labels)
        result.backward()
        assert gpu.host_syncs == []
    torch.testing.assert_close(values(result), loss)
    torch.testing.assert_close(values(there.grad), pred.grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@every_loss
def test_no_synchronization_on_a_gpu_and_the_same_under_autocast(name):
    pred, target = inputs(name)
    want = build(name)(pred, target)
    pred = pred.cuda().requires_grad_()
    target = tuple(part.cuda() for part in target) if isinstance(target, tuple) else target.cuda()
    torch.cuda.set_sync_debug_mode('error')
    try:
        with torch.autocast('cuda', dtype=torch.half):
            loss = build(name)(pred, target)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    torch.testing.assert_close(loss.detach().cpu(), want)
    assert pred.grad.isfinite().all()
