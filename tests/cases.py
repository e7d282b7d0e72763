"""Heads beside their MMDetection heads, and batches for them."""

from __future__ import annotations

import copy
from typing import Any, Callable

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

STRIDES = [8, 16, 32, 64, 128]
CHANNELS = 16


def gfl_config(head: str = 'mmdet_gfl.GFLHead', ours: bool = True, **changes: Any) -> ConfigDict:
    """A small GFL head; ``ours`` chooses whose losses are inside; ``changes`` replace arguments."""
    prefix = 'mmdet_gfl.' if ours else ''
    cfg = dict(
        type=head,
        num_classes=5,
        in_channels=CHANNELS,
        feat_channels=CHANNELS,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=4, requires_grad=True),
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES
        ),
        loss_cls=dict(type=f'{prefix}QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type=f'{prefix}DistributionFocalLoss', loss_weight=0.25),
        reg_max=16,
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
        test_cfg=dict(
            nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=100
        ),
    )
    cfg.update(changes)
    return ConfigDict(copy.deepcopy(cfg))


def build(cfg: ConfigDict) -> nn.Module:
    """The head, with outputs large enough that scores pass thresholds and distributions are no longer flat."""
    head = MODELS.build(cfg)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in head.named_parameters():
        if parameter.dim() > 1:
            std = 0.3 if 'convs' in name else 0.15
            parameter.data = torch.randn(parameter.shape, generator=generator) * std
        elif name.endswith('bias'):
            parameter.data.fill_(-2.0 if name.endswith('_cls.bias') else 0.0)
    return head


def features(sizes: tuple[int, int], images: int, requires_grad: bool = False) -> list[Tensor]:
    """Features of images of (height, width) pixels on all levels."""
    generator = torch.Generator().manual_seed(2)
    levels = [torch.randn(images, CHANNELS, -(-sizes[0] // s), -(-sizes[1] // s), generator=generator) for s in STRIDES]
    return [level.requires_grad_(requires_grad) for level in levels]


def objects(counts: list[int], size: tuple[int, int], num_classes: int = 5, seed: int = 3) -> list[InstanceData]:
    """``counts`` random objects an image of (height, width); some reach over the border, as after a crop."""
    generator = torch.Generator().manual_seed(seed)
    high, wide = size
    result = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([wide, high]) * 0.8
        extent = torch.rand(count, 2, generator=generator) * torch.tensor([wide, high]) * 0.6 + 4
        labels = torch.randint(0, num_classes, (count,), generator=generator)
        result.append(InstanceData(bboxes=torch.cat((corner, corner + extent), dim=1), labels=labels))
    return result


def metas(size: tuple[int, int], images: int, scale: tuple[float, float] = (1.0, 1.0)) -> list[dict]:
    """Meta information of images of (height, width)."""
    one = dict(img_shape=size, pad_shape=size, scale_factor=scale)
    return [dict(one, img_path=f'image-{index}.jpg') for index in range(images)]


def totals(losses: dict[str, Any]) -> dict[str, Tensor]:
    """Each key of a loss dict summed over the levels; keys without ``loss`` left out."""
    return {k: sum(v) if isinstance(v, (list, tuple)) else v for k, v in losses.items() if 'loss' in k}


def loss_and_gradients(head: nn.Module, feats: list[Tensor], *targets: Any) -> tuple[dict[str, Tensor], dict]:
    """Sum of each loss, and the gradients of their sum to the parameters and the features by name."""
    losses = totals(head.loss_by_feat(*head(feats), *targets))
    inputs = dict(head.named_parameters()) | {f'level {i}': level for i, level in enumerate(feats)}
    grads = torch.autograd.grad(sum(losses.values()), list(inputs.values()), allow_unused=True)
    return {k: v.detach() for k, v in losses.items()}, dict(zip(inputs, grads))


def named(what: str) -> Callable[[str], str]:
    """For ``assert_close``: its message behind the name of what is compared."""
    return lambda message: f'{what}: {message}'


def assert_same_training(ours: nn.Module, theirs: nn.Module, feats: list[Tensor], *targets: Any) -> None:
    """Each loss to 1e-5, each gradient to 1e-4 of its maximum."""
    our_losses, our_grads = loss_and_gradients(ours, feats, *targets)
    their_losses, their_grads = loss_and_gradients(theirs, feats, *targets)
    assert our_losses.keys() == their_losses.keys()
    for key, value in their_losses.items():
        torch.testing.assert_close(
            our_losses[key].sum(), value.sum(), rtol=1e-5, atol=1e-7, msg=named(key)
        )
    for name, grad in their_grads.items():
        if grad is None:  # theirs leaves a parameter out where nothing depends on it; ours gives it zeros
            assert our_grads[name] is None or our_grads[name].abs().max() == 0, name
            continue
        limit = 1e-4 * grad.abs().max().item()
        torch.testing.assert_close(our_grads[name], grad, rtol=0, atol=max(limit, 1e-9), msg=named(name))


def assert_same_detections(ours: list[InstanceData], theirs: list[InstanceData], least: int = 1) -> None:
    """The same boxes, scores and labels in the same order, and at least ``least`` in all."""
    assert sum(len(result) for result in theirs) >= least
    for our, their in zip(ours, theirs):
        assert len(our) == len(their)
        assert torch.equal(our.labels, their.labels)
        torch.testing.assert_close(our.scores, their.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(our.bboxes, their.bboxes, rtol=1e-5, atol=1e-3)
