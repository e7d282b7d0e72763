"""QFL of logits and its gradient in one pass, for :mod:`.quality_focal_loss`, whose formulas say what it computes.

Nearly all of a dense detector's entries are background, where eq. (2) at y = 0 and its slope share all their terms:

    loss  = σ^β softplus(x)
    slope = σ^β (β (1 - σ) softplus(x) + σ)

So both are computed together, and of all intermediate tensors only the slope is kept for the backward. The entry of
each location at its label is patched in, computed by the plain formula. Letters: N locations, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .utils import modulating_factor


class FusedQualityFocalLoss(torch.autograd.Function):
    """Loss (N,) of logits (N, C); see :meth:`forward`."""

    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        index: Tensor,
        quality: Tensor,
        beta: float,
        plain: Callable[[Tensor, Tensor, float], Tensor],
    ) -> Tensor:
        """Background everywhere, then each location's entry at its label replaced.

        Args:
            ctx: Autograd's context.
            pred: (N, C), float32 or float64.
            index: Class whose entry has a quality, (N, 1) in [0, C).
            quality: y of this entry, (N, 1).
            beta: β.
            plain: Eq. (2) element by element, of logits, qualities and β.
        """
        sigma = pred.sigmoid()
        factor = modulating_factor(sigma, beta) if beta != 2 else sigma.square()
        cost = F.softplus(pred, threshold=50)
        at_label, slope_at_label = _value_and_slope(pred.gather(1, index), quality, beta, plain)
        if ctx.needs_input_grad[0]:
            slope = torch.rsub(sigma, 1).mul_(cost).nan_to_num_(0.0)  # 0 * inf at an infinite logit, whose limit is 0
            slope = slope.mul_(beta).add_(sigma).mul_(factor)
            ctx.save_for_backward(slope.scatter_(1, index, slope_at_label))
        return cost.mul_(factor).scatter_(1, index, at_label).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The kept slope, scaled by the gradient (N,) of each location."""
        (slope,) = ctx.saved_tensors
        return slope * grad[:, None], None, None, None, None


def _value_and_slope(
    logits: Tensor, quality: Tensor, beta: float, plain: Callable[[Tensor, Tensor, float], Tensor]
) -> tuple[Tensor, Tensor]:
    """The plain formula and its derivative by the logits, (N, 1) each."""
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        value = plain(logits, quality, beta)
        (slope,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), slope
