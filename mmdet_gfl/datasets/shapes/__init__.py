"""The built-in data set: pictures of shapes, some sides of which are truly ambiguous, with the truth kept beside them.

Configs name it ``mmdet_gfl.ShapesDataset``; docs/shapes.md explains it.
"""

from .export import make_shapes
from .outlines import CLASSES
from .parameters import Parameters

__all__ = ['CLASSES', 'Parameters', 'make_shapes']
