"""Which scores of a batch pass the threshold and a level's top k, without looking at what cannot.

Dimension letters: N images, L levels, A priors a cell, M locations of a level and image, Q locations looked at, C
classes, P candidates. A level and image are a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_gfl.ops.pick_rows import at_least_float
from mmdet_gfl.ops.ranking import by_group_and_score, kth_largest

from .layout import divide, tensor_like

#: By how much the score of one logit may lie above that of a larger one, where rounding differs: far more than it can.
ROUNDING = 1e-5


class Looked(NamedTuple):
    """Locations that may hold a candidate: level by level, inside a level image by image, there by ascending place.

    Attributes:
        levels: (Q,) int64.
        images: (Q,) int64.
        places: (Q,) int64, numbers of the locations in their level, as (H, W, A) flattens.
        floors: What a score there must surpass, (Q,).
        counts: How many there are of each level and image, L lists of N.
    """

    levels: Tensor
    images: Tensor
    places: Tensor
    floors: Tensor
    counts: list[list[int]]


class Candidates(NamedTuple):
    """What passed, as detections are ordered: image by image, there level by level, there by descending score.

    Attributes:
        scores: (P,).
        labels: (P,) int64.
        rows: (P,) int64, the candidates' locations among those looked at.
        counts: How many each image has.
    """

    scores: Tensor
    labels: Tensor
    rows: Tensor
    counts: list[int]


def look(
    levels: Sequence[Tensor],
    width: int,
    score: Callable[[Tensor], Tensor],
    threshold: float,
    top_k: int,
) -> Looked:
    """Locations that may hold one of the ``top_k`` scores above ``threshold`` of their level and image.

    Args:
        levels: A level's class logits, (N, A · width, H, W), of any strides.
        width: Logits of a location.
        score: From logits (M, width), at least float32, to as many scores. Each grows with its own logit and depends on
            no other, so that a location's largest logit says whether it is worth a look.
        threshold: Score to be surpassed.
        top_k: How many scores are wanted of a level and image, above 0.
    """
    num_images = len(levels[0])
    largest = [
        level.unflatten(1, (-1, width)).amax(dim=2).permute(0, 2, 3, 1).reshape(num_images, -1) for level in levels
    ]
    sizes = [of_level.size(1) for of_level in largest]
    scores = score(torch.cat([at_least_float(of_level.flatten()) for of_level in largest])[:, None]).flatten()
    shares = scores.split([num_images * size for size in sizes])
    worth, floors = zip(*(worth_a_look(share.view(num_images, -1), threshold, top_k) for share in shares))
    numbers = torch.cat([of_level.flatten() for of_level in worth]).nonzero().squeeze(1)
    starts = tensor_like(numbers, [0, *accumulate(size for size in sizes for _ in range(num_images))])
    bounds: list[int] = torch.searchsorted(numbers, starts).tolist()
    counts = [end - start for start, end in zip(bounds, bounds[1:])]
    groups = torch.arange(len(counts), device=numbers.device)
    groups = groups.repeat_interleave(tensor_like(numbers, counts), output_size=len(numbers))
    levels_of, images = divide(groups, num_images)
    of_level = [counts[start : start + num_images] for start in range(0, len(counts), num_images)]
    return Looked(levels_of, images, numbers - starts[groups], torch.cat(floors)[groups], of_level)


def worth_a_look(largest: Tensor, threshold: float, top_k: int) -> tuple[Tensor, Tensor]:
    """Whether a location may hold one of the ``top_k`` scores above ``threshold`` of its image.

    At least ``top_k`` scores are no smaller than the ``top_k``-th largest of the locations' largest scores: those
    themselves. What lies below it need not be looked at. NaN says nothing of a location's other scores.

    Args:
        largest: Largest score of each location, (N, M), up to :data:`ROUNDING`.
        threshold: Score to be surpassed.
        top_k: How many scores are wanted of an image.

    Returns:
        (N, M) bool, and what a score must surpass to be among the top k of its image, (N,).
    """
    floor = largest.new_full((len(largest),), threshold)
    if largest.size(1) > top_k:
        least = kth_largest(largest.nan_to_num(-1.0), top_k)
        floor = floor.maximum(least * (1 - ROUNDING) - torch.finfo(least.dtype).tiny)  # a least of 0 counts too
    return ~(largest <= floor[:, None] * (1 - ROUNDING)), floor


def best_of(scores: Tensor, looked: Looked, top_k: int) -> Candidates:
    """The ``top_k`` largest of each level and image, of the scores above their floors.

    The same as MMDetection's ``filter_scores_and_topk`` for each of them. Which of equal scores come first, or remain
    where ``top_k`` cuts between them, is left to the sort, as there.

    Args:
        scores: Not negative, (Q, C), of the locations ``looked`` at.
        looked: See :func:`look`.
        top_k: How many of a level and image.
    """
    num_levels, num_images = len(looked.counts), len(looked.counts[0])
    labels, rows = (scores.t() > looked.floors).nonzero().unbind(1)
    values = scores[rows, labels]
    groups = (looked.images * num_levels + looked.levels)[rows]
    order = by_group_and_score(groups, values)
    counts = groups.new_zeros(num_images * num_levels).index_add_(0, groups, torch.ones_like(groups)).tolist()
    order = torch.cat([of_group[:top_k] for of_group in order.split(counts)])
    kept = [min(count, top_k) for count in counts]
    of_image = [sum(kept[start : start + num_levels]) for start in range(0, len(kept), num_levels)]
    return Candidates(values[order], labels[order], rows[order], of_image)


def outputs_at(levels: Sequence[Tensor], width: int, looked: Looked) -> Tensor:
    """Outputs of the locations looked at, (Q, width), at least float32, of levels (N, A · width, H, W).

    They lie in memory as (width, Q), as they come from the levels, and as sums over the outputs are fastest.
    """
    places = iter(looked.places.split([count for of_level in looked.counts for count in of_level]))
    columns = [_columns_at(image, width, next(places)) for level in levels for image in level]
    return torch.cat(columns, dim=1).t()


def _columns_at(level: Tensor, width: int, places: Tensor) -> Tensor:
    """Outputs (width, M) of locations of an image's level (A · width, H, W), at least float32."""
    if level.size(0) == width:  # one prior a cell: the same, sooner
        return at_least_float(level.flatten(1).gather(1, places.expand(width, -1)))
    cell, anchor = divide(places, level.size(0) // width)
    return at_least_float(level.unflatten(0, (-1, width)).flatten(2)[anchor, :, cell]).t()
