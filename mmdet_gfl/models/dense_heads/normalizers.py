"""The divisors of the hosts' losses; means over ranks, each in one reduction."""

from __future__ import annotations

import torch
from mmdet.utils import reduce_mean
from torch import Tensor


def weight_normalizers(
    count: float | Tensor, weights: Tensor, least: tuple[float, float], box_count: float | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A count for the classes, and the sum of their weights for the boxes, or ``box_count`` where it is given.

    The counts are the host's on this rank, ``weights`` (P,) are the positives', ``least`` are lower bounds of the two.
    """
    counts = count, weights.sum() if box_count is None else box_count
    scalars = [value.to(weights) if isinstance(value, Tensor) else weights.new_full((), value) for value in counts]
    means = reduce_mean(torch.stack(scalars))
    return means[0].clamp(min=least[0]), means[1].clamp(min=least[1])
