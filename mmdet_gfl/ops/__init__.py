"""Locations and predictions under one index, order statistics and IoU of pairs; each is tested against a plain form."""

from .iou import box_sides as box_sides
from .iou import iou_of_sides as iou_of_sides
from .iou import paired_iou as paired_iou
from .level_predictions import LevelPredictions as LevelPredictions
from .level_predictions import LocationCoords as LocationCoords
from .level_predictions import LocationIndex as LocationIndex
from .ranking import argsort_by_group_and_score as argsort_by_group_and_score
from .ranking import kth_largest as kth_largest
from .tensors import constant_like as constant_like
from .tensors import floor_divmod as floor_divmod
from .tensors import upcast as upcast
