"""The integral: from a box side's distribution to its distance.

Generalized Focal Loss, NeurIPS 2020, https://arxiv.org/abs/2006.04388, eq. (3) to (5).
Dimension letters: n + 1 bins, at 0, 1, ..., n (n is ``reg_max``); K box sides.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmdet_gfl.registry import MODELS


def integral(logits: Tensor, delta: float = 1.0, project: Tensor | None = None) -> Tensor:
    """Mean of each distribution, ``Δ Σ_i P_i i`` with ``P = softmax(logits)``, eq. (5).

    Args:
        logits: (..., n + 1).
        delta: Step Δ between the bins, in strides.
        project: The bins' numbers 0..n, (n + 1,); made here if not given.

    Returns:
        Distances (...), in strides, within [0, n Δ]; float32 for half precision, else the dtype of ``logits``.
    """
    if logits.dim() > 1 and logits.stride(-1) > logits.stride(0):  # as decoding reads them, see outputs_at
        probability = _probability(logits.movedim(0, -1), dim=-2)  # along the bins as they lie: twice as fast
        return delta * (probability * _bins(probability, project, dim=-2)).sum(dim=-2).movedim(-1, 0)
    probability = _probability(logits)
    return delta * (probability * _bins(probability, project)).sum(dim=-1)


def distribution_std(logits: Tensor, delta: float = 1.0, project: Tensor | None = None) -> Tensor:
    """Standard deviation of each distribution: how unsure the distance is.

    Computed from squared differences to the mean, which cannot become negative by rounding; the gradient is 0 where all
    probability lies in one bin. Arguments, shapes and dtypes are those of :func:`integral`; the result lies within
    [0, n Δ / 2].
    """
    probability = _probability(logits)
    bins = _bins(probability, project)
    mean = (probability * bins).sum(dim=-1, keepdim=True)
    variance = (probability * (bins - mean).square()).sum(dim=-1)
    certain = variance == 0
    return delta * variance.masked_fill(certain, 1).sqrt().masked_fill(certain, 0)


def _probability(logits: Tensor, dim: int = -1) -> Tensor:
    return logits.softmax(dim=dim, dtype=torch.promote_types(logits.dtype, torch.float32))


def _bins(probability: Tensor, project: Tensor | None, dim: int = -1) -> Tensor:
    if project is None:
        project = torch.arange(probability.size(dim), device=probability.device)
    return project.to(probability).view(-1, *[1] * (-1 - dim))


@MODELS.register_module()
class Integral(nn.Module):
    """Distances of K box sides from their distributions, eq. (5), see :func:`integral`.

    Its only state is the buffer ``project``, 0..n whatever Δ is, as in MMDetection: state dicts can be exchanged.

    Args:
        reg_max: n, the number of the last bin; a side has n + 1 logits.
        delta: Step Δ between the bins, in strides; the largest distance is n Δ.

    Raises:
        ValueError: ``reg_max`` is not an integer >= 1, or ``delta`` not a finite number > 0.
    """

    project: Tensor

    def __init__(self, reg_max: int = 16, delta: float = 1.0) -> None:
        super().__init__()
        if isinstance(reg_max, bool) or not isinstance(reg_max, int) or reg_max < 1:
            raise ValueError(f'reg_max must be an integer >= 1, got {reg_max!r}')
        if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 0 < delta < math.inf:
            raise ValueError(f'delta must be a finite number > 0, got {delta!r}')
        self.reg_max = reg_max
        self.delta = delta
        self.register_buffer('project', torch.arange(reg_max + 1, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Distances (..., K) in strides from logits (..., K (n + 1)), side by side.

        Half precision is computed and returned in float32, since boxes are decoded from it. MMDetection's layer makes
        one leading dimension of several; here they stay.

        Raises:
            ValueError: The last dimension is not a multiple of n + 1.
        """
        bins = self.reg_max + 1
        if x.dim() == 0 or x.size(-1) == 0 or x.size(-1) % bins:
            raise ValueError(
                f'Integral with reg_max={self.reg_max} needs (..., K * {bins}), {bins} logits for each of K box sides '
                f'(a head gives 4 * {bins} = {4 * bins}), got a tensor of shape {tuple(x.shape)}'
            )
        return integral(x.unflatten(-1, (-1, bins)), self.delta, self.project)

    def extra_repr(self) -> str:
        """The settings, for ``print(model)``."""
        return f'reg_max={self.reg_max}, delta={self.delta}'
