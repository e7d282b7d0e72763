"""IoU guided: well localized boxes count more in the class loss (IoU-balanced loss, arXiv:1908.05641)."""

from __future__ import annotations

from mmdet_gfl.registry import MODELS

from .guided import GuidedQuality


@MODELS.register_module()
class IoUGuided(GuidedQuality):
    """The positives' class loss is weighted by the detached IoU of their boxes; ``box_weight='auto'`` is 1."""
