"""FCOS's assignment (arXiv:1904.01355) at a cost that grows with the objects, not with objects times points.

A point is an object's if it lies in the object (with center sampling: within a radius of its centre too), and the
largest distance to a side lies in the range of the level. Both leave a rectangle of cells a level; only those are
looked at, by the same operations as in MMDetection's ``FCOSHead``, so the result is the same. Where several objects
claim a point, the smallest has it.

Dimension letters: L levels, G objects of the batch, R locations of the batch, T cells looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .layout import tensor_like
from .point_grid import Claims, PointGrid, claims_of, images_of, owners_by_rank


def fcos_owners(
    grid: PointGrid, boxes: Sequence[Tensor], ranges: Sequence[tuple[float, float]], radius: float | None
) -> Tensor:
    """The object that each location belongs to.

    Args:
        grid: The points.
        boxes: Objects of each image, (its number, 4), xyxy in pixels.
        ranges: Smallest and largest distance of each level, in pixels.
        radius: Of the center sampling, in strides; None: no center sampling.

    Returns:
        (R,) int64: an object, counted through the batch from 0; G at the background.
    """
    objects = torch.cat(list(boxes))
    low, high = tensor_like(objects, ranges).unbind(1)  # (L,) each
    reach = None if radius is None else grid.strides[:, 0] * radius
    claims = _rectangles(grid, objects, high, reach)
    gt = objects[claims.gt]  # (T, 4)
    points = grid.points(claims.level, claims.x, claims.y)
    sides = torch.cat((points - gt[:, :2], gt[:, 2:] - points), dim=1)
    inside = sides.amin(dim=1) > 0
    if reach is not None:
        center, around = (gt[:, :2] + gt[:, 2:]) / 2, reach[claims.level, None]
        first, last = (center - around).maximum(gt[:, :2]), (center + around).minimum(gt[:, 2:])
        inside = torch.cat((points - first, last - points), dim=1).amin(dim=1) > 0
    farthest = sides.amax(dim=1)
    valid = inside & (farthest >= low[claims.level]) & (farthest <= high[claims.level])
    areas = (objects[:, 2] - objects[:, 0]) * (objects[:, 3] - objects[:, 1])
    return owners_by_rank(grid.layout, claims, images_of(boxes), valid, areas.sort(stable=True).indices)


def _rectangles(grid: PointGrid, objects: Tensor, high: Tensor, reach: Tensor | None) -> Claims:
    """Cells whose points may be an object's, one too many on each side for the rounding."""
    start, end = objects[:, None, :2], objects[:, None, 2:]  # (G, 1, 2)
    first, last = start.maximum(end - high[:, None]), end.minimum(start + high[:, None])  # (G, L, 2)
    if reach is not None:
        center = (start + end) / 2
        first, last = first.maximum(center - reach[:, None]), last.minimum(center + reach[:, None])
    farthest = tensor_like(grid.strides, [(wide, high) for high, wide in grid.layout.sizes])  # keeps integers small
    columns = (bound / grid.strides - grid.offset for bound in (first, last))
    first, last = (column.nan_to_num(0.0).clamp(min=-1).minimum(farthest) for column in columns)
    return claims_of(grid.layout, first.floor().long(), last.ceil().long())
