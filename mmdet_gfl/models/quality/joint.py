"""Joint representation: the class score itself learns the quality, with Quality Focal Loss (section 3.1 of GFL)."""

from __future__ import annotations

from typing import Any

from mmdet.models.losses import FocalLoss
from mmengine.logging import print_log
from torch import Tensor

from mmdet_gfl.models.losses import classification_loss, takes_quality
from mmdet_gfl.models.task_modules import Positives, Targets
from mmdet_gfl.ops import LevelPredictions
from mmdet_gfl.registry import MODELS

from .base import BoxWeight, Quality, QualityHead

#: γ, α and weight of the focal loss in MMDetection's configs: the second of FoveaBox.
STOCK_FOCAL_LOSSES = ((2.0, 0.25, 1.0), (1.5, 0.4, 1.0))


def _is_stock(loss_cls: dict[str, Any]) -> bool:
    """True for the focal loss that every stock config of these hosts names."""
    arguments = (loss_cls.get(name, start) for name, start in (('gamma', 2.0), ('alpha', 0.25), ('loss_weight', 1.0)))
    return loss_cls['type'] in ('FocalLoss', 'mmdet.FocalLoss', FocalLoss) and tuple(arguments) in STOCK_FOCAL_LOSSES


@MODELS.register_module()
class JointQuality(Quality):
    """The class score of a positive learns the IoU of its decoded box and its object; all else learns 0.

    Args:
        loss_cls: The class loss; takes logits (R, C) and ``(labels, qualities)``. Default: the head's own ``loss_cls``
            where it is such a loss, else Quality Focal Loss with β = 2 and weight 1. A head's ``loss_cls`` for one-hot
            labels is superseded, with one log line where it is not the focal loss of MMDetection's configs.
        box_weight: See :class:`Quality`; ``'auto'`` is the class score.

    Raises:
        ValueError: ``loss_cls`` does not take ``(labels, qualities)``.
    """

    auto_box_weight = 'score'
    soft_labels = True

    def __init__(self, loss_cls: dict[str, Any] | None = None, box_weight: BoxWeight = 'auto') -> None:
        super().__init__(box_weight)
        if loss_cls is not None and not takes_quality(loss_cls):
            raise ValueError(
                f'loss_cls={loss_cls!r} does not take the (labels, qualities) of a joint representation; use '
                f"dict(type='mmdet_gfl.QualityFocalLoss', beta=2.0, loss_weight=1.0). A loss of your own that takes "
                f'them says so by the class attribute takes_quality = True'
            )
        self.loss_cls = loss_cls

    def loss_cls_cfg(self, head_loss_cls: dict[str, Any] | None) -> dict[str, Any]:
        """This quality's class loss, else the head's if it takes qualities, else Quality Focal Loss."""
        chosen = self.loss_cls or dict(type='mmdet_gfl.QualityFocalLoss', beta=2.0, loss_weight=1.0)
        if head_loss_cls is not None and self.loss_cls is None and takes_quality(head_loss_cls):
            chosen = head_loss_cls
        elif head_loss_cls is not None and not _is_stock(head_loss_cls):
            print_log(
                f'bbox_head.loss_cls={head_loss_cls["type"]} is superseded by {chosen["type"]} of the joint '
                f'quality; remove it from the config, or choose a quality with one-hot labels',
                logger='current',
            )
        # MMDetection's heads add a background channel where the key is missing, whatever the loss's own default.
        return dict(use_sigmoid=True) | dict(chosen)

    def class_loss(
        self, logits: LevelPredictions, targets: Targets, positives: Positives, avg_factor: Tensor, head: QualityHead
    ) -> Tensor:
        """QFL of all locations (eq. 2), divided by ``avg_factor``."""
        quality = self.target(positives)
        return classification_loss(
            head.loss_cls, logits, targets.pos, targets.labels, quality, targets.label_weights, avg_factor
        )
