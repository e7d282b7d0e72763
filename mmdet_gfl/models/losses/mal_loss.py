"""Matchability-aware loss (MAL): the target is a power of the quality, and a positive of low quality weighs no less.

DEIM, CVPR 2025, https://arxiv.org/abs/2412.04234.
Dimension letters: N locations, C classes.
"""

from __future__ import annotations

from torch import Tensor

from mmdet_gfl.registry import MODELS

from .fused_focal_loss import FusedForm
from .quality_focal_loss import equation_2, equation_2_background
from .soft_labels import SoftLabelLoss, SoftTarget, quality_at_labels, soft_label_loss
from .utils import check_number

NAME = 'MatchabilityAwareLoss'


def matchability_aware_loss(pred: Tensor, target: SoftTarget, gamma: float = 1.5) -> Tensor:
    """``-(q^γ log σ + (1-q^γ) log(1-σ))`` of a positive, else ``-σ^γ log(1-σ)``, summed over the classes.

    The quality q is the score at the label. A positive whose score is 0 weighs 1 and learns 0, as in the released code.
    Computed in float32 (float64 stays), autocast or not; targets get no gradient.

    Args:
        pred: Class logits (N, C), or (N, C, ...) with a dense target.
        target: ``(label, score)``, see :func:`quality_focal_loss`. Or dense: an entry of 0 is background, since nothing
            tells it from a positive of quality 0.
        gamma: Exponent γ >= 0 of the quality, and focus of the background.

    Returns:
        Loss (N,), or (N, ...) with a dense target.

    Raises:
        ValueError: γ is negative; and what :func:`quality_focal_loss` raises for shapes, dtypes and values.
    """
    check_number('gamma', gamma, low=0)
    return soft_label_loss(
        NAME,
        pred,
        target,
        lambda logits, quality: loss_at_labels(logits, quality, gamma),
        lambda logits: equation_2_background(logits, gamma),
    )


def loss_at_labels(logits: Tensor, quality: Tensor, gamma: float) -> Tensor:
    """MAL of positives element by element: logits at their labels, and their qualities."""
    return equation_2(logits, quality**gamma, beta=0.0)


@MODELS.register_module()
class MatchabilityAwareLoss(SoftLabelLoss):
    """Matchability-aware loss, see :func:`matchability_aware_loss`.

    Args:
        use_sigmoid: MMDetection's key; True is the only choice.
        gamma: Exponent γ >= 0 of the quality, and focus of the background.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``, over the loss (N,) already summed over the classes.
        loss_weight: Factor on the result.
        fused: See :class:`SoftLabelLoss`.

    Raises:
        ValueError: An argument is not what it must be.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 1.5,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        fused: bool = True,
    ) -> None:
        super().__init__(use_sigmoid, reduction, loss_weight, fused)
        self.gamma = check_number('gamma', gamma, low=0)

    def elementwise(self, pred: Tensor, target: SoftTarget) -> Tensor:
        """See :func:`matchability_aware_loss`."""
        return matchability_aware_loss(pred, target, self.gamma)

    def fused_form(self, labels: Tensor, quality: Tensor | None, num_classes: int) -> FusedForm | None:
        """See :class:`SoftLabelLoss`."""
        if quality is None:
            return None
        q, gamma = quality_at_labels(NAME, labels, quality, num_classes), self.gamma
        return FusedForm(lambda logits: loss_at_labels(logits, q.to(logits), gamma), gamma, 1.0, self.loss_weight)
