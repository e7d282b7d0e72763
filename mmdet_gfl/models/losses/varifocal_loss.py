"""Varifocal loss (VFL): a positive weighs its quality, the background its own score.

VarifocalNet, CVPR 2021, https://arxiv.org/abs/2008.13367, eq. (2).
Dimension letters: N locations, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_gfl.registry import MODELS

from .quality_focal_loss import equation_2, equation_2_background
from .soft_labels import SoftLabelForm, SoftLabelLoss, SoftTarget, soft_label_loss
from .utils import check_number

NAME = 'VarifocalLoss'


def varifocal_loss(
    pred: Tensor, target: SoftTarget, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True
) -> Tensor:
    """``-q (q log σ + (1-q) log(1-σ))`` where q > 0, else ``-α σ^γ log(1-σ)``, summed over the classes.

    The quality q is the score at the label and 0 at the other classes; a positive whose score is 0 is background. The
    loss of a positive is smallest at σ = q, where it is not 0. Computed in float32 (float64 stays), autocast or not;
    targets get no gradient. MMDetection's function does not sum over the classes.

    Args:
        pred: Class logits (N, C), or (N, C, ...) with a dense target; the loss is (N,) or (N, ...).
        target: ``(label, score)`` or dense, see :func:`quality_focal_loss`.
        alpha: Factor α >= 0 of the background.
        gamma: Focus γ >= 0 of the background.
        iou_weighted: Whether a positive weighs q; else 1.

    Raises:
        ValueError: α or γ is negative; and what :func:`quality_focal_loss` raises for shapes, dtypes and values.
    """
    return soft_label_loss(varifocal_form(alpha, gamma, iou_weighted), pred, target)


def varifocal_form(alpha: float, gamma: float, iou_weighted: bool) -> SoftLabelForm:
    """The formulas of VFL."""
    check_number('alpha', alpha, low=0)
    check_number('gamma', gamma, low=0)

    def background_loss(logits: Tensor) -> Tensor:
        return alpha * equation_2_background(logits, gamma)

    def positive_loss(logits: Tensor, quality: Tensor) -> Tensor:
        cross_entropy = equation_2(logits, quality, beta=0.0)
        positive = quality * cross_entropy if iou_weighted else cross_entropy
        return torch.where(quality == 0, background_loss(logits), positive)

    return SoftLabelForm(NAME, positive_loss, background_loss, gamma, alpha)


@MODELS.register_module()
class VarifocalLoss(SoftLabelLoss):
    """Varifocal loss, see :func:`varifocal_loss`; takes the arguments of MMDetection's.

    The arguments and their errors are those of that function and of :class:`SoftLabelLoss`.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        fused: bool = True,
    ) -> None:
        super().__init__(use_sigmoid, reduction, loss_weight, fused)
        self.alpha = check_number('alpha', alpha, low=0)
        self.gamma = check_number('gamma', gamma, low=0)
        self.iou_weighted = iou_weighted

    @property
    def form(self) -> SoftLabelForm:
        """The formulas, with the settings of this loss."""
        return varifocal_form(self.alpha, self.gamma, self.iou_weighted)
