"""Points as what they are, a regular grid, and the cells of it that objects may claim.

Dimension letters: L levels, N images, R locations of the batch, G objects of the batch, T cells of their rectangles, M
any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from torch import Tensor

from .layout import Layout, Places, divide, tensor_like


class PointGrid(NamedTuple):
    """The points of a batch, one a cell.

    Attributes:
        layout: Numbers of the locations.
        strides: (L, 2) of x and y, in pixels.
        offset: Where the point lies in its cell, in strides.
    """

    layout: Layout
    strides: Tensor
    offset: float

    @classmethod
    def of(cls, generator: MlvlPointGenerator, sizes: list[tuple[int, int]], num_images: int, device: Any) -> PointGrid:
        """What ``generator`` makes for feature maps of ``sizes`` (h, w)."""
        strides = torch.tensor([list(stride) for stride in generator.strides], dtype=torch.float32)
        strides = strides.to(device, non_blocking=True)
        return cls(Layout(sizes, num_images, [1] * len(sizes)), strides, generator.offset)

    @staticmethod
    def fits(generator: Any) -> bool:
        """Whether the priors of ``generator`` are such a grid."""
        return type(generator) is MlvlPointGenerator

    def points(self, level: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Points of cells, (M, 2), xy in pixels; to the bit those of the generator."""
        return (torch.stack((x, y), dim=1) + self.offset) * self.strides[level]

    def centers(self, at: Places) -> Tensor:
        """Points of M places, (M, 2), xy in pixels."""
        return self.points(at.level, at.x, at.y)


class Claims(NamedTuple):
    """The cells of rectangles, one after the other, (T,) int64 each.

    Attributes:
        gt: Object that the rectangle belongs to, counted through the batch.
        level: Level of the cell.
        y: Row.
        x: Column.
    """

    gt: Tensor
    level: Tensor
    y: Tensor
    x: Tensor


def claims_of(layout: Layout, first: Tensor, last: Tensor) -> Claims:
    """The cells in rectangles, which are clipped to the level's feature map; a device is asked once, how many.

    Args:
        layout: Sizes of the levels.
        first: Smallest column and row of an object's rectangle on each level, (G, L, 2).
        last: Largest, (G, L, 2); smaller than ``first`` where the rectangle is empty.
    """
    largest = tensor_like(first, [(wide - 1, high - 1) for high, wide in layout.sizes])  # (L, 2)
    which, x, y = cells_of(first.clamp(min=0).flatten(0, 1), last.minimum(largest).flatten(0, 1))
    levels = len(layout.sizes)
    return Claims(which // levels, which % levels, y, x)


def cells_of(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cells of rectangles, one after the other, row by row; a device is asked once, how many.

    Args:
        first: Smallest column and row, (M, 2) int64.
        last: Largest, (M, 2); smaller than ``first`` where the rectangle is empty.

    Returns:
        The rectangle, column and row of each cell, (T,) each.
    """
    wide, high = (last - first + 1).clamp(min=0).unbind(1)
    count = wide * high
    which = torch.repeat_interleave(count)  # (T,)
    within = torch.arange(len(which), device=which.device) - (count.cumsum(0) - count)[which]
    row, column = divide(within, wide[which])
    return which, first[which, 0] + column, first[which, 1] + row


def owners_by_rank(layout: Layout, claims: Claims, images: Tensor, valid: Tensor, ranking: Tensor) -> Tensor:
    """The object that each location belongs to: of those with a valid claim the first in the ranking.

    Args:
        layout: How the locations are numbered.
        claims: T claims.
        images: Image of each object, (G,).
        valid: Which claims count, (T,).
        ranking: All objects, the one that wins first, (G,).

    Returns:
        (R,) int64; G at the background.
    """
    count = len(ranking)
    table = tensor_like(images, [(start, high, wide) for start, (high, wide) in zip(layout.starts, layout.sizes)])
    start, high, wide = table[claims.level].unbind(1)
    numbers = start + (images[claims.gt] * high + claims.y) * wide + claims.x
    ranks = torch.empty_like(ranking).scatter_(0, ranking, torch.arange(count, device=ranking.device))
    best = images.new_full((layout.total,), count)
    best = best.scatter_reduce(0, numbers, ranks[claims.gt].masked_fill(~valid, count), 'amin')
    return torch.cat((ranking, ranking.new_full((1,), count)))[best]


def images_of(boxes: Sequence[Tensor]) -> Tensor:
    """Image of each object, (G,) int64, for the boxes of each image."""
    return torch.cat([of_image.new_full((len(of_image),), i, dtype=torch.long) for i, of_image in enumerate(boxes)])
