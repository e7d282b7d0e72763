"""Predicted standard deviations of box sides against how ambiguous the sides truly are, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_gfl.analysis.uncertainty import KINDS, Sides

_COLOURS = dict(sharp='0.45', blur='#0072b2', fade='#009e73', ghost='#d55e00')


def draw_uncertainty(names: Sequence[str], models: Sequence[Sides]) -> Figure:
    """Models side by side: above, each ambiguous side's true and predicted deviation; below, their spread by kind.

    Args:
        names: Of the models.
        models: Their sides.
    """
    figure = Figure(figsize=(3.8 * len(models) + 0.2, 6.6), dpi=110, layout='constrained')
    grid = figure.subplots(2, len(models), squeeze=False, sharey='row')
    largest = max(float(np.percentile(np.concatenate([one.true, one.predicted]), 99.5)) for one in models) or 1.0
    for column, (name, sides) in enumerate(zip(names, models)):
        _draw_deviations(grid[0, column], name, sides, largest)
        _draw_kinds(grid[1, column], sides)
    grid[1, 0].set_ylim(bottom=0)
    return figure


def _draw_deviations(axes: Axes, name: str, sides: Sides, largest: float) -> None:
    for kind in KINDS[1:]:
        chosen = sides.kind == kind
        axes.scatter(
            sides.true[chosen], sides.predicted[chosen], s=7, alpha=0.5, linewidths=0, color=_COLOURS[kind], label=kind
        )
    axes.plot([0, largest], [0, largest], color='0.6', linestyle=':', linewidth=1)
    axes.set(xlim=(0, largest), ylim=(0, largest), aspect='equal')
    axes.set(xlabel='true standard deviation, px', ylabel='predicted, px')
    axes.set_title(name, fontsize=9)
    axes.legend(loc='upper left', fontsize=8)


def _draw_kinds(axes: Axes, sides: Sides) -> None:
    """The share of the object's length that its sides are uncertain by."""
    there = [kind for kind in KINDS if (sides.kind == kind).any()]
    shares = [100 * (sides.predicted / sides.length)[sides.kind == kind] for kind in there]
    drawn = axes.boxplot(shares, showfliers=False, patch_artist=True, widths=0.6)
    for patch, kind in zip(drawn['boxes'], there):
        patch.set(facecolor=_COLOURS[kind], alpha=0.6)
    for line in drawn['medians']:
        line.set_color('black')
    true = [100 * float(np.median((sides.true / sides.length)[sides.kind == kind])) for kind in there]
    axes.plot(range(1, len(there) + 1), true, 'k_', markersize=26, markeredgewidth=2, label='true (median)')
    axes.set_xticks(range(1, len(there) + 1), there)
    axes.set_ylabel("predicted std, % of the object's length")
    axes.legend(fontsize=8, loc='upper left')
