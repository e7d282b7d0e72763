"""Statistics of the distributions of box sides, from which GFLv2 predicts the localization quality.

Generalized Focal Loss V2, CVPR 2021, https://arxiv.org/abs/2011.12885, section 3.2.
Dimension letters: N images; S sides per cell (4 per prior); n + 1 bins, at 0, 1, ..., n; F features per side; k largest
probabilities; K = N · S sides of L = H · W cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mmdet_gfl.ops import upcast
from mmdet_gfl.utils.compiling import is_tracing

STATISTICS = ('topk', 'mean', 'var')

#: Probabilities that go through all operations together on a CPU: few calls, yet no pass over all of memory.
BLOCK = 2**19


def distribution_statistics(
    logits: Tensor, bins: int, topk: int = 4, statistics: Sequence[str] = ('topk', 'mean')
) -> Tensor:
    """Features of each side's distribution ``P = softmax(logits)`` over its bins, differentiable to the logits.

    - ``'topk'``: the k largest probabilities, descending; k features. Of equal probabilities, each passes its gradient
      to another bin.
    - ``'mean'``: mean of these k.
    - ``'var'``: variance of the bin number, ``Σ_i P_i (i - Σ_j P_j j)²``, in bins², within [0, n² / 4].

    Args:
        logits: (N, S · bins, H, W), side by side, the bins of a side adjacent.
        bins: n + 1.
        topk: k.
        statistics: Names, in the order of the features.

    Returns:
        (N, S · F, H, W), side by side, contiguous; float32 for half precision, else the dtype of ``logits``. A NaN
        logit makes all features of its side NaN.

    Raises:
        ValueError: A statistic is unknown, ``topk`` is not within [1, bins], or the channels are not S · bins.
    """
    validate_statistics('statistics', statistics)
    if not 1 <= topk <= bins:
        raise ValueError(f'topk={topk}; accepted: 1 to {bins}, the number of bins')
    if logits.size(1) == 0 or logits.size(1) % bins:
        raise ValueError(f'logits have {logits.size(1)} channels; needs a multiple of bins={bins}')
    features = {}
    with torch.autocast(logits.device.type, enabled=False):
        sides = upcast(logits).unflatten(1, (-1, bins))  # (N, S, bins, H, W)
        if 'topk' in statistics or 'mean' in statistics:
            features['topk'] = _largest_probabilities(sides, topk)  # (N, S, k, H, W)
            features['mean'] = features['topk'].mean(dim=2, keepdim=True)
        if 'var' in statistics:
            features['var'] = _variance(sides)
        return torch.cat([features[name] for name in statistics], dim=2).flatten(1, 2)


def validate_statistics(key: str, statistics: Sequence[str]) -> None:
    """Raise ``ValueError``, which names ``key``, for statistics that are unknown, given twice, or none at all."""
    given = set(statistics)
    if isinstance(statistics, str) or not given or len(given) < len(statistics) or not given <= set(STATISTICS):
        raise ValueError(f'{key}={statistics!r}; accepted: a list of {", ".join(STATISTICS)}, each at most once')


def _variance(sides: Tensor) -> Tensor:
    """Variance of the bin number, (N, S, 1, H, W); squared differences, since moments cancel in sharp distributions."""
    probability = sides.softmax(dim=2)
    numbers = torch.arange(sides.size(2), dtype=sides.dtype, device=sides.device).view(-1, 1, 1)
    mean = (probability * numbers).sum(dim=2, keepdim=True)
    return (probability * (numbers - mean).square()).sum(dim=2, keepdim=True)


def _largest_probabilities(sides: Tensor, k: int) -> Tensor:
    """The k largest probabilities per side, descending, (N, S, k, H, W)."""
    if not _is_blockwise(sides):
        return sides.softmax(dim=2).topk(k, dim=2).values
    flat = sides.flatten(3).flatten(0, 1)  # (K, bins, L)
    if torch.is_grad_enabled() and flat.requires_grad:
        top: Tensor = _LargestProbabilities.apply(flat, k)
    else:
        top = torch.cat([_largest(_softmax(block, torch.empty_like(block)), k) for (block,) in _blocks(flat)])
    return top.view(*sides.shape[:2], k, *sides.shape[3:])


def _is_blockwise(sides: Tensor) -> bool:
    """True on a CPU, where ``topk`` is slow; tracers and exporters record its one operator instead of one per bin."""
    return sides.device.type == 'cpu' and not is_tracing()


class _LargestProbabilities(torch.autograd.Function):
    """The k largest probabilities (K, k, L) of logits (K, bins, L), with the bins they come from for the gradient.

    The keys that are sorted are the probabilities in float64, with the bin in the lowest bits of the mantissa. The bits
    are spare in float32; float64 loses at most 1e-14 of a value. No two keys are equal.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, k: int) -> Tensor:
        probability = torch.empty_like(logits)
        top = logits.new_empty(logits.size(0), k, logits.size(2))
        inds = torch.empty_like(top, dtype=torch.int64)
        last = logits.size(1) - 1
        mask = (1 << last.bit_length()) - 1
        numbers = torch.arange(last + 1).view(-1, 1)
        for x, p, values, bins in _blocks(logits, probability, top, inds):
            bits = _softmax(x, p).to(torch.float64, copy=True).view(torch.int64)
            if p.dtype == torch.float64:
                bits.bitwise_and_(~mask)
            largest = _largest(bits.bitwise_or_(numbers).view(torch.float64), k)
            values.copy_(largest)
            torch.bitwise_and(largest.view(torch.int64), mask, out=bins).clamp_(max=last)  # NaN has any bits
        ctx.save_for_backward(logits, probability, top, inds)
        return top

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, probability, top, inds = ctx.saved_tensors
        if torch.is_grad_enabled():  # it will be differentiated again
            values = logits.softmax(dim=1).gather(1, inds)
            return torch.autograd.grad(values, logits, grad, create_graph=True)[0], None
        grad_logits = torch.empty_like(probability)
        for out, g, p, values, bins in _blocks(grad_logits, grad, probability, top, inds):
            weighted = g * values
            torch.mul(p, -weighted.sum(dim=1, keepdim=True), out=out).scatter_add_(1, bins, weighted)
        return grad_logits, None


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of some sides of tensors (K, ..., L) whose first has about ``BLOCK`` entries."""
    sides = max(1, BLOCK // max(1, tensors[0][:1].numel()))
    return zip(*(tensor.split(sides) for tensor in tensors))


def _softmax(logits: Tensor, out: Tensor) -> Tensor:
    """Softmax along dimension 1, into ``out``; faster on a CPU than PyTorch's own along any but the last dimension."""
    torch.sub(logits, logits.amax(dim=1, keepdim=True), out=out).exp_()
    return out.div_(out.sum(dim=1, keepdim=True))


def _largest(values: Tensor, k: int) -> Tensor:
    """The k largest of non-negative values (K, bins, L) along dimension 1, descending: each bin is inserted into them.

    With the largest so far as rows 1 to k, and infinity before them, a new value v makes row j the median of row j - 1,
    v and row j: one clamp for all rows.
    """
    old = values.new_full((values.size(0), k + 1, values.size(2)), -1)
    old[:, 0] = torch.inf
    pairs = [(rows[:, :-1], rows[:, 1:]) for rows in (old, old.clone())]
    for value in values.split(1, dim=1):
        (before, largest), (_, updated) = pairs
        torch.clamp(value, largest, before, out=updated)
        pairs.reverse()
    return pairs[0][1]
