"""The built-in data set: pictures of shapes, some sides of which are truly ambiguous, with the truth kept beside them.

``python tools/dataset_converters/make_shapes.py`` writes it, docs/shapes.md explains it.
"""

from .generator import make_shapes
from .layout import Parameters
from .outlines import CLASSES
from .storage import ShapesError

__all__ = ['CLASSES', 'Parameters', 'ShapesError', 'make_shapes']
