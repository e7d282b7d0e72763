"""Passes over predictions that are read where they lie, and order statistics, each tested against its plain form."""

from .pick_rows import pick_rows, rows_of_levels
from .ranking import by_group_and_score, kth_largest

__all__ = ['by_group_and_score', 'kth_largest', 'pick_rows', 'rows_of_levels']
