"""Dirac delta of a box side: one number, in the host's own coding, with the host's own loss."""

from __future__ import annotations

from torch import Tensor

from mmdet_gfl.models.task_modules import Locations, Targets
from mmdet_gfl.registry import MODELS

from .base import BoxHead, BoxRepresentation


@MODELS.register_module()
class DiracBox(BoxRepresentation):
    """MMDetection's boxes: four numbers coded by the host, trained by its ``loss_bbox`` on its inputs."""

    uses_host_coder = True

    def decode(self, bbox_pred: Tensor, locations: Locations, head: BoxHead) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, from the host's four numbers (M, 4)."""
        return head.host_coder.decode(bbox_pred, locations)

    def losses(
        self, bbox_pred: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, avg_factor: Tensor, head: BoxHead
    ) -> dict[str, Tensor]:
        """``loss_bbox``; all sides of a box have its weight."""
        pred, target = head.host_coder.loss_inputs(bbox_pred, boxes, targets)
        # MMDetection's element-wise losses need weights (P, 4); its IoU losses take their mean over the sides.
        weight = weights[:, None].expand(-1, 4)
        return dict(loss_bbox=head.loss_bbox(pred, target, weight, avg_factor=avg_factor))
