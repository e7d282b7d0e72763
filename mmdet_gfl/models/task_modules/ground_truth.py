"""Objects before they reach an assignment or a loss: validation, what becomes of those that are not validated, labels.

An assignment that gives labels only copies the label of the chosen object to the location. Given indices of the objects
in place of their labels, it gives back the index of the object that it chose.

Dimension letters: R locations of the batch, M any number of boxes, G objects of the batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

#: Coordinates from here on, in pixels, are not coordinates: the area of such a box is beyond float32's precision.
MAX_COORDINATE = 1e8


def validate_ground_truth(
    batch_gt_instances: Sequence[InstanceData], batch_img_metas: Sequence[dict[str, Any]], num_classes: int
) -> None:
    """Raise for objects that no loss can use, before they become a NaN somewhere else.

    Only tensors on the CPU are validated: on a GPU the host would have to synchronize at every step. (The hook
    ``mmdet_gfl.CheckGroundTruthHook`` validates before the batch is copied to the device.)

    Args:
        batch_gt_instances: ``bboxes`` (G, 4), xyxy in pixels, and ``labels`` (G,) in [0, C) of each image.
        batch_img_metas: The images' meta information; ``img_path`` names the image in the message.
        num_classes: C.

    Raises:
        ValueError: An image has no boxes or labels, not even empty ones; a box is not finite, beyond
            :data:`MAX_COORDINATE`, or has x1 > x2 or y1 > y2; or a label is outside [0, C).
    """
    for index, (gt, meta) in enumerate(zip(batch_gt_instances, batch_img_metas)):
        image = meta.get('img_path') or f'number {index} of the batch'
        if not {'bboxes', 'labels'} <= set(gt.keys()):
            raise ValueError(
                f'image {image}: the transforms give no boxes and labels of its objects, not even none; put '
                f"dict(type='LoadAnnotations', with_bbox=True) into the pipeline of the training's data set"
            )
        boxes = get_box_tensor(gt.bboxes)
        if boxes.device.type != 'cpu' or not len(boxes):
            continue
        broken = (~(boxes.abs() < MAX_COORDINATE)).any(dim=1) | (boxes[:, :2] > boxes[:, 2:]).any(dim=1)
        if broken.any():
            first = int(broken.nonzero()[0])
            raise ValueError(
                f'image {image}: box {first} of {len(boxes)} is {boxes[first].tolist()}; x1, y1, x2, y2 in '
                f'pixels are needed, finite, below {MAX_COORDINATE:g}, with x1 <= x2 and y1 <= y2. Fix the annotation '
                f'file, or the transform that made the box.'
            )
        wrong = (gt.labels < 0) | (gt.labels >= num_classes)
        if wrong.any():
            raise ValueError(
                f'image {image}: label {int(gt.labels[wrong][0])} is outside [0, num_classes) with num_classes='
                f"{num_classes}. Set bbox_head.num_classes to the number of the data set's classes, or the data "
                f"set's metainfo=dict(classes=...) to the model's."
            )


def is_usable(boxes: Tensor) -> Tensor:
    """True for boxes (M, 4) with x1 <= x2, y1 <= y2 and a finite area, (M,); others are matched to nothing."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    return (sizes >= 0).all(dim=1) & sizes.prod(dim=1).isfinite()


def with_integer_labels(instances: InstanceData) -> InstanceData:
    """The objects with labels of type int64: NumPy makes float64 of an empty list, and of a batch that contains one."""
    if instances.labels.dtype == torch.long:
        return instances
    converted = instances.new()
    converted.labels = instances.labels.long()
    return converted


def labels_as_gt_indices(batch_gt_instances: Sequence[InstanceData], num_classes: int) -> list[InstanceData]:
    """Copy of the objects, labelled C + 1, C + 2, … through the batch; C remains the background."""
    result, first = [], num_classes + 1
    for gt in batch_gt_instances:
        indices = torch.arange(first, first + len(gt.labels), device=gt.labels.device)
        result.append(InstanceData(bboxes=get_box_tensor(gt.bboxes), labels=indices))
        first += len(gt.labels)
    return result


def recover_gt_indices(labels: Tensor, num_classes: int, num_gts: int) -> Tensor:
    """``matched_gt_inds`` (R,) int64, see :func:`build_targets`, from what the assignment made of those labels.

    ``labels`` (R,) are one of :func:`labels_as_gt_indices` at positives, and C elsewhere; ``num_gts`` is G.
    """
    return torch.where(labels > num_classes, labels - (num_classes + 1), num_gts)
