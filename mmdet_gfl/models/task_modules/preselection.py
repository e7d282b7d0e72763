"""Selection of the scores of a batch that pass the threshold and the top k of their level, without computing the rest.

Dimension letters: N images, L levels, A priors per cell, M locations of a level and image, Q preselected locations, C
classes, P candidates. A level and image are a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_gfl.ops import LevelPredictions, LocationCoords, argsort_by_group_and_score, kth_largest, upcast

#: By how much the score of one logit may lie above that of a larger one through rounding: far more than it can.
ROUNDING = 1e-5


class Preselection(NamedTuple):
    """Locations that may hold a candidate, Q in all."""

    coords: LocationCoords
    score_floors: Tensor  #: what a score there must surpass, (Q,)


class Candidates(NamedTuple):
    """Scores that passed, in the order of detections: by image, there by level, there by descending score."""

    scores: Tensor  #: (P,)
    labels: Tensor  #: (P,) int64
    rows: Tensor  #: (P,) int64, the candidates' locations among the preselected ones
    counts: list[int]  #: how many each image has


def preselect(
    logits: LevelPredictions, to_scores: Callable[[Tensor], Tensor], threshold: float, top_k: int
) -> Preselection:
    """Locations that may hold one of the ``top_k`` scores above ``threshold`` of their level and image.

    Args:
        logits: Class logits.
        to_scores: From logits (M, C), at least float32, to as many scores. Each grows with its own logit and depends on
            no other, so that the largest logit of a location bounds its scores.
        threshold: Score to be surpassed.
        top_k: How many scores are wanted per level and image, above 0.
    """
    num_images, index = logits.index.num_images, logits.index
    largest = [
        level.unflatten(1, (-1, logits.num_outputs)).amax(dim=2).permute(0, 2, 3, 1).flatten()
        for level in logits.levels
    ]
    scores = to_scores(torch.cat([upcast(level) for level in largest])[:, None]).flatten()
    groups = [level.view(num_images, -1) for level in scores.split([num_images * size for size in index.level_sizes])]
    may_pass, floors = zip(*(may_pass_threshold(group, threshold, top_k) for group in groups))
    coords = index.coords(torch.cat([level.flatten() for level in may_pass]).nonzero().squeeze(1))
    return Preselection(coords, torch.cat(floors)[coords.group])


def may_pass_threshold(largest: Tensor, threshold: float, top_k: int) -> tuple[Tensor, Tensor]:
    """Mask (N, M) of the locations that may hold one of the ``top_k`` scores above ``threshold`` of their image.

    And what a score must surpass to be one of them, (N,). At least ``top_k`` scores are at least as large as the
    ``top_k``-th of the ``largest`` score of each location (N, M), known up to :data:`ROUNDING`: those themselves.
    Locations below it are left out. NaN bounds nothing, so that location stays.
    """
    floor = largest.new_full((len(largest),), threshold)
    if largest.size(1) > top_k:
        least = kth_largest(largest.nan_to_num(-1.0), top_k)
        floor = floor.maximum(least * (1 - ROUNDING) - torch.finfo(least.dtype).tiny)  # a least of 0 counts too
    return ~(largest <= floor[:, None] * (1 - ROUNDING)), floor


def select_topk(scores: Tensor, preselection: Preselection, top_k: int) -> Candidates:
    """The ``top_k`` largest of each level and image, of the scores above their floors.

    The same as MMDetection's ``filter_scores_and_topk`` for each of them. Which of equal scores come first, or remain
    where ``top_k`` cuts between them, is left to the sort, as there. ``scores`` (Q, C) are not negative.
    """
    coords = preselection.coords
    num_images, num_levels = coords.index.num_images, len(coords.index.level_sizes)
    labels, rows = (scores.t() > preselection.score_floors).nonzero().unbind(1)
    values = scores[rows, labels]
    groups = (coords.image * num_levels + coords.level)[rows]
    order = argsort_by_group_and_score(groups, values)
    counts = groups.new_zeros(num_images * num_levels).index_add_(0, groups, torch.ones_like(groups)).tolist()
    order = torch.cat([of_group[:top_k] for of_group in order.split(counts)])
    kept = [min(count, top_k) for count in counts]
    per_image = [sum(kept[start : start + num_levels]) for start in range(0, len(kept), num_levels)]
    return Candidates(values[order], labels[order], rows[order], per_image)
