"""Centerness guided: central locations count more in the class loss."""

from __future__ import annotations

from torch import Tensor

from mmdet_gfl.models.task_modules import Positives
from mmdet_gfl.registry import MODELS

from .guided import GuidedQuality


@MODELS.register_module()
class CenternessGuided(GuidedQuality):
    """The positives' class loss is weighted by their centerness; ``box_weight='auto'`` is the centerness too."""

    auto_box_weight = 'quality'

    def target(self, positives: Positives) -> Tensor:
        """Centerness of the locations in their objects, (P,)."""
        return positives.centerness
