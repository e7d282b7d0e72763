"""Predictions read where they lie, order statistics and IoU of pairs, each tested against the plain form it names."""

from .iou import iou_of_sides, paired_iou, sides_of
from .pick_rows import pick_rows, rows_of_levels
from .ranking import by_group_and_score, kth_largest

__all__ = ['by_group_and_score', 'iou_of_sides', 'kth_largest', 'paired_iou', 'pick_rows', 'rows_of_levels', 'sides_of']
