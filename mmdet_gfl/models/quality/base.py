"""What every representation of localization quality answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from mmdet_gfl.models.task_modules import Outputs, Positives, Targets

if TYPE_CHECKING:
    from mmdet_gfl.models.dense_heads.dense_gfl_mixin import DenseGFLMixin

BoxWeight = Literal['auto', 'quality', 'score', 'uniform']


def takes_quality_targets(loss: nn.Module) -> bool:
    """Whether a class loss takes ``(labels, qualities)``, found out by one location and one call."""
    target = (torch.zeros(1, dtype=torch.long), torch.full((1,), 0.5))
    try:
        loss(torch.zeros(1, 2), target, weight=torch.ones(1), avg_factor=1.0)
    except Exception:  # whatever a loss made for other targets trips over
        return False
    return True


class Quality:
    """How well a box is localized: what is learned of it, and what it weighs.

    The object is stateless: it holds hyper-parameters, no parameters, no buffers and no losses (those hang on the
    head). A subclass is one file in this folder.

    Args:
        box_weight: What weighs a positive in the box losses. ``'quality'``: the measured :meth:`target`. ``'score'``:
            the location's largest class score, detached, as in the code released with GFL. ``'uniform'``: 1.
            ``'auto'``: :attr:`auto_box_weight`, on hosts that weight their boxes at all.

    Raises:
        ValueError: ``box_weight`` is none of these.
    """

    #: Whether the head gets one more output a location, whose sigmoid multiplies the class score at test time.
    branch: ClassVar[bool] = False
    #: Name of the branch's loss.
    branch_loss_key: ClassVar[str] = 'loss_centerness'
    #: What ``box_weight='auto'`` stands for.
    auto_box_weight: ClassVar[str] = 'uniform'

    def __init__(self, box_weight: BoxWeight = 'auto') -> None:
        if box_weight not in get_args(BoxWeight):
            raise ValueError(f'quality.box_weight={box_weight!r}; accepted: {", ".join(get_args(BoxWeight))}')
        self.box_weight = box_weight

    def class_loss_cfg(self, head_loss_cls: dict[str, Any] | None) -> dict[str, Any] | None:
        """The class loss that the head shall build.

        Args:
            head_loss_cls: ``loss_cls`` of the head's config; None where it has none, which means the host's default.

        Raises:
            ValueError: It is a loss for qualities, and this representation has one-hot labels.
        """
        if head_loss_cls is not None and takes_quality_targets(MMDET_MODELS.build(head_loss_cls)):
            raise ValueError(
                f'bbox_head.loss_cls={head_loss_cls["type"]} learns the quality itself, but '
                f'quality={type(self).__name__} has one-hot labels; use '
                f"quality=dict(type='mmdet_gfl.JointQuality'), or a loss_cls such as FocalLoss"
            )
        return head_loss_cls

    def target(self, positives: Positives) -> Tensor:
        """The quality of the positives, (P,) in [0, 1]."""
        return positives.iou

    def box_weights(self, positives: Positives, auto: str | None = None) -> Tensor:
        """Weights of the positives in the box losses, (P,).

        Args:
            positives: The positives' measures.
            auto: See :meth:`box_weight_kind`.
        """
        kind = self.box_weight_kind(auto)
        if kind == 'quality':
            return self.target(positives)
        return positives.score if kind == 'score' else torch.ones_like(positives.iou)

    def box_weight_kind(self, auto: str | None = None) -> str:
        """``box_weight`` with ``'auto'`` resolved: ``'quality'``, ``'score'`` or ``'uniform'``.

        Args:
            auto: What the host wants ``'auto'`` to stand for; None leaves it to the quality.
        """
        return (auto or self.auto_box_weight) if self.box_weight == 'auto' else self.box_weight

    def class_loss(
        self, logits: Outputs, targets: Targets, positives: Positives, norm: Tensor, head: DenseGFLMixin
    ) -> Tensor:
        """Class loss of all locations, a scalar.

        Args:
            logits: Class logits of the batch; ``logits.rows`` is the tensor (R, C).
            targets: Labels and weights.
            positives: The positives' measures.
            norm: What the sum is divided by.
            head: Gives the host's loss for one-hot labels.
        """
        return head.one_hot_loss(logits, targets, targets.label_weights, norm)

    def branch_losses(
        self, logits: Tensor, positives: Positives, norm: Tensor, head: DenseGFLMixin
    ) -> dict[str, Tensor]:
        """Loss of the branch: the head's ``loss_centerness`` (a BCE) between its logits (P,) and :meth:`target`."""
        return {self.branch_loss_key: head.loss_centerness(logits, self.target(positives), avg_factor=norm)}
