"""The pass of :mod:`.fused_quality_focal_loss` over the levels of a head, where they lie.

No level is permuted; what is kept for the backward is one tensor of the size of all logits. The pass serves each loss
whose background is eq. (2) at y = 0: Quality Focal Loss, and the focal loss for one-hot labels (arXiv:1708.02002). Its
background, ``-(1 - α) σ^γ log(1 - σ)``, is the same with γ for β, times a factor.

Letters: N images, A priors a cell, C classes, R locations of the batch, P positives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_gfl.models.task_modules import Layout, Outputs

from .fused_quality_focal_loss import background_, value_and_slope
from .utils import modulating_factor

#: Entries that go through all operations together: on a CPU they should stay in its cache, elsewhere fill the device.
BLOCK_ON_CPU, BLOCK = 2**17, 2**24


def focal_loss_of_levels(
    logits: Outputs,
    labels: Tensor,
    of_positives: Callable[[Tensor], Tensor],
    weights: Tensor | None,
    beta: float,
    share: float = 1.0,
) -> Tensor:
    """Weighted sum of the loss of all locations, a scalar.

    Args:
        logits: Class logits; all locations but its positives are background.
        labels: Labels of the positives, (P,) in [0, C). The loss is NaN with any other: visible, and no index error.
        of_positives: The loss (P,) of the positives' logits (P,) at their labels.
        weights: Weights of all locations, (R,); None: 1.
        beta: β of the background.
        share: Factor of the background.
    """
    picked, num_classes = logits.picked, logits.width
    wrong = (labels < 0) | (labels >= num_classes)
    at = picked.entries(num_classes, labels.clamp(0, num_classes - 1))
    scale = logits.levels[0].new_ones((), dtype=logits.dtype)
    weights_at = torch.where(wrong, torch.nan, scale if weights is None else weights[picked.pos])
    of_groups = None if weights is None else _by_group(weights * share, picked.layout)
    if weights is None and share != 1:
        of_groups = [scale * share] * len(logits.levels)
    levels = [level.reshape(-1, num_classes, level[0, 0].numel()) for level in logits.levels]
    total: Tensor = _Fused.apply(at, of_positives, weights_at, of_groups, beta, *levels)
    return total


def one_hot_focal_loss(logits: Tensor, gamma: float, alpha: float) -> Tensor:
    """Focal loss of logits at their labels, ``-α (1 - σ)^γ log σ``."""
    return alpha * modulating_factor((-logits).sigmoid(), gamma) * F.softplus(-logits)


class _Fused(torch.autograd.Function):
    """See :func:`focal_loss_of_levels`."""

    @staticmethod
    def forward(
        ctx: Any,
        at: Tensor,
        of_positives: Callable[[Tensor], Tensor],
        weights_at: Tensor,
        weights: Sequence[Tensor] | None,
        beta: float,
        *levels: Tensor,
    ) -> Tensor:
        """The background's pass, with the positives' entries put in.

        Args:
            ctx: Autograd's context.
            at: These entries, (P,), by their place in the levels laid flat one behind the other.
            of_positives: Their loss.
            weights_at: Their weights, (P,) or a single one.
            weights: Factors of each level's background, (groups, 1, H · W) or a single one; None: 1.
            beta: β.
            *levels: Logits; a level is (groups, C, H · W), where a group is one prior of the cells in one image.
        """
        sizes = [level.numel() for level in levels]
        dtype = torch.promote_types(levels[0].dtype, torch.float32)
        x = torch.empty(sum(sizes), dtype=dtype, device=levels[0].device)
        parts = [part.view(level.shape) for part, level in zip(x.split(sizes), levels)]
        for part, level in zip(parts, levels):
            part.copy_(level)
        value, slope = value_and_slope(x[at], of_positives)
        x[at] = -torch.inf
        sums = [background_(block, beta, weight).sum() for block, weight in _blocks(parts, weights)]
        x[at] = slope * weights_at
        ctx.save_for_backward(x)
        ctx.like = [(level.shape, level.dtype) for level in levels]
        return torch.stack([(value * weights_at).sum(), *sums]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The kept slope, scaled."""
        (slope,) = ctx.saved_tensors
        parts = (slope * grad).split([shape.numel() for shape, _ in ctx.like])
        grads = [part.view(shape).to(dtype) for part, (shape, dtype) in zip(parts, ctx.like)]
        return None, None, None, None, None, *grads


def _by_group(weights: Tensor, layout: Layout) -> list[Tensor]:
    """Weights (R,) as (groups, 1, H · W) of each level."""
    levels = weights.split([end - start for start, end in zip(layout.starts, layout.starts[1:])])
    return [
        level.reshape(layout.num_images, high * wide, num_priors).transpose(1, 2).reshape(-1, 1, high * wide)
        for level, (high, wide), num_priors in zip(levels, layout.sizes, layout.num_priors)
    ]


def _blocks(parts: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Contiguous blocks of parts (groups, C, H · W), each with the weights of its groups."""
    size = BLOCK_ON_CPU if parts[0].device.type == 'cpu' else BLOCK
    for level, part in enumerate(parts):
        weight = None if weights is None else weights[level]
        if weight is None or weight.dim() == 0:
            yield from ((block, weight) for block in part.flatten().split(size))
            continue
        _, num_classes, cells = part.shape
        step = max(1, size // (num_classes * cells))
        for groups, of_groups in zip(part.split(step), weight.split(step)):
            channels = num_classes if step > 1 else max(1, size // cells)
            yield from ((block, of_groups) for block in groups.split(channels, dim=1))
