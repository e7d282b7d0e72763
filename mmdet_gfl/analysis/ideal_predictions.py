"""Predictions of a head that has learned its objects, for an assigner that depends on predictions.

Dimension letters: K locations of an image, L levels, A priors per cell, G objects, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.models.boxes.dirac import DiracBox
from mmdet_gfl.models.dense_heads.dense_gfl_mixin import DenseGFLMixin
from mmdet_gfl.models.task_modules import Locations


def with_dirac_box(head: DenseGFLMixin) -> DenseGFLMixin:
    """The same head, with shared layers, for which the host's four numbers are the box outputs of an assignment."""
    assigning = copy.copy(head)
    assigning.box = DiracBox()
    return assigning


def grid_sizes(head: DenseGFLMixin, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of each level's predictions for an input of height and width ``size``."""
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in head.level_strides]


def ideal_predictions(
    head: DenseGFLMixin, sizes: Sequence[tuple[int, int]], objects: InstanceData
) -> tuple[list[Tensor], list[Tensor]]:
    """Class logits (1, A · C, H, W) and box outputs (1, A · 4, H, W) of each level, in the host's own coding.

    Each location predicts the smallest object around it, as closely as the head's box representation can (its distances
    are at most ``max_distance``); outside of all objects, an empty box. All class scores are 1/2.

    Args:
        head: The head.
        sizes: Height and width of each level's feature map.
        objects: ``bboxes`` (G, 4), xyxy in pixels.
    """
    levels = head.prior_generator.grid_priors(list(sizes), device=objects.labels.device)
    strides = [priors.new_full((len(priors),), stride) for priors, stride in zip(levels, head.level_strides)]
    locations = Locations.of_priors(torch.cat(levels), torch.cat(strides))
    distances = _distances(locations, get_box_tensor(objects.bboxes)).clamp(max=head.box.max_distance)
    outputs = head.host_coder.encode(locations.boxes(distances), locations)  # (K, 4)
    box_outputs = [
        level.reshape(height, width, -1).permute(2, 0, 1)[None]
        for level, (height, width) in zip(outputs.split([len(priors) for priors in levels]), sizes)
    ]
    class_logits = [
        level.new_zeros(1, level.size(1) // 4 * head.cls_out_channels, *level.shape[2:]) for level in box_outputs
    ]
    return class_logits, box_outputs


def _distances(locations: Locations, boxes: Tensor) -> Tensor:
    """Distances l, t, r, b to the smallest of ``boxes`` (G, 4) around each location, (K, 4), in strides; 0 if none."""
    if not len(boxes):
        return locations.centers.new_zeros(len(locations.centers), 4)
    centers = locations.centers[:, None]
    inside = ((centers >= boxes[:, :2]) & (centers <= boxes[:, 2:])).all(dim=2)  # (K, G)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    smallest = areas.where(inside, areas.new_tensor(torch.inf)).argmin(dim=1)
    return locations.distances(boxes[smallest]) * inside.any(dim=1)[:, None]
