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
    boxes = weights.sum() if box_count is None else _scalar(box_count, weights)
    sums = reduce_mean(torch.stack([_scalar(count, weights), boxes]))
    return sums[0].clamp(min=least[0]), sums[1].clamp(min=least[1])


def _scalar(count: float | Tensor, like: Tensor) -> Tensor:
    """A count as a tensor of no dimension."""
    return count.to(like) if isinstance(count, Tensor) else like.new_full((), count)
