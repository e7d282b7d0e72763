"""Comparison with the paper: scores over seeds, effects, and whether they exceed the seeds' spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .results import COLUMNS, Result
from .rows import Table, TableRow

#: An effect below this rounds to 0.0 and has no sign.
NONE = 0.05


@dataclass(frozen=True)
class Measured:
    """A score over seeds: mean, sample standard deviation (None with one seed), and each value, AP in percent."""

    mean: float
    std: float | None
    values: list[float]


@dataclass(frozen=True)
class Effect:
    """A row's score less its baseline's.

    Attributes:
        paper: The paper's; None where it has no such score.
        measured: Difference of the means; None where one of them was not measured.
        spread: Standard deviation of the difference of two single runs, sqrt(s² + s_baseline²); None where either has
            one seed.
    """

    paper: float | None
    measured: float | None
    spread: float | None

    @property
    def agrees(self) -> bool | None:
        """True if the signs are the same; None where the paper has no effect, or none was measured."""
        if not self.paper or self.measured is None:
            return None
        return abs(self.measured) >= NONE and (self.measured > 0) == (self.paper > 0)

    @property
    def exceeds(self) -> bool | None:
        """True if the measured effect is larger than the spread; None where there is no spread."""
        return None if self.measured is None or self.spread is None else abs(self.measured) > self.spread


@dataclass(frozen=True)
class RowComparison:
    """A row of a table with what was measured.

    Attributes:
        row: The paper's.
        is_baseline: Whether the others of its group are compared with it.
        seeds: Of its results.
        measured: By column; None where no seed has the score.
        effects: By column; empty for a baseline.
        missing: Why there is no result, in words, by seed: of the seeds that some row of the table has.
    """

    row: TableRow
    is_baseline: bool
    seeds: list[int]
    measured: dict[str, Measured | None]
    effects: dict[str, Effect]
    missing: dict[int, str]

    @property
    def state(self) -> str:
        """``'done'``, ``'partly done'``, or why no seed has a result."""
        if self.seeds:
            return 'partly done' if self.missing else 'done'
        return '; '.join(dict.fromkeys(self.missing.values()))


@dataclass(frozen=True)
class Comparison:
    """A table with what was measured of it."""

    table: Table
    lines: list[RowComparison]


def measure(results: Sequence[Result], column: str) -> Measured | None:
    """A column over the results that have it."""
    values = [result['scores'].get(column) for result in results]
    numbers = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not numbers:
        return None
    return Measured(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, numbers)


def effect(row: TableRow, base: TableRow, results: Mapping[str, Sequence[Result]], column: str) -> Effect:
    """A row's effect on a column."""
    own, other = (measure(results.get(config, ()), column) for config in (row.config, base.config))
    has_paper = column in row.paper and column in base.paper
    paper = round(row.paper[column] - base.paper[column], 1) if has_paper else None
    if own is None or other is None:
        return Effect(paper, None, None)
    spread = None if own.std is None or other.std is None else math.hypot(own.std, other.std)
    return Effect(paper, own.mean - other.mean, spread)


def compare(
    table: Table, results: Mapping[str, Sequence[Result]], states: Mapping[str, Mapping[int, str]]
) -> Comparison:
    """A table beside the results.

    Args:
        table: Of the paper.
        results: By config.
        states: In words, of the runs without a result, by config and seed; default: not run.
    """
    own_seeds = {row.config: [run.get('seed', 0) for run in results.get(row.config, ())] for row in table.rows}
    wanted = {seed for config, seeds in own_seeds.items() for seed in (*seeds, *states.get(config, ()))} or {0}
    lines = []
    for row in table.rows:
        base, seeds = table.baseline(row), own_seeds[row.config]
        measured = {column: measure(results.get(row.config, ()), column) for column in COLUMNS}
        effects = {} if row is base else {column: effect(row, base, results, column) for column in COLUMNS}
        known = states.get(row.config, {})
        missing = {seed: known.get(seed, 'not run') for seed in sorted(wanted.difference(seeds))}
        lines.append(RowComparison(row, row is base, seeds, measured, effects, missing))
    return Comparison(table, lines)
