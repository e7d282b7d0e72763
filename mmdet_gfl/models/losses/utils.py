"""Shared by the losses: precision, validation, weighting and reduction.

To validate values, the host would have to wait for a GPU, so values are validated on the CPU only. Elsewhere, what
would raise there becomes NaN in the loss and the gradient of its location: visible, and never an index error.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

REDUCTIONS = ('none', 'mean', 'sum')


class ElementwiseLoss(nn.Module):
    """A pure elementwise loss behind MMDetection's call signature; subclasses say which in ``elementwise``.

    Args:
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.
        loss_weight: Factor on the result.

    Raises:
        ValueError: ``reduction`` is unknown or ``loss_weight`` is not a finite number.
    """

    def __init__(self, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction must be one of {REDUCTIONS}, got {reduction!r}')
        self.reduction = reduction
        self.loss_weight = check_number('loss_weight', loss_weight)

    def elementwise(self, pred: Tensor, target: Any) -> Tensor:
        """The loss before weighting and reduction."""
        raise NotImplementedError

    def forward(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Weights and reduces the loss as MMDetection's losses do.

        Args:
            pred: See the pure function of the loss.
            target: Likewise.
            weight: Factors on the elements, of the unreduced loss's shape or with a single element.
            avg_factor: Divides the weighted sum in place of the number of elements; with ``'mean'`` only.
            reduction_override: Replaces ``reduction`` in this call.

        Raises:
            ValueError: ``weight`` has another shape, ``reduction_override`` is unknown, or ``avg_factor`` is given
                with ``'sum'``; and what the pure function raises.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = self.elementwise(pred, target)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)


def reduce_loss(loss: Tensor, weight: Tensor | None, reduction: str, avg_factor: Tensor | float | None) -> Tensor:
    """MMDetection's ``weight_reduce_loss`` without its silent traps.

    A weight must fit (there (N,) times (N, 1) becomes (N, N)), and the mean of nothing is 0, joined to the graph (there
    NaN). Errors are those of :meth:`ElementwiseLoss.forward`.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f'reduction_override must be None or one of {REDUCTIONS}, got {reduction!r}')
    single = weight is not None and weight.numel() == 1 and weight.dim() <= loss.dim()
    if weight is not None and not single and weight.shape != loss.shape:
        raise ValueError(
            f'weight must have the shape of the unreduced loss, {tuple(loss.shape)}, or a single element; got '
            f'{describe(weight)}'
        )
    if reduction == 'mean' and avg_factor is None and loss.numel() == 0:
        return loss.sum()
    return weight_reduce_loss(loss, weight, reduction, avg_factor)


def weighted_log(weight: Tensor, log: Tensor) -> Tensor:
    """``weight * log``, where a weight of 0 silences an infinite logarithm."""
    return torch.where(weight == 0, 0.0, weight * log)


def floored_log(p: Tensor, dtype: torch.dtype, complement: bool = False) -> Tensor:
    """``log p`` of probabilities, or ``log(1 - p)``, safe at 0: no less than -100, and with a slope of at most 1e12.

    Both are what PyTorch's binary cross-entropy does. If the probabilities came in float16 (``dtype``), where such a
    gradient would overflow, the slope is at most 16384.
    """
    return _FlooredLog.apply(p, max(1e-12, torch.finfo(dtype).tiny), complement)


class _FlooredLog(torch.autograd.Function):
    """See :func:`floored_log`; the slope is the inverse of the probability, or of ``floor`` where that is larger."""

    @staticmethod
    def forward(ctx: FunctionCtx, p: Tensor, floor: float, complement: bool) -> Tensor:
        ctx.save_for_backward(p)
        ctx.settings = floor, complement  # type: ignore[attr-defined]
        return (torch.log1p(-p) if complement else p.log()).clamp_(min=-100)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (p,) = ctx.saved_tensors  # type: ignore[attr-defined]
        floor, complement = ctx.settings  # type: ignore[attr-defined]
        slope = -1 / (1 - p).clamp(min=floor) if complement else 1 / p.clamp(min=floor)
        return grad * slope, None, None


def autocast_off(tensor: Tensor) -> torch.autocast:
    """Context in which autocast casts nothing down."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def describe(value: object) -> str:
    """A description of a value, for a message."""
    if isinstance(value, Tensor):
        return f'a {value.dtype} tensor of shape {tuple(value.shape)}'
    if isinstance(value, (tuple, list)):
        return f'a {type(value).__name__} of ' + (', '.join(describe(item) for item in value) or 'nothing')
    return f'{value!r} ({type(value).__name__})'


def check_number(name: str, value: Any, low: float = -math.inf) -> Any:
    """``value`` itself; raise ``ValueError`` unless it is a finite number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < low:
        bound = '' if low == -math.inf else f' >= {low:g}'
        raise ValueError(f'{name} must be a finite number{bound}, got {describe(value)}')
    return value


def check_integer(name: str, value: Any, low: int) -> int:
    """``value`` itself; raise ``ValueError`` unless it is an integer of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f'{name} must be an integer >= {low}, got {describe(value)}')
    return value


def check_floating(name: str, tensor: object) -> None:
    """Raise ``ValueError`` for predictions that are not a floating-point tensor."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise ValueError(f'{name} needs a floating-point tensor as pred, got {describe(tensor)}')


def on_cpu(tensor: Tensor) -> bool:
    """True if its values can be read without waiting for a device."""
    return tensor.device.type == 'cpu'


def refuse(wrong: Tensor, given: Tensor, result: Tensor, need: str) -> Tensor:
    """``result``, if nothing is ``wrong``; else raise ``ValueError`` on the CPU, and on other devices give NaN there.

    ``need`` starts the message with what is accepted; it ends with what of ``given`` is wrong.
    """
    if not on_cpu(wrong):
        return result.masked_fill(wrong, math.nan)
    if wrong.any():
        culprits = given[wrong]
        first = ', '.join(f'{value:g}' for value in culprits[:3].tolist())
        raise ValueError(f'{need}; got {first} (wrong: {culprits.numel()} of {given.numel()})')
    return result


def within(values: Tensor, low: Tensor | float, high: Tensor | float, need: str) -> Tensor:
    """``values`` with rounding beyond [low, high] clamped away, and refused farther outside; NaN stays NaN.

    Rounding is up to 1e-4, or the step of the dtype at 1 where that is larger. The bounds are two numbers, or two
    tensors of the shape of ``values``. See :func:`refuse`.
    """
    tolerance = max(1e-4, torch.finfo(values.dtype).eps)
    outside = (values < low - tolerance) | (values > high + tolerance)
    bounds = torch.clamp(values.detach(), low, high)  # type: ignore[arg-type]  # two tensors or two numbers
    # Not the clamp itself: from torch 2.15 it has no gradient at the bounds, where probabilities of 0 and 1 lie.
    clamped = torch.where((values < low) | (values > high), bounds, values)
    return refuse(outside, values, clamped, need)


def finite_target(name: str, target: Tensor) -> Tensor:
    """``target``, refused where it is NaN or infinite, see :func:`refuse`."""
    need = f'{name} needs finite targets (look for NaN or infinite ground-truth boxes, and for a stride of 0)'
    return refuse(~target.isfinite(), target, target, need)
