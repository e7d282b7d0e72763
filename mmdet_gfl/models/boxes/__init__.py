"""How a box side is represented; every file of this folder is imported, so a new one is found by itself."""

from mmdet_gfl.utils import import_submodules

from .base import BoxRepresentation, SideCoding, SideStatistics

import_submodules(__name__)

__all__ = ['BoxRepresentation', 'SideCoding', 'SideStatistics']
