"""Shared by the class losses that learn a quality: the score of the label is y in [0, 1], that of other classes 0.

Dimension letters: N locations, P positives, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmdet_gfl.ops import upcast
from mmdet_gfl.registry import host_names

from .fused_focal_loss import FusedForm
from .utils import ElementwiseLoss, autocast_off, check_floating, describe, refuse, within

#: Target of such a loss: ``(label, score)``, or a dense tensor.
SoftTarget = Tensor | tuple[Tensor, Tensor]


class SoftLabelLoss(ElementwiseLoss):
    """A class loss with sigmoids that takes ``(label, score)`` or a dense target.

    Args:
        use_sigmoid: MMDetection's key; True is the only choice.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``, over the loss (N,) already summed over the classes.
        loss_weight: Factor on the result.
        fused: Allow the computation in one pass, which has no second derivative.

    Raises:
        ValueError: An argument is not what it must be.
    """

    takes_quality = True

    def __init__(
        self, use_sigmoid: bool = True, reduction: str = 'mean', loss_weight: float = 1.0, fused: bool = True
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.fused = fused
        if use_sigmoid is not True:
            name = type(self).__name__
            raise ValueError(f'{name} scores classes with a sigmoid: use_sigmoid=True, got {use_sigmoid!r}')
        self.use_sigmoid = use_sigmoid

    def fused_form(self, labels: Tensor, quality: Tensor | None, num_classes: int) -> FusedForm | None:
        """The loss as one pass over the logits computes it; None if it has no such form with these arguments.

        It is asked for in a head, where the loss is of logits and ``reduction`` is ``'mean'``; see
        :func:`classification_loss`.

        Args:
            labels: Labels of the positives, (P,).
            quality: Their qualities, (P,); None where labels are hard.
            num_classes: C.

        Raises:
            ValueError: See :func:`quality_at_labels`.
        """
        return None


def soft_label_loss(
    name: str,
    pred: Tensor,
    target: SoftTarget,
    positive_loss: Callable[[Tensor, Tensor], Tensor],
    background_loss: Callable[[Tensor], Tensor],
) -> Tensor:
    """Sum over the classes of a loss that differs between positives and background.

    In float32 (float64 stays), autocast or not.

    Args:
        name: Name of the loss, for messages.
        pred: Class logits (N, C), or (N, C, ...) with a dense target.
        target: ``(label, score)``: the entry at a label in [0, C-1] is positive. Or dense: an entry above 0 is.
        positive_loss: Loss of logits and qualities, element by element; NaN for a quality of NaN.
        background_loss: Loss of logits, element by element.

    Returns:
        Loss (N,), or (N, ...) with a dense target.

    Raises:
        ValueError: See :func:`check_pair`, :func:`quality_at_labels` and :func:`check_dense`.
    """
    check_floating(name, pred)
    with autocast_off(pred):
        pred = upcast(pred)
        if isinstance(target, Tensor):
            quality = check_dense(name, pred, target)
            return torch.where(quality != 0, positive_loss(pred, quality), background_loss(pred)).sum(dim=1)
        label, score = check_pair(name, pred, target)
        num_classes = pred.size(1)
        quality = quality_at_labels(name, label, score, num_classes).to(pred)[:, None]  # (N, 1)
        index = label.long().clamp(0, num_classes - 1)[:, None]  # (N, 1)
        logits = pred.gather(1, index)
        positive = (label != num_classes)[:, None]
        at_label = torch.where(positive, positive_loss(logits, quality), background_loss(logits))
        return background_loss(pred).scatter(1, index, at_label).sum(dim=1)


def check_pair(name: str, pred: Tensor, target: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The label and the score, in their shapes and dtypes.

    Raises:
        ValueError: They do not fit ``pred`` (N, C).
    """
    pair = isinstance(target, (tuple, list)) and len(target) == 2 and all(isinstance(part, Tensor) for part in target)
    if not pair:
        raise ValueError(f'{_need(name)}; got {describe(target)}. {_source()}')
    label, score = target
    if pred.dim() != 2 or pred.size(1) == 0 or not label.shape == score.shape == pred.shape[:1]:
        raise ValueError(f'{_need(name)}; got {describe(target)} for pred {tuple(pred.shape)}. {_source()}')
    if label.is_floating_point() or label.dtype == torch.bool or not score.is_floating_point():
        raise ValueError(
            f'{_need(name)}; got {describe(target)}: label must be integer and score floating. {_source()}'
        )
    return label, score


def quality_at_labels(name: str, label: Tensor, score: Tensor, num_classes: int) -> Tensor:
    """Quality y at the label (N,): positives' score, background's 0; off the CPU, NaN for labels outside [0, C].

    Raises:
        ValueError: A label on the CPU is outside [0, C], or a score outside [0, 1] by more than rounding.
    """
    score = torch.where((label >= 0) & (label < num_classes), score.detach(), 0.0)
    quality = within(score, 0.0, 1.0, f'{name} needs scores (IoU) in [0, 1]')
    need = (
        f'{name} needs labels in [0, {num_classes}], the last one the background, for pred of {num_classes} classes '
        "(does the head's num_classes fit the data set's?)"
    )
    return refuse((label < 0) | (label > num_classes), label, quality, need)


def check_dense(name: str, pred: Tensor, target: Tensor) -> Tensor:
    """A dense target as qualities of the shape and dtype of ``pred`` (N, C, ...), detached.

    Raises:
        ValueError: Its shape differs, or a value on the CPU is outside [0, 1] by more than rounding.
    """
    if target.shape != pred.shape or pred.dim() < 2:
        raise ValueError(f'{_need(name)}; got {describe(target)} for pred {tuple(pred.shape)}. {_source()}')
    quality = target.detach()
    quality = quality if quality.is_floating_point() else quality.to(pred)
    return within(quality, 0.0, 1.0, f'{name} needs dense targets in [0, 1]').to(pred)


def _need(name: str) -> str:
    return (
        f'{name} needs target=(label, score), label (N,) integers in [0, C] with C the background and score (N,) the '
        "IoU of the decoded box in [0, 1], or a dense target of pred's shape (N, C, ...) with values in [0, 1]"
    )


def _source() -> str:
    return f'A head that supplies the score is one of {host_names()}.'
