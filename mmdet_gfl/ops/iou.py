"""IoU of pairs of boxes. MMDetection's function copies its epsilon to the device at each call, and waits for that."""

from __future__ import annotations

import torch
from torch import Tensor

#: No union is taken to be smaller, in square pixels: MMDetection's epsilon.
MIN_UNION = 1e-6


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU (M,) of boxes (M, 4) with as many others, xyxy: ``bbox_overlaps(boxes, others, is_aligned=True)``."""
    return iou_of_sides(box_sides(boxes), box_sides(others))


def box_sides(boxes: Tensor) -> Tensor:
    """Boxes (M, 4), xyxy, as (2 sides, 2 axes, M): left and top, then right and bottom."""
    return boxes.reshape(-1, 2, 2).permute(1, 2, 0)


def iou_of_sides(sides: Tensor, others: Tensor) -> Tensor:
    """IoU (...) of boxes given by their sides (2 sides, 2 axes, ...), which are broadcast."""
    w, h = (torch.minimum(sides[1], others[1]) - torch.maximum(sides[0], others[0])).clamp(min=0)
    overlap = w * h
    union = _area(sides) + _area(others) - overlap
    return overlap / union.clamp(min=MIN_UNION)


def _area(sides: Tensor) -> Tensor:
    w, h = sides[1] - sides[0]
    return w * h
