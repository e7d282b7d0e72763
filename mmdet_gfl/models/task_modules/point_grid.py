"""Points as a regular grid, and the cells of it that objects may claim.

Dimension letters: L levels, N images, R locations of the batch, G objects of the batch, T cells of their rectangles, M
any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from torch import Tensor

from mmdet_gfl.ops import LocationCoords, LocationIndex, constant_like, floor_divmod


class PointGrid(NamedTuple):
    """The points of a batch, one per cell.

    Attributes:
        location_index: The index of the locations.
        strides: (L, 2) of x and y, in pixels.
        offset: Where the point lies in its cell, in strides.
    """

    location_index: LocationIndex
    strides: Tensor
    offset: float

    @classmethod
    def of(cls, generator: MlvlPointGenerator, index: LocationIndex, device: Any) -> PointGrid:
        """Describe what ``generator`` makes for an index."""
        strides = torch.tensor([list(stride) for stride in generator.strides], dtype=torch.float32)
        return cls(index, strides.to(device, non_blocking=True), generator.offset)

    @staticmethod
    def fits(generator: Any) -> bool:
        """True if the priors of ``generator`` are such a grid."""
        return type(generator) is MlvlPointGenerator

    def points(self, level: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Points of cells, (M, 2), xy in pixels; to the bit those of the generator."""
        return (torch.stack((x, y), dim=1) + self.offset) * self.strides[level]

    def points_at(self, coords: LocationCoords) -> Tensor:
        """:meth:`points` at coordinates."""
        return self.points(coords.level, coords.x, coords.y)


class Claims(NamedTuple):
    """The cells of rectangles, one after the other, (T,) int64 each.

    Attributes:
        gt: Object whose rectangle it is, counted through the batch.
        level: Level of the cell.
        y: Row.
        x: Column.
    """

    gt: Tensor
    level: Tensor
    y: Tensor
    x: Tensor


def claimed_cells(index: LocationIndex, first: Tensor, last: Tensor) -> Claims:
    """The cells in rectangles, which are clipped to the level's feature map; synchronizes once, for their number.

    Args:
        index: Sizes of the levels.
        first: Smallest column and row of each object's rectangle on each level, (G, L, 2).
        last: Largest, (G, L, 2); smaller than ``first`` where the rectangle is empty.
    """
    largest = constant_like(first, [(w - 1, h - 1) for h, w in index.featmap_sizes])  # (L, 2)
    which, x, y = cells_in(first.clamp(min=0).flatten(0, 1), last.minimum(largest).flatten(0, 1))
    levels = len(index.featmap_sizes)
    return Claims(which // levels, which % levels, y, x)


def cells_in(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cells of rectangles, one after the other, row by row; synchronizes once, for their number.

    Args:
        first: Smallest column and row, (M, 2) int64.
        last: Largest, (M, 2); smaller than ``first`` where the rectangle is empty.

    Returns:
        The rectangle, column and row of each cell, (T,) each.
    """
    w, h = (last - first + 1).clamp(min=0).unbind(1)
    count = w * h
    which = torch.repeat_interleave(count)  # (T,)
    within = torch.arange(len(which), device=which.device) - (count.cumsum(0) - count)[which]
    row, column = floor_divmod(within, w[which])
    return which, first[which, 0] + column, first[which, 1] + row


def match_by_rank(index: LocationIndex, claims: Claims, images: Tensor, valid: Tensor, ranking: Tensor) -> Tensor:
    """The object that each location is matched to: of those with a valid claim the first in the ranking.

    Args:
        index: The index of the locations.
        claims: T claims.
        images: Image of each object, (G,).
        valid: Which claims count, (T,).
        ranking: All objects, the one that wins first, (G,).

    Returns:
        ``matched_gt_inds`` (R,) int64; G at the background.
    """
    count = len(ranking)
    flat_inds = index.flat_inds(claims.level, images[claims.gt], claims.y, claims.x)
    ranks = torch.empty_like(ranking).scatter_(0, ranking, torch.arange(count, device=ranking.device))
    best = images.new_full((index.total,), count)
    best = best.scatter_reduce(0, flat_inds, ranks[claims.gt].masked_fill(~valid, count), 'amin')
    return torch.cat((ranking, ranking.new_full((1,), count)))[best]


def image_inds(boxes: Sequence[Tensor]) -> Tensor:
    """Image of each object, (G,) int64, for the boxes of each image."""
    return torch.cat([of_image.new_full((len(of_image),), i, dtype=torch.long) for i, of_image in enumerate(boxes)])
