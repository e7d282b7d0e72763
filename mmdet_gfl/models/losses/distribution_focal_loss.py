"""Distribution Focal Loss (DFL): a box side's distribution is drawn to the two bins around its target.

Generalized Focal Loss, NeurIPS 2020, https://arxiv.org/abs/2006.04388, eq. (6).
Dimension letters: n + 1 bins, at 0, 1, ..., n (n is ``reg_max``).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmdet.models.losses import DistributionFocalLoss as MMDetDistributionFocalLoss
from torch import Tensor

from mmdet_gfl.ops import upcast
from mmdet_gfl.registry import MODELS, host_names

from .utils import ElementwiseLoss, autocast_off, check_floating, describe, finite_target, reduce_loss, weighted_log


def distribution_focal_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Eq. (6), ``-((y_{i+1} - y) log S_i + (y - y_i) log S_{i+1})`` with ``y_i <= y <= y_{i+1}``, S the softmax.

    Its minimum is the entropy of the two weights, where S_i and S_{i+1} equal them. Defined on all of [0, n], both ends
    included; a finite target outside is clamped to the end it is nearest to. Computed in float32 (float64 stays),
    autocast or not; the target gets no gradient.

    Args:
        pred: Logits (..., n + 1).
        target: (...), in bins: the distance in strides divided by Δ.

    Returns:
        Loss (...).

    Raises:
        ValueError: Shape or dtype is wrong; and, validated on the CPU only, a target is NaN or infinite. On other
            devices the loss of that element is NaN.
    """
    _check_shapes(pred, target)
    with autocast_off(pred):
        log_probability = F.log_softmax(upcast(pred), dim=-1)
        n = pred.size(-1) - 1
        y = finite_target('DistributionFocalLoss', target.detach().to(log_probability)).clamp(0, n)
        left = y.nan_to_num(0.0).floor().clamp(max=n - 1)
        index = left.long().unsqueeze(-1)
        log_left = log_probability.gather(-1, index).squeeze(-1)
        log_right = log_probability.gather(-1, index + 1).squeeze(-1)
        return -(weighted_log(left + 1 - y, log_left) + weighted_log(y - left, log_right))


def _check_shapes(pred: Tensor, target: Tensor) -> None:
    check_floating('DistributionFocalLoss', pred)
    fits = isinstance(target, Tensor) and pred.dim() > 0 and pred.size(-1) >= 2 and target.shape == pred.shape[:-1]
    if not fits or target.is_complex():
        raise ValueError(
            'DistributionFocalLoss needs pred (..., n + 1), the logits of at least two bins per box side, and target '
            f'(...) in bins from 0 to n; got {describe(pred)} and {describe(target)}. A head that supplies both is one '
            f"of {host_names()}, with box=dict(type='mmdet_gfl.GeneralBox')."
        )


@MODELS.register_module()
class DistributionFocalLoss(ElementwiseLoss):
    """Distribution Focal Loss, eq. (6), see :func:`distribution_focal_loss`; takes the place of MMDetection's.

    The arguments and their errors are those of :class:`ElementwiseLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See :func:`distribution_focal_loss`."""
        return distribution_focal_loss(pred, target)


def side_loss(loss: Any, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor) -> Tensor:
    """DFL of sides (M, n + 1) and targets (M,) in bins by the head's loss; MMDetection's own is computed as ours.

    That is one pass over the logits. A subclass of MMDetection's may compute something else, and is called.
    """
    if type(loss) is MMDetDistributionFocalLoss:
        elements = distribution_focal_loss(pred, target)
        return loss.loss_weight * reduce_loss(elements, weight, loss.reduction, avg_factor)
    return loss(pred, target, weight=weight, avg_factor=avg_factor)
