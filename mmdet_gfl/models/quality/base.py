"""Base class of the representations of localization quality."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from mmdet_gfl.models.boxes.base import BoxRepresentation
from mmdet_gfl.models.losses import takes_quality
from mmdet_gfl.models.task_modules import Positives, Targets
from mmdet_gfl.ops import LevelPredictions

BoxWeight = Literal['auto', 'quality', 'score', 'uniform']


class QualityHead(Protocol):
    """The parts of a head that a quality may use."""

    box: BoxRepresentation
    loss_cls: Any
    loss_centerness: Any
    hard_label_loss: Callable[..., Tensor]  #: see :meth:`DenseGFLMixin.hard_label_loss`


class Quality:
    """A representation of localization quality: how the head learns it, and how it weighs the box losses.

    The object is stateless: it holds hyper-parameters, no parameters, no buffers and no losses (those are attributes of
    the head, see :meth:`build_modules`). A subclass is one file in this folder.

    Args:
        box_weight: The weight of a positive in the box losses. ``'quality'``: the measured :meth:`target`. ``'score'``:
            the location's largest class score, detached, as in the code released with GFL. ``'uniform'``: 1.
            ``'auto'``: :attr:`auto_box_weight`, on hosts that weight their boxes at all.

    Raises:
        ValueError: ``box_weight`` is not one of these.
    """

    #: Whether the head has one more output per location, whose sigmoid multiplies the class score at test time.
    branch: ClassVar[bool] = False
    #: Name of the branch's loss.
    branch_loss_key: ClassVar[str] = 'loss_centerness'
    #: Value of ``box_weight='auto'``.
    auto_box_weight: ClassVar[str] = 'uniform'
    #: Whether the class score learns the quality (soft labels), or 1 (hard labels).
    soft_labels: ClassVar[bool] = False
    #: Whether the quality weighs the positives in a class loss for hard labels.
    reweights_labels: ClassVar[bool] = False
    #: Whether the assigner has to measure the quality, see :attr:`Targets.quality`.
    needs_assigned_quality: ClassVar[bool] = False

    def __init__(self, box_weight: BoxWeight = 'auto') -> None:
        if box_weight not in get_args(BoxWeight):
            raise ValueError(f'quality.box_weight={box_weight!r}; accepted: {", ".join(get_args(BoxWeight))}')
        self.box_weight = box_weight

    # At construction and in forward ---------------------------------------------------------------------------------

    def loss_cls_cfg(self, head_loss_cls: dict[str, Any] | None) -> dict[str, Any] | None:
        """Config of the class loss that the head builds, from that of its config; None means the host's default.

        Raises:
            ValueError: It is a loss for qualities, and this representation has hard labels.
        """
        if head_loss_cls is not None and takes_quality(head_loss_cls):
            raise ValueError(
                f'bbox_head.loss_cls={head_loss_cls["type"]} learns the quality itself, but '
                f'quality={type(self).__name__} has one-hot labels; use '
                f"quality=dict(type='mmdet_gfl.JointQuality'), or a loss_cls such as FocalLoss"
            )
        return head_loss_cls

    def build_modules(self, head: QualityHead) -> dict[str, nn.Module]:
        """Layers that the head registers for this quality, by name; called once, at construction.

        Raises:
            ValueError: This quality does not fit ``head.box``.
        """
        return {}

    def init_weights(self, head: QualityHead) -> None:
        """Initialize the layers of :meth:`build_modules`, after the host has initialized all layers."""

    def class_logits(self, cls_score: Tensor, bbox_pred: Tensor, head: QualityHead) -> Tensor:
        """Class logits of a level, called once in ``forward``; by default the class outputs as they are.

        ``cls_score`` are (N, A · C, H, W), ``bbox_pred`` (N, A · 4k, H, W).
        """
        return cls_score

    # In the loss ----------------------------------------------------------------------------------------------------

    def target(self, positives: Positives) -> Tensor:
        """The quality of the positives, (P,) in [0, 1]."""
        return positives.iou

    def resolve_box_weight(self, host_default: str | None = None) -> str:
        """``box_weight``; ``'auto'`` is resolved to the host's default, or :attr:`auto_box_weight` if that is None."""
        return (host_default or self.auto_box_weight) if self.box_weight == 'auto' else self.box_weight

    def box_weights(self, positives: Positives, kind: str) -> Tensor:
        """Weights of the positives in the box losses, (P,); ``kind`` is what :meth:`resolve_box_weight` gives."""
        if kind == 'quality':
            return self.target(positives)
        return positives.score if kind == 'score' else torch.ones_like(positives.boxes[:, 0])

    def losses(
        self,
        logits: LevelPredictions,
        branch: Tensor | None,
        targets: Targets,
        positives: Positives,
        avg_factor: Tensor,
        head: QualityHead,
    ) -> dict[str, Tensor]:
        """Class loss, and with a branch its loss, scalars by their key.

        Args:
            logits: Class logits of the batch.
            branch: Branch logits of the positives, (P,); None without a branch.
            targets: The positives' labels, and the weights of all locations.
            positives: The positives' measures.
            avg_factor: Divides the sums.
            head: Holds the losses.
        """
        losses = dict(loss_cls=self.class_loss(logits, targets, positives, avg_factor, head))
        if branch is not None:
            losses[self.branch_loss_key] = head.loss_centerness(branch, self.target(positives), avg_factor=avg_factor)
        return losses

    def class_loss(
        self, logits: LevelPredictions, targets: Targets, positives: Positives, avg_factor: Tensor, head: QualityHead
    ) -> Tensor:
        """Class loss of all locations, a scalar; see :meth:`losses`."""
        return head.hard_label_loss(logits, targets, targets.label_weights, avg_factor)
