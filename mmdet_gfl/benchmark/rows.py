"""The rows of the paper's tables and of GFLv2's, from ``configs/paper_tables.yml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path

import yaml

from mmdet_gfl.shipped_configs import CONFIG_DIR


class RowError(ValueError):
    """A table, row or config that is asked for is not there."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        config: Relative to ``configs/``.
        label: As in the paper.
        paper: The quoted numbers by column, AP in percent; empty where none are quoted.
        named_group: The group that the file names; empty where the row belongs to its host's.
    """

    config: str
    label: str
    paper: dict[str, float] = field(default_factory=dict)
    named_group: str = ''

    @property
    def host(self) -> str:
        """The host detector; GFL and GFLv2 are on the ATSS host."""
        folder = Path(self.config).parts[0]
        return 'atss' if folder in ('gfl', 'gflv2') else folder

    @property
    def group(self) -> str:
        """The rows that are compared with each other: those of a named group, else those of a host."""
        return self.named_group or self.host


@dataclass(frozen=True)
class Table:
    """A table of the paper, or a part of it.

    Attributes:
        name: As ``'1a'``.
        title: What it is about.
        rows: Those that were chosen.
        all_rows: Of the whole table; empty where ``rows`` are.
        preset: The only preset that trains the rows; empty where each does.
    """

    name: str
    title: str
    rows: list[TableRow] = field(default_factory=list)
    all_rows: list[TableRow] = field(default_factory=list)
    preset: str = ''

    def baseline(self, row: TableRow) -> TableRow:
        """The row that a row is compared with: the whole table's first row of the same group."""
        return next(other for other in self.all_rows or self.rows if other.group == row.group)


def read_tables(path: Path = CONFIG_DIR / 'paper_tables.yml') -> list[Table]:
    """All tables, in the file's order."""
    tables = []
    for name, entry in yaml.safe_load(path.read_text()).items():
        rows = [
            TableRow(row['config'], row['label'], row.get('paper', {}), row.get('group', '')) for row in entry['rows']
        ]
        tables.append(Table(name, entry['title'], rows, preset=entry.get('preset', '')))
    return tables


def select(tables: list[Table], names: Sequence[str] | None, globs: Sequence[str] | None) -> list[Table]:
    """The tables of these names, with the rows whose config matches one of the patterns.

    Raises:
        RowError: There is no such table, or no row matches.
    """
    known = [table.name for table in tables]
    for name in names or ():
        if name not in known:
            raise RowError(f'--tables {name}: there is no such table; there are {", ".join(known)}')
    chosen = [
        replace(table, rows=[row for row in table.rows if _matches(row, globs)], all_rows=table.rows)
        for table in tables
        if not names or table.name in names
    ]
    if not any(table.rows for table in chosen):
        raise RowError(f'--rows {" ".join(globs or ())}: no config of these tables matches; see `reproduce.py list`')
    return [table for table in chosen if table.rows]


def trained_by(tables: list[Table], preset: str, names: Sequence[str] | None) -> list[Table]:
    """The tables whose rows a preset trains.

    Args:
        tables: Selected tables.
        preset: ``'paper'``, ``'small'`` or ``'mini'``.
        names: Tables that were asked for by name; the others are left out where the preset does not train them.

    Raises:
        RowError: A table that was asked for by name, or every table, is trained with another preset only.
    """
    trained = [table for table in tables if table.preset in ('', preset)]
    for table in tables:
        if table not in trained and (not trained or table.name in (names or ())):
            raise RowError(
                f'table {table.name} is trained with --preset {table.preset} only: --preset {preset} replaces what its '
                f'rows differ in; give --preset {table.preset}, or choose other tables with --tables'
            )
    return trained


def _matches(row: TableRow, globs: Sequence[str] | None) -> bool:
    return not globs or any(
        fnmatch(row.config, pattern) or fnmatch(Path(row.config).stem, pattern) for pattern in globs
    )


def configs_of(tables: list[Table]) -> list[str]:
    """The distinct configs of all rows, in order: a row is trained once, however many tables hold it."""
    return list(dict.fromkeys(row.config for table in tables for row in table.rows))


def check_config(given: str) -> str:
    """The name of a shipped config as rows have it, ``folder/name.py`` below ``configs/``; each config has one.

    Args:
        given: As that, without ``.py``, or as a path that leads there.

    Raises:
        RowError: It is not a shipped config, or a part in ``_base_`` that others inherit.
    """
    files = {file.resolve(): file.relative_to(CONFIG_DIR).as_posix() for file in CONFIG_DIR.glob('[!_]*/*.py')}
    name = given if given.endswith('.py') else f'{given}.py'
    found = files.get((CONFIG_DIR / name).resolve())
    if found is None:
        close = get_close_matches('/'.join(Path(name).parts[-2:]), files.values(), n=1)
        raise RowError(
            f'--configs {given}: no such config; give <folder>/<name>.py below {CONFIG_DIR}, not from _base_'
            + (f'; did you mean {close[0]}?' if close else '')
        )
    return found


def listing(tables: list[Table]) -> str:
    """Tables and rows as text."""
    lines = []
    for table in tables:
        lines.append(f'Table {table.name}: {table.title}')
        for row in table.rows:
            quoted = f'{row.paper["AP"]:.1f}' if 'AP' in row.paper else '-'
            lines.append(f'  {quoted:>5}  {row.label:32} {row.config}')
    return '\n'.join(lines)
