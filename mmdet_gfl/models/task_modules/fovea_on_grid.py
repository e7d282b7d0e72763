"""FoveaBox's assignment (arXiv:1904.03797), all objects at once.

On the levels that suit its size an object is matched to the cells of its fovea, a shrunk copy of its box. The
rectangles are computed by the same operations as in MMDetection's ``FoveaHead``, which paints them one by one. Where
foveas overlap, the cell is matched to the smallest object; of equally large ones to the last.

Dimension letters: L levels, G objects of the batch, R locations of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_gfl.ops import constant_like

from .ground_truth import is_usable
from .point_grid import PointGrid, claimed_cells, image_inds, match_by_rank


def match_fovea(
    grid: PointGrid, boxes: Sequence[Tensor], ranges: Sequence[tuple[float, float]], sigma: float
) -> Tensor:
    """``matched_gt_inds`` (R,) int64, see :func:`build_targets`, of FoveaBox.

    ``boxes`` are the objects of each image, (objects, 4), xyxy in pixels; ``ranges`` the smallest and largest size of
    the objects of each level, the root of their area in pixels; ``sigma`` is the share of the box that is fovea, along
    each axis.
    """
    objects = torch.cat(list(boxes))
    sizes = torch.sqrt((objects[:, 2] - objects[:, 0]) * (objects[:, 3] - objects[:, 1]))  # (G,)
    low, high = constant_like(objects, ranges).unbind(1)
    suits = (sizes[:, None] >= low) & (sizes[:, None] <= high) & is_usable(objects)[:, None]  # (G, L)
    start, end = (side[:, None] / grid.strides for side in (objects[:, :2], objects[:, 2:]))  # (G, L, 2)
    half = 0.5 * (end - start)
    last_cells = constant_like(objects, [(w - 1, h - 1) for h, w in grid.location_index.featmap_sizes])
    bounds = (torch.ceil(start + (1 - sigma) * half - 0.5), torch.floor(start + (1 + sigma) * half - 0.5))
    first, last = (bound.nan_to_num(0.0).clamp(min=0).minimum(last_cells).long() for bound in bounds)
    claims = claimed_cells(grid.location_index, first, torch.where(suits[..., None], last, -1))
    painted = (-sizes).sort(stable=True).indices  # the last one stays
    valid = torch.ones_like(claims.gt, dtype=torch.bool)
    return match_by_rank(grid.location_index, claims, image_inds(boxes), valid, painted.flip(0))
