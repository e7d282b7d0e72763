"""Anchors as a few shapes in each cell of a regular grid, computed only where they are needed.

Dimension letters: L levels, N images, S shapes of all levels (one of each per cell, level by level), R locations of the
batch, M any number of anchors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator, SSDAnchorGenerator
from torch import Tensor

from mmdet_gfl.ops import LocationCoords, LocationIndex, constant_like


class AnchorGrid(NamedTuple):
    """The anchors of a batch. An axis is x (0) or y (1)."""

    location_index: LocationIndex
    sides: Tensor  #: lower and upper side of the anchors of cell 0, (2 sides, 2 axes, S), in pixels
    strides: Tensor  #: (2 axes, L), in pixels
    #: Width and height in cells of the part of each image and level that is not only the batch's padding.
    valid: list[list[tuple[int, int]]]

    @classmethod
    def of(
        cls, generator: AnchorGenerator, index: LocationIndex, img_metas: Sequence[dict[str, Any]], device: Any
    ) -> AnchorGrid:
        """Describe what ``generator`` makes for an index; ``pad_shape`` says which cells are valid."""
        base = torch.cat(list(generator.base_anchors)).reshape(-1, 2, 2)  # (S, sides, axes)
        strides = torch.tensor([list(stride) for stride in generator.strides], dtype=base.dtype)
        valid = [
            [
                (min(math.ceil(meta['pad_shape'][1] / dx), w), min(math.ceil(meta['pad_shape'][0] / dy), h))
                for (dx, dy), (h, w) in zip(generator.strides, index.featmap_sizes)
            ]
            for meta in img_metas
        ]
        sides = base.permute(1, 2, 0).to(device, non_blocking=True)
        return cls(index, sides, strides.t().to(device, non_blocking=True), valid)

    @staticmethod
    def fits(generator: Any) -> bool:
        """True if the priors of ``generator`` are such a grid."""
        return type(generator) in (AnchorGenerator, SSDAnchorGenerator) and not generator.use_box_type

    @property
    def levels(self) -> Tensor:
        """Level of each shape, (S,) int64."""
        counts = self.location_index.num_priors
        return constant_like(self.sides, [level for level, a in enumerate(counts) for _ in range(a)], torch.long)

    def anchors(self, level: Tensor, y: Tensor, x: Tensor, prior: Tensor | int) -> Tensor:
        """Anchors at M places, (M, 4), xyxy in pixels; to the bit those of the generator."""
        cells = torch.stack((x, y))  # (axes, M)
        first = constant_like(level, [0, *accumulate(self.location_index.num_priors)])
        return (self.sides[:, :, first[level] + prior] + cells * self.strides[:, level]).flatten(0, 1).t()

    def anchors_at(self, coords: LocationCoords) -> Tensor:
        """:meth:`anchors` at coordinates."""
        return self.anchors(coords.level, coords.y, coords.x, coords.prior)

    def label_weights(self) -> Tensor | None:
        """Weight of each location, (R,): 1 at valid anchors, 0 elsewhere; None if all are valid."""
        full = [(w, h) for h, w in self.location_index.featmap_sizes]
        if all(image == full for image in self.valid):
            return None
        valid = constant_like(self.sides, self.valid, torch.long)  # (N, L, axes)
        levels = []
        for level, (h, w) in enumerate(self.location_index.featmap_sizes):
            columns, rows = valid[:, level, :, None].unbind(1)  # (N, 1) each
            in_x = torch.arange(w, device=valid.device) < columns
            in_y = torch.arange(h, device=valid.device) < rows
            inside = in_y[:, :, None] & in_x[:, None]  # (N, H, W)
            levels.append(inside[..., None].expand(*inside.shape, self.location_index.num_priors[level]).flatten())
        return torch.cat(levels).to(self.sides)
