"""FCOS (arXiv:1904.01355) as a host of GFL."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.task_modules.coders import BaseBBoxCoder
from torch import Tensor, nn

from mmdet_gfl.models.boxes import HostBoxCoder
from mmdet_gfl.models.losses.utils import check_number
from mmdet_gfl.models.task_modules import AssignmentBatch, Locations, PointGrid, Targets, match_fcos
from mmdet_gfl.registry import MODELS

from .dense_gfl_mixin import DenseGFLMixin
from .normalizers import weight_normalizers
from .points import assigns_as, grid_targets, stock_targets


class PointBoxCoder(HostBoxCoder):
    """The distances l, t, r, b from the point, in pixels, or with ``in_strides`` in strides.

    ``loss_in_strides``: the host's loss gives its coder distances in strides, as FCOS does with ``norm_on_bbox``.
    """

    def __init__(self, coder: BaseBBoxCoder, in_strides: bool, loss_in_strides: bool) -> None:
        self.coder = coder
        self.in_strides = in_strides
        self.loss_in_strides = loss_in_strides

    def decode(self, bbox_pred: Tensor, locations: Locations) -> Tensor:
        """Boxes (M, 4), xyxy in pixels."""
        distances = bbox_pred * locations.strides[:, None] if self.in_strides else bbox_pred
        return self.coder.decode(locations.priors, distances)

    def encode(self, boxes: Tensor, locations: Locations) -> Tensor:
        """Distances (M, 4)."""
        distances = self.coder.encode(locations.priors, boxes)
        return distances / locations.strides[:, None] if self.in_strides else distances

    def loss_inputs(self, bbox_pred: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Boxes around the point, in the unit of the loss: the IoU is the same in each, other losses differ."""
        points, strides = targets.locations.priors, targets.locations.strides[:, None]
        distances = self.coder.encode(points, targets.gt_bboxes)
        if self.loss_in_strides:
            distances, bbox_pred = distances / strides, bbox_pred if self.in_strides else bbox_pred / strides
        return self.coder.decode(points, bbox_pred), self.coder.decode(points, distances)


@MODELS.register_module()
class FCOSGFLHead(DenseGFLMixin, FCOSHead):
    """MMDetection's ``FCOSHead`` with any quality and any box representation; by default full GFL.

    ``CenternessBranch`` with ``DiracBox`` is MMDetection's head. General and Gaussian boxes are in strides, with or
    without ``norm_on_bbox``, and do not go through FCOS's clamp or exponential. ``centerness_on_reg`` says on which
    tower a branch is.
    ``half_anchor`` is the initial distance of a Gaussian box, in strides; 4 is half ATSS's anchor on the same objects.
    """

    stock_head = FCOSHead
    baseline_quality = 'CenternessBranch'
    cls_name = 'conv_cls'
    reg_name = 'conv_reg'
    quality_name = 'conv_centerness'

    def __init__(self, *args: Any, half_anchor: float = 4.0, **kwargs: Any) -> None:
        self.half_anchor = check_number('half_anchor', half_anchor, low=0)
        super().__init__(*args, **kwargs)

    @property
    def host_coder(self) -> PointBoxCoder:
        """Distances in pixels; with ``norm_on_bbox`` in strides while training, as MMDetection's ``forward`` has it."""
        return PointBoxCoder(self.bbox_coder, self.norm_on_bbox and self.training, self.norm_on_bbox)

    def prior_distances(self) -> Tensor:
        """``half_anchor`` strides on each side, (1, 4)."""
        return torch.full((1, 4), self.half_anchor)

    def forward_single(self, x: Tensor, scale: nn.Module, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """One level (N, channels, H, W): class logits, box outputs, branch logits."""
        if self.box.uses_host_coder:
            return super().forward_single(x, scale, stride)
        cls_score, bbox_pred, cls_feat, reg_feat = AnchorFreeHead.forward_single(self, x)
        branch = self.conv_centerness(reg_feat if self.centerness_on_reg else cls_feat)
        return cls_score, scale(bbox_pred).float(), branch

    def targets(self, batch: AssignmentBatch) -> Targets:
        """FCOS's assignment; it does not use ignored regions, as in MMDetection.

        On the grid, unless a subclass has overridden what MMDetection assigns by.
        """
        if assigns_as(self, FCOSHead):
            grid = PointGrid.of(self.prior_generator, batch.index, batch.device)
            radius = self.center_sample_radius if self.center_sampling else None
            matched = match_fcos(grid, batch.gt_bboxes, self.regress_ranges, radius)
            return grid_targets(self, batch, grid, matched)
        return stock_targets(self, batch, lambda points, gts: torch.cat(self.get_targets(points, gts)[0]))

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Classes: positives, at least 1. Boxes: Σ of the weights, at least 1e-6. Means over ranks."""
        return weight_normalizers(targets.avg_factor, weights, (1.0, 1e-6))
