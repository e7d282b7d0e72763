"""Predicted scores against true IoUs, in the manner of Fig. 2b of GFL."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_gfl.analysis.quality import Scored, mean_iou_by_score, rank_correlation

MAX_POINTS = 4000
_POINTS, _LINE, _SEPARATE = '#0072b2', '#d55e00', '#56b4e9'


def draw_scatter(names: Sequence[str], models: Sequence[Scored]) -> Figure:
    """Models side by side: above, each detection's score and true IoU, and the mean IoU by score.

    Below, where a model has a quality branch: its class score against its branch's output. A joint score is both at
    once, hence the diagonal.

    Args:
        names: Of the models.
        models: Their detections.
    """
    with_pairs = any(scored.quality is not None for scored in models)
    rows = 1 + with_pairs
    figure = Figure(figsize=(3.6 * len(models) + 0.2, 3.7 * rows), dpi=110, layout='constrained')
    grid = figure.subplots(rows, len(models), squeeze=False)
    for column, (name, scored) in enumerate(zip(names, models)):
        _draw_scores(grid[0, column], name, scored)
        if with_pairs:
            _draw_pairs(grid[1, column], scored)
    return figure


def sample(count: int, largest: int = MAX_POINTS) -> np.ndarray:
    """Indices of the points that are drawn: all, or ``largest`` of them, the same ones each time."""
    if count <= largest:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, largest, replace=False))


def _draw_scores(axes: Axes, name: str, scored: Scored) -> None:
    shown = sample(len(scored.scores))
    axes.scatter(scored.scores[shown], scored.ious[shown], s=5, alpha=0.3, linewidths=0, color=_POINTS)
    axes.plot(*mean_iou_by_score(scored), color=_LINE, marker='o', markersize=3, label='mean IoU')
    _frame(axes, 'score', 'true IoU')
    correlation = rank_correlation(scored.scores, scored.ious)
    axes.set_title(f'{name}\nrank correlation {correlation:.2f}, {len(scored.scores)} detections', fontsize=9)
    axes.legend(loc='lower right', fontsize=8, framealpha=0.9)


def _draw_pairs(axes: Axes, scored: Scored) -> None:
    _frame(axes, 'class score', 'quality')
    if scored.quality is None:
        axes.plot([0, 1], [0, 1], color=_SEPARATE, linewidth=3, alpha=0.6)
        axes.set_title('joint: one number is both', fontsize=9)
        return
    shown = sample(len(scored.scores))
    axes.scatter(scored.class_scores[shown], scored.quality[shown], s=5, alpha=0.3, linewidths=0, color=_SEPARATE)
    correlation = rank_correlation(scored.class_scores, scored.quality)
    axes.set_title(f'separate: rank correlation {correlation:.2f}', fontsize=9)


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.plot([0, 1], [0, 1], color='0.6', linestyle=':', linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x, ylabel=y, aspect='equal')
    axes.tick_params(labelsize=8)
