"""ATSS (arXiv:1912.02424) on a grid of anchors, at a cost that grows with the objects, not with objects times anchors.

MMDetection's ``ATSSAssigner`` measures distance and IoU of every anchor and every object, and then looks at the k
nearest of each level. Here the k nearest are found first. An anchor is a cell of a grid; let i be the rank of its row
among all rows by distance from the object's centre, and j that of its column, both from 0. Each cell whose row has a
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

from mmdet_gfl.ops.iou import iou_of_sides, sides_of

from .anchor_grid import AnchorGrid
from .layout import tensor_like
from .point_grid import images_of

#: How far inside its object the centre of a positive lies at least, in pixels.
MARGIN = 0.01


class Candidates(NamedTuple):
    """The k nearest anchors of each level, nearest first.

    Attributes:
        cells: Column and row, (2 axes, G, L, k) int64.
        real: Whether there is such an anchor, (G, L, k): a level may have fewer than k.
    """

    cells: Tensor
    real: Tensor


def atss_owners(grid: AnchorGrid, boxes: list[Tensor], k: int) -> Tensor:
    """The object that each location belongs to.

    Args:
        grid: The anchors.
        boxes: Objects of each image, (its number, 4), xyxy in pixels.
        k: Candidates a level.

    Returns:
        (R,) int64: an object, counted through the batch from 0; G at the background.
    """
    objects = torch.cat(boxes)
    images = images_of(boxes)
    near = nearest(grid, objects, images, k)
    sides = grid.sides[:, :, None, :, None] + near.cells * grid.strides[:, None, :, None]  # (sides, axes, G, L, k)
    gt = sides_of(objects)[..., None, None]  # (sides, axes, G, 1, 1)
    iou = iou_of_sides(sides, gt)
    centers = sides.sum(dim=0) / 2
    inside = torch.minimum(centers - gt[0], gt[1] - centers).amin(dim=0) > MARGIN
    positive = (iou >= _thresholds(iou, grid, k, [len(of_image) for of_image in boxes])) & inside & near.real
    return _by_largest_iou(grid, _numbers(grid, near, images), iou, positive)


def nearest(grid: AnchorGrid, objects: Tensor, images: Tensor, k: int) -> Candidates:
    """The k nearest anchors of each level to the centres of ``objects`` (G, 4), which lie in ``images`` (G,)."""
    reach = min(k, max(max(size) for size in grid.layout.sizes))
    lines, squares = _nearest_lines(grid, objects, images, reach)  # (axes, G, L, reach)
    ranks = [(i, j) for i in range(reach) for j in range(reach) if (i + 1) * (j + 1) <= k]  # Q pairs
    rows, columns = (tensor_like(lines, rank) for rank in zip(*ranks))
    distances = (squares[0][..., columns] + squares[1][..., rows]).sqrt()  # (G, L, Q)
    distances, which = distances.topk(min(k, len(ranks)), largest=False)
    cells = torch.stack((lines[0].gather(-1, columns[which]), lines[1].gather(-1, rows[which])))
    return Candidates(cells, distances.isfinite())


def _nearest_lines(grid: AnchorGrid, objects: Tensor, images: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """The ``reach`` nearest columns and rows of each level, (axes, G, L, reach), and their squared distances.

    They are looked for among those up to ``reach`` from the nearest one: one more on each side than can be needed,
    which makes up for rounding when the nearest is computed. A distance is infinite where there is no such line.
    """
    low, high, strides = (side[:, None, :, None] for side in (*grid.sides, grid.strides))  # (axes, 1, L, 1)
    at = ((objects[:, :2] + objects[:, 2:]) / 2.0).t()[..., None, None]  # (axes, G, 1, 1)
    count = tensor_like(images, grid.valid)[images].permute(2, 0, 1)[..., None]  # (axes, G, L, 1)
    closest = ((at - (low + high) / 2) / strides).round().nan_to_num(0.0).clamp(min=0).minimum(count - 1).long()
    first = (closest - reach).clamp(min=0)
    lines = first + torch.arange(2 * reach + 1, device=objects.device)  # (axes, G, L, 2 reach + 1)
    shift = lines * strides
    squares = (((low + shift) + (high + shift)) / 2 - at).square().masked_fill(lines >= count, torch.inf)
    squares, order = squares.sort(dim=-1, stable=True)
    return lines.gather(-1, order[..., :reach]), squares[..., :reach]


def _thresholds(iou: Tensor, grid: AnchorGrid, k: int, per_image: list[int]) -> Tensor:
    """Mean plus standard deviation of each object's candidates: ``iou`` (G, L, k) to (G, 1, 1).

    Candidates that are not real do not count. Which are is known beforehand: the first ones of each level, as many as
    it has valid anchors; the images that agree in this, as all but tiny ones do, are computed together.
    """
    parts = list(iou.split(per_image))
    counts = [tuple(min(k, wide * high) for wide, high in image) for image in grid.valid]
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


def _numbers(grid: AnchorGrid, near: Candidates, images: Tensor) -> Tensor:
    """Numbers of the candidates' locations, (G, L, k); 0 where they are not real."""
    layout = grid.layout
    table = tensor_like(images, [(start, high, wide) for start, (high, wide) in zip(layout.starts, layout.sizes)])
    start, high, wide = table.t()[..., None].unbind(0)  # (L, 1) each
    column, row = near.cells
    return (start + (images[:, None, None] * high + row) * wide + column).masked_fill(~near.real, 0)


def _by_largest_iou(grid: AnchorGrid, numbers: Tensor, iou: Tensor, positive: Tensor) -> Tensor:
    """Owners (R,) of the locations: of the objects with it as a positive, that of the largest IoU, then the first."""
    at = numbers.flatten()
    iou = iou.masked_fill(~positive, -1).flatten()
    best = iou.new_full((grid.layout.total,), -1).scatter_reduce(0, at, iou, 'amax')
    wins = positive.flatten() & (iou == best[at])
    none = len(numbers)
    candidates = torch.arange(none, device=at.device).repeat_interleave(numbers[0].numel() if none else 0)
    owners = at.new_full((grid.layout.total,), none)
    return owners.scatter_reduce(0, at, candidates.masked_fill(~wins, none), 'amin')
