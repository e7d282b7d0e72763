"""The one error that ends a tool, what it says beside errors, and how its sentences list names."""

from __future__ import annotations

import os
from collections.abc import Iterable

RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


class UserError(SystemExit):
    """Something the user can mend: ends the tool with one sentence on stderr and exit status 1."""


def some(names: Iterable[object]) -> str:
    """The first few of many names."""
    listed = [str(name) for name in names]
    return ', '.join(listed[:4]) + (f' and {len(listed) - 4} more' if len(listed) > 4 else '')


def is_first_rank() -> bool:
    """Whether this process is the one that speaks for all."""
    return all(os.environ.get(name, '0') == '0' for name in RANK_VARIABLES)


def note(text: str) -> None:
    """Print a note, once for all processes."""
    if is_first_rank():
        print(f'note: {text}', flush=True)
