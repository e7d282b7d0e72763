"""Small things that several parts of the package need."""

from .registration import build_part, import_submodules

__all__ = ['build_part', 'import_submodules']
