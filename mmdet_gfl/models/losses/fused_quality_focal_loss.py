"""QFL of logits and its gradient in one pass, for :mod:`.quality_focal_loss`, whose formulas say what it computes.

Nearly all of a dense detector's entries are background, where eq. (2) at y = 0 and its slope share all their terms:

    loss  = σ^β softplus(x)
    slope = σ^β (β (1 - σ) softplus(x) + σ)

So both are computed together, and of all intermediate tensors only the slope is kept for the backward. The entries with
a quality stand apart: to the pass they are -inf, where loss and slope are 0, and then their value and slope by the
plain formula are put in. Letters: N locations, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .utils import modulating_factor

#: Eq. (2) element by element, of logits, qualities and β.
Plain = Callable[[Tensor, Tensor, float], Tensor]


class FusedQualityFocalLoss(torch.autograd.Function):
    """Loss (N,) of logits (N, C); see :meth:`forward`."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, index: Tensor, quality: Tensor, beta: float, plain: Plain) -> Tensor:
        """The background's pass, with each location's entry at its label put in.

        Args:
            ctx: Autograd's context.
            pred: (N, C), float32 or float64.
            index: Class whose entry has a quality, (N, 1) in [0, C).
            quality: y of this entry, (N, 1).
            beta: β.
            plain: Eq. (2) element by element.
        """
        at_label, slope_at_label = value_and_slope(pred.gather(1, index), lambda logits: plain(logits, quality, beta))
        x = pred.scatter(1, index, -torch.inf)
        loss = background_(x, beta).scatter_(1, index, at_label).sum(dim=1)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(x.scatter_(1, index, slope_at_label))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The kept slope, scaled by the gradient (N,) of each location."""
        (slope,) = ctx.saved_tensors
        return slope * grad[:, None], None, None, None, None


def background_(x: Tensor, beta: float, weight: Tensor | None = None) -> Tensor:
    """Loss of logits ``x`` at y = 0, element by element; in place of ``x`` it leaves the slope.

    Args:
        x: Logits, float32 or float64.
        beta: β.
        weight: Factors that broadcast to ``x``; None: 1.
    """
    sigma = x.sigmoid()
    rest = x.neg().clamp_(min=-50).sigmoid_()  # 1 - σ, with nothing cancelled
    cost = torch.div(sigma, rest).log1p_()  # softplus, since σ / (1 - σ) = e^x; up to 50, from where on it is x
    slope = torch.add(sigma, rest.mul_(cost), alpha=beta, out=rest)
    cost = torch.maximum(cost, x, out=cost)
    factor = sigma.square_() if beta == 2 else modulating_factor(sigma, beta)
    if weight is not None:
        factor = factor.mul_(weight)
    torch.mul(slope, factor, out=x)
    return cost.mul_(factor)


def value_and_slope(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """A loss of logits, element by element, and its derivative, of their shape each.

    In inference mode, where nothing has a derivative and no backward can ask for one, zeros stand in its place.
    """
    if torch.is_inference_mode_enabled():
        return loss(logits), torch.zeros_like(logits)
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        value = loss(logits)
        (slope,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), slope
