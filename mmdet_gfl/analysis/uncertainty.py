"""Predicted standard deviations of box sides beside how ambiguous the sides of the built-in shapes truly are.

Dimension letters: N detections, M objects, S sides. Lengths are pixels of the stored image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine import fileio
from mmengine.structures import InstanceData

from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.utils.tables import markdown

from .detector import Detector, dataset_of, predictions, turn_on_distributions
from .matching import as_array, ious, matched
from .quality import rank_correlation

#: Sides that are hidden are uncertain for another reason: by what can be guessed from the rest.
VISIBLE = 0.9
#: What can be seen of a side (docs/shapes.md). The border of the image is a side beyond doubt, and easily so.
KINDS = ('sharp', 'blur', 'fade', 'ghost')


class Sides(NamedTuple):
    """Sides of objects that were found.

    Attributes:
        predicted: Standard deviation that the model gives the side, (S,).
        true: Standard deviation of the label around the true edge, (S,); 0 at a sharp side.
        error: Predicted minus labelled place, outwards positive, (S,).
        length: Of the object across the side, (S,).
        kind: One of :data:`KINDS`, (S,).
        floor: Least deviation that a distribution over steps can have around its mean, (S,); 0 without steps.
    """

    predicted: np.ndarray
    true: np.ndarray
    error: np.ndarray
    length: np.ndarray
    kind: np.ndarray
    floor: np.ndarray

    def beyond_floor(self) -> Sides:
        """The same sides with what is left of the predicted variance when that of the floor is taken away."""
        left = np.square(self.predicted) - np.square(self.floor)
        return self._replace(predicted=np.sqrt(left.clip(min=0)), floor=np.zeros_like(self.floor))


class Evaluation(NamedTuple):
    """Evaluation of a model's side deviations.

    Attributes:
        number: Of sides.
        correlation: Rank correlation of predicted and true standard deviation over all sides.
        among_ambiguous: The same over the ambiguous sides.
        own_error: Rank correlation of the predicted deviation with the size of the error.
        auroc: Probability that an ambiguous side is given a larger share of its object's length than a sharp one.
        within_one: Share of the labels within one predicted standard deviation (68% of a normal distribution).
        within_two: Within two (95%).
        by_kind: For each kind: number, root mean squares of true and predicted deviation and of the error.
    """

    number: int
    correlation: float
    among_ambiguous: float
    own_error: float
    auroc: float
    within_one: float
    within_two: float
    by_kind: dict[str, tuple[int, float, float, float]]


def sides_of(detector: Detector, split: str, score_thr: float = 0.3, iou: float = 0.5) -> Sides:
    """Visible sides of the objects of a split of the shapes that the model finds.

    Args:
        detector: With a box representation that gives standard deviations.
        split: ``'val'`` or ``'test'``: whose data loader of the config.
        score_thr: Least score of a detection.
        iou: Least IoU of a detection with its object.

    Raises:
        UserError: The model gives none, the data cannot be read or are not shapes, or nothing is found.
    """
    turn_on_distributions(detector)
    dataset = dataset_of(detector.cfg, split)
    annotations = read_annotations(str(dataset.ann_file))
    parts = []
    for sample in predictions(detector, split, dataset):
        found = sample.pred_instances
        parts.append(visible_sides(found[found.scores >= score_thr], annotations[sample.img_id], iou))
    sides = Sides(*map(np.concatenate, zip(*parts)))
    if not len(sides.true):
        raise UserError(
            f'config {detector.cfg.filename}: no object of the {split} data is found with score {score_thr} and '
            f'IoU of {iou}; lower --score-thr, or train longer'
        )
    return sides


def read_annotations(path: str) -> dict[int, list[dict[str, Any]]]:
    """The objects of a shapes annotation file by image id, without crowds; labels start at 0.

    Raises:
        UserError: The file is not of the shapes data set.
    """
    content = fileio.load(path)
    objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in content['annotations']:
        if 'side_std' not in one:
            raise UserError(
                f'{path} does not say how ambiguous its sides are; only the built-in shapes do '
                f'(configs/_base_/datasets/shapes_detection.py, docs/shapes.md)'
            )
        if not one['iscrowd']:
            objects[one['image_id']].append(one)
    return objects


def visible_sides(results: InstanceData, objects: Sequence[dict[str, Any]], iou: float) -> Sides:
    """The visible sides of the objects of an image that were found, whatever class they were taken for.

    Args:
        results: Detections by falling score, with ``bboxes`` and ``bbox_std`` (N, 4), and where distributions have
            steps ``bbox_mean`` and ``bbox_step`` (N, 4).
        objects: Annotations of the image.
        iou: Least overlap; a detection takes the best object that is free.
    """
    x, y, width, height = np.array([one['bbox'] for one in objects], float).reshape(-1, 4).T
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    true, seen, kind = (
        np.array([one[f'side_{name}'] for one in objects], dtype).reshape(-1, 4)
        for name, dtype in (('std', float), ('visible', float), ('kind', str))
    )
    found = as_array(results.bboxes)
    i, j = np.array(matched(ious(found, boxes), iou), int).reshape(-1, 2).T
    error, length = (found[i] - boxes[j]) * [-1, -1, 1, 1], np.tile(boxes[j, 2:] - boxes[j, :2], 2)
    shown = (seen[j] >= VISIBLE) & np.isin(kind[j], KINDS)
    values = (as_array(results.bbox_std)[i], true[j], error, length, kind[j], floor_of(results)[i])
    return Sides(*(value[shown] for value in values))


def floor_of(results: InstanceData) -> np.ndarray:
    """Least standard deviation of each side, (N, 4): a mean between two entries needs probability on both.

    With the mean a fraction f of a step s above an entry that is s² f (1 - f), the variance of the two neighbours.
    """
    if 'bbox_step' not in results:
        return np.zeros(tuple(results.bbox_std.shape))
    step = as_array(results.bbox_step)
    fraction = as_array(results.bbox_mean) / step % 1
    return step * np.sqrt(fraction * (1 - fraction))


def evaluate(sides: Sides) -> Evaluation:
    """Evaluate a model by the deviations of its sides."""
    ambiguous = sides.true > 0
    share = sides.predicted / sides.length
    off = np.abs(sides.error) / np.maximum(sides.predicted, np.finfo(float).tiny)
    return Evaluation(
        len(sides.true),
        rank_correlation(sides.predicted, sides.true),
        rank_correlation(sides.predicted[ambiguous], sides.true[ambiguous]),
        rank_correlation(sides.predicted, np.abs(sides.error)),
        auroc(share[ambiguous], share[~ambiguous]),
        float((off <= 1).mean()),
        float((off <= 2).mean()),
        {kind: _of_kind(sides, sides.kind == kind) for kind in KINDS if (sides.kind == kind).any()},
    )


def _of_kind(sides: Sides, chosen: np.ndarray) -> tuple[int, float, float, float]:
    squares = np.square([sides.true[chosen], sides.predicted[chosen], sides.error[chosen]])
    true, predicted, error = np.sqrt(squares.mean(axis=1)).tolist()
    return int(chosen.sum()), true, predicted, error


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Probability that a positive exceeds a negative, ties counted half; NaN without one of either kind."""
    from scipy.stats import mannwhitneyu  # takes a second to import; MMDetection depends on it

    if not len(positives) or not len(negatives):
        return float('nan')
    pairs = len(positives) * len(negatives)
    return float(mannwhitneyu(positives, negatives, method='asymptotic').statistic / pairs)


def with_floors_taken_away(names: Sequence[str], models: Sequence[Sides]) -> tuple[list[str], list[Sides]]:
    """Names and sides of the models, and behind each that has floors itself beyond them."""
    pairs = []
    for name, sides in zip(names, models, strict=True):
        pairs.append((name, sides))
        if sides.floor.any():
            pairs.append((f'{name}, beyond its floor', sides.beyond_floor()))
    return [name for name, _ in pairs], [sides for _, sides in pairs]


_MODEL_COLUMNS = (
    'model',
    'sides',
    'rank correlation',
    'among ambiguous',
    'with own error',
    'AUROC',
    'within 1 std',
    'within 2 std',
)
_KIND_COLUMNS = ('side', 'model', 'sides', 'true std', 'predicted std', 'error')


def table(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    """Markdown: a line per model, then a line per kind of side and model."""
    models, kinds = [], []
    for name, one in zip(names, evaluations):
        values = one.correlation, one.among_ambiguous, one.own_error, one.auroc
        shares = one.within_one, one.within_two
        models.append([name, str(one.number), *(f'{x:.2f}' for x in values), *(f'{x:.0%}' for x in shares)])
    for kind in KINDS:
        for name, one in zip(names, evaluations):
            if kind in one.by_kind:
                count, *lengths = one.by_kind[kind]
                kinds.append([kind, name, str(count), *(f'{length:.1f}' for length in lengths)])
    return f'{markdown(_MODEL_COLUMNS, models)}\n\n{markdown(_KIND_COLUMNS, kinds)}'
