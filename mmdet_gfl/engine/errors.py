"""The error that ends a tool, notes, and lists of names in their sentences."""

from __future__ import annotations

import os
from collections.abc import Iterable

RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


class UserError(SystemExit):
    """Something the user can fix: ends the tool with one sentence on stderr and exit status 1."""


def some(names: Iterable[object]) -> str:
    """The first few of many names."""
    listed = [str(name) for name in names]
    return ', '.join(listed[:4]) + (f' and {len(listed) - 4} more' if len(listed) > 4 else '')


def is_first_rank() -> bool:
    """True for the process that prints for all."""
    return all(os.environ.get(name, '0') == '0' for name in RANK_VARIABLES)


def note(text: str) -> None:
    """Print a note, once for all processes."""
    if is_first_rank():
        print(f'note: {text}', flush=True)
