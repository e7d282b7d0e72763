"""Paired differences over seeds: mean, Student's interval, and the seeds that would tell it from zero."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import t as student

#: Share of intervals that hold the true difference.
LEVEL = 0.95
#: Seeds beyond which nobody goes.
MAX_SEEDS = 1000


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
