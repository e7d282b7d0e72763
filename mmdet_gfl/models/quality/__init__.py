"""Representations of localization quality; every file of this folder is imported, so a new one needs no list."""

from mmdet_gfl.utils import import_submodules

from .base import BoxWeight, Quality, QualityHead

import_submodules(__name__)

__all__ = ['BoxWeight', 'Quality', 'QualityHead']
