"""Branches: one output per location learns a measure of localization."""

from __future__ import annotations

from torch import Tensor

from mmdet_gfl.models.task_modules import Positives
from mmdet_gfl.registry import MODELS

from .base import Quality


@MODELS.register_module()
class CenternessBranch(Quality):
    """A branch learns the centerness of the positives; its sigmoid multiplies the class score at test time.

    This is MMDetection's FCOS (arXiv:1904.01355) and ATSS. ``box_weight='auto'`` is the centerness.
    """

    branch = True
    auto_box_weight = 'quality'

    def target(self, positives: Positives) -> Tensor:
        """Centerness of the locations in their objects, (P,)."""
        return positives.centerness


@MODELS.register_module()
class IoUBranch(Quality):
    """A branch learns the IoU of the positives' decoded boxes (IoU-Net, IoU-aware RetinaNet), likewise.

    The IoU is detached. ``box_weight='auto'`` is 1 and not the IoU: at the start nearly all IoUs of FCOS are 0, and a
    box loss weighted by them would never start.
    """

    branch = True
    branch_loss_key = 'loss_iou'
