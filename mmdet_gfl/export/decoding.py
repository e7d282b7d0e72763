"""From a head's outputs to boxes and scores of all locations, as tensors whose shapes depend on the input's alone.

Dimension letters: N images, L levels, A priors per cell, K locations per image (level by level, there as (H, W, A)
flattens), C classes, k outputs per side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.task_modules import Locations
from mmdet_gfl.ops import upcast


class Predictions(NamedTuple):
    """Predictions of all locations, at least float32.

    Attributes:
        boxes: (N, K, 4), xyxy in pixels of the input, clipped as the head clips.
        class_scores: (N, K, C), before a branch.
        factors: Factors by a branch, (N, K, 1); None without a branch.
        std: Standard deviations of the sides l, t, r, b in pixels, before clipping, (N, K, 4); None if not asked for.
        level_sizes: Locations of each level.
    """

    boxes: Tensor
    class_scores: Tensor
    factors: Tensor | None
    std: Tensor | None
    level_sizes: list[int]

    @property
    def scores(self) -> Tensor:
        """(N, K, C)."""
        return self.class_scores if self.factors is None else self.class_scores * self.factors


def decode_outputs(
    head: DenseGFLMixin, outs: Sequence[Sequence[Tensor]], image_sizes: Tensor, with_std: bool = False
) -> Predictions:
    """Boxes and scores of all locations; what box and quality do is left to their own methods.

    Args:
        head: In eval mode.
        outs: The result of its ``forward``. Sizes are read off the box outputs alone: a quality may reshape class
            logits with the sizes of the traced example.
        image_sizes: Height and width that the boxes are clipped to, (N, 2).
        with_std: Compute the standard deviations.
    """
    cls_scores, bbox_preds, *branch = outs
    num_images = bbox_preds[0].size(0)
    logits = flatten_levels(cls_scores, num_images, head.cls_out_channels).flatten(0, 1)  # (N · K, C)
    bbox_pred = flatten_levels(bbox_preds, num_images, 4 * head.box.channels).flatten(0, 1)  # (N · K, 4k)
    sizes = [(level.size(2), level.size(3)) for level in bbox_preds]
    level_sizes = [h * w * a for (h, w), a in zip(sizes, head.prior_generator.num_base_priors)]
    locations = repeat_locations(head, sizes, num_images, bbox_pred)
    corners = image_sizes[:, [1, 0, 1, 0]].unsqueeze(1).expand(-1, sum(level_sizes), -1).flatten(0, 1)
    boxes = head.clip(head.box.decode(bbox_pred, locations, head), corners)
    std = head.box.side_statistics(bbox_pred, head).std * locations.strides[:, None] if with_std else None
    return Predictions(
        boxes.unflatten(0, (num_images, -1)),
        head.class_scores(logits).unflatten(0, (num_images, -1)),
        flatten_levels(branch[0], num_images, 1).sigmoid() if branch else None,
        None if std is None else std.unflatten(0, (num_images, -1)),
        level_sizes,
    )


def flatten_levels(levels: Sequence[Tensor], num_images: int, num_outputs: int) -> Tensor:
    """Levels (N, A · num_outputs, H, W) to (N, K, num_outputs), at least float32."""
    flat = [upcast(level).permute(0, 2, 3, 1).reshape(num_images, -1, num_outputs) for level in levels]
    return torch.cat(flat, dim=1)


def repeat_locations(head: DenseGFLMixin, sizes: Sequence[tuple[int, int]], num_images: int, like: Tensor) -> Locations:
    """Locations of levels of ``sizes`` (H, W), once per image: N · K in all; dtype and device of ``like``."""
    priors = head.prior_generator.grid_priors(sizes, dtype=like.dtype, device=like.device)
    strides = [of_level.new_full((of_level.size(0),), stride) for of_level, stride in zip(priors, head.level_strides)]
    return Locations.of_priors(torch.cat(priors).repeat(num_images, 1), torch.cat(strides).repeat(num_images))
