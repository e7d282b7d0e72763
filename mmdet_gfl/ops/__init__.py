"""Locations and predictions under one index, order statistics and IoU of pairs; each is tested against a plain form."""

from .iou import box_sides, iou_of_sides, paired_iou
from .level_predictions import LevelPredictions, LocationCoords, LocationIndex
from .ranking import argsort_by_group_and_score, kth_largest
from .tensors import constant_like, floor_divmod, upcast

__all__ = [
    'LevelPredictions',
    'LocationCoords',
    'LocationIndex',
    'argsort_by_group_and_score',
    'box_sides',
    'constant_like',
    'floor_divmod',
    'iou_of_sides',
    'kth_largest',
    'paired_iou',
    'upcast',
]
