"""Target assignment, what it gives to the loss steps, and the selection of candidates for detections."""

from .anchor_grid import AnchorGrid
from .atss_on_grid import match_atss
from .fcos_on_grid import match_fcos
from .fovea_on_grid import match_fovea
from .ground_truth import labels_as_gt_indices, recover_gt_indices, validate_ground_truth, with_integer_labels
from .max_iou_on_grid import MaxIoURules, match_max_iou
from .point_grid import PointGrid
from .preselection import preselect, select_topk
from .targets import (
    AssignmentBatch,
    Locations,
    Positives,
    Targets,
    build_targets,
    count_positives_per_image,
    targets_from_levels,
)

__all__ = [
    'AnchorGrid',
    'AssignmentBatch',
    'Locations',
    'MaxIoURules',
    'PointGrid',
    'Positives',
    'Targets',
    'build_targets',
    'count_positives_per_image',
    'labels_as_gt_indices',
    'match_atss',
    'match_fcos',
    'match_fovea',
    'match_max_iou',
    'preselect',
    'recover_gt_indices',
    'select_topk',
    'targets_from_levels',
    'validate_ground_truth',
    'with_integer_labels',
]
