"""Locations of a batch under one index, and a head's predictions gathered at some of them without a copy of the rest.

Dimension letters: N images, L levels, A priors per cell, R locations of the batch, K = R / N locations per image, P
selected locations. The R locations run level by level, inside a level image by image, inside an image as (H, W, A)
flattens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .tensors import constant_like, floor_divmod, upcast


class LocationIndex:
    """Flat indices 0 to R - 1 of all locations of a batch.

    ``featmap_sizes`` are height and width of each level's feature map, ``num_priors`` A of each level.
    """

    def __init__(self, featmap_sizes: Sequence[tuple[int, int]], num_images: int, num_priors: Sequence[int]) -> None:
        self.featmap_sizes = [(int(h), int(w)) for h, w in featmap_sizes]
        self.num_images = num_images
        self.num_priors = list(num_priors)
        #: Locations per image of each level.
        self.level_sizes = [h * w * a for (h, w), a in zip(self.featmap_sizes, self.num_priors)]
        #: Flat index of the first location of each level, and R at the end.
        self.level_offsets = [0, *accumulate(num_images * size for size in self.level_sizes)]

    @property
    def total(self) -> int:
        """R."""
        return self.level_offsets[-1]

    def coords(self, flat_inds: Tensor) -> LocationCoords:
        """Coordinates of the locations ``flat_inds`` (P,) int64, ascending."""
        return LocationCoords(self, flat_inds)

    def flat_inds(self, level: Tensor, image: Tensor, y: Tensor, x: Tensor, prior: Tensor | int = 0) -> Tensor:
        """Flat indices of locations given by their coordinates, int64 tensors that broadcast, in any order."""
        sizes = zip(self.level_offsets, self.featmap_sizes, self.num_priors)
        table = constant_like(level, [(offset, h, w, a) for offset, (h, w), a in sizes])
        offset, height, width, num_priors = table[level].unbind(-1)
        return offset + ((image * height + y) * width + x) * num_priors + prior

    def image_major(self, values: Tensor) -> Tensor:
        """Values in the order of the flat indices, (R, ...), by image: (N, K, ...)."""
        sizes = [self.num_images * size for size in self.level_sizes]
        return torch.cat([level.unflatten(0, (self.num_images, -1)) for level in values.split(sizes)], dim=1)


class LocationCoords:
    """Coordinates of the locations ``flat_inds`` (P,) int64, ascending; a device is synchronized once."""

    def __init__(self, index: LocationIndex, flat_inds: Tensor) -> None:
        self.index = index
        self.flat_inds = flat_inds
        sizes = [size for size in index.level_sizes for _ in range(index.num_images)]
        offsets = constant_like(flat_inds, [0, *accumulate(sizes)])
        bounds: list[int] = torch.searchsorted(flat_inds, offsets).tolist()
        #: Number of locations of each group, which is a level and image; N groups per level.
        self.group_sizes = [end - start for start, end in zip(bounds, bounds[1:])]
        groups = torch.arange(len(sizes), device=flat_inds.device)
        counts = constant_like(flat_inds, self.group_sizes)
        #: ``level * N + image``, (P,) int64.
        self.group = groups.repeat_interleave(counts, output_size=len(flat_inds))
        #: Prior of the cell, (P,) int64, or 0 where every level has one.
        self.prior: Tensor | int = 0
        #: ``y * width + x`` in the level's feature map, (P,) int64.
        self.cell = flat_inds - offsets[self.group]
        if any(a != 1 for a in index.num_priors):
            self.cell, self.prior = floor_divmod(self.cell, self.of_levels(index.num_priors))

    def __len__(self) -> int:
        return len(self.flat_inds)

    def of_levels(self, values: Sequence[float], dtype: torch.dtype | None = None) -> Tensor:
        """Constants of the levels at each location, (P,), int64 unless another dtype is given."""
        of_groups = [value for value in values for _ in range(self.index.num_images)]
        return constant_like(self.flat_inds, of_groups, dtype)[self.group]

    @cached_property
    def level(self) -> Tensor:
        """(P,) int64."""
        return self.of_levels(range(len(self.index.level_sizes)))

    @cached_property
    def image(self) -> Tensor:
        """Image of the batch, (P,) int64."""
        return self.of_images(range(self.index.num_images))

    def of_images(self, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
        """Constants of the images at each location, (P, ...), int64 unless another dtype is given."""
        return constant_like(self.flat_inds, [*values] * len(self.index.level_sizes), dtype)[self.group]

    @cached_property
    def _yx(self) -> tuple[Tensor, Tensor]:
        return floor_divmod(self.cell, self.of_levels([w for _, w in self.index.featmap_sizes]))

    @property
    def y(self) -> Tensor:
        """Row of the level's feature map, (P,) int64."""
        return self._yx[0]

    @property
    def x(self) -> Tensor:
        """Column, (P,) int64."""
        return self._yx[1]

    @cached_property
    def prior_inds(self) -> Tensor:
        """Index of each location among the K of its image, (P,) int64: level by level, there as (H, W, A) flattens."""
        index, n = self.index, self.index.num_images
        starts = zip([0, *accumulate(index.level_sizes)], index.level_sizes)
        others = [(n - 1) * start + image * size for start, size in starts for image in range(n)]
        return self.flat_inds - constant_like(self.flat_inds, others)[self.group]

    @cached_property
    def per_level(self) -> list[int]:
        """Number of locations of each level."""
        n = self.index.num_images
        return [sum(self.group_sizes[start : start + n]) for start in range(0, len(self.group_sizes), n)]

    @property
    def per_image(self) -> list[int]:
        """Number of locations of each image."""
        return [sum(self.group_sizes[image :: self.index.num_images]) for image in range(self.index.num_images)]


class LevelPredictions:
    """One kind of predictions of a batch, ``num_outputs`` per location, in the layout in which the head gives them.

    That is ``levels`` (N, A · num_outputs, H, W), of any strides.
    """

    def __init__(self, levels: Sequence[Tensor], num_outputs: int, index: LocationIndex) -> None:
        self.levels = list(levels)
        self.num_outputs = num_outputs
        self.index = index

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of gathered and flattened predictions: at least float32."""
        return torch.promote_types(self.levels[0].dtype, torch.float32)

    def flatten(self) -> Tensor:
        """All locations, (R, num_outputs), at least float32: a copy of everything."""
        k = self.num_outputs
        return torch.cat([upcast(level.permute(0, 2, 3, 1).reshape(-1, k)) for level in self.levels])

    def gather(self, coords: LocationCoords) -> Tensor:
        """The rows of :meth:`flatten` at ``coords``, (P, num_outputs), with their graph.

        Without a graph they lie in memory as (num_outputs, P), where sums over the outputs are fastest; with one they
        are contiguous, as losses want them.
        """
        return _Gather.apply(coords, self.num_outputs, torch.is_grad_enabled(), *self.levels)


class _Gather(torch.autograd.Function):
    """See :meth:`LevelPredictions.gather`; the gradient of a level is zeros with the rows written into them once."""

    @staticmethod
    def forward(ctx: Any, coords: LocationCoords, num_outputs: int, contiguous: bool, *levels: Tensor) -> Tensor:
        ctx.coords, ctx.num_outputs = coords, num_outputs
        ctx.like = [(level.shape, level.dtype, _memory_format(level)) for level in levels]
        parts = [upcast(_columns(*pair, num_outputs)) for pair in zip(levels, _offsets(coords, num_outputs, levels))]
        rows = torch.cat(parts, dim=1).t()
        return rows.contiguous() if contiguous else rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = [
            torch.empty(shape, dtype=dtype, device=grad.device, memory_format=layout).zero_()
            for shape, dtype, layout in ctx.like
        ]
        coords, per_level = ctx.coords, ctx.coords.per_level
        priors = coords.prior.split(per_level) if isinstance(coords.prior, Tensor) else [coords.prior] * len(grads)
        rows = (values.split(per_level) for values in (coords.image, coords.cell, grad))
        for level, prior, image, cell, of_level in zip(grads, priors, *rows):
            level.unflatten(1, (-1, ctx.num_outputs)).flatten(3)[image, prior, :, cell] = of_level.to(level.dtype)
        return None, None, None, *grads


def _offsets(coords: LocationCoords, num_outputs: int, levels: Sequence[Tensor]) -> list[Tensor]:
    """Places of the first output of each location in the memory of its level, (P_level,) per level."""
    # One stride leads from cell to cell across the rows.
    dense = all(level.stride(2) == level.size(3) * level.stride(3) for level in levels)
    parts = [coords.image, coords.cell] if dense else [coords.image, coords.y, coords.x]
    parts += [coords.prior] if isinstance(coords.prior, Tensor) else []
    offsets = []
    for level, image, *others in zip(levels, *(values.split(coords.per_level) for values in parts)):
        per_image, per_channel, per_row, per_column = level.stride()
        strides = [per_column] if dense else [per_row, per_column]
        offset = image * per_image
        for values, stride in zip(others, [*strides, num_outputs * per_channel]):
            offset = torch.add(offset, values, alpha=stride)
        offsets.append(offset)
    return offsets


def _columns(level: Tensor, offsets: Tensor, num_outputs: int) -> Tensor:
    """Outputs (num_outputs, P) of a level's locations, given by the place of their first output in memory.

    The view says that output c lies c channel strides behind the first, wherever that is: one index serves all outputs.
    """
    reach = sum((size - 1) * stride for size, stride in zip(level.shape, level.stride()))
    reach -= (num_outputs - 1) * level.stride(1)
    if not len(offsets):
        return level.new_empty(num_outputs, 0)
    view = level.as_strided((num_outputs, reach + 1), (level.stride(1), 1))
    return view.gather(1, offsets.expand(num_outputs, -1))


def _memory_format(level: Tensor) -> torch.memory_format:
    """Channels last if the level is stored so, else contiguous."""
    last = not level.is_contiguous() and level.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
