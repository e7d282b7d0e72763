"""Varifocal loss (VFL): a positive weighs its quality, the background its own score.

VarifocalNet, CVPR 2021, https://arxiv.org/abs/2008.13367, eq. (2).
Dimension letters: N locations, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_gfl.registry import MODELS

from .fused_focal_loss import FusedForm
from .quality_focal_loss import equation_2, equation_2_background
from .soft_labels import SoftLabelLoss, SoftTarget, quality_at_labels, soft_label_loss
from .utils import check_number

NAME = 'VarifocalLoss'


def varifocal_loss(
    pred: Tensor, target: SoftTarget, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True
) -> Tensor:
    """``-q (q log σ + (1-q) log(1-σ))`` where q > 0, else ``-α σ^γ log(1-σ)``, summed over the classes.

    The quality q is the score at the label and 0 at the other classes; a positive whose score is 0 is background. The
    loss of a positive is smallest at σ = q, where it is not 0. Computed in float32 (float64 stays), autocast or not;
    targets get no gradient.

    Args:
        pred: Class logits (N, C), or (N, C, ...) with a dense target.
        target: ``(label, score)`` or dense, see :func:`quality_focal_loss`.
        alpha: Factor α >= 0 of the background.
        gamma: Focus γ >= 0 of the background.
        iou_weighted: Whether a positive weighs q; else 1.

    Returns:
        Loss (N,), or (N, ...) with a dense target; MMDetection's function does not sum over the classes.

    Raises:
        ValueError: α or γ is negative; and what :func:`quality_focal_loss` raises for shapes, dtypes and values.
    """
    check_number('alpha', alpha, low=0)
    check_number('gamma', gamma, low=0)
    return soft_label_loss(
        NAME,
        pred,
        target,
        lambda logits, quality: loss_at_labels(logits, quality, alpha, gamma, iou_weighted),
        lambda logits: alpha * equation_2_background(logits, gamma),
    )


def loss_at_labels(logits: Tensor, quality: Tensor, alpha: float, gamma: float, iou_weighted: bool) -> Tensor:
    """VFL element by element: logits at their labels, and their qualities."""
    cross_entropy = equation_2(logits, quality, beta=0.0)
    positive = quality * cross_entropy if iou_weighted else cross_entropy
    return torch.where(quality == 0, alpha * equation_2_background(logits, gamma), positive)


@MODELS.register_module()
class VarifocalLoss(SoftLabelLoss):
    """Varifocal loss, see :func:`varifocal_loss`; takes the arguments of MMDetection's.

    Args:
        use_sigmoid: MMDetection's key; True is the only choice.
        alpha: Factor α >= 0 of the background.
        gamma: Focus γ >= 0 of the background.
        iou_weighted: Whether a positive weighs its quality; else 1.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``, over the loss (N,) already summed over the classes.
        loss_weight: Factor on the result.
        fused: See :class:`SoftLabelLoss`.

    Raises:
        ValueError: An argument is not what it must be.
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

    def elementwise(self, pred: Tensor, target: SoftTarget) -> Tensor:
        """See :func:`varifocal_loss`."""
        return varifocal_loss(pred, target, self.alpha, self.gamma, self.iou_weighted)

    def fused_form(self, labels: Tensor, quality: Tensor | None, num_classes: int) -> FusedForm | None:
        """See :class:`SoftLabelLoss`."""
        if quality is None:
            return None
        q, settings = quality_at_labels(NAME, labels, quality, num_classes), (self.alpha, self.gamma, self.iou_weighted)
        return FusedForm(
            lambda logits: loss_at_labels(logits, q.to(logits), *settings), self.gamma, self.alpha, self.loss_weight
        )
