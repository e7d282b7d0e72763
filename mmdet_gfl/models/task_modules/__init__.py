"""What target assignment gives to the loss steps."""

from .anchor_grid import AnchorGrid
from .atss_on_grid import atss_owners
from .fcos_on_grid import fcos_owners
from .fovea_on_grid import fovea_owners
from .layout import Layout
from .max_iou_on_grid import MaxIoURules, max_iou_owners
from .numbering import by_number, numbered
from .outputs import Outputs, Picked
from .owners import count_by_image, targets_of
from .point_grid import PointGrid
from .targets import Locations, Positives, Targets, check_ground_truth

__all__ = [
    'AnchorGrid',
    'Layout',
    'Locations',
    'MaxIoURules',
    'Outputs',
    'Picked',
    'PointGrid',
    'Positives',
    'Targets',
    'atss_owners',
    'by_number',
    'check_ground_truth',
    'count_by_image',
    'fcos_owners',
    'fovea_owners',
    'max_iou_owners',
    'numbered',
    'targets_of',
]
