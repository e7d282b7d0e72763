"""IoU branch: one output per location learns the IoU of its box and its object (IoU-Net, IoU-aware RetinaNet)."""

from __future__ import annotations

from mmdet_gfl.registry import MODELS

from .base import Quality


@MODELS.register_module()
class IoUBranch(Quality):
    """A branch learns the IoU of the positives' decoded boxes; its sigmoid multiplies the class score at test time.

    The IoU is detached. ``box_weight='auto'`` is 1 and not the IoU: at the start nearly all IoUs of FCOS are 0, and a
    box loss weighted by them would never start.
    """

    branch = True
    branch_loss_key = 'loss_iou'
