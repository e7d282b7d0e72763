"""Assigned quality: the class score learns what a dynamic assigner has measured (RTMDet, arXiv:2212.07784)."""

from __future__ import annotations

from torch import Tensor

from mmdet_gfl.models.task_modules import Positives
from mmdet_gfl.registry import MODELS

from .joint import JointQuality


@MODELS.register_module()
class AssignedQuality(JointQuality):
    """The class score of a positive learns the quality that its assigner measured; all else learns 0.

    It is a :class:`JointQuality`, whose target comes with the assignment, see :attr:`Targets.quality`: for RTMDet's
    assigner the IoU of the decoded box and its object. ``box_weight='auto'`` is that quality too.
    """

    auto_box_weight = 'quality'
    needs_assigned_quality = True

    def target(self, positives: Positives) -> Tensor:
        """The quality that the assigner measured, (P,) in [0, 1]; raise ``ValueError`` if it has measured none."""
        if positives.assigned_quality is None:
            raise ValueError(
                'quality=AssignedQuality learns Targets.quality, which is None; a host with assigns_quality = True '
                'sets it in targets()'
            )
        return positives.assigned_quality
