"""Passes over predictions that are read where they lie, each tested against the plain form that it names."""

from .pick_rows import pick_rows, rows_of_levels

__all__ = ['pick_rows', 'rows_of_levels']
