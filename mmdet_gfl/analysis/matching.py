"""Detections beside the objects of their image: overlaps, and COCO's greedy matching.

Dimension letters: N detections, M objects. Boxes are (x1, y1, x2, y2) in pixels of the original image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps

#: What becomes of a detection.
TRUE, FALSE, IGNORED = 1, 0, -1


def as_array(values: object) -> np.ndarray:
    """A tensor, boxes of MMDetection or an array, as float64."""
    values = getattr(values, 'tensor', values)
    values = values.detach().cpu() if hasattr(values, 'detach') else values
    return np.asarray(values, float)


class Detections(NamedTuple):
    """The detections of an image.

    Attributes:
        boxes: (N, 4).
        scores: (N,).
        labels: Classes by their index, (N,).
        quality: What a quality branch gave, (N,) in [0, 1], already a factor of the score; None without a branch.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    quality: np.ndarray | None = None


class Objects(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: (M, 4).
        labels: Classes by their index, (M,).
        ignored: (M,) bool: crowd regions, in which detections are neither right nor wrong.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


def ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes (N, 4) with others (M, 4); 0 where both are empty."""
    return _overlaps(boxes, others, 'iou')


def class_overlaps(detections: Detections, objects: Objects) -> np.ndarray:
    """IoU (N, M) of detections with objects of their class, 0 with others.

    With an ignored object, the share of the detection that lies in it.
    """
    inside = _overlaps(detections.boxes, objects.boxes, 'iof')
    overlap = np.where(objects.ignored, inside, ious(detections.boxes, objects.boxes))
    return np.where(detections.labels[:, None] == objects.labels, overlap, 0.0)


def _overlaps(boxes: np.ndarray, others: np.ndarray, mode: str) -> np.ndarray:
    pairs: torch.Tensor = bbox_overlaps(torch.from_numpy(boxes), torch.from_numpy(others), mode)
    return pairs.numpy()


def best_overlaps(detections: Detections, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Largest overlap of each detection with the objects of its class, 0 without any: (N,) each.

    Returns:
        With objects that count (IoU), and with ignored ones (share of the detection).
    """
    overlap = class_overlaps(detections, objects)
    ordinary = overlap[:, ~objects.ignored].max(axis=1, initial=0.0)
    return ordinary, overlap[:, objects.ignored].max(axis=1, initial=0.0)


def match(detections: Detections, objects: Objects, iou: float) -> np.ndarray:
    """COCO's matching: by falling score, each detection takes the best object of its class that is still free.

    Args:
        detections: Of an image.
        objects: Of the same image.
        iou: The least overlap of a match, above 0.

    Returns:
        (N,): ``TRUE`` with an object; ``IGNORED`` where there is none but an ignored object; else ``FALSE``. An ignored
        object takes any number of detections.
    """
    order = np.argsort(-detections.scores, kind='stable')
    overlap = class_overlaps(detections, objects)[order]
    outcome = np.full(len(order), FALSE)
    outcome[order[(overlap[:, objects.ignored] >= iou).any(axis=1)]] = IGNORED
    outcome[order[[index for index, _ in matched(overlap[:, ~objects.ignored], iou)]]] = TRUE
    return outcome


def matched(overlap: np.ndarray, iou: float) -> list[tuple[int, int]]:
    """Detections in their order, each with the best object that is free, if it overlaps that by ``iou``; (N, M)."""
    free, pairs = overlap.copy(), []
    for index in range(len(free) if free.size else 0):
        # Of equal overlaps COCO takes the last.
        best = free.shape[1] - 1 - int(free[index, ::-1].argmax())
        if free[index, best] >= iou:
            pairs.append((index, best))
            free[:, best] = -1.0
    return pairs
