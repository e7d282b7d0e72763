"""FCOS's assignment (arXiv:1904.01355) at a cost that grows with the objects, not with objects times points.

A point is matched to an object if it lies in the object (with center sampling: also within a radius of its centre), and
the largest distance to a side lies in the range of the level. Both conditions leave a rectangle of cells per level.
Only these are tested, by the same operations as in MMDetection's ``FCOSHead``, so the result is the same. Where several
objects claim a point, it is matched to the smallest.

Dimension letters: L levels, G objects of the batch, R locations of the batch, T cells tested.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_gfl.ops import constant_like

from .point_grid import Claims, PointGrid, claimed_cells, image_inds, match_by_rank


def match_fcos(
    grid: PointGrid, boxes: Sequence[Tensor], ranges: Sequence[tuple[float, float]], radius: float | None
) -> Tensor:
    """``matched_gt_inds`` (R,) int64, see :func:`build_targets`, of FCOS.

    ``boxes`` are the objects of each image, (objects, 4), xyxy in pixels; ``ranges`` the smallest and largest distance
    of each level, in pixels; ``radius`` is that of the center sampling, in strides, None without.
    """
    objects = torch.cat(list(boxes))
    low, high = constant_like(objects, ranges).unbind(1)  # (L,) each
    radii = None if radius is None else grid.strides[:, 0] * radius
    claims = _rectangles(grid, objects, high, radii)
    gt = objects[claims.gt]  # (T, 4)
    points = grid.points(claims.level, claims.x, claims.y)
    sides = torch.cat((points - gt[:, :2], gt[:, 2:] - points), dim=1)
    inside = sides.amin(dim=1) > 0
    if radii is not None:
        center, around = (gt[:, :2] + gt[:, 2:]) / 2, radii[claims.level, None]
        first, last = (center - around).maximum(gt[:, :2]), (center + around).minimum(gt[:, 2:])
        inside = torch.cat((points - first, last - points), dim=1).amin(dim=1) > 0
    farthest = sides.amax(dim=1)
    valid = inside & (farthest >= low[claims.level]) & (farthest <= high[claims.level])
    areas = (objects[:, 2] - objects[:, 0]) * (objects[:, 3] - objects[:, 1])
    return match_by_rank(grid.location_index, claims, image_inds(boxes), valid, areas.sort(stable=True).indices)


def _rectangles(grid: PointGrid, objects: Tensor, high: Tensor, radii: Tensor | None) -> Claims:
    """Cells whose points may be matched to an object, one more than needed on each side against rounding."""
    start, end = objects[:, None, :2], objects[:, None, 2:]  # (G, 1, 2)
    first, last = start.maximum(end - high[:, None]), end.minimum(start + high[:, None])  # (G, L, 2)
    if radii is not None:
        center = (start + end) / 2
        first, last = first.maximum(center - radii[:, None]), last.minimum(center + radii[:, None])
    # Keeps integers small.
    farthest = constant_like(grid.strides, [(w, h) for h, w in grid.location_index.featmap_sizes])
    columns = (bound / grid.strides - grid.offset for bound in (first, last))
    first, last = (column.nan_to_num(0.0).clamp(min=-1).minimum(farthest) for column in columns)
    return claimed_cells(grid.location_index, first.floor().long(), last.ceil().long())
