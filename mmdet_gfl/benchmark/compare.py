"""Comparison of rows: scores over seeds, paired differences with Student's interval, and effects beside the paper's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from .results import COLUMNS, Result
from .rows import Table, TableRow

#: Share of intervals that hold the true difference.
LEVEL = 0.95
#: Seeds beyond which nobody goes.
MAX_SEEDS = 1000


@dataclass(frozen=True)
class Measured:
    """A score over seeds: mean, sample standard deviation (None with one seed), and each value, AP in percent."""

    mean: float
    std: float | None
    values: list[float]

    def show(self, digits: int) -> str:
        """Mean and standard deviation, ``31.0 ± 1.4``."""
        return f'{self.mean:.{digits}f}' + ('' if self.std is None else f' ± {self.std:.{digits}f}')


@dataclass(frozen=True)
class Paired:
    """A row's score less the baseline's, seed by seed.

    Attributes:
        seeds: That both have.
        mean: Of the differences.
        std: Sample standard deviation of the differences; None for one seed.
        half_width: Of the 95% interval around the mean, Student's t with n - 1 degrees of freedom; None for one seed.
    """

    seeds: list[int]
    mean: float
    std: float | None
    half_width: float | None

    @property
    def differs(self) -> bool | None:
        """True where the interval leaves out zero; None for one seed."""
        return None if self.half_width is None else abs(self.mean) > self.half_width

    @property
    def more_seeds(self) -> int | None:
        """Further seeds whose interval would leave out zero, if mean and spread stay; None: unknown or too many."""
        if self.std is None:
            return None
        needed = seeds_to_tell(self.mean, self.std)
        return None if needed is None else max(0, needed - len(self.seeds))

    def show(self, digits: int) -> str:
        """Mean and half-width, ``+0.4 ± 0.2``, with up to three more digits where these would be the same number."""
        if self.half_width is None:
            return signed(self.mean, digits)
        digits = _digits(digits, abs(self.mean), self.half_width)
        return f'{signed(self.mean, digits)} ± {self.half_width:.{digits}f}'

    def show_interval(self, digits: int) -> str:
        """The ends, ``-0.2 to +0.6``; one that would round to zero has up to three more digits, which show its side."""
        assert self.half_width is not None
        ends = self.mean - self.half_width, self.mean + self.half_width
        return ' to '.join(signed(end, _digits(digits, end, 0.0)) for end in ends)


@dataclass(frozen=True)
class Effect:
    """A row's score less its baseline's.

    Attributes:
        paper: The paper's; None where it has no such score.
        difference: What was measured, over the seeds that both have; None without one.
    """

    paper: float | None
    difference: Paired | None

    @property
    def measured(self) -> float | None:
        """Mean of the difference."""
        return None if self.difference is None else self.difference.mean

    @property
    def interval(self) -> float | None:
        """Half of the 95% interval around the mean; None with one seed."""
        return None if self.difference is None else self.difference.half_width

    @property
    def agrees(self) -> bool | None:
        """True if the signs are the same; None where the paper has no effect, or none was measured."""
        if not self.paper or self.measured is None:
            return None
        return self.measured * self.paper > 0

    @property
    def verdict(self) -> str:
        """``'confirmed'``, ``'reversed'``, ``'not told apart'`` from 0, or why nothing of these can be said."""
        if self.difference is None:
            return 'no seed in common with the baseline'
        if self.difference.differs is None:
            return 'one seed, no interval'
        if not self.difference.differs:
            return 'not told apart'
        if self.agrees is None:
            return 'differs, not in the paper' if self.paper is None else 'differs, the paper has no effect'
        return 'confirmed' if self.agrees else 'reversed'


@dataclass(frozen=True)
class RowComparison:
    """A row of a table with what was measured.

    Attributes:
        table_row: The paper's.
        is_baseline: Whether the others of its group are compared with it.
        seeds: Of its results.
        measured: By column; None where no seed has the score.
        effects: By column; empty for a baseline.
        missing: Why there is no result, in words, by seed: of the seeds that some row of the table has.
    """

    table_row: TableRow
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
    rows: list[RowComparison]


def measure(results: Sequence[Result], column: str) -> Measured | None:
    """A column over the results that have it."""
    numbers = list(by_seed(results, column).values())
    if not numbers:
        return None
    return Measured(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, numbers)


def signed(value: float, digits: int) -> str:
    """A number with its sign; zero is ``+0.0`` from either side."""
    return format(round(value, digits) + 0.0, f'+.{digits}f')


def _digits(least: int, value: float, other: float) -> int:
    """Digits after the point by which two numbers differ, up to three more than the least."""
    return next((n for n in range(least, least + 4) if round(value, n) != round(other, n)), least)


def paired(row: Mapping[int, float], baseline: Mapping[int, float]) -> Paired | None:
    """The paired difference of two rows' scores by seed; None without a common seed."""
    seeds = sorted(row.keys() & baseline.keys())
    if not seeds:
        return None
    differences = [row[seed] - baseline[seed] for seed in seeds]
    mean = statistics.fmean(differences)
    if len(seeds) == 1:
        return Paired(seeds, mean, None, None)
    std = statistics.stdev(differences)
    return Paired(seeds, mean, std, half_width(std, len(seeds)))


def half_width(std: float, count: int) -> float:
    """Half of the interval's width for the mean of ``count`` values, 2 or more, of a sample standard deviation."""
    return float(student.ppf((1 + LEVEL) / 2, count - 1)) * std / math.sqrt(count)


def seeds_to_tell(mean: float, std: float) -> int | None:
    """The least number of seeds whose interval leaves out zero; None where it is above :data:`MAX_SEEDS`."""
    return next((count for count in range(2, MAX_SEEDS + 1) if half_width(std, count) < abs(mean)), None)


def effect(row: TableRow, base: TableRow, results: Mapping[str, Sequence[Result]], column: str) -> Effect:
    """A row's effect on a column."""
    own, other = (by_seed(results.get(config, ()), column) for config in (row.config, base.config))
    has_paper = column in row.paper and column in base.paper
    return Effect(round(row.paper[column] - base.paper[column], 1) if has_paper else None, paired(own, other))


def by_seed(results: Sequence[Result], column: str) -> dict[int, float]:
    """A column by seed, of the results that have it."""
    scores = ((result.get('seed', 0), result['scores'].get(column)) for result in results)
    return {seed: float(score) for seed, score in scores if score is not None and math.isfinite(score)}


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
    rows = []
    for row in table.rows:
        base, seeds = table.baseline(row), own_seeds[row.config]
        measured = {column: measure(results.get(row.config, ()), column) for column in COLUMNS}
        effects = {} if row is base else {column: effect(row, base, results, column) for column in COLUMNS}
        known = states.get(row.config, {})
        missing = {seed: known.get(seed, 'not run') for seed in sorted(wanted.difference(seeds))}
        rows.append(RowComparison(row, row is base, seeds, measured, effects, missing))
    return Comparison(table, rows)
