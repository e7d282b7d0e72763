"""Gaussian negative log-likelihood of a box side: the "Gaussian" of table 2a.

A side is a mean and a log-variance, the mean is decoded. Generalized Focal Loss, NeurIPS 2020,
https://arxiv.org/abs/2006.04388, table 2a; after Gaussian YOLOv3, https://arxiv.org/abs/1904.04620.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from mmdet_gfl.ops import upcast
from mmdet_gfl.registry import MODELS, host_names

from .utils import ElementwiseLoss, autocast_off, check_floating, check_number, describe, finite_target

#: In log(strides²): σ from 0.03 to 33 strides. Below, a side would be surer than a quarter of a pixel at stride 8;
#: above, less sure than any side is long. The mean's gradient is at most e^7, about 1100, times its error.
LOG_VAR_RANGE = (-7.0, 7.0)


def gaussian_nll_loss(pred: Tensor, target: Tensor, log_var_range: Sequence[float] = LOG_VAR_RANGE) -> Tensor:
    """``(y - μ)² / (2σ²) + log σ``; without the constant ``log(2π) / 2``, so it can be negative.

    The log-variance is clamped. Outside its range it still gets the gradient of the nearer end wherever a step against
    it leads back inside, and none where it leads farther out: no side is stuck, and none drifts away. Computed in
    float32 (float64 stays), autocast or not; the target gets no gradient.

    Args:
        pred: (..., 2), mean μ in strides and log-variance ``log σ²``.
        target: y (...), in strides.
        log_var_range: Smallest and largest log-variance.

    Returns:
        Loss (...).

    Raises:
        ValueError: Shape, dtype or range is wrong; and, validated on the CPU only, a target is NaN or infinite. On
            other devices the loss of that element is NaN.
    """
    low, high = check_log_var_range(log_var_range)
    _check_shapes(pred, target)
    with autocast_off(pred):
        mean, log_var = upcast(pred).unbind(-1)
        log_var = _ReturningClamp.apply(log_var, low, high)
        y = finite_target('GaussianNLLLoss', target.detach().to(mean))
        return ((y - mean).square() * torch.exp(-log_var) + log_var) / 2


def gaussian_std(pred: Tensor, log_var_range: Sequence[float] = LOG_VAR_RANGE) -> Tensor:
    """Standard deviation σ (...) in strides of ``pred`` (..., 2), mean and log-variance, in float32 at least."""
    low, high = check_log_var_range(log_var_range)
    with autocast_off(pred):
        return torch.exp(upcast(pred)[..., 1].clamp(low, high) / 2)


class _ReturningClamp(torch.autograd.Function):
    """``clamp(x, low, high)`` whose gradient outside the range is kept where descent leads back inside."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = low, high  # type: ignore[attr-defined]
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = ctx.range  # type: ignore[attr-defined]
        leads_out = ((x < low) & (grad > 0)) | ((x > high) & (grad < 0))
        return grad.masked_fill(leads_out, 0), None, None


def check_log_var_range(log_var_range: Sequence[float]) -> tuple[float, float]:
    """The two ends; raise ``ValueError`` unless they are two finite numbers in ascending order."""
    if isinstance(log_var_range, (tuple, list)) and len(log_var_range) == 2:
        low, high = (check_number('log_var_range', end) for end in log_var_range)
        if low < high:
            return low, high
    raise ValueError(f'log_var_range must be (smallest, largest), got {describe(log_var_range)}')


def _check_shapes(pred: Tensor, target: Tensor) -> None:
    check_floating('GaussianNLLLoss', pred)
    if not isinstance(target, Tensor) or pred.dim() == 0 or pred.shape != (*target.shape, 2):
        raise ValueError(
            'GaussianNLLLoss needs pred (..., 2), mean and log-variance of a box side, and target (...) in strides; '
            f'got {describe(pred)} and {describe(target)}. A head that supplies both is one of {host_names()}, with '
            f"box=dict(type='mmdet_gfl.GaussianBox')."
        )


@MODELS.register_module()
class GaussianNLLLoss(ElementwiseLoss):
    """Gaussian negative log-likelihood of a box side, see :func:`gaussian_nll_loss`.

    The arguments and their errors are those of the function and of :class:`ElementwiseLoss`.
    """

    def __init__(
        self, reduction: str = 'mean', loss_weight: float = 1.0, log_var_range: Sequence[float] = LOG_VAR_RANGE
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.log_var_range = check_log_var_range(log_var_range)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See :func:`gaussian_nll_loss`."""
        return gaussian_nll_loss(pred, target, self.log_var_range)
