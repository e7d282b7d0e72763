"""The model parts. Importing this package registers all of them."""

from . import boxes, dense_heads, layers, losses, quality

__all__ = ['boxes', 'dense_heads', 'layers', 'losses', 'quality']
