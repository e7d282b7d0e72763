"""Assignment by IoU on a grid of anchors, at a cost that grows with the objects, not with objects times anchors.

MMDetection's ``MaxIoUAssigner`` measures the IoU of every anchor and every object. What it does with them depends on
few: on those that reach the lower threshold, and on the largest of each object. Both are found without the others.

The anchors of one shape on one level differ by whole strides. The length that one shares with the object on an axis
does not grow with its distance from the object's centre on that axis, so the largest overlap of a shape is that of the
nearest column and the nearest row. This gives the largest IoU of each shape and object, and the largest of these is the
object's. Let t be the smaller of it and the lower threshold. IoU >= t means an overlap of at least t / (1 + t) of the
two areas' sum; divided by the largest length on one axis that is the length needed on the other, and the columns and
rows that have it are a rectangle of cells. All that matters to MMDetection lies in these rectangles, but for objects
that overlap no anchor: there, all anchors are equally good for these.

The rectangles are found with a margin, against rounding. The IoUs in them are computed by the same operations as there,
so they are the same to the bit, and with them thresholds and ties.

Dimension letters: L levels, N images, S anchor shapes of all levels, R locations of the batch, G objects of the batch,
T cells of the rectangles. An axis is x (0) or y (1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from torch import Tensor

from mmdet_gfl.ops import box_sides, constant_like, floor_divmod, paired_iou
from mmdet_gfl.ops.iou import MIN_UNION

from .anchor_grid import AnchorGrid
from .ground_truth import is_usable
from .point_grid import cells_in, image_inds

#: Share of an IoU that is searched for; the rest is for rounding.
SHARE = 0.99
#: How far the rectangles reach beyond the cells that are needed, in strides; likewise.
MARGIN = 0.0625


class MaxIoURules(NamedTuple):
    """IoU thresholds that make an anchor positive, ignored or negative."""

    positive: float  #: from here on an anchor is matched to the object of its largest IoU
    negative: float  #: below, it is background; from here to ``positive`` it does not count
    least: float | None  #: an object whose largest IoU reaches this has the anchor of this IoU; None if no object has
    all_best: bool  #: it has all anchors of this IoU, else the first

    @classmethod
    def of(cls, assigner: MaxIoUAssigner) -> MaxIoURules:
        """Those of an assigner that :meth:`fit`."""
        least = assigner.min_pos_iou if assigner.match_low_quality else None
        return cls(assigner.pos_iou_thr, assigner.neg_iou_thr, least, assigner.gt_max_assign_all)

    @staticmethod
    def fit(assigner: Any) -> bool:
        """True if ``assigner`` goes by such rules alone; its ``iou_calculator`` and ignored boxes are left out."""
        return (
            type(assigner) is MaxIoUAssigner
            and isinstance(assigner.neg_iou_thr, float)
            and min(assigner.pos_iou_thr, assigner.neg_iou_thr) > 0
            and assigner.perm_repeat_gt_cfg is None
        )

    @property
    def lowest(self) -> float:
        """IoUs below matter only where they are an object's largest."""
        return min(self.positive, self.negative)


class Pairs(NamedTuple):
    """Anchors and objects whose IoU may matter, (T,) each; no pair comes twice."""

    gt: Tensor  #: object, counted through the batch
    flat_inds: Tensor  #: location of the anchor
    iou: Tensor
    largest: Tensor  #: largest IoU of the anchor with any object


def match_max_iou(grid: AnchorGrid, boxes: list[Tensor], rules: MaxIoURules) -> tuple[Tensor, Tensor | None]:
    """``matched_gt_inds`` (R,) int64, see :func:`build_targets`, and which locations count.

    That is weights (R,): 0 at anchors that are not valid or neither positive nor background, else 1; None if all are
    known to be 1. An object that is not usable is matched to nothing, see :func:`is_usable`. ``boxes`` are the objects
    of each image, (objects, 4), xyxy in pixels.
    """
    objects, images = torch.cat(boxes), image_inds(boxes)
    pairs = pairs_of(grid, objects, images, rules)
    weights = grid.label_weights()
    claims = _claims(grid, pairs, images, is_usable(objects), weights, rules)
    none = len(objects)
    if rules.negative < rules.positive:
        weights = objects.new_ones(len(claims), dtype=grid.sides.dtype) if weights is None else weights
        between = (pairs.largest >= rules.negative) & (claims[pairs.flat_inds] == 0)
        weights.scatter_(0, pairs.flat_inds, (~between).to(weights))
    return torch.where(claims > none, claims - none - 1, none - claims), weights


def pairs_of(grid: AnchorGrid, objects: Tensor, images: Tensor, rules: MaxIoURules) -> Pairs:
    """The pairs of ``objects`` (G, 4) in ``images`` (G,); synchronizes once, for their number."""
    levels = grid.levels
    first, last = _rectangles(grid, objects, images, rules)
    which, x, y = cells_in(first.flatten(0, 1), last.flatten(0, 1))
    gt, shape = floor_divmod(which, len(levels))
    level = levels[shape]
    anchor = shape - torch.searchsorted(levels, level)
    flat_inds = grid.location_index.flat_inds(level, images[gt], y, x, anchor)
    iou = paired_iou(objects[gt], grid.anchors(level, y, x, anchor))
    largest = iou.new_zeros(grid.location_index.total).scatter_reduce(0, flat_inds, iou, 'amax')[flat_inds]
    return Pairs(gt, flat_inds, iou, largest)


def _rectangles(grid: AnchorGrid, objects: Tensor, images: Tensor, rules: MaxIoURules) -> tuple[Tensor, Tensor]:
    """Smallest and largest column and row of the cells to search, (G, S, 2 axes) int64; empty ones end before 0."""
    levels = grid.levels
    low, high = grid.sides[:, :, None]  # (axes, 1, S)
    strides = grid.strides[:, None, levels]
    start, end = box_sides(objects)[..., None]  # (axes, G, 1)
    final = constant_like(images, grid.valid)[images][:, levels].permute(2, 0, 1) - 1  # (axes, G, S)

    shared = _longest_shared(low, high, start, end, strides, final)
    areas = (high - low).prod(0) + (end - start).prod(0)  # (G, S)
    overlap = shared.prod(0)
    iou = overlap / (areas - overlap).clamp(min=MIN_UNION)
    least = iou.new_full((), rules.lowest)
    if rules.least is not None:
        least = iou.amax(dim=1, keepdim=True).minimum(least)  # (G, 1)
    least = least * SHARE
    searched = (iou >= least) & (overlap > 0) & is_usable(objects)[:, None]
    needed = least / (1 + least) * areas / shared.flip(0)  # (axes, G, S)
    first = ((start + needed - high) / strides - MARGIN).ceil().clamp(min=0).masked_fill(~searched, 0)
    last = ((end - needed - low) / strides + MARGIN).floor().minimum(final).masked_fill(~searched, -1)
    return first.permute(1, 2, 0).long(), last.permute(1, 2, 0).long()


def _longest_shared(low: Tensor, high: Tensor, start: Tensor, end: Tensor, strides: Tensor, final: Tensor) -> Tensor:
    """The longest stretch of an axis that an anchor of a shape shares with an object, (axes, G, S) in pixels.

    That of the nearest of the cells 0 to ``final``, which is one of the two beside the object's centre.
    """
    before = ((start + end - low - high) / 2 / strides).floor()

    def shared(cells: Tensor) -> Tensor:
        shift = cells.clamp(min=0).minimum(final) * strides
        return (end.minimum(high + shift) - start.maximum(low + shift)).clamp(min=0)

    return shared(before).maximum(shared(before + 1))


def _claims(
    grid: AnchorGrid, pairs: Pairs, images: Tensor, usable: Tensor, weights: Tensor | None, rules: MaxIoURules
) -> Tensor:
    """The strongest claim on each location, (R,) int64, which says whose it is.

    0 is nobody's. Object g claims the anchors that it is the best of with G - g, so that of equal ones the first wins;
    and with G + 1 + g those that are the best of it, so that of these the last wins.
    """
    none, total = len(images), grid.location_index.total
    wins = (pairs.iou == pairs.largest) & (pairs.iou >= rules.positive)
    claims = (none - pairs.gt).masked_fill(~wins, 0)
    if rules.least is None:
        return claims.new_zeros(total).scatter_reduce(0, pairs.flat_inds, claims, 'amax')
    best = pairs.iou.new_zeros(none).scatter_reduce(0, pairs.gt, pairs.iou, 'amax')  # (G,)
    claiming = (best >= rules.least) & usable
    strong = torch.arange(none + 1, 2 * none + 1, device=images.device).masked_fill(~claiming, 0)
    ties = (pairs.iou == best[pairs.gt]) & claiming[pairs.gt]
    if not rules.all_best:
        first = images.new_full((none,), total).scatter_reduce(
            0, pairs.gt, pairs.flat_inds.masked_fill(~ties, total), 'amin'
        )
        ties &= pairs.flat_inds == first[pairs.gt]
    claims = torch.where(ties, strong[pairs.gt], claims)
    start = _claims_without_overlap(grid, strong.masked_fill(best > 0, 0), images, weights, rules.all_best)
    return start.scatter_reduce(0, pairs.flat_inds, claims, 'amax')


def _claims_without_overlap(
    grid: AnchorGrid, strong: Tensor, images: Tensor, weights: Tensor | None, all_best: bool
) -> Tensor:
    """The claims (R,) of objects that overlap no anchor: as in MMDetection, all valid anchors are their best, of IoU 0.

    ``strong`` (G,) are the claims of these objects, 0 those of the others; ``weights`` (R,) say which anchors are
    valid. Unless ``all_best``, only the first of the image is claimed.
    """
    index = grid.location_index
    if not all_best:
        return images.new_zeros(index.total).scatter_reduce(0, images * index.level_sizes[0], strong, 'amax')
    of_image = images.new_zeros(index.num_images).scatter_reduce(0, images, strong, 'amax')
    claims = torch.cat([of_image[:, None].expand(-1, size).flatten() for size in index.level_sizes])
    return claims if weights is None else claims.masked_fill_(weights == 0, 0)
