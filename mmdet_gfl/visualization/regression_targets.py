"""Distance targets of a data set: their histogram (Fig. 5c of GFL) and the share that lies beyond a distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_gfl.analysis.target_counts import RESOLUTION, Report, TargetHistogram, density


def draw(report: Report, share: float, title: str) -> Figure:
    """The histogram of the targets (Fig. 5c), and the share that lies beyond a distance; ``share`` may be clipped."""
    figure = Figure(figsize=(12, 4.5), dpi=110, layout='constrained')
    left, right = figure.subplots(1, 2)
    figure.suptitle(f'Distance targets: {title}, {report.images} images')
    _draw_densities(report, left)
    _draw_tails(report, share, right)
    for axes in (left, right):
        axes.set_xlabel('distance from the location to a side, in strides')
        axes.set_xlim(0, max(report.box.max_distance, report.all.percentile(99.99) if report.all.targets else 0) * 1.1)
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def _filled(report: Report) -> list[tuple[str, TargetHistogram]]:
    """The levels with targets, by their label."""
    return [(f'stride {stride}', level) for stride, level in zip(report.strides, report.levels) if level.targets]


def _draw_densities(report: Report, axes: Axes) -> None:
    width = 0.25
    edges, heights = density(report.all, width)
    axes.bar(edges, heights, width, align='edge', color='0.85', label='all levels')
    for label, level in _filled(report):
        edges, heights = density(level, 2 * width)
        axes.plot(edges + width, heights, linewidth=1.3, label=label)
    _mark_largest_distance(report, axes)
    axes.set(ylabel='density of the targets, per stride', title='Histogram')
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[-1:] + handles[:-1], labels[-1:] + labels[:-1], frameon=False)


def _draw_tails(report: Report, share: float, axes: Axes) -> None:
    lines: list[tuple[str, TargetHistogram, dict[str, Any]]] = [
        ('all levels', report.all, dict(color='black', linewidth=2))
    ]
    lines += [(label, level, dict(linewidth=1.3)) for label, level in _filled(report)]
    axes.set_prop_cycle(None)
    for label, histogram, style in lines:
        beyond = histogram.beyond()
        axes.plot(np.arange(len(beyond)) / RESOLUTION, np.maximum(beyond, 1e-9), label=label, **style)
    axes.axhline(share, color='0.5', linestyle='--', linewidth=1)
    axes.annotate(f'{share:.2%}', (0.01, share), xycoords=('axes fraction', 'data'), va='bottom', color='0.4')
    _mark_largest_distance(report, axes)
    axes.set(
        yscale='log', ylim=(1e-5, 1), ylabel='share of the targets beyond', title='Share clipped by a largest distance'
    )
    axes.legend(frameon=False, loc='lower left')


def _mark_largest_distance(report: Report, axes: Axes) -> None:
    box = report.box
    axes.axvline(box.max_distance, color='black', linestyle=':', linewidth=1)
    name = f'reg_max={box.reg_max}' + (f', delta={box.delta:g}' if box.delta != 1 else '')
    axes.annotate(
        name + (' (default)' if report.assumed else ''),
        (box.max_distance, 1),
        xytext=(-3, 0),
        xycoords=('data', 'axes fraction'),
        textcoords='offset points',
        ha='right',
        va='top',
        rotation=90,
    )
