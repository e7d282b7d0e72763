"""Anchors as what they are, a few shapes in each cell of a regular grid: made where they are looked at only.

Dimension letters: L levels, N images, S shapes of all levels (one of each in a cell, level by level), R locations of
the batch, M any number of anchors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator, SSDAnchorGenerator
from torch import Tensor

from .layout import Layout, Places, tensor_like


class AnchorGrid(NamedTuple):
    """The anchors of a batch. An axis is x (0) or y (1).

    Attributes:
        layout: Numbers of the locations.
        sides: Lower and upper side of the anchors of cell 0, (2 sides, 2 axes, S), in pixels.
        strides: (2 axes, L), in pixels.
        valid: Cells that lie in the image and not only in the batch's padding, as (wide, high) of image and level.
    """

    layout: Layout
    sides: Tensor
    strides: Tensor
    valid: list[list[tuple[int, int]]]

    @classmethod
    def of(
        cls, generator: AnchorGenerator, sizes: list[tuple[int, int]], metas: Sequence[dict[str, Any]], device: Any
    ) -> AnchorGrid:
        """What ``generator`` makes for feature maps of ``sizes`` (h, w); ``pad_shape`` says which cells are valid."""
        layout = Layout(sizes, len(metas), generator.num_base_priors)
        base = torch.cat(list(generator.base_anchors)).reshape(-1, 2, 2)  # (S, sides, axes)
        strides = torch.tensor([list(stride) for stride in generator.strides], dtype=base.dtype)
        valid = [
            [
                (min(math.ceil(meta['pad_shape'][1] / across), wide), min(math.ceil(meta['pad_shape'][0] / down), high))
                for (across, down), (high, wide) in zip(generator.strides, layout.sizes)
            ]
            for meta in metas
        ]
        return cls(
            layout,
            base.permute(1, 2, 0).to(device, non_blocking=True),
            strides.t().to(device, non_blocking=True),
            valid,
        )

    @staticmethod
    def fits(generator: Any) -> bool:
        """Whether the priors of ``generator`` are such a grid."""
        return type(generator) in (AnchorGenerator, SSDAnchorGenerator) and not generator.use_box_type

    @property
    def levels(self) -> Tensor:
        """Level of each shape, (S,) int64."""
        counts = self.layout.num_priors
        return tensor_like(self.sides, [level for level, a in enumerate(counts) for _ in range(a)], torch.long)

    def anchors(self, at: Places) -> Tensor:
        """Anchors of M places, (M, 4), xyxy in pixels; to the bit those of the generator."""
        cells = torch.stack((at.x, at.y))  # (axes, M)
        first = tensor_like(at.level, [0, *accumulate(self.layout.num_priors)])
        return (self.sides[:, :, first[at.level] + at.anchor] + cells * self.strides[:, at.level]).flatten(0, 1).t()

    def weights(self) -> Tensor | None:
        """Weight of each location, (R,): 1 at valid anchors, 0 elsewhere; None if all are valid."""
        full = [(wide, high) for high, wide in self.layout.sizes]
        if all(image == full for image in self.valid):
            return None
        valid = tensor_like(self.sides, self.valid, torch.long)  # (N, L, axes)
        levels = []
        for level, (high, wide) in enumerate(self.layout.sizes):
            across, down = valid[:, level, :, None].unbind(1)  # (N, 1) each
            in_x = torch.arange(wide, device=valid.device) < across
            in_y = torch.arange(high, device=valid.device) < down
            in_both = in_y[:, :, None] & in_x[:, None]  # (N, H, W)
            levels.append(in_both[..., None].expand(*in_both.shape, self.layout.num_priors[level]).flatten())
        return torch.cat(levels).to(self.sides)
