"""No representation of localization quality: one-hot class labels alone."""

from __future__ import annotations

from mmdet_gfl.registry import MODELS

from .base import BoxWeight, Quality


@MODELS.register_module()
class NoQuality(Quality):
    """The class score learns the one-hot label, and alone ranks the boxes.

    ``box_weight='auto'`` is 1, see :class:`Quality`; ``'quality'`` raises ``ValueError``, since there is none.
    """

    def __init__(self, box_weight: BoxWeight = 'auto') -> None:
        super().__init__(box_weight)
        if box_weight == 'quality':
            raise ValueError(
                "quality.box_weight='quality' needs a quality, and NoQuality has none; accepted: auto, score, uniform"
            )
