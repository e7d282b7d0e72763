"""Centerness branch: one output per location learns how central it lies in its object (FCOS, arXiv:1904.01355)."""

from __future__ import annotations

from torch import Tensor

from mmdet_gfl.models.task_modules import Positives
from mmdet_gfl.registry import MODELS

from .base import Quality


@MODELS.register_module()
class CenternessBranch(Quality):
    """A branch learns the centerness of the positives; its sigmoid multiplies the class score at test time.

    This is MMDetection's FCOS and ATSS. ``box_weight='auto'`` is the centerness.
    """

    branch = True
    auto_box_weight = 'quality'

    def target(self, positives: Positives) -> Tensor:
        """Centerness of the locations in their objects, (P,)."""
        return positives.centerness
