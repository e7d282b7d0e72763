"""ATSS (arXiv:1912.02424) on a grid of anchors, at a cost that grows with the objects, not with objects times anchors.

MMDetection's ``ATSSAssigner`` measures distance and IoU of every anchor and every object, and then uses the k nearest
of each level. Here the k nearest are found first. An anchor is a cell of a grid; let i be the rank of its row among all
rows by distance from the object's centre, and j that of its column, both from 0. Each cell whose row has a
rank up to i and whose column has a rank up to j is at least as near: (i + 1)(j + 1) cells, itself among them. So the
cells with (i + 1)(j + 1) <= k hold k nearest ones, wherever the centre lies, in the grid or off it, and whatever the
strides are: 23 cells for k = 9. And the row of rank i lies at most i rows from the nearest one.

Distance, IoU and threshold are computed by the same operations as there, so the positives are the same, but for objects
with exact ties in distance, where any choice among the tied is k nearest.

Dimension letters: L levels, N images, R locations of the batch, G objects of the batch, k nearest of a level, Q cells
that may be among them. An axis is x (0) or y (1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_gfl.ops import box_sides, constant_like, iou_of_sides

from .anchor_grid import AnchorGrid
from .ground_truth import is_usable
from .point_grid import image_inds

#: How far inside its object the centre of a positive lies at least, in pixels.
MARGIN = 0.01


class NearestAnchors(NamedTuple):
    """The k nearest anchors of each level, nearest first."""

    cells: Tensor  #: column and row, (2 axes, G, L, k) int64
    real: Tensor  #: whether there is such an anchor, (G, L, k): a level may have fewer than k


def match_atss(grid: AnchorGrid, boxes: list[Tensor], k: int) -> Tensor:
    """``matched_gt_inds`` (R,) int64, see :func:`build_targets`, of ATSS with ``k`` candidates per level.

    ``boxes`` are the objects of each image, (objects, 4), xyxy in pixels.
    """
    objects = torch.cat(boxes)
    images = image_inds(boxes)
    near = nearest(grid, objects, images, k)
    sides = grid.sides[:, :, None, :, None] + near.cells * grid.strides[:, None, :, None]  # (sides, axes, G, L, k)
    gt = box_sides(objects)[..., None, None]  # (sides, axes, G, 1, 1)
    iou = iou_of_sides(sides, gt)
    centers = sides.sum(dim=0) / 2
    inside = torch.minimum(centers - gt[0], gt[1] - centers).amin(dim=0) > MARGIN
    thresholds = _thresholds(iou, grid, k, [len(of_image) for of_image in boxes])
    positive = (iou >= thresholds) & inside & near.real & is_usable(objects)[:, None, None]
    return _by_largest_iou(grid, _flat_inds(grid, near, images), iou, positive)


def nearest(grid: AnchorGrid, objects: Tensor, images: Tensor, k: int) -> NearestAnchors:
    """The k nearest anchors of each level to the centres of ``objects`` (G, 4), which lie in ``images`` (G,)."""
    radius = min(k, max(max(size) for size in grid.location_index.featmap_sizes))
    lines, squares = _nearest_lines(grid, objects, images, radius)  # (axes, G, L, radius)
    ranks = [(i, j) for i in range(radius) for j in range(radius) if (i + 1) * (j + 1) <= k]  # Q pairs
    rows, columns = (constant_like(lines, rank) for rank in zip(*ranks))
    distances = (squares[0][..., columns] + squares[1][..., rows]).sqrt()  # (G, L, Q)
    distances, which = distances.topk(min(k, len(ranks)), largest=False)
    cells = torch.stack((lines[0].gather(-1, columns[which]), lines[1].gather(-1, rows[which])))
    return NearestAnchors(cells, distances.isfinite())


def _nearest_lines(grid: AnchorGrid, objects: Tensor, images: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The ``radius`` nearest columns and rows of each level, (axes, G, L, radius), and their squared distances.

    They are searched among those up to ``radius`` from the nearest one: one more on each side than can be needed,
    which makes up for rounding when the nearest is computed. A distance is infinite where there is no such line.
    """
    low, high, strides = (side[:, None, :, None] for side in (*grid.sides, grid.strides))  # (axes, 1, L, 1)
    at = ((objects[:, :2] + objects[:, 2:]) / 2.0).t()[..., None, None]  # (axes, G, 1, 1)
    count = constant_like(images, grid.valid)[images].permute(2, 0, 1)[..., None]  # (axes, G, L, 1)
    closest = ((at - (low + high) / 2) / strides).round().nan_to_num(0.0).clamp(min=0).minimum(count - 1).long()
    first = (closest - radius).clamp(min=0)
    lines = first + torch.arange(2 * radius + 1, device=objects.device)  # (axes, G, L, 2 radius + 1)
    shift = lines * strides
    squares = (((low + shift) + (high + shift)) / 2 - at).square().masked_fill(lines >= count, torch.inf)
    squares, order = squares.sort(dim=-1, stable=True)
    return lines.gather(-1, order[..., :radius]), squares[..., :radius]


def _thresholds(iou: Tensor, grid: AnchorGrid, k: int, per_image: list[int]) -> Tensor:
    """Mean plus standard deviation of each object's candidates: ``iou`` (G, L, k) to (G, 1, 1).

    Candidates that are not real do not count. Which are real is known beforehand: the first ones of each level, as many
    as it has valid anchors. Images that agree in this, as all but tiny ones do, are computed together.
    """
    parts = list(iou.split(per_image))
    counts = [tuple(min(k, w * h) for w, h in image) for image in grid.valid]
    thresholds = [iou.new_empty(0) for _ in parts]
    for count in set(counts):
        members = [image for image, own in enumerate(counts) if own == count and per_image[image]]
        if not members:
            continue
        joint = torch.cat([parts[image] for image in members])
        real = torch.cat([joint[:, level, :number] for level, number in enumerate(count)], dim=1).t()  # (real, G)
        found = (real.mean(0) + real.std(0)).split([per_image[image] for image in members])
        for image, threshold in zip(members, found):
            thresholds[image] = threshold
    return torch.cat(thresholds)[:, None, None]


def _flat_inds(grid: AnchorGrid, near: NearestAnchors, images: Tensor) -> Tensor:
    """Flat indices of the candidates, (G, L, k); 0 where they are not real."""
    levels = torch.arange(len(grid.location_index.featmap_sizes), device=images.device)[:, None]  # (L, 1)
    column, row = near.cells
    return grid.location_index.flat_inds(levels, images[:, None, None], row, column).masked_fill(~near.real, 0)


def _by_largest_iou(grid: AnchorGrid, flat_inds: Tensor, iou: Tensor, positive: Tensor) -> Tensor:
    """``matched_gt_inds`` (R,): of the objects that claim the location, that of the largest IoU, then the first."""
    at = flat_inds.flatten()
    iou = iou.masked_fill(~positive, -1).flatten()
    best = iou.new_full((grid.location_index.total,), -1).scatter_reduce(0, at, iou, 'amax')
    wins = positive.flatten() & (iou == best[at])
    num_gts = len(flat_inds)
    gts = torch.arange(num_gts, device=at.device).repeat_interleave(flat_inds[0].numel() if num_gts else 0)
    matched = at.new_full((grid.location_index.total,), num_gts)
    return matched.scatter_reduce(0, at, gts.masked_fill(~wins, num_gts), 'amin')
