"""Dirac delta of a box side: one number, in the host's own coding, with the host's own loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mmdet_gfl.models.task_modules import Locations, Targets
from mmdet_gfl.registry import MODELS

from .base import BoxRepresentation

if TYPE_CHECKING:
    from mmdet_gfl.models.dense_heads.dense_gfl_mixin import DenseGFLMixin


@MODELS.register_module()
class DiracBox(BoxRepresentation):
    """What MMDetection's head does: four numbers coded by the host, trained by its ``loss_bbox`` in its frame."""

    in_host_coding = True

    def decode(self, raw: Tensor, at: Locations, head: DenseGFLMixin) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, from the host's four numbers (M, 4)."""
        return head.coding.decode(raw, at)

    def losses(
        self, raw: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, norm: Tensor, head: DenseGFLMixin
    ) -> dict[str, Tensor]:
        """``loss_bbox``; a side weighs what its box weighs."""
        pred, target = head.coding.pair(raw, boxes, targets)
        # MMDetection's element-wise losses need weights (P, 4); its IoU losses take their mean over the sides.
        weight = weights[:, None].expand(-1, 4)
        return dict(loss_bbox=head.loss_bbox(pred, target, weight, avg_factor=norm))
