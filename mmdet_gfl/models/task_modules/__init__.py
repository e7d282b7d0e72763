"""Target assignment, what it gives to the loss steps, and the selection of candidates for detections."""

from .anchor_grid import AnchorGrid as AnchorGrid
from .atss_on_grid import match_atss as match_atss
from .fcos_on_grid import match_fcos as match_fcos
from .fovea_on_grid import match_fovea as match_fovea
from .ground_truth import labels_as_gt_indices as labels_as_gt_indices
from .ground_truth import recover_gt_indices as recover_gt_indices
from .ground_truth import validate_ground_truth as validate_ground_truth
from .ground_truth import with_integer_labels as with_integer_labels
from .max_iou_on_grid import MaxIoURules as MaxIoURules
from .max_iou_on_grid import match_max_iou as match_max_iou
from .point_grid import PointGrid as PointGrid
from .preselection import preselect as preselect
from .preselection import select_topk as select_topk
from .targets import AssignmentBatch as AssignmentBatch
from .targets import Locations as Locations
from .targets import Positives as Positives
from .targets import Targets as Targets
from .targets import build_targets as build_targets
from .targets import targets_from_levels as targets_from_levels
