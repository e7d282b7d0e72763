"""Relation of a detection's score and its IoU (the question of Fig. 2b of GFL)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mmdet_gfl.utils.tables import aligned

from .matching import Detections, Objects, best_overlaps

#: A detection counts as found on its object from this IoU on, and as inside a crowd from this share of it on.
FOUND = 0.5


@dataclass(frozen=True)
class Scored:
    """The detections of a data set, K of them.

    Attributes:
        scores: Final scores, (K,).
        ious: IoU with the best object of the class that is detected, 0 without any, (K,).
        quality: Output of a quality branch, (K,), a factor of the score; None without a branch.
    """

    scores: np.ndarray
    ious: np.ndarray
    quality: np.ndarray | None = None

    @property
    def class_scores(self) -> np.ndarray:
        """The score without the branch's factor, (K,); without a branch the score itself."""
        if self.quality is None:
            return self.scores
        return self.scores / np.maximum(self.quality, np.finfo(float).tiny)


def score_and_iou(images: Iterable[tuple[Detections, Objects]]) -> Scored:
    """The detections of all images, at least one, beside their true IoU.

    Those that lie in a crowd region of their class and on no object of it are left out: what they are is not annotated.
    """
    parts = []
    for detections, objects in images:
        iou, in_crowd = best_overlaps(detections, objects)
        known = (iou >= FOUND) | (in_crowd < FOUND)
        values = (detections.scores, iou, detections.quality)
        parts.append([value[known] for value in values if value is not None])
    return Scored(*map(np.concatenate, zip(*parts)))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two (K,), equal values at their mean rank; NaN where one is constant or K < 2."""
    from scipy.stats import spearmanr  # takes a second to import; MMDetection depends on it

    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:  # scipy warns
        return float('nan')
    return float(spearmanr(first, second).statistic)


def mean_iou_by_score(scored: Scored, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Mean score and mean IoU of the detections of each score bin of [0, 1] that holds any: (B,) each."""
    from scipy.stats import binned_statistic  # takes a second to import; MMDetection depends on it

    means = binned_statistic(scored.scores, [scored.scores, scored.ious], bins=bins, range=(0, 1)).statistic
    scores, ious = means[:, ~np.isnan(means[0])]
    return scores, ious


def table(names: Sequence[str], models: Sequence[Scored]) -> str:
    """Rank correlations with the true IoU as text, a line per model; class score and branch alone too, if any has one.

    ``on objects`` counts the detections with IoU of ``FOUND`` and above.
    """
    parts = ['class score', 'branch'] if any(scored.quality is not None for scored in models) else []
    rows = [['model', 'detections', 'on objects', 'score', 'score on objects', *parts]]
    for name, scored in zip(names, models):
        found = scored.ious >= FOUND
        correlations = [
            rank_correlation(scored.scores, scored.ious),
            rank_correlation(scored.scores[found], scored.ious[found]),
        ]
        if scored.quality is not None:
            correlations += [rank_correlation(part, scored.ious) for part in (scored.class_scores, scored.quality)]
        rows.append([name, str(len(found)), str(found.sum()), *(f'{value:.3f}' for value in correlations)])
    return f'Rank correlation (Spearman) with the true IoU:\n{aligned(rows)}'
