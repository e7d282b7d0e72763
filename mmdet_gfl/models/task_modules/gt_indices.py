"""Recovery of matched objects from assignments that give labels only.

Such an assignment copies the label of the chosen object to the location. Given indices of the objects in place of their
labels, it gives back the index of the object that it chose.

Dimension letters: R locations of the batch, P positives, G objects of the batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor


def labels_as_gt_indices(batch_gt_instances: Sequence[InstanceData], num_classes: int) -> list[InstanceData]:
    """Copies of the objects, labelled C + 1, C + 2, … through the batch; C remains the background."""
    result, first = [], num_classes + 1
    for gt in batch_gt_instances:
        indices = torch.arange(first, first + len(gt.labels), device=gt.labels.device)
        result.append(InstanceData(bboxes=get_box_tensor(gt.bboxes), labels=indices))
        first += len(gt.labels)
    return result


def recover_gt_indices(labels: Tensor, num_classes: int, num_gts: int) -> Tensor:
    """Undo :func:`labels_as_gt_indices` after the assignment.

    Args:
        labels: Result of the assignment, (R,): a label of :func:`labels_as_gt_indices` at positives, C elsewhere.
        num_classes: C.
        num_gts: G.

    Returns:
        ``matched_gt_inds`` (R,) int64: the object in [0, G) that a location is matched to; G at the background.
    """
    return torch.where(labels > num_classes, labels - (num_classes + 1), num_gts)
