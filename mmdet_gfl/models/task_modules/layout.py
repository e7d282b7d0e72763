"""How the locations of a batch are numbered, and back from a number to its place.

Dimension letters: N images, A priors a cell, R locations of the batch, M any number of them. The R locations run level
by level, inside a level image by image, inside an image as (H, W, A) flattens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Places(NamedTuple):
    """Where locations lie, (M,) int64 each.

    Attributes:
        level: Level.
        image: Image of the batch.
        y: Row of the level's feature map.
        x: Column.
        anchor: Prior of the cell.
    """

    level: Tensor
    image: Tensor
    y: Tensor
    x: Tensor
    anchor: Tensor


class Layout:
    """Numbers 0 to R - 1 of all locations of a batch.

    Args:
        sizes: Height and width of each level's feature map.
        num_images: N.
        num_priors: A of each level.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], num_images: int, num_priors: Sequence[int]) -> None:
        self.sizes = [(int(high), int(wide)) for high, wide in sizes]
        self.num_images = num_images
        self.num_priors = list(num_priors)
        per_level = [num_images * high * wide * a for (high, wide), a in zip(self.sizes, self.num_priors)]
        #: Number of the first location of each level, and R behind them.
        self.starts = [0, *accumulate(per_level)]

    @property
    def total(self) -> int:
        """R."""
        return self.starts[-1]

    def level_of(self, numbers: Tensor) -> Tensor:
        """Level of locations (M,)."""
        return torch.bucketize(numbers, tensor_like(numbers, self.starts[1:]), right=True)

    def places(self, numbers: Tensor) -> Places:
        """Places of locations (M,)."""
        level = self.level_of(numbers)
        start, high, wide, num_priors = self._of_levels(level)
        cell, anchor = divide(numbers - start, num_priors)
        row, x = divide(cell, wide)
        image, y = divide(row, high)
        return Places(level, image, y, x, anchor)

    def numbers(self, at: Places) -> Tensor:
        """Inverse of :meth:`places`: locations (M,)."""
        start, high, wide, num_priors = self._of_levels(at.level)
        return start + ((at.image * high + at.y) * wide + at.x) * num_priors + at.anchor

    def _of_levels(self, level: Tensor) -> tuple[Tensor, ...]:
        """First number, height, width and priors a cell of levels (M,), (M,) each."""
        rows = [(start, high, wide, a) for start, (high, wide), a in zip(self.starts, self.sizes, self.num_priors)]
        return tensor_like(level, rows)[level].unbind(1)

    def bounds(self, numbers: Tensor) -> list[int]:
        """Where each level's share begins among ascending ``numbers`` (M,), and M behind them.

        A device is asked once; where ``numbers`` come from ``nonzero`` it has been waited for already.
        """
        bounds: list[int] = torch.searchsorted(numbers, tensor_like(numbers, self.starts)).tolist()
        return bounds


def tensor_like(like: Tensor, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    """Values on the device of ``like`` and in its dtype, or another; nobody waits for the device."""
    return torch.tensor(values, dtype=dtype or like.dtype).to(like.device, non_blocking=True)


def divide(numbers: Tensor, by: Tensor | int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of integers that are not negative."""
    quotient = torch.div(numbers, by, rounding_mode='floor')
    return quotient, numbers - quotient * by
