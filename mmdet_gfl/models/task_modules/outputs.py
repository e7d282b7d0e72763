"""The outputs of a batch where they lie, and the rows of its positives.

Dimension letters: N images, A priors a cell, R locations of the batch, P positives, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from mmdet_gfl.ops.pick_rows import Cells, pick_rows, rows_of_levels

from .layout import Layout, tensor_like


class Picked:
    """Some locations of a batch and where their outputs lie.

    Args:
        layout: How the locations are numbered.
        pos: The picked ones, (P,) int64, ascending.
    """

    def __init__(self, layout: Layout, pos: Tensor) -> None:
        self.layout = layout
        self.pos = pos
        self.places = layout.places(pos)

    @cached_property
    def cells(self) -> list[Cells]:
        """Image, prior, row and column of those of each level."""
        bounds = self.layout.bounds(self.pos)
        image, anchor, y, x = self.places.image, self.places.anchor, self.places.y, self.places.x
        return [(image[a:b], anchor[a:b], y[a:b], x[a:b]) for a, b in zip(bounds, bounds[1:])]

    def entries(self, width: int, column: Tensor) -> Tensor:
        """Where an entry of each location lies when levels (N, A · width, H, W) are laid flat one behind the other.

        Args:
            width: Outputs a location.
            column: Which of them, (P,) in [0, width).
        """
        at, layout = self.places, self.layout
        table = tensor_like(
            self.pos,
            [(start, a, high, wide) for start, a, (high, wide) in zip(layout.starts, layout.num_priors, layout.sizes)],
        )
        start, num_priors, high, wide = table[at.level].unbind(1)
        channel = (at.image * num_priors + at.anchor) * width + column
        return start * width + (channel * high + at.y) * wide + at.x


class Outputs:
    """What a head predicts for a batch: ``width`` numbers a location, in the layout that they come in.

    Args:
        levels: (N, A · width, H, W) each.
        width: Outputs a location.
        picked: The positives.
    """

    def __init__(self, levels: Sequence[Tensor], width: int, picked: Picked) -> None:
        self.levels = list(levels)
        self.width = width
        self.picked = picked

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows: float32 at least."""
        return torch.promote_types(self.levels[0].dtype, torch.float32)

    @cached_property
    def rows(self) -> Tensor:
        """All locations, (R, width); a copy of everything, for those who need it."""
        return rows_of_levels(self.levels, self.width)

    @cached_property
    def positives(self) -> Tensor:
        """The positives' rows, (P, width), with their graph."""
        return pick_rows(self.levels, self.width, self.picked.cells)
