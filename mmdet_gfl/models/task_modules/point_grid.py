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
    """The points of a batch, one per cell."""

    location_index: LocationIndex
    strides: Tensor  #: (L, 2) of x and y, in pixels
    offset: float  #: where the point lies in its cell, in strides

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
    """The cells of rectangles, one after the other, (T,) int64 each."""

    gt: Tensor  #: object whose rectangle it is, counted through the batch
    level: Tensor
    y: Tensor  #: row
    x: Tensor  #: column


def claimed_cells(index: LocationIndex, first: Tensor, last: Tensor) -> Claims:
    """The cells of each object's rectangle on each level, (G, L, 2), clipped to the level; see :func:`cells_in`."""
    largest = constant_like(first, [(w - 1, h - 1) for h, w in index.featmap_sizes])  # (L, 2)
    which, x, y = cells_in(first.clamp(min=0).flatten(0, 1), last.minimum(largest).flatten(0, 1))
    levels = len(index.featmap_sizes)
    return Claims(which // levels, which % levels, y, x)


def cells_in(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rectangle, column and row of each cell in M rectangles, (T,) each, row by row; synchronizes once.

    ``first`` and ``last`` (M, 2) int64 are the smallest and the largest column and row; ``last`` is smaller where the
    rectangle is empty.
    """
    w, h = (last - first + 1).clamp(min=0).unbind(1)
    count = w * h
    which = torch.repeat_interleave(count)  # (T,)
    within = torch.arange(len(which), device=which.device) - (count.cumsum(0) - count)[which]
    row, column = floor_divmod(within, w[which])
    return which, first[which, 0] + column, first[which, 1] + row


def match_by_rank(index: LocationIndex, claims: Claims, images: Tensor, valid: Tensor, ranking: Tensor) -> Tensor:
    """``matched_gt_inds`` (R,) int64: of the objects with a valid claim the first in the ranking; G at the background.

    ``images`` (G,) is the image of each object, ``valid`` (T,) says which claims count, and ``ranking`` (G,) are all
    objects, the one that wins first.
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
