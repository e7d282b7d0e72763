"""The score threshold of each class that gives a wanted precision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmdet_gfl.utils.tables import aligned

from .matching import IGNORED, TRUE, Detections, Objects, match


@dataclass(frozen=True)
class OperatingPoint:
    """Operating point of a class: what it keeps at a score threshold.

    Attributes:
        threshold: Detections with this score and above are kept.
        precision: Share of them that match an object.
        recall: Share of the objects that they match.
        detections: How many they are.
    """

    threshold: float
    precision: float
    recall: float
    detections: int


@dataclass(frozen=True)
class ClassThreshold:
    """The answer for a class.

    Attributes:
        name: Of the class.
        objects: How many there are, ignored ones not counted.
        point: The lowest threshold with the wanted precision, hence the one with the largest recall; None where no
            threshold has it.
        best: The most precise point there is, and of equally precise ones the one with the largest recall; None without
            objects or without detections.
    """

    name: str
    objects: int
    point: OperatingPoint | None
    best: OperatingPoint | None


def select_thresholds(
    images: Iterable[tuple[Detections, Objects]], classes: Sequence[str], precision: float, iou: float
) -> list[ClassThreshold]:
    """The lowest score threshold of each class at which its detections have the wanted precision.

    Args:
        images: Detections and objects of each, at least one.
        classes: Names by index.
        precision: Wanted, in (0, 1].
        iou: The overlap from which on a detection is right.
    """
    found, counts = [], np.zeros(len(classes), int)
    for detections, objects in images:
        outcome = match(detections, objects, iou)
        counted = outcome != IGNORED
        found.append((detections.labels[counted], detections.scores[counted], outcome[counted] == TRUE))
        counts += np.bincount(objects.labels[~objects.ignored], minlength=len(classes))
    of_class, score, hit = map(np.concatenate, zip(*found))
    answers = []
    for index, name in enumerate(classes):
        points = operating_points(score[of_class == index], hit[of_class == index], int(counts[index]))
        enough = [point for point in points if point.precision >= precision]
        best = max(points, key=lambda point: (point.precision, point.recall), default=None)
        answers.append(ClassThreshold(name, int(counts[index]), enough[-1] if enough else None, best))
    return answers


def operating_points(scores: np.ndarray, right: np.ndarray, objects: int) -> list[OperatingPoint]:
    """All operating points of a class by falling threshold, one per distinct score; none without objects.

    Args:
        scores: Of the detections of the data set, (N,).
        right: Whether each matches an object, (N,).
        objects: How many there are.
    """
    if objects == 0:
        return []
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.diff(scores, append=-np.inf) < 0)  # the last of equal scores
    return [
        OperatingPoint(float(scores[k]), float(hits[k] / (k + 1)), float(hits[k] / objects), int(k) + 1) for k in ends
    ]


def table(answers: Sequence[ClassThreshold], precision: float) -> str:
    """The answers as text, a line per class, and which classes cannot be as precise as wanted."""
    rows = [['class', 'objects', 'threshold', 'precision', 'recall', 'detections']]
    rows += [[answer.name, str(answer.objects), *_cells(answer.point)] for answer in answers]
    failed = [answer for answer in answers if answer.point is None]
    return '\n'.join([aligned(rows), *(f'{answer.name} {_why(answer, precision)}' for answer in failed)])


def _cells(point: OperatingPoint | None) -> list[str]:
    if point is None:
        return ['-']
    return [f'{point.threshold:.4f}', f'{point.precision:.3f}', f'{point.recall:.3f}', str(point.detections)]


def _why(answer: ClassThreshold, precision: float) -> str:
    if answer.objects == 0:
        return 'has no objects in this data set: no threshold can be selected'
    if answer.best is None:
        return 'is never detected: train longer, or lower model.test_cfg.score_thr'
    best = answer.best
    return (
        f'cannot reach precision {precision:g}: the best is {best.precision:.3f}, at threshold {best.threshold:.4f} '
        f'(recall {best.recall:.3f}, {best.detections} detections)'
    )


def as_json(answers: Sequence[ClassThreshold]) -> dict[str, Any]:
    """The answers by class: ``objects``, and the entries of its point, ``threshold`` None without one."""
    return {
        answer.name: dict(objects=answer.objects, **(asdict(answer.point) if answer.point else dict(threshold=None)))
        for answer in answers
    }
