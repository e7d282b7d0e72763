"""Distances to the sides in strides as they leave the layer, in place of the host's own four numbers."""

from __future__ import annotations

from typing import Any

from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from mmdet_gfl.models.boxes import BoxRepresentation
from mmdet_gfl.models.boxes.base import BoxHead
from mmdet_gfl.models.task_modules import Locations, Targets
from mmdet_gfl.registry import MODELS


@MODELS.register_module()
class LinearBox(BoxRepresentation):
    """The distances l, t, r, b in strides, one number each, trained by an IoU loss of the decoded boxes."""

    def build_modules(self, head: Any) -> dict[str, nn.Module]:
        """``loss_bbox``: the head's, if it compares boxes, else GIoU with weight 2."""
        if 'IoU' in type(head.loss_bbox).__name__:
            return {}
        return dict(loss_bbox=MMDET_MODELS.build(dict(type='GIoULoss', loss_weight=2.0)))

    def init_weights(self, conv: nn.Conv2d, prior_distances: Tensor) -> None:
        """Start at ``prior_distances`` (A, 4) in strides."""
        if conv.bias is not None:
            conv.bias.data = prior_distances.to(conv.bias).flatten()

    def decode(self, bbox_pred: Tensor, locations: Locations, head: BoxHead) -> Tensor:
        """Boxes (M, 4), xyxy in pixels; a distance below 0 counts as 0."""
        return locations.boxes(bbox_pred.clamp(min=0))

    def losses(
        self, bbox_pred: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, avg_factor: Tensor, head: BoxHead
    ) -> dict[str, Tensor]:
        """``loss_bbox`` of the decoded boxes."""
        weight = weights[:, None].expand(-1, 4)
        return dict(loss_bbox=head.loss_bbox(boxes, targets.gt_bboxes, weight, avg_factor=avg_factor))
