"""Quality Focal Loss (QFL): one score per class, supervised with the quality of the box.

Generalized Focal Loss, NeurIPS 2020, https://arxiv.org/abs/2006.04388, eq. (2).
Dimension letters: N locations, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss as MMDetQualityFocalLoss
from torch import Tensor

from mmdet_gfl.registry import MODELS

from .fused_focal_loss import FusedForm, modulating_factor
from .soft_labels import SoftLabelForm, SoftLabelLoss, SoftTarget, soft_label_loss
from .utils import check_floating, check_number, floored_log, weighted_log, within

NAME = 'QualityFocalLoss'


def quality_focal_loss(
    pred: Tensor, target: SoftTarget, beta: float = 2.0, activated: bool = False, fused: bool = True
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
        fused: Compute logits with ``(label, score)`` in one pass, which has no second derivative.

    Returns:
        Loss (N,), or (N, ...) with a dense target.

    Raises:
        ValueError: Shape, dtype or β is wrong; and, validated on the CPU only, a label is outside [0, C], or a score or
            probability outside [0, 1] by more than rounding. On other devices the loss of that location is NaN.
    """
    if not activated:
        return soft_label_loss(quality_focal_form(beta), pred, target, fused)
    check_floating(NAME, pred)
    probability = within(pred, 0.0, 1.0, f'{NAME} with activated=True needs probabilities in [0, 1] as pred')
    return soft_label_loss(quality_focal_form(beta, pred.dtype), probability, target)


def quality_focal_form(beta: float, prob_dtype: torch.dtype | None = None) -> SoftLabelForm:
    """The formulas of QFL, for logits or for probabilities that came in ``prob_dtype``."""
    check_number('beta', beta, low=0)
    return SoftLabelForm(
        NAME,
        lambda pred, quality: equation_2(pred, quality, beta, prob_dtype),
        lambda pred: equation_2_background(pred, beta, prob_dtype),
        beta,
    )


def equation_2(pred: Tensor, quality: Tensor, beta: float, prob_dtype: torch.dtype | None = None) -> Tensor:
    """Eq. (2) element by element, in the dtype of ``pred``: logits, or probabilities that came in ``prob_dtype``."""
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


@MODELS.register_module()
class QualityFocalLoss(SoftLabelLoss, MMDetQualityFocalLoss):
    """Quality Focal Loss, eq. (2), see :func:`quality_focal_loss`; takes the place of MMDetection's.

    It is one of MMDetection's too: heads such as DETR's and DINO's ask ``isinstance`` before they give it qualities.

    The arguments and their errors are those of that function and of :class:`SoftLabelLoss`.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__(use_sigmoid, reduction, loss_weight, fused)
        self.beta = check_number('beta', beta, low=0)
        self.activated = activated

    @property
    def form(self) -> SoftLabelForm:
        """The formulas for logits."""
        return quality_focal_form(self.beta)

    def elementwise(self, pred: Tensor, target: SoftTarget) -> Tensor:
        """See :func:`quality_focal_loss`."""
        return quality_focal_loss(pred, target, self.beta, self.activated, self.fused)

    def fused_form(self, labels: Tensor, quality: Tensor | None, num_classes: int) -> FusedForm | None:
        """See :class:`SoftLabelLoss`; probabilities have no such form."""
        return None if self.activated else super().fused_form(labels, quality, num_classes)
