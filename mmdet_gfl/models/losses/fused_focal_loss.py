"""Focal losses of logits and their gradients in one pass.

Nearly all entries of a dense detector are background, where eq. (2) at y = 0 and its slope share all their terms:

    loss  = σ^β softplus(x)
    slope = σ^β (β (1 - σ) softplus(x) + σ)

So both are computed together, and of all intermediate tensors only the slope is kept for the backward. The positives'
entries stand apart: to the pass they are -inf, where loss and slope are 0, and then their value and slope by the plain
formula are put in. The pass serves each loss with this background: Quality Focal Loss, and the focal loss for hard
labels (arXiv:1708.02002), whose background ``-(1 - α) σ^γ log(1 - σ)`` is the same with γ for β, times a factor.

Dimension letters: N rows or images, A priors per cell, C classes, R locations of the batch, P positives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmdet_gfl.ops import LevelPredictions, LocationCoords, LocationIndex

#: A loss of logits (M,), element by element.
LogitLoss = Callable[[Tensor], Tensor]


class FusedForm(NamedTuple):
    """A class loss as :func:`fused_focal_loss` computes it."""

    positive_loss: LogitLoss  #: of the positives' logits at their labels
    beta: float  #: β of the background
    background_factor: float = 1.0
    loss_weight: float = 1.0


#: Entries that go through all operations together: on a CPU they should stay in its cache, elsewhere fill the device.
BLOCK_ON_CPU, BLOCK = 2**17, 2**24


def modulating_factor(distance: Tensor, beta: float) -> Tensor:
    """``distance ** beta``, the focus of eq. (1), (2) and (7); distance is ``|y - estimate|``, at least 0.

    Its slope at distance 0 is 0 for every beta. For 0 < beta < 1 the true one is infinite there, and an automatic
    gradient is inf * 0 = NaN; so distances below the smallest normal number count as 0.
    """
    if beta == 0:
        return torch.ones_like(distance)
    if beta >= 1:
        return distance.pow(beta)
    steep = distance < torch.finfo(distance.dtype).tiny
    return distance.masked_fill(steep, 1).pow(beta).masked_fill(steep, 0)


def fused_focal_loss(
    logits: LevelPredictions, pos: LocationCoords, labels: Tensor, form: FusedForm, weights: Tensor | None = None
) -> Tensor:
    """Weighted sum of the loss of all locations, a scalar; no level is permuted or copied but for the slope.

    Args:
        logits: Class logits; all locations but ``pos`` are background.
        pos: Coordinates of the positives.
        labels: Labels of the positives, (P,) in [0, C). The loss is NaN with any other: visible, and no index error.
        form: The loss.
        weights: Weights of all locations, (R,); None: 1.
    """
    index, num_classes = logits.index, logits.num_outputs
    wrong = (labels < 0) | (labels >= num_classes)
    entries = _entries(pos, labels.clamp(0, num_classes - 1), num_classes)
    one = logits.levels[0].new_ones((), dtype=logits.dtype)
    entry_weights = torch.where(wrong, torch.nan, one if weights is None else weights[pos.flat_inds])
    level_weights = None if weights is None else _weights_per_level(weights * form.background_factor, index)
    if weights is None and form.background_factor != 1:
        level_weights = [one * form.background_factor] * len(logits.levels)
    levels = [level.reshape(-1, num_classes, level[0, 0].numel()) for level in logits.levels]
    total = _FusedLevels.apply(entries, form.positive_loss, entry_weights, level_weights, form.beta, *levels)
    return form.loss_weight * total


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a ``backward`` that keeps nothing but slopes give gradients that raise where they are differentiated."""

    @wraps(backward)
    def wrapper(ctx: Any, grad: Tensor) -> Any:
        twice = torch.is_grad_enabled()
        with torch.no_grad():
            grads = backward(ctx, grad)
        return _NoSecondDerivative.apply(grad.new_zeros((), requires_grad=True), *grads) if twice else grads

    return wrapper


class _NoSecondDerivative(torch.autograd.Function):
    """Tensors as they are, whose gradient raises."""

    @staticmethod
    def forward(ctx: Any, marker: Tensor, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return grads

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(
            'the class loss in one pass has no second derivative; for a gradient penalty use its plain form: give a '
            "loss of mmdet_gfl fused=False, and take a subclass of a loss of MMDetection's, such as FocalLoss"
        )


class FusedRows(torch.autograd.Function):
    """Loss (N,) of logits (N, C); see :meth:`forward`."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, label: Tensor, positive_loss: LogitLoss, beta: float) -> Tensor:
        """The background's pass over ``pred`` (N, C), float32 or float64, with the entries at ``label`` (N, 1) put in.

        Their loss, (N, 1) too, is ``positive_loss``; labels are in [0, C).
        """
        value, slope = _value_and_slope(pred.gather(1, label), positive_loss)
        x = pred.scatter(1, label, -torch.inf)
        loss = background_loss_(x, beta).scatter_(1, label, value).sum(dim=1)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(x.scatter_(1, label, slope))
        return loss

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Scale the kept slope by the gradient (N,) of each row."""
        (slope,) = ctx.saved_tensors
        return slope * grad[:, None], None, None, None


class _FusedLevels(torch.autograd.Function):
    """See :func:`fused_focal_loss`."""

    @staticmethod
    def forward(
        ctx: Any,
        entries: Tensor,
        positive_loss: LogitLoss,
        entry_weights: Tensor,
        level_weights: Sequence[Tensor] | None,
        beta: float,
        *levels: Tensor,
    ) -> Tensor:
        """The background's pass over levels (N · A, C, H · W), with the positives' ``entries`` (P,) put in.

        Entries are places in the levels laid flat one behind the other. Their weights are (P,) or a single one; those
        of a level's background are (N · A, 1, H · W) or a single one, and None means 1.
        """
        sizes = [level.numel() for level in levels]
        dtype = torch.promote_types(levels[0].dtype, torch.float32)
        x = torch.empty(sum(sizes), dtype=dtype, device=levels[0].device)
        parts = [part.view(level.shape) for part, level in zip(x.split(sizes), levels)]
        for part, level in zip(parts, levels):
            part.copy_(level)
        value, slope = _value_and_slope(x[entries], positive_loss)
        x.index_fill_(0, entries, -torch.inf)
        sums = [background_loss_(block, beta, weight).sum() for block, weight in _blocks(parts, level_weights)]
        x[entries] = slope * entry_weights
        ctx.save_for_backward(x)
        ctx.like = [(level.shape, level.dtype) for level in levels]
        return torch.stack([(value * entry_weights).sum(), *sums]).sum()

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the kept slope."""
        (slope,) = ctx.saved_tensors
        parts = (slope * grad).split([shape.numel() for shape, _ in ctx.like])
        grads = [part.view(shape).to(dtype) for part, (shape, dtype) in zip(parts, ctx.like)]
        return None, None, None, None, None, *grads


def background_loss_(x: Tensor, beta: float, weight: Tensor | None = None) -> Tensor:
    """Loss of logits ``x`` (float32 or float64) at y = 0, element by element; in place of ``x`` it leaves the slope.

    Both are multiplied by ``weight``, which broadcasts to ``x``.
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


def _value_and_slope(logits: Tensor, loss: LogitLoss) -> tuple[Tensor, Tensor]:
    """A loss of logits, element by element, and its derivative, of their shape each.

    In inference mode, where nothing has a derivative and no backward can follow, the derivative is given as zeros.
    """
    if torch.is_inference_mode_enabled():
        return loss(logits), torch.zeros_like(logits)
    with torch.enable_grad():
        logits = logits.detach().requires_grad_()
        value = loss(logits)
        (slope,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), slope


def _entries(pos: LocationCoords, labels: Tensor, num_classes: int) -> Tensor:
    """Places (P,) of the entries at ``labels`` in levels (N, A · C, H, W) laid flat one behind the other."""
    index = pos.index
    offsets, num_priors, cells = (
        pos.of_levels(values)
        for values in (index.level_offsets[:-1], index.num_priors, [h * w for h, w in index.featmap_sizes])
    )
    channels = (pos.image * num_priors + pos.prior) * num_classes + labels
    return offsets * num_classes + channels * cells + pos.cell


def _weights_per_level(weights: Tensor, index: LocationIndex) -> list[Tensor]:
    """Weights (R,) as (N · A, 1, H · W) of each level."""
    levels = weights.split([index.num_images * size for size in index.level_sizes])
    return [
        level.view(index.num_images, -1, num_priors).transpose(1, 2).flatten(0, 1)[:, None]
        for level, num_priors in zip(levels, index.num_priors)
    ]


def _blocks(parts: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Contiguous blocks of parts (N · A, C, H · W), each with its weights."""
    size = BLOCK_ON_CPU if parts[0].device.type == 'cpu' else BLOCK
    for level, part in enumerate(parts):
        weight = None if weights is None else weights[level]
        if weight is None or weight.dim() == 0:
            yield from ((block, weight) for block in part.flatten().split(size))
            continue
        _, num_classes, cells = part.shape
        step = max(1, size // (num_classes * cells))
        for rows, of_rows in zip(part.split(step), weight.split(step)):
            channels = num_classes if step > 1 else max(1, size // cells)
            yield from ((block, of_rows) for block in rows.split(channels, dim=1))
