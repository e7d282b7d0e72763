"""Representations of a box side; every file of this folder is imported, so a new one needs no list."""

from mmdet_gfl.utils import import_submodules

from .base import BoxHead, BoxRepresentation, HostBoxCoder, SideStatistics

import_submodules(__name__)

__all__ = ['BoxHead', 'BoxRepresentation', 'HostBoxCoder', 'SideStatistics']
