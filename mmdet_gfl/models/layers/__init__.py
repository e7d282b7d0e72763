"""Layers without anything to learn."""

from .distribution_statistics import distribution_statistics, validate_statistics
from .integral import Integral, distribution_std, integral

__all__ = ['Integral', 'distribution_statistics', 'distribution_std', 'integral', 'validate_statistics']
