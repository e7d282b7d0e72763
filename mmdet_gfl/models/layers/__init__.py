"""Layers without anything to learn."""

from .integral import Integral, distribution_std, integral

__all__ = ['Integral', 'distribution_std', 'integral']
