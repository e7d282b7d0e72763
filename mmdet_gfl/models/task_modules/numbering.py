"""Which object a location belongs to, from heads whose assignment gives labels only.

Such a head copies the label of the chosen object to the location. Given the objects' numbers in place of their labels,
it tells which object it chose.

Dimension letters: R locations of the batch, P positives, G objects of the batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor


def numbered(gts: Sequence[InstanceData], num_classes: int) -> list[InstanceData]:
    """Copies of the objects, labelled C + 1, C + 2, … through the batch; C stays what it is, the background."""
    result, first = [], num_classes + 1
    for gt in gts:
        numbers = torch.arange(first, first + len(gt.labels), device=gt.labels.device)
        result.append(InstanceData(bboxes=get_box_tensor(gt.bboxes), labels=numbers))
        first += len(gt.labels)
    return result


def by_number(numbers: Tensor, gts: Sequence[InstanceData], num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Undoes :func:`numbered` after the assignment.

    Args:
        numbers: What the assignment gave, (R,): a number from :func:`numbered` at positives, C elsewhere.
        gts: The objects as they were.
        num_classes: C.

    Returns:
        Labels (R,), C at the background; the positives (P,) among the locations; and their objects' boxes (P, 4), xyxy
        in pixels.
    """
    pos = (numbers > num_classes).nonzero().squeeze(1)
    chosen = numbers[pos] - (num_classes + 1)
    labels = torch.full_like(numbers, num_classes)
    labels[pos] = torch.cat([gt.labels for gt in gts])[chosen]
    return labels, pos, torch.cat([get_box_tensor(gt.bboxes) for gt in gts])[chosen]
