"""Which scores of a batch pass the threshold and a level's top k, without looking at what cannot.

Dimension letters: N images, L levels, A priors a cell, M locations of a level and image, Q locations looked at, C
classes, P candidates. A level and image are a group, numbered image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_gfl.ops.pick_rows import at_least_float

from .layout import divide

#: By how much the score of one logit may lie above that of a larger one, where rounding differs: far more than it can.
ROUNDING = 1e-5


class Candidates(NamedTuple):
    """What passed, level by level, inside a level image by image, inside an image by ascending place.

    Attributes:
        scores: (P,).
        labels: (P,) int64.
        images: (P,) int64.
        levels: (P,) int64.
        places: (P,) int64, numbers of the locations in their level, as (H, W, A) flattens.
        counts: How many there are of each level and image.
        order: (P,) int64, brings them into the order of detections: image by image, inside an image level by level,
            inside a level by descending score.
    """

    scores: Tensor
    labels: Tensor
    images: Tensor
    levels: Tensor
    places: Tensor
    counts: list[list[int]]
    order: Tensor


class Looked(NamedTuple):
    """Locations of a level that are looked at, image by image and by ascending place.

    Attributes:
        images: (Q,) int64.
        places: (Q,) int64.
        floor: What a score must surpass to be among the top k of its image, (N,).
    """

    images: Tensor
    places: Tensor
    floor: Tensor


def find_candidates(
    levels: Sequence[Tensor],
    width: int,
    score: Callable[[Tensor], Tensor],
    threshold: float,
    top_k: int,
) -> Candidates:
    """The ``top_k`` scores above ``threshold`` of each level and image, as MMDetection's ``filter_scores_and_topk``.

    Which of equal scores come first, or remain where ``top_k`` cuts between them, is left to the sort, as there.

    Args:
        levels: A level's class logits, (N, A · width, H, W), of any strides.
        width: Logits of a location.
        score: From logits (Q, width), at least float32, to as many scores. Each grows with its own logit and depends on
            no other, so that only those locations are computed whose largest logit says that it is worth it.
        threshold: Score to be surpassed.
        top_k: How many scores are wanted of a level and image, above 0.
    """
    num_images = len(levels[0])
    looked, rows = [], []
    for level in levels:  # a level's rows while it is in the cache
        looked.append(_look(level, width, score, threshold, top_k))
        rows.append(_rows_at(level, width, looked[-1].images, looked[-1].places))
    groups = torch.cat([at.images * len(levels) + number for number, at in enumerate(looked)])
    floors = torch.stack([at.floor for at in looked], dim=1).flatten()
    best = best_of_groups(score(torch.cat(rows)), groups, floors, top_k)
    images_of, levels_of = divide(groups[best.rows], len(levels))
    return Candidates(
        best.scores,
        best.columns,
        images_of,
        levels_of,
        torch.cat([at.places for at in looked])[best.rows],
        best.counts.view(num_images, -1).t().tolist(),
        best.order,
    )


def _look(level: Tensor, width: int, score: Callable[[Tensor], Tensor], threshold: float, top_k: int) -> Looked:
    """Locations that may hold one of the ``top_k`` scores above ``threshold`` of their image."""
    largest = level.unflatten(1, (-1, width)).amax(dim=2).permute(0, 2, 3, 1).flatten(1)  # (N, M)
    return worth_a_look(score(at_least_float(largest).flatten()[:, None]).view_as(largest), threshold, top_k)


def worth_a_look(largest: Tensor, threshold: float, top_k: int) -> Looked:
    """Locations that may hold one of the ``top_k`` scores above ``threshold`` of their image.

    At least ``top_k`` scores are no smaller than the ``top_k``-th largest of the locations' largest scores: those
    themselves. What lies below it need not be looked at. NaN says nothing of a location's other scores.

    Args:
        largest: Largest score of each location, (N, M), up to :data:`ROUNDING`.
        threshold: Score to be surpassed.
        top_k: How many scores are wanted of an image.
    """
    bound = largest * (1 + ROUNDING)
    floor = largest.new_full((len(largest),), threshold)
    out = bound <= threshold
    if largest.size(1) > top_k:
        least = largest.nan_to_num(-1.0).topk(top_k, sorted=False).values.amin(dim=1)
        out |= bound < least[:, None]
        floor = floor.maximum(least * (1 - ROUNDING) - torch.finfo(least.dtype).tiny)  # a least of 0 counts too
    images, places = (~out).nonzero().unbind(1)
    return Looked(images, places, floor)


class Best(NamedTuple):
    """Best scores of some groups, in the order of the rows they come from.

    Attributes:
        scores: (P,).
        columns: (P,) int64.
        rows: (P,) int64, ascending.
        counts: How many each group has, (G,) int64.
        order: (P,) int64, brings them into the order group by group, in a group by descending score.
    """

    scores: Tensor
    columns: Tensor
    rows: Tensor
    counts: Tensor
    order: Tensor


def best_of_groups(scores: Tensor, groups: Tensor, floors: Tensor, top_k: int) -> Best:
    """The ``top_k`` largest scores of each group, of those above its floor.

    Args:
        scores: (Q, C).
        groups: Group of each row, (Q,) int64.
        floors: What the scores of a group must surpass, (G,).
        top_k: How many a group.
    """
    rows, columns = (scores > floors[groups][:, None]).nonzero().unbind(1)
    values = scores[rows, columns]
    order = values.argsort(descending=True)
    groups, by_group = groups[rows[order]].sort(stable=True)
    order = order[by_group]
    counts = torch.bincount(groups, minlength=len(floors))
    if len(values) > top_k:
        in_time = torch.arange(len(values), device=values.device) - (counts.cumsum(0) - counts)[groups] < top_k
        order, counts = order[in_time], counts.clamp(max=top_k)
        kept = torch.zeros_like(rows, dtype=torch.bool)
        kept[order] = True
        rows, columns, values = rows[kept], columns[kept], values[kept]
        order = (kept.cumsum(0) - 1)[order]
    return Best(values, columns, rows, counts, order)


def outputs_at(levels: Sequence[Tensor], width: int, found: Candidates) -> Tensor:
    """Outputs of the candidates' locations, (P, width), at least float32, of levels (N, A · width, H, W).

    They lie in memory as (width, P), as they come from the levels, and as sums over the outputs are fastest.
    """
    places = iter(found.places.split([count for of_level in found.counts for count in of_level]))
    columns = [_columns_at(image, width, next(places)) for level in levels for image in level]
    return torch.cat(columns, dim=1).t()


def _columns_at(level: Tensor, width: int, places: Tensor) -> Tensor:
    """Outputs (width, P) of locations of an image's level (A · width, H, W), at least float32."""
    if level.size(0) == width:  # one prior a cell: the same, sooner
        return at_least_float(level.flatten(1).index_select(1, places))
    cell, anchor = divide(places, level.size(0) // width)
    return at_least_float(level.unflatten(0, (-1, width)).flatten(2)[anchor, :, cell]).t()


def _rows_at(level: Tensor, width: int, images: Tensor, places: Tensor) -> Tensor:
    """Outputs (Q, width) of locations of a level (N, A · width, H, W), at least float32."""
    if level.size(1) == width:
        return at_least_float(level.flatten(2).transpose(1, 2)[images, places])
    cell, anchor = divide(places, level.size(1) // width)
    return at_least_float(level.unflatten(1, (-1, width)).flatten(3)[images, anchor, :, cell])
