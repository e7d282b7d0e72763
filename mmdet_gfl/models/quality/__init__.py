"""How localization quality is represented; every file of this folder is imported, so a new one is found by itself."""

from mmdet_gfl.utils import import_submodules

from .base import BoxWeight, Quality

import_submodules(__name__)

__all__ = ['BoxWeight', 'Quality']
