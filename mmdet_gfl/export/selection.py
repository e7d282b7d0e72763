"""Detections of a batch in tensors of fixed size: top k per level, non-maximum suppression, padding.

Dimension letters: N images, K locations per image, C classes, P candidates per image, D detections per image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmdet_gfl.engine.errors import UserError

from .decoding import Predictions
from .operators import NO_CANDIDATE, nms_mask

_NMS_KEYS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


class Thresholds(NamedTuple):
    """The part of a ``test_cfg`` that the graph contains.

    Attributes:
        score_thr: Class score to be surpassed.
        nms_pre: Candidates per level and image; 0: all.
        iou_threshold: Of non-maximum suppression.
        class_agnostic: Boxes of different classes suppress each other.
        max_per_img: D.
        min_bbox_size: Width and height, in pixels of the input, that a box must surpass; below 0: any.
    """

    score_thr: float
    nms_pre: int
    iou_threshold: float
    class_agnostic: bool
    max_per_img: int
    min_bbox_size: float


def thresholds_of(test_cfg: Any) -> Thresholds:
    """The thresholds of a head's ``test_cfg``.

    Raises:
        UserError: It asks for what the graph cannot contain.
    """
    test_cfg = test_cfg or {}
    nms, max_per_img = test_cfg.get('nms') or {}, test_cfg.get('max_per_img')
    if nms.get('type', 'nms') != 'nms' or 'iou_threshold' not in nms or set(nms) - _NMS_KEYS:
        raise UserError(
            f"test_cfg.nms={dict(nms)} cannot be part of the graph; accepted: dict(type='nms', iou_threshold=...), "
            f'with class_agnostic and split_thr or without. --output decoded leaves the suppression to you'
        )
    if not isinstance(max_per_img, int) or max_per_img < 1:
        raise UserError(
            f'test_cfg.max_per_img={max_per_img!r} cannot be part of the graph, whose outputs have a fixed size; set '
            f'it to a whole number from 1 on'
        )
    if test_cfg.get('nms_pre') == 0:
        raise UserError('test_cfg.nms_pre=0 keeps no detection at all; set the candidates per level, or -1 for all')
    return Thresholds(
        score_thr=float(test_cfg.get('score_thr', 0)),
        nms_pre=max(int(test_cfg.get('nms_pre', -1)), 0),
        iou_threshold=float(nms['iou_threshold']),
        class_agnostic=bool(nms.get('class_agnostic', False)),
        max_per_img=max_per_img,
        min_bbox_size=float(test_cfg.get('min_bbox_size', -1)),
    )


class Detections(NamedTuple):
    """Detections by descending score, padded with label -1 and zeros.

    Attributes:
        dets: x1, y1, x2, y2, score; (N, D, 5).
        labels: (N, D) int64.
        std: (N, D, 4); None if the predictions have none.
    """

    dets: Tensor
    labels: Tensor
    std: Tensor | None


def detect(predictions: Predictions, thresholds: Thresholds) -> Detections:
    """The detections of ``predict_by_feat`` from the same outputs, padded."""
    scores, rows, labels = select_candidates(predictions, thresholds)
    boxes = take(predictions.boxes, rows)  # (N, P, 4)
    if predictions.factors is not None:
        scores = torch.where(scores > NO_CANDIDATE, scores * take(predictions.factors, rows).squeeze(-1), scores)
    if thresholds.min_bbox_size >= 0:
        is_large = (boxes[..., 2:] - boxes[..., :2] > thresholds.min_bbox_size).all(dim=-1)
        scores = torch.where(is_large, scores, -1.0)
    shifted = boxes if thresholds.class_agnostic else shift_by_class(boxes, labels, scores)
    kept = nms_mask(shifted, scores, thresholds.iou_threshold, thresholds.max_per_img)
    scores, order = topk(torch.where(kept, scores, -1.0), thresholds.max_per_img)
    is_detection = scores > NO_CANDIDATE  # (N, D)
    dets = torch.cat((take(boxes, order), scores[..., None]), dim=-1)
    std = None if predictions.std is None else take(take(predictions.std, rows), order)
    return Detections(
        torch.where(is_detection[..., None], dets, 0.0),
        torch.where(is_detection, labels.gather(1, order), -1),
        None if std is None else torch.where(is_detection[..., None], std, 0.0),
    )


def select_candidates(predictions: Predictions, thresholds: Thresholds) -> tuple[Tensor, Tensor, Tensor]:
    """The ``nms_pre`` best class scores above the threshold of each level.

    Returns:
        Scores (N, P), -1 where there is no candidate; locations (N, P) and labels (N, P).
    """
    num_classes, first, selected = predictions.class_scores.size(2), 0, []
    for level in predictions.class_scores.split(predictions.level_sizes, dim=1):
        passing = torch.where(level > thresholds.score_thr, level, -1.0).flatten(1)  # a NaN does not pass
        scores, inds = topk(passing, thresholds.nms_pre)
        rows = torch.div(inds, num_classes, rounding_mode='floor')
        selected.append((scores, rows + first, inds - rows * num_classes))
        first = first + level.size(1)
    scores, rows, labels = (torch.cat(kind, dim=1) for kind in zip(*selected))
    return scores, rows, labels


def topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of scores (N, M) and their indices; (N, M) in their order for k = 0.

    ``k`` is a constant of the graph, as TensorRT demands: where M depends on the input, or is less, k scores of -1 are
    appended. Their indices are clamped to M - 1.
    """
    if not k:
        return scores, torch.arange(scores.size(1)).expand_as(scores)
    size = scores.size(1)
    if not isinstance(size, int) or size < k:
        scores = torch.cat((scores, scores.new_full((scores.size(0), k), -1.0)), dim=1)
    values, inds = scores.topk(k)
    return values, inds.clamp(max=size - 1)


def take(values: Tensor, rows: Tensor) -> Tensor:
    """Values (N, M, ...) at rows (N, P): (N, P, ...)."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.size(2)))


def shift_by_class(boxes: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
    """Boxes (N, P, 4), moved so that no two of different classes overlap; by as much as mmcv's ``batched_nms`` does."""
    extent = torch.where((scores > NO_CANDIDATE)[..., None], boxes, 0.0).flatten(1).max(dim=1).values + 1  # (N,)
    return boxes + (labels * extent[:, None])[..., None]
