"""Generalized Focal Loss (GFL): the form that focal loss, QFL and DFL are cases of.

Generalized Focal Loss, NeurIPS 2020, https://arxiv.org/abs/2006.04388, eq. (7).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_gfl.ops import upcast
from mmdet_gfl.registry import MODELS

from .fused_focal_loss import modulating_factor
from .utils import (
    ElementwiseLoss,
    autocast_off,
    check_floating,
    check_number,
    describe,
    floored_log,
    refuse,
    weighted_log,
    within,
)

NAME = 'GeneralizedFocalLoss'


def generalized_focal_loss(
    pred: Tensor,
    target: Tensor,
    y_left: Tensor | float = 0.0,
    y_right: Tensor | float = 1.0,
    beta: float = 2.0,
    activated: bool = False,
) -> Tensor:
    """Eq. (7), ``-|y - (y_l p_l + y_r p_r)|^β ((y_r - y) log p_l + (y - y_l) log p_r)``.

    Focal loss is y in {0, 1} with β = γ; QFL y in [0, 1]; DFL β = 0 with y_l, y_r the bins around y. For β > 0 the
    minimum is 0, at ``p_l = (y_r - y) / (y_r - y_l)``. Computed in float32 (float64 stays), autocast or not; targets
    get no gradient.

    Args:
        pred: (..., 2), logits of p_l and p_r, whose softmax over the two they are; a sigmoid's logit x is ``(0, x)``.
            If ``activated`` the probabilities themselves, taken as they are: two neighbours of a wider distribution
            need not sum to 1.
        target: y (...), between ``y_left`` and ``y_right``.
        y_left: y_l, a number or a tensor of the shape of ``target``.
        y_right: y_r, larger than ``y_left``.
        beta: Focus β >= 0.
        activated: ``pred`` are probabilities.

    Returns:
        Loss (...).

    Raises:
        ValueError: Shape, dtype or β is wrong; and, validated on the CPU only, y_l < y_r or y_l <= y <= y_r does not
            hold, or a probability is outside [0, 1]. On other devices the loss of that element is NaN.
    """
    check_number('beta', beta, low=0)
    _check_shapes(pred, target)
    with autocast_off(pred):
        p, log_p = _probabilities(pred, activated)
        y = target.detach().to(p)
        left, right = _bound(y_left, y), _bound(y_right, y)
        right = refuse(~(left < right), right - left, right, f'{NAME} needs y_right - y_left > 0')
        y = within(y, left, right, f'{NAME} needs y_left <= target <= y_right')
        (p_left, p_right), (log_left, log_right) = p.unbind(-1), log_p.unbind(-1)
        factor = modulating_factor((y - (left * p_left + right * p_right)).abs(), beta)
        return -factor * (weighted_log(right - y, log_left) + weighted_log(y - left, log_right))


def _probabilities(pred: Tensor, activated: bool) -> tuple[Tensor, Tensor]:
    """The two probabilities and their logarithms, each (..., 2)."""
    if activated:
        p = upcast(within(pred, 0.0, 1.0, f'{NAME} with activated=True needs probabilities in [0, 1] as pred'))
        return p, floored_log(p, pred.dtype)
    log_p = F.log_softmax(upcast(pred), dim=-1)
    return log_p.exp(), log_p


def _bound(bound: Tensor | float, y: Tensor) -> Tensor:
    """A tensor like ``y``; numbers get there without a copy from the host."""
    if not isinstance(bound, Tensor):
        return torch.full_like(y, check_number('y_left or y_right', bound))
    if bound.shape != y.shape:
        raise ValueError(
            f'y_left and y_right must be numbers or of the shape of target, {tuple(y.shape)}; got {describe(bound)}'
        )
    return bound.detach().to(y)


def _check_shapes(pred: Tensor, target: Tensor) -> None:
    check_floating(NAME, pred)
    if not isinstance(target, Tensor) or pred.dim() == 0 or pred.shape != (*target.shape, 2):
        raise ValueError(
            f'{NAME} needs pred (..., 2), for the left and the right value, and target (...); got {describe(pred)} and '
            f'{describe(target)}'
        )


@MODELS.register_module()
class GeneralizedFocalLoss(ElementwiseLoss):
    """Generalized Focal Loss, eq. (7), see :func:`generalized_focal_loss`.

    The target is y, or ``(y, y_left, y_right)`` where the two values change from element to element; those among the
    arguments are for the former. The arguments and their errors are those of the function and of its base.
    """

    def __init__(
        self,
        beta: float = 2.0,
        y_left: float = 0.0,
        y_right: float = 1.0,
        activated: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.beta = check_number('beta', beta, low=0)
        self.y_left = check_number('y_left', y_left)
        self.y_right = check_number('y_right', y_right)
        if not y_left < y_right:
            raise ValueError(f'{NAME} needs y_left < y_right, got {y_left!r} and {y_right!r}')
        self.activated = activated

    def elementwise(self, pred: Tensor, target: Tensor | tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """See :func:`generalized_focal_loss`."""
        if isinstance(target, Tensor):
            return generalized_focal_loss(pred, target, self.y_left, self.y_right, self.beta, self.activated)
        if not isinstance(target, (tuple, list)) or len(target) != 3:
            raise ValueError(f'{NAME} needs target=y or target=(y, y_left, y_right), got {describe(target)}')
        return generalized_focal_loss(pred, *target, beta=self.beta, activated=self.activated)
