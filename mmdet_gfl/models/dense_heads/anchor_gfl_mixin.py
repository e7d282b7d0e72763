"""Shared by hosts with anchors: targets, the box coder, and the initial distances of their boxes.

Dimension letters: N images, A anchors per cell, R anchors of the batch, P positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.assigners import BboxOverlaps2D
from mmdet.models.task_modules.coders import BaseBBoxCoder, LegacyDeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from mmdet_gfl.models.boxes import HostBoxCoder
from mmdet_gfl.models.task_modules import (
    AnchorGrid,
    AssignmentBatch,
    Locations,
    Targets,
    build_targets,
    count_positives_per_image,
    targets_from_levels,
)

from .dense_gfl_mixin import DenseGFLMixin
from .predict_mixin import scalar_stride

#: Methods of MMDetection's heads that assign targets.
ASSIGNMENT_METHODS = ('get_anchors', 'get_targets', '_get_targets_single')


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
    """A :class:`DenseGFLMixin` for hosts with anchors and a ``bbox_coder``.

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

    def prior_distances(self) -> Tensor:
        """Half the anchors of a cell, (A, 4), in strides; those of the first level, since all share one layer."""
        return half_anchors(self.prior_generator, 0)

    def targets(self, batch: AssignmentBatch) -> Targets:
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

    def clip(self, boxes: Tensor, corners: Tensor) -> Tensor:
        """Boxes (M, 4) clipped to their images; with ``LegacyDeltaXYWHBBoxCoder`` to the last pixels, as it does."""
        return super().clip(boxes, corners - int(isinstance(self.bbox_coder, LegacyDeltaXYWHBBoxCoder)))

    def all_locations(self, anchors: Sequence[Any]) -> Locations:
        """Locations of the anchors of each level of an image."""
        levels = [get_box_tensor(level) for level in anchors]
        strides = [level.new_full((len(level),), stride) for level, stride in zip(levels, self.level_strides)]
        return Locations.of_priors(torch.cat(levels), torch.cat(strides))

    def assigns_like_stock(self, batch: AssignmentBatch) -> bool:
        """True if the anchors are an :class:`AnchorGrid` and the assigner alone decides which are matched.

        That is, no ignored region matters, and nothing of the assignment of :attr:`stock_head` is overridden.
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
            and all(getattr(type(self), name) is getattr(self.stock_head, name) for name in ASSIGNMENT_METHODS)
        )

    def targets_on_grid(
        self, batch: AssignmentBatch, grid: AnchorGrid, matched_gt_inds: Tensor, weights: Tensor | None
    ) -> Targets:
        """Targets from ``matched_gt_inds``, see :func:`build_targets`, as MMDetection counts and weighs them.

        ``weights`` (R,) are those of the locations; ``train_cfg.pos_weight``, if positive, replaces the positives'.
        """
        targets = build_targets(
            batch.index, matched_gt_inds, batch.batch_gt_instances, grid.anchors_at, self.level_strides
        )
        per_image = count_positives_per_image(targets.pos)
        pos_weight = self.train_cfg['pos_weight']
        if pos_weight > 0:
            weights = grid.sides.new_ones(batch.index.total) if weights is None else weights
            weights[targets.pos.flat_inds] = pos_weight
        return targets._replace(avg_factor=per_image.clamp(min=1).sum(), label_weights=weights)


def half_anchors(generator: AnchorGenerator, level: int) -> Tensor:
    """Distances l, t, r, b from the centres of the anchors of a level to their sides, (A, 4), in strides."""
    anchors = generator.base_anchors[level]
    half = (anchors[:, 2:] - anchors[:, :2]) / 2 / scalar_stride(generator.strides[level])
    return torch.cat((half, half), dim=1)
