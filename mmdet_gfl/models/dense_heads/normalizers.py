"""The divisors of the hosts' losses; means over ranks, each in one reduction."""

from __future__ import annotations

import torch
from mmdet.utils import reduce_mean
from torch import Tensor


def weight_normalizers(count: float | Tensor, weights: Tensor, least: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Normalisers of hosts that weight their boxes: a count for the classes, and the sum of the box weights.

    ``count`` is the host's on this rank, ``weights`` (P,) are the positives', ``least`` are lower bounds of the two.
    """
    sums = reduce_mean(torch.stack([_scalar(count, weights), weights.sum()]))
    return sums[0].clamp(min=least[0]), sums[1].clamp(min=least[1])


def count_normalizers(
    cls_count: float | Tensor, box_count: float | Tensor, weights: Tensor, uniform: bool
) -> tuple[Tensor, Tensor]:
    """Normalisers of hosts that count: RetinaNet, FoveaBox, SSD.

    Where a quality weights their boxes, the sum of the weights normalises the box losses, as on FCOS: divided by a
    count, boxes weighted by a score of 0.01 would hardly be learned. ``uniform``: all ``weights`` (P,) are 1.
    """
    sums = reduce_mean(torch.stack([_scalar(cls_count, weights), _scalar(box_count, weights), weights.sum()]))
    return sums[0], sums[1 if uniform else 2].clamp(min=1e-6)


def _scalar(count: float | Tensor, like: Tensor) -> Tensor:
    """A count as a tensor of no dimension."""
    return count.to(like) if isinstance(count, Tensor) else like.new_full((), count)
