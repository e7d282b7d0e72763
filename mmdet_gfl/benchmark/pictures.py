"""One picture per table: what was measured with error bars, and its effects beside the paper's."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .compare import Comparison, RowComparison

#: Colours of the paper and of what was measured, apart for all eyes, and of the frame.
PAPER, MEASURED, GREY = '#8C8C8C', '#0B6BB8', '#444444'
_SYMBOLS = dict(beta=r'$\beta$', delta=r'$\Delta$', n='n')


def draw(comparison: Comparison) -> Figure:
    """Draw a table: curves over a parameter where each row is a value of one, else bars."""
    found = parameter_of([row.table_row.label for row in comparison.rows])
    figure = _curves(comparison, *found) if found else _bars(comparison)
    figure.suptitle(f'Table {comparison.table.name}: {comparison.table.title}', fontsize=11)
    return figure


def parameter_of(labels: Sequence[str]) -> tuple[str, list[float]] | None:
    """The parameter that the rows vary, and its values, from labels like ``beta = 2.5``; None where they are others."""
    matches = [re.fullmatch(r'(\w+) = ([\d.]+)', label) for label in labels]
    if not all(matches) or len({match.group(1) for match in matches if match}) != 1:
        return None
    return str(matches[0] and matches[0].group(1)), [float(match.group(2)) for match in matches if match]


def _curves(comparison: Comparison, name: str, values: list[float]) -> Figure:
    """Scores on the left, effects on the right, over the parameter."""
    figure = Figure(figsize=(9, 3.9), layout='constrained')
    left, right = figure.subplots(1, 2)
    rows = comparison.rows
    own, effects = [row.measured['AP'] for row in rows], [row.effects.get('AP') for row in rows]
    zero = 0.0 if own[0] is not None and rows[0].is_baseline else None
    _curve(left, values, [row.table_row.paper.get('AP') for row in rows], None, PAPER)
    _curve(left, values, [m.mean if m else None for m in own], [m.std if m else None for m in own], MEASURED)
    _curve(right, values, [e.paper if e else 0.0 for e in effects], None, PAPER)
    differences, intervals = [e.measured if e else zero for e in effects], [e.interval if e else None for e in effects]
    _curve(right, values, differences, intervals, MEASURED)
    right.axhline(0, color=GREY, linewidth=0.8)
    left.set_ylabel('AP (bars: standard deviation over seeds)', fontsize=9)
    symbol = _SYMBOLS.get(name, name)
    label = f'AP less that of {symbol} = {values[0]:g} (bars: 95% interval)' if rows[0].is_baseline else 'effect on AP'
    right.set_ylabel(label, fontsize=9)
    for axes in (left, right):
        axes.set_xlabel(symbol)
        axes.set_xticks(values, [f'{value:g}' for value in values])
        tidy(axes, 'y')
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=2, fontsize=9, frameon=False)
    return figure


def _curve(
    axes: Axes,
    xs: Sequence[float],
    ys: Sequence[float | None],
    spreads: Sequence[float | None] | None,
    color: str,
) -> None:
    points = [
        (x, y, math.nan if s is None else s) for x, y, s in zip(xs, ys, spreads or [None] * len(xs)) if y is not None
    ]
    if points:
        x, y, error = zip(*points)
        style, label = ('s--', 'paper (COCO)') if color == PAPER else ('o-', 'measured')
        bars = None if all(math.isnan(size) for size in error) else error
        axes.errorbar(x, y, yerr=bars, color=color, label=label, capsize=4, fmt=style)


def _bars(comparison: Comparison) -> Figure:
    """Bars for each row: AP on the left, the effect on it on the right, the paper's above the measured one."""
    rows = comparison.rows
    figure = Figure(figsize=(10, 1.5 + 0.46 * len(rows)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    positions = _positions(rows)
    for y, row in zip(positions, rows):
        if 'AP' in row.table_row.paper:
            _bar(left, y - 0.18, row.table_row.paper['AP'], None, PAPER, '.1f')
        found = row.measured['AP']
        if found is not None:
            _bar(left, y + 0.18, found.mean, found.std, MEASURED, '.1f')
        _effect_bars(right, y, row)
    left.set_yticks(positions, [row.table_row.label for row in rows])
    left.set_ylim(max(positions) + 0.6, min(positions) - 0.6)
    left.set_xlabel('AP (error bar: standard deviation over seeds)', fontsize=9)
    right.set_xlabel('effect on AP (error bar: 95% interval)', fontsize=9)
    right.axvline(0, color=GREY, linewidth=0.8)
    for axes in (left, right):
        axes.use_sticky_edges = False
        axes.margins(x=0.14)
        tidy(axes, 'x')
    left.set_xlim(left=0)
    handles = [
        left.barh(0, 0, color=color, label=label) for color, label in ((PAPER, 'paper (COCO)'), (MEASURED, 'measured'))
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=2, fontsize=9, frameon=False)
    return figure


def _effect_bars(axes: Axes, y: float, row: RowComparison) -> None:
    if row.is_baseline:
        axes.text(0, y, ' baseline', va='center', fontsize=8, color=GREY)
        return
    effect = row.effects['AP']
    if effect.paper is not None:
        _bar(axes, y - 0.18, effect.paper, None, PAPER, '+.1f')
    if effect.measured is not None:
        _bar(axes, y + 0.18, effect.measured, effect.interval, MEASURED, '+.1f')
    else:
        axes.text(0, y + 0.18, ' not measured', va='center', fontsize=7, color=MEASURED)


def _positions(rows: Sequence[RowComparison]) -> list[float]:
    """Positions of the rows, from above, with a gap before each further group."""
    positions, gap = [], 0.0
    for number, row in enumerate(rows):
        gap += 0.5 * (number > 0 and row.table_row.group != rows[number - 1].table_row.group and row.is_baseline)
        positions.append(number + gap)
    return positions


def _bar(axes: Axes, y: float, value: float, spread: float | None, color: str, form: str) -> None:
    axes.barh(y, value, height=0.34, color=color, xerr=spread, error_kw=dict(ecolor=GREY, capsize=3, elinewidth=1))
    end = value + (spread or 0.0) * (1 if value >= 0 else -1)
    axes.annotate(
        format(value, form),
        (end, y),
        xytext=(3 if value >= 0 else -3, 0),
        textcoords='offset points',
        ha='left' if value >= 0 else 'right',
        va='center',
        fontsize=7,
        color=color if color != PAPER else GREY,
    )


def tidy(axes: Axes, grid: str) -> None:
    """Remove the frame above and on the right, and draw grid lines of one axis."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(axis=grid, color='#DDDDDD', linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
