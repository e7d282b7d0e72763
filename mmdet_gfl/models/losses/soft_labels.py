"""Shared by the class losses that learn a quality: the score of the label is y in [0, 1], that of other classes 0.

Dimension letters: N locations, P positives, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_gfl.ops import upcast
from mmdet_gfl.registry import host_names
from mmdet_gfl.utils.compiling import is_compiling

from .fused_focal_loss import FusedForm, FusedRows
from .utils import ElementwiseLoss, autocast_off, check_floating, describe, refuse, within

#: Target of such a loss: ``(label, score)``, or a dense tensor.
SoftTarget = Tensor | tuple[Tensor, Tensor]


class SoftLabelForm(NamedTuple):
    """The formulas of a class loss, element by element; rows, dense targets and the pass over the levels follow."""

    #: Name of the loss, for messages.
    name: str
    #: Loss of logits and the qualities of their labels; NaN for a quality of NaN.
    positive_loss: Callable[[Tensor, Tensor], Tensor]
    #: Loss of all other logits, ``background_factor · σ^beta softplus(x)``.
    background_loss: Callable[[Tensor], Tensor]
    beta: float
    background_factor: float = 1.0
    #: Whether a positive of quality 0 is background; else a mask says what is.
    zero_is_background: bool = True

    def loss(self, logits: Tensor, quality: Tensor, positive: Tensor | None = None) -> Tensor:
        """Loss of logits of any kind, from their qualities and the mask of the positives; None: those above 0."""
        losses = self.positive_loss(logits, quality)
        if self.zero_is_background:
            return losses
        return torch.where(quality != 0 if positive is None else positive, losses, self.background_loss(logits))

    def fused(self, labels: Tensor, quality: Tensor | None, num_classes: int, loss_weight: float) -> FusedForm | None:
        """See :meth:`SoftLabelLoss.fused_form`."""
        if quality is None:
            return None
        y = quality_at_labels(self.name, labels, quality, num_classes)
        return FusedForm(
            lambda logits: self.positive_loss(logits, y.to(logits)), self.beta, self.background_factor, loss_weight
        )


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

    @property
    def form(self) -> SoftLabelForm:
        """The formulas, with the settings of this loss."""
        raise NotImplementedError

    def elementwise(self, pred: Tensor, target: SoftTarget) -> Tensor:
        """See :func:`soft_label_loss`."""
        return soft_label_loss(self.form, pred, target)

    def fused_form(self, labels: Tensor, quality: Tensor | None, num_classes: int) -> FusedForm | None:
        """The loss as one pass over the logits of a head computes it, see :func:`classification_loss`; None: not so.

        ``labels`` and ``quality`` are the positives', (P,); the latter is None where labels are hard. Errors are those
        of :func:`quality_at_labels`.
        """
        return self.form.fused(labels, quality, num_classes, self.loss_weight)


def soft_label_loss(form: SoftLabelForm, pred: Tensor, target: SoftTarget, fused: bool = False) -> Tensor:
    """A loss summed over the classes, (N,), or (N, ...) with a dense target.

    Computed in float32 (float64 stays), autocast or not: background everywhere, then each location's entry at its label
    replaced. No step waits for the device. In a dense target, entries above 0 are positive.

    With ``fused``, loss and gradient of ``(label, score)`` are computed by :class:`FusedRows`, for a
    ``background_factor`` of 1. Errors are those of the checks below.
    """
    check_floating(form.name, pred)
    with autocast_off(pred):
        pred = upcast(pred)
        if isinstance(target, Tensor):
            quality = check_dense(form.name, pred, target)
            return form.loss(pred, quality).sum(dim=1)
        label, score = check_pair(form.name, pred, target)
        num_classes = pred.size(1)
        quality = quality_at_labels(form.name, label, score, num_classes).to(pred)[:, None]  # (N, 1)
        positive = (label != num_classes)[:, None]
        index = label.long().clamp(0, num_classes - 1)[:, None]  # (N, 1)
        if fused and not is_compiling():
            return FusedRows.apply(pred, index, lambda x: form.loss(x, quality, positive), form.beta)
        at_labels = form.loss(pred.gather(1, index), quality, positive)
        return form.background_loss(pred).scatter(1, index, at_labels).sum(dim=1)


def check_pair(name: str, pred: Tensor, target: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The label and the score; raise ``ValueError`` for shapes or dtypes that do not fit ``pred`` (N, C)."""
    pair = isinstance(target, (tuple, list)) and len(target) == 2 and all(isinstance(part, Tensor) for part in target)
    if not pair:
        raise _target_error(name, target)
    label, score = target
    if pred.dim() != 2 or pred.size(1) == 0 or not label.shape == score.shape == pred.shape[:1]:
        raise _target_error(name, target, f' for pred {tuple(pred.shape)}')
    if label.is_floating_point() or label.dtype == torch.bool or not score.is_floating_point():
        raise _target_error(name, target, ': label must be integer and score floating')
    return label, score


def quality_at_labels(name: str, label: Tensor, score: Tensor, num_classes: int) -> Tensor:
    """Quality y at the label (N,): positives' score, background's 0.

    A label outside [0, C], or a score outside [0, 1] by more than rounding, is refused, see :func:`refuse`.
    """
    score = torch.where((label >= 0) & (label < num_classes), score.detach(), 0.0)
    quality = within(score, 0.0, 1.0, f'{name} needs scores (IoU) in [0, 1]')
    need = (
        f'{name} needs labels in [0, {num_classes}], the last one the background, for pred of {num_classes} classes '
        "(does the head's num_classes fit the data set's?)"
    )
    return refuse((label < 0) | (label > num_classes), label, quality, need)


def check_dense(name: str, pred: Tensor, target: Tensor) -> Tensor:
    """A dense target as qualities of the dtype of ``pred`` (N, C, ...), detached.

    Another shape raises ``ValueError``; values outside [0, 1] by more than rounding are refused, see :func:`refuse`.
    """
    if target.shape != pred.shape or pred.dim() < 2:
        raise _target_error(name, target, f' for pred {tuple(pred.shape)}')
    quality = target.detach()
    quality = quality if quality.is_floating_point() else quality.to(pred)
    return within(quality, 0.0, 1.0, f'{name} needs dense targets in [0, 1]').to(pred)


def _target_error(name: str, target: object, detail: str = '') -> ValueError:
    return ValueError(
        f'{name} needs target=(label, score), label (N,) integers in [0, C] with C the background and score (N,) the '
        "IoU of the decoded box in [0, 1], or a dense target of pred's shape (N, C, ...) with values in [0, 1]; got "
        f'{describe(target)}{detail}. A head that supplies the score is one of {host_names()}.'
    )
