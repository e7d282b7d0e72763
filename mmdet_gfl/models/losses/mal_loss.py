"""Matchability-aware loss (MAL): the target is a power of the quality, and a positive of low quality weighs no less.

DEIM, CVPR 2025, https://arxiv.org/abs/2412.04234.
Dimension letters: N locations, C classes.
"""

from __future__ import annotations

from torch import Tensor

from mmdet_gfl.registry import MODELS

from .quality_focal_loss import equation_2, equation_2_background
from .soft_labels import SoftLabelForm, SoftLabelLoss, SoftTarget, soft_label_loss
from .utils import check_number

NAME = 'MatchabilityAwareLoss'


def matchability_aware_loss(pred: Tensor, target: SoftTarget, gamma: float = 1.5) -> Tensor:
    """``-(q^γ log σ + (1-q^γ) log(1-σ))`` of a positive, else ``-σ^γ log(1-σ)``, summed over the classes.

    The quality q is the score at the label. A positive whose score is 0 weighs 1 and learns 0, as in the released code.
    Computed in float32 (float64 stays), autocast or not; targets get no gradient.

    Args:
        pred: Class logits (N, C), or (N, C, ...) with a dense target; the loss is (N,) or (N, ...).
        target: ``(label, score)``, see :func:`quality_focal_loss`. Or dense: an entry of 0 is background, since nothing
            tells it from a positive of quality 0.
        gamma: Exponent γ >= 0 of the quality, and focus of the background.

    Raises:
        ValueError: γ is negative; and what :func:`quality_focal_loss` raises for shapes, dtypes and values.
    """
    return soft_label_loss(matchability_aware_form(gamma), pred, target)


def matchability_aware_form(gamma: float) -> SoftLabelForm:
    """The formulas of MAL."""
    check_number('gamma', gamma, low=0)
    return SoftLabelForm(
        NAME,
        lambda logits, quality: equation_2(logits, quality**gamma, beta=0.0),
        lambda logits: equation_2_background(logits, gamma),
        gamma,
        zero_is_background=False,
    )


@MODELS.register_module()
class MatchabilityAwareLoss(SoftLabelLoss):
    """Matchability-aware loss, see :func:`matchability_aware_loss`.

    The arguments and their errors are those of that function and of :class:`SoftLabelLoss`.
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

    @property
    def form(self) -> SoftLabelForm:
        """The formulas, with the settings of this loss."""
        return matchability_aware_form(self.gamma)
