"""What hosts with one point a location share: targets with the real boxes of the objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.models.task_modules import Locations, PointGrid, Targets, by_number, numbered

from .dense_gfl_mixin import DenseGFLMixin
from .predict_mixin import square


def point_targets(
    head: DenseGFLMixin,
    sizes: list[tuple[int, int]],
    gts: Sequence[InstanceData],
    assign: Callable[[list[Tensor], list[InstanceData]], Tensor],
) -> Targets:
    """Assignment by MMDetection's ``get_targets``, which is given the objects' numbers as their labels.

    Args:
        head: A head with points.
        sizes: Height and width of each level's feature map.
        gts: Objects of the images.
        assign: Gives the labels (R,) of the batch for each level's points (H · W, 2), xy in pixels, and the objects.
    """
    points = head.prior_generator.grid_priors(sizes, device=gts[0].bboxes.device)
    labels, pos, boxes = by_number(assign(points, numbered(gts, head.num_classes)), gts, head.num_classes)
    strides = [level.new_full((len(gts) * len(level),), square(stride)) for level, stride in zip(points, head.strides)]
    centers = torch.cat([level.repeat(len(gts), 1) for level in points])
    return Targets(
        labels=labels,
        label_weights=centers.new_ones(len(labels)),
        pos=pos,
        gt=boxes,
        at=Locations.of_priors(centers[pos], torch.cat(strides)[pos]),
        avg_factor=float(len(pos)),
        num_images=len(gts),
    )


def assigns_as(head: DenseGFLMixin, host: type) -> bool:
    """Whether ``head`` has plain points, square cells, and the target assignment of MMDetection's ``host``."""
    names = ('get_targets', '_get_targets_single')
    for stride in head.prior_generator.strides:
        square(stride)
    return PointGrid.fits(head.prior_generator) and all(getattr(type(head), n) is getattr(host, n) for n in names)
