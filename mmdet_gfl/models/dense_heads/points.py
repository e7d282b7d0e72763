"""Shared by hosts with one point per location: targets by the assignment on the grid, or by MMDetection's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.models.task_modules import (
    AssignmentBatch,
    PointGrid,
    Targets,
    build_targets,
    labels_as_gt_indices,
    recover_gt_indices,
)

from .dense_gfl_mixin import DenseGFLMixin
from .predict_mixin import scalar_stride


def grid_targets(head: DenseGFLMixin, batch: AssignmentBatch, grid: PointGrid, matched_gt_inds: Tensor) -> Targets:
    """Targets of a head whose points are a :class:`PointGrid`, from ``matched_gt_inds`` (R,)."""
    return build_targets(batch.index, matched_gt_inds, batch.batch_gt_instances, grid.points_at, head.level_strides)


def stock_targets(
    head: DenseGFLMixin, batch: AssignmentBatch, assign: Callable[[list[Tensor], list[InstanceData]], Tensor]
) -> Targets:
    """Targets by MMDetection's ``get_targets``, which is given the objects' indices as their labels.

    ``assign`` gives the labels (R,) of the batch for each level's points (H · W, 2), xy in pixels, and the objects.
    """
    gts = batch.usable_gt_instances
    points = head.prior_generator.grid_priors(batch.featmap_sizes, device=batch.device)
    labels = assign(points, labels_as_gt_indices(gts, head.num_classes))
    matched = recover_gt_indices(labels, head.num_classes, sum(len(gt.labels) for gt in gts))
    all_points = torch.cat(points)
    return build_targets(batch.index, matched, gts, lambda pos: all_points[pos.prior_inds], head.level_strides)


def assigns_as(head: DenseGFLMixin, host: type) -> bool:
    """True if ``head`` has plain points, square cells, and the target assignment of MMDetection's ``host``."""
    names = ('get_targets', '_get_targets_single')
    for stride in head.prior_generator.strides:
        scalar_stride(stride)
    return PointGrid.fits(head.prior_generator) and all(getattr(type(head), n) is getattr(host, n) for n in names)
