"""Tables of text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other: the first to the left, the others to the right. A row may end early."""
    widths: list[int] = []
    for row in rows:
        widths += [0] * (len(row) - len(widths))
        widths[: len(row)] = (max(width, len(cell)) for width, cell in zip(widths, row))
    lines = (
        '  '.join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths)) for row in rows)
    )
    return '\n'.join(line.rstrip() for line in lines)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    first, *others = (f'| {" | ".join(row)} |' for row in (head, *rows))
    return '\n'.join([first, '|---' * len(head) + '|', *others])
