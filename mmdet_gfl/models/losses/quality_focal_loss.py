"""Quality Focal Loss (QFL): one score a class, supervised with the quality of the box.

Generalized Focal Loss, NeurIPS 2020, https://arxiv.org/abs/2006.04388, eq. (2).
Dimension letters: N locations, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_gfl.models.task_modules import Outputs
from mmdet_gfl.registry import MODELS
from mmdet_gfl.utils.compiling import is_compiling

from .focal_loss_of_levels import focal_loss_of_levels
from .fused_quality_focal_loss import FusedQualityFocalLoss
from .utils import (
    HEADS,
    ElementwiseLoss,
    autocast_off,
    check_floating,
    check_number,
    describe,
    floored_log,
    modulating_factor,
    refuse,
    upcast,
    weighted_log,
    within,
)

NEED = (
    'QualityFocalLoss needs target=(label, score), label (N,) integers in [0, C] with C the background and score (N,) '
    "the IoU of the decoded box in [0, 1], or a dense target of pred's shape (N, C, ...) with values in [0, 1]"
)
SOURCE = f'A head that supplies the score is one of {HEADS}'


def quality_focal_loss(
    pred: Tensor, target: Tensor | tuple[Tensor, Tensor], beta: float = 2.0, activated: bool = False
) -> Tensor:
    """Eq. (2), ``-|y - σ|^β ((1-y) log(1-σ) + y log σ)``, summed over the classes.

    The quality y is the score at the label and 0 at the other classes; a positive whose score is 0 is background.
    Computed in float32 (float64 stays), autocast or not; targets get no gradient. At σ = y the factor has slope 0 for
    every β, also where 0 < β < 1 makes the true one infinite. Infinite logits have the loss and gradient of the limit.

    Probabilities (``activated``) are safe at 0 and 1 as in ``F.binary_cross_entropy``: no logarithm is below -100, and
    its slope is at most 1e12 (16384 if they come in float16, so that the gradient fits).

    Args:
        pred: Class logits (N, C), or (N, C, ...) with a dense target; probabilities if ``activated``.
        target: ``(label, score)``, label (N,) integers with [0, C-1] positive and C background, score (N,) in [0, 1],
            of any value at background. Or a dense target of the shape of ``pred``, in [0, 1].
        beta: Focus β >= 0; 0 gives binary cross-entropy.
        activated: ``pred`` are probabilities.

    Returns:
        Loss (N,), or (N, ...) with a dense target.

    Raises:
        ValueError: Shape, dtype or β is wrong; and, looked at on the CPU only, a label is outside [0, C], or a score or
            probability outside [0, 1] by more than rounding. On other devices the loss of that location is NaN.
    """
    check_number('beta', beta, low=0)
    check_floating('QualityFocalLoss', pred)
    prob_dtype = pred.dtype if activated else None
    with autocast_off(pred):
        if activated:
            pred = within(pred, 0.0, 1.0, 'QualityFocalLoss with activated=True needs probabilities in [0, 1] as pred')
        if isinstance(target, Tensor):
            return _dense(upcast(pred), target, beta, prob_dtype)
        return _labelled(upcast(pred), target, beta, prob_dtype)


def _labelled(pred: Tensor, target: tuple[Tensor, Tensor], beta: float, prob_dtype: torch.dtype | None) -> Tensor:
    """Background everywhere, then each location's entry at its label replaced; no step waits for the device.

    Logits go through :class:`FusedQualityFocalLoss`, which computes what stands here and its gradient in one pass.
    """
    label, score = _check_pair(pred, target)
    index = label.long().clamp(0, pred.size(1) - 1)[:, None]  # (N, 1)
    quality = _quality(label, score, pred.size(1)).to(pred)[:, None]  # (N, 1)
    if prob_dtype is None and not is_compiling():
        loss: Tensor = FusedQualityFocalLoss.apply(pred, index, quality, beta, equation_2)
        return loss
    return labelled_by_formula(pred, index, quality, beta, prob_dtype)


def labelled_by_formula(
    pred: Tensor, index: Tensor, quality: Tensor, beta: float, prob_dtype: torch.dtype | None = None
) -> Tensor:
    """QFL (N,) by the plain formulas: ``pred`` (N, C), of which the entries at ``index`` (N, 1) have ``quality``."""
    at_label = equation_2(pred.gather(1, index), quality, beta, prob_dtype)  # (N, 1)
    return equation_2_background(pred, beta, prob_dtype).scatter(1, index, at_label).sum(dim=1)


def _dense(pred: Tensor, target: Tensor, beta: float, prob_dtype: torch.dtype | None) -> Tensor:
    if target.shape != pred.shape or pred.dim() < 2:
        raise ValueError(f'{NEED}; got {describe(target)} for pred {tuple(pred.shape)}. {SOURCE}.')
    quality = target.detach()
    quality = quality if quality.is_floating_point() else quality.to(pred)
    quality = within(quality, 0.0, 1.0, 'QualityFocalLoss needs dense targets in [0, 1]').to(pred)
    return equation_2(pred, quality, beta, prob_dtype).sum(dim=1)


def equation_2(pred: Tensor, quality: Tensor, beta: float, prob_dtype: torch.dtype | None = None) -> Tensor:
    """Eq. (2) element by element, in the dtype of ``pred``.

    Args:
        pred: Logits, or probabilities.
        quality: y, of the shape of ``pred``.
        beta: β.
        prob_dtype: In which dtype the probabilities came; None if ``pred`` are logits.
    """
    absent, present = _cost_of_absence(pred, prob_dtype), _cost_of_presence(pred, prob_dtype)
    cross_entropy = weighted_log(1 - quality, absent) + weighted_log(quality, present)
    return modulating_factor((quality - _sigma(pred, prob_dtype)).abs(), beta) * cross_entropy


def equation_2_background(pred: Tensor, beta: float, prob_dtype: torch.dtype | None = None) -> Tensor:
    """Eq. (2) at y = 0, ``-σ^β log(1-σ)``: most of all entries."""
    return modulating_factor(_sigma(pred, prob_dtype), beta) * _cost_of_absence(pred, prob_dtype)


def _sigma(pred: Tensor, prob_dtype: torch.dtype | None) -> Tensor:
    """σ; the clamp changes no value, it keeps inf * 0 out of the gradient at infinite logits."""
    return pred.clamp(-1e4, 1e4).sigmoid() if prob_dtype is None else pred


def _cost_of_presence(pred: Tensor, prob_dtype: torch.dtype | None) -> Tensor:
    """``-log σ``; the threshold is where float64 rounds softplus to its argument."""
    return F.softplus(-pred, threshold=50) if prob_dtype is None else -floored_log(pred, prob_dtype)


def _cost_of_absence(pred: Tensor, prob_dtype: torch.dtype | None) -> Tensor:
    """``-log(1 - σ)``."""
    return F.softplus(pred, threshold=50) if prob_dtype is None else -floored_log(pred, prob_dtype, complement=True)


def _quality(label: Tensor, score: Tensor, num_classes: int) -> Tensor:
    """Quality y at the label (N,): positives' score, background's 0; off the CPU, NaN for labels outside [0, C]."""
    score = torch.where((label >= 0) & (label < num_classes), score.detach(), 0.0)
    quality = within(score, 0.0, 1.0, 'QualityFocalLoss needs scores (IoU) in [0, 1]')
    need = (
        f'QualityFocalLoss needs labels in [0, {num_classes}], the last one the background, for pred of {num_classes} '
        "classes (does the head's num_classes fit the data set's?)"
    )
    return refuse((label < 0) | (label > num_classes), label, quality, need)


def _check_pair(pred: Tensor, target: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The label and the score, in their shapes and dtypes."""
    pair = isinstance(target, (tuple, list)) and len(target) == 2 and all(isinstance(part, Tensor) for part in target)
    if not pair:
        raise ValueError(f'{NEED}; got {describe(target)}. {SOURCE}.')
    label, score = target
    if pred.dim() != 2 or pred.size(1) == 0 or not label.shape == score.shape == pred.shape[:1]:
        raise ValueError(f'{NEED}; got {describe(target)} for pred {tuple(pred.shape)}. {SOURCE}.')
    if label.is_floating_point() or label.dtype == torch.bool or not score.is_floating_point():
        raise ValueError(f'{NEED}; got {describe(target)}: label must be integer and score floating. {SOURCE}.')
    return label, score


@MODELS.register_module()
class QualityFocalLoss(ElementwiseLoss):
    """Quality Focal Loss, eq. (2), see :func:`quality_focal_loss`; takes the place of MMDetection's.

    Args:
        use_sigmoid: MMDetection's key; True is the only choice.
        beta: Focus β >= 0.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``, over the loss (N,) already summed over the classes.
        loss_weight: Factor on the result.
        activated: ``pred`` are probabilities.

    Raises:
        ValueError: An argument is not what it must be.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__(reduction, loss_weight)
        if use_sigmoid is not True:
            raise ValueError(f'QualityFocalLoss scores classes with a sigmoid: use_sigmoid=True, got {use_sigmoid!r}')
        self.use_sigmoid = use_sigmoid
        self.beta = check_number('beta', beta, low=0)
        self.activated = activated

    def forward(
        self,
        pred: Tensor | Outputs,
        target: Any,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """See :class:`ElementwiseLoss`; ``pred`` may also be the class logits of a head where they lie.

        Then ``target`` is ``(label, score)`` of all locations, (R,) each, with the background everywhere but at the
        positives, and ``weight`` is (R,) or None. What comes out is the same.
        """
        if not isinstance(pred, Outputs):
            return super().forward(pred, target, weight, avg_factor, reduction_override)
        reduction = self.reduction if reduction_override is None else reduction_override
        if self.activated or reduction != 'mean' or avg_factor is None:
            return super().forward(pred.rows, target, weight, avg_factor, reduction_override)
        label, score = target
        at = pred.picked.pos
        quality = _quality(label[at], score[at], pred.width).to(pred.dtype)
        with autocast_off(quality):
            total = focal_loss_of_levels(
                pred, label[at], lambda logits: equation_2(logits, quality, self.beta), weight, self.beta
            )
        return self.loss_weight * (total / (avg_factor + torch.finfo(torch.float32).eps))  # as MMDetection divides

    def elementwise(self, pred: Tensor, target: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """See :func:`quality_focal_loss`."""
        return quality_focal_loss(pred, target, self.beta, self.activated)
