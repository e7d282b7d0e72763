"""Shared by hosts with anchors: targets, normalizers, the box coder, and the initial distances of their boxes.

Dimension letters: N images, A anchors per cell, R anchors of the batch, P positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.task_modules.assigners import BboxOverlaps2D
from mmdet.models.task_modules.coders import BaseBBoxCoder, LegacyDeltaXYWHBBoxCoder
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from mmdet_gfl.models.boxes import HostBoxCoder
from mmdet_gfl.models.task_modules import (
    AnchorGrid,
    AssignmentBatch,
    Locations,
    MaxIoURules,
    Targets,
    build_targets,
    match_max_iou,
    targets_from_levels,
)

from .dense_gfl_mixin import DenseGFLMixin
from .normalizers import weight_normalizers

#: Methods of MMDetection's heads that assign targets; the last is ATSS's alone.
ASSIGNMENT_METHODS = ('get_anchors', 'get_targets', '_get_targets_single', 'get_num_level_anchors_inside')


class AnchorBoxCoder(HostBoxCoder):
    """Four numbers by MMDetection's ``bbox_coder``, relative to the anchor.

    ``on_boxes``: the box loss is given boxes in pixels, as an IoU loss must be; else the four numbers.
    """

    def __init__(self, coder: BaseBBoxCoder, on_boxes: bool) -> None:
        self.coder = coder
        self.on_boxes = on_boxes

    def decode(self, bbox_pred: Tensor, locations: Locations) -> Tensor:
        """Boxes (M, 4), xyxy in pixels."""
        return get_box_tensor(self.coder.decode(locations.priors, bbox_pred))

    def encode(self, boxes: Tensor, locations: Locations) -> Tensor:
        """The coder's four numbers (M, 4)."""
        return self.coder.encode(locations.priors, boxes)


class AnchorGFLMixin(DenseGFLMixin):
    """A :class:`DenseGFLMixin` for hosts with anchors and a ``bbox_coder``; matching and normalizers are RetinaNet's.

    ``reg_decoded_bbox`` says what the loss of a Dirac box is given; targets are always boxes.
    """

    reg_decoded_bbox: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_on_boxes = self.reg_decoded_bbox
        self.reg_decoded_bbox = True  # `get_targets` then gives the objects, which the coder encodes where needed
        self.validate_box_loss()

    @property
    def host_coder(self) -> HostBoxCoder:
        """The ``bbox_coder``'s."""
        return AnchorBoxCoder(self.bbox_coder, self.loss_on_boxes)

    def prior_distances(self, level: int = 0) -> Tensor:
        """Half the anchors of a cell, (A, 4), in strides; those of the first level where all levels share one layer."""
        anchors = self.prior_generator.base_anchors[level]
        half = (anchors[:, 2:] - anchors[:, :2]) / 2 / self.level_strides[level]
        return torch.cat((half, half), dim=1)

    def targets(self, batch: AssignmentBatch) -> Targets:
        """The host's assignment: on the grid where that is the same, see :meth:`on_grid`, else by MMDetection's."""
        if not self.on_grid(batch):
            return self.stock_targets(batch)
        grid = AnchorGrid.of(self.prior_generator, batch.index, batch.batch_img_metas, batch.device)
        matched, weights = self.match(grid, batch.gt_bboxes)
        targets = build_targets(batch.index, matched, batch.batch_gt_instances, grid.anchors_at, self.level_strides)
        pos_weight = self.train_cfg['pos_weight']
        if pos_weight > 0:
            weights = grid.sides.new_ones(batch.index.total) if weights is None else weights
            weights[targets.pos.flat_inds] = pos_weight
        at_least_one = [max(count, 1) for count in targets.pos.per_image]  # as MMDetection counts
        return targets._replace(avg_factor=float(sum(at_least_one)), label_weights=weights)

    def stock_targets(self, batch: AssignmentBatch) -> Targets:
        """Assignment by MMDetection's ``get_targets``, flattened."""
        gts, metas = batch.usable_gt_instances, batch.batch_img_metas
        anchors, flags = self.get_anchors(batch.featmap_sizes, metas, device=batch.device)
        locations = self.all_locations(anchors[0])  # before get_targets joins the list
        # ATSSHead puts the anchors before what AnchorHead returns.
        labels, label_weights, boxes, _, avg_factor = self.get_targets(
            anchors, flags, gts, metas, batch_gt_instances_ignore=batch.batch_gt_instances_ignore
        )[-5:]
        targets = targets_from_levels(batch, labels, boxes, label_weights, locations, self.num_classes)
        return targets._replace(avg_factor=avg_factor)

    def all_locations(self, anchors: Sequence[Any]) -> Locations:
        """Locations of the anchors of each level of an image."""
        levels = [get_box_tensor(level) for level in anchors]
        strides = [level.new_full((len(level),), stride) for level, stride in zip(levels, self.level_strides)]
        return Locations.of_priors(torch.cat(levels), torch.cat(strides))

    def match(self, grid: AnchorGrid, boxes: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """``matched_gt_inds`` (R,), see :func:`build_targets`, and the weights (R,) of the locations; None: all 1."""
        return match_max_iou(grid, boxes, MaxIoURules.of(self.assigner))

    def on_grid(self, batch: AssignmentBatch) -> bool:
        """True if :meth:`match` is equal to this head's ``get_targets``."""
        return MaxIoURules.fit(self.assigner) and self.assigns_as(AnchorHead, batch)

    def assigns_as(self, host: Any, batch: AssignmentBatch) -> bool:
        """True if the anchors are an :class:`AnchorGrid` and the assigner alone decides which are matched.

        That is, no ignored region matters, and the assignment is that of MMDetection's ``host``.
        """
        assigner = self.assigner
        overlaps = assigner.iou_calculator
        ignores = assigner.ignore_iof_thr > 0 and any(map(len, batch.batch_gt_instances_ignore or ()))
        return (
            not ignores
            and type(overlaps) is BboxOverlaps2D
            and (overlaps.scale, overlaps.dtype) == (1.0, None)
            and type(self.sampler) is PseudoSampler
            and self.train_cfg['allowed_border'] < 0
            and AnchorGrid.fits(self.prior_generator)
            and all(getattr(type(self), name, None) is getattr(host, name, None) for name in ASSIGNMENT_METHODS)
        )

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Σ over images of max(1, positives) for all; Σ of the weights for boxes that a quality weights, as on FCOS.

        Divided by a count, boxes weighted by a score of 0.01 would hardly be learned.
        """
        count = targets.avg_factor
        return weight_normalizers(count, weights, (0.0, 1e-6), count if self.box_weight == 'uniform' else None)

    def clip(self, boxes: Tensor, corners: Tensor) -> Tensor:
        """Boxes (M, 4) clipped to their images; with ``LegacyDeltaXYWHBBoxCoder`` to the last pixels, as it does."""
        return super().clip(boxes, corners - int(isinstance(self.bbox_coder, LegacyDeltaXYWHBBoxCoder)))
