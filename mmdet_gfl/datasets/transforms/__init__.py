"""Steps of data pipelines."""

from .loading import LoadImageFromFile

__all__ = ['LoadImageFromFile']
