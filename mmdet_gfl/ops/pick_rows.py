"""Some locations' predictions, read where they lie: no level is permuted, copied or kept for the backward.

Dimension letters: N images, A priors a cell, R locations of the batch, P picked ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Image, prior of the cell, row and column of the picked locations of a level, int64 each.
Cells = tuple[Tensor, Tensor, Tensor, Tensor]


def rows_of_levels(levels: Sequence[Tensor], width: int) -> Tensor:
    """All locations of a batch in one row each, at least float32: levels (N, A · width, H, W) to (R, width).

    In the order of :class:`~mmdet_gfl.models.task_modules.Layout`.
    """
    return torch.cat([at_least_float(level.permute(0, 2, 3, 1).reshape(-1, width)) for level in levels])


def pick_rows(levels: Sequence[Tensor], width: int, cells: Sequence[Cells]) -> Tensor:
    """The rows of :func:`rows_of_levels` at ``cells``, (P, width).

    Args:
        levels: (N, A · width, H, W) each, of any strides.
        width: Outputs a location.
        cells: The picked locations of each level; none may be there twice.
    """
    rows: Tensor = _PickRows.apply(cells, width, *levels)
    return rows


class _PickRows(torch.autograd.Function):
    """See :func:`pick_rows`; the gradient of a level is zeros with the picked rows written into them, once."""

    @staticmethod
    def forward(ctx: Any, cells: Sequence[Cells], width: int, *levels: Tensor) -> Tensor:
        ctx.cells, ctx.width = cells, width
        ctx.like = [(level.shape, level.dtype, memory_format(level)) for level in levels]
        return torch.cat([at_least_float(_at(level, width, of_level)) for level, of_level in zip(levels, cells)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = []
        for (shape, dtype, layout), cells, rows in zip(
            ctx.like, ctx.cells, grad.split([len(of_level[0]) for of_level in ctx.cells])
        ):
            level = torch.empty(shape, dtype=dtype, device=grad.device, memory_format=layout).zero_()
            image, anchor, y, x = cells
            level.unflatten(1, (-1, ctx.width))[image, anchor, :, y, x] = rows.to(dtype)
            grads.append(level)
        return None, None, *grads


def _at(level: Tensor, width: int, cells: Cells) -> Tensor:
    """Rows (P, width) of one level."""
    image, anchor, y, x = cells
    return level.unflatten(1, (-1, width))[image, anchor, :, y, x]


def memory_format(level: Tensor) -> torch.memory_format:
    """Channels last if the level lies so, else contiguous."""
    last = not level.is_contiguous() and level.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def at_least_float(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is narrower."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
