"""The one error that ends a tool, and how its sentence lists names."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(SystemExit):
    """Something the user can mend: ends the tool with one sentence on stderr and exit status 1."""


def some(names: Iterable[str]) -> str:
    """The first few of many names."""
    listed = [str(name) for name in names]
    return ', '.join(listed[:4]) + (f' and {len(listed) - 4} more' if len(listed) > 4 else '')
