"""Detections with the distributions of their sides, in the manner of Fig. 3 of GFL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from mmcv.ops import nms
from mmengine.structures import InstanceData

from mmdet_gfl.analysis.matching import as_array, ious

from .sides import SIDES, Side, sides_of

#: Of the detections, in turn (Okabe and Ito's, which most colour-blind people can tell apart).
COLORS = ('#56b4e9', '#e69f00', '#cc79a7', '#009e73', '#f0e442', '#d55e00', '#0072b2')
BAND_ALPHA = 0.4
_GROUND_TRUTH = dict(color='white', linestyle=(0, (4, 3)), linewidth=1.2)
_SHADOW = [withStroke(linewidth=2.4, foreground='black')]
#: A ground-truth box belongs to a detection from this IoU on.
_SAME = 0.3
#: Two detections are of the same thing from this IoU on.
_COINCIDE = 0.7
_PANEL = 1.55  # inches
_LEAST_ROWS = 3  # of panels, in which the height of an image is measured


def draw(
    image: np.ndarray,
    results: InstanceData,
    classes: Sequence[str] = (),
    ground_truth: Any = None,
    max_boxes: int = 10,
    max_rows: int = 4,
) -> Figure:
    """An image with its detections, and beside it the four distributions of those with the highest scores.

    Each side of a box has a translucent band of one standard deviation on either side of it. The panels beside the
    image show the place of each side in pixels of the image: the probabilities of a general distribution, or the
    density of a Gaussian; the line is the mean. The four panels of a detection have the same scales. NMS runs
    class by class and may leave a box several times with different classes; of detections that nearly coincide only the
    one with the highest score is drawn.

    Args:
        image: (H, W, 3) uint8, RGB.
        results: Of a model with ``test_cfg.with_distribution='stats'`` or ``'full'``, in pixels of ``image``.
        classes: Names by index.
        ground_truth: Boxes (M, 4), xyxy in pixels, drawn dashed; None draws none.
        max_boxes: How many detections are drawn, those with the highest scores.
        max_rows: How many of them get panels.

    Returns:
        A figure to be saved with its ``savefig``.

    Raises:
        ValueError: The results hold no ``bbox_location``, ``bbox_mean`` and ``bbox_std``.
    """
    for name in ('bbox_location', 'bbox_mean', 'bbox_std'):
        if name not in results:
            raise ValueError(f"results have no {name}; set model.test_cfg.with_distribution='full' or 'stats'")
    height, width = image.shape[:2]
    results = results[distinct(as_array(results.bboxes), as_array(results.scores))[:max_boxes]]
    sides = sides_of(results)
    names = [_name(rank, results, classes) for rank in range(len(results))]
    truth = np.zeros((0, 4)) if ground_truth is None else as_array(ground_truth).reshape(-1, 4)

    rows = min(max_rows, len(results))
    figure, picture, panels = _lay_out(width / height, rows)
    _draw_image(picture, image)
    for box in truth:
        picture.add_patch(_outline(box, **_GROUND_TRUTH, path_effects=_SHADOW, zorder=2))
    for rank in reversed(range(len(results))):  # the highest score on top
        _draw_detection(picture, as_array(results.bboxes)[rank], sides[rank], names[rank], color(rank))
    if not len(results):
        picture.set_title('no detections', fontsize=10)
    for rank in range(rows):
        nearest = nearest_box(as_array(results.bboxes)[rank], truth)
        _draw_row(panels[rank], sides[rank], nearest, names[rank], color(rank))
    return figure


def color(rank: int) -> str:
    """Colour of the detection with this rank by score."""
    return COLORS[rank % len(COLORS)]


def distinct(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Indices, by falling score, of the boxes (N, 4) that no box of a higher score nearly coincides with."""
    _, kept = nms(boxes.astype(np.float32), scores.astype(np.float32), _COINCIDE)
    return kept


def nearest_box(box: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """The one of boxes (M, 4) that overlaps a box (4,) most, if by an IoU of 0.3 at least."""
    iou = ious(box[None], others)[0]
    return others[iou.argmax()] if iou.max(initial=0.0) >= _SAME else None


def _name(rank: int, results: InstanceData, classes: Sequence[str]) -> str:
    label, score = int(results.labels[rank]), float(results.scores[rank])
    return f'{rank + 1} {classes[label] if label < len(classes) else f"class {label}"} {score:.2f}'


def _lay_out(shape: float, rows: int) -> tuple[Figure, Axes, list[list[Axes]]]:
    """A figure with a place for an image of the aspect ratio ``shape``, and for ``rows`` detections four panels each.

    The panels of a detection are a row beside the image; those of a single one two by two, as tall as the image.
    """
    lines = max(rows, _LEAST_ROWS)
    high = lines * _PANEL
    wide = min(max(high * shape, 3.0), 9.0)
    if not rows:
        figure = Figure(figsize=(wide, high), dpi=110, layout='constrained')
        return figure, figure.add_subplot(), []
    if rows == 1:
        lines, columns, panel = 2, 2, high / 2
    else:
        columns, panel = 4, _PANEL
    figure = Figure(figsize=(wide + columns * panel, high), dpi=110, layout='constrained')
    grid = figure.add_gridspec(lines, 1 + columns, width_ratios=[wide, *[panel] * columns])
    places = [grid[line, 1 + column] for line in range(lines) for column in range(columns)]
    panels = [[figure.add_subplot(place) for place in places[4 * row : 4 * row + 4]] for row in range(rows)]
    return figure, figure.add_subplot(grid[:, 0]), panels


def _draw_image(axes: Axes, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    # The corner of the first pixel is (0, 0), as in the boxes.
    axes.imshow(image, extent=(0, width, height, 0), interpolation='nearest')
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def _outline(box: np.ndarray, **style: Any) -> Rectangle:
    return Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=False, **style)


def _draw_detection(axes: Axes, box: np.ndarray, sides: Sequence[Side], name: str, colour: str) -> None:
    """The box, the bands along its sides and its name."""
    for side, (x, y, width, height) in zip(SIDES, bands(sides)):
        band = Rectangle((x, y), width, height, facecolor=colour, alpha=BAND_ALPHA, linewidth=0, zorder=3)
        band.set_gid(f'{name} {side}')
        axes.add_patch(band)
    axes.add_patch(_outline(box, edgecolor=colour, linewidth=1.3, zorder=4))
    patch = dict(facecolor=colour, edgecolor='none', pad=1.0)
    inside = box[1] < 0.05 * axes.get_ylim()[0]  # no room above
    right = box[0] > 0.7 * axes.get_xlim()[1]  # no room there
    place = dict(x=box[2] if right else box[0], y=box[1], ha='right' if right else 'left')
    text = axes.text(**place, s=name, fontsize=7, bbox=patch, va='top' if inside else 'bottom', zorder=5)
    text.set_in_layout(False)


def bands(sides: Sequence[Side]) -> list[tuple[float, float, float, float]]:
    """One standard deviation on either side of each side: x, y, width, height, in pixels."""
    left, top, right, bottom = sides
    wide, high = right.mean - left.mean, bottom.mean - top.mean
    upright = [(side.mean - side.std, top.mean, 2 * side.std, high) for side in (left, right)]
    level = [(left.mean, side.mean - side.std, wide, 2 * side.std) for side in (top, bottom)]
    return [upright[0], level[0], upright[1], level[1]]


def _draw_row(panels: Sequence[Axes], sides: Sequence[Side], truth: np.ndarray | None, name: str, colour: str) -> None:
    """The four panels of a detection, of the same scales."""
    half_width = max(1.1 * max(side.half_width() for side in sides), 1.0)
    peaks = (float(side.density(np.array(side.mean))) for side in sides if side.places is None)
    tallest = 1.1 * max(peaks, default=1.0)  # of densities; probabilities are shares of 1
    for index, (axes, side) in enumerate(zip(panels, sides)):
        _draw_panel(axes, side, half_width, tallest, colour)
        if truth is not None:
            axes.axvline(truth[index], color='black', linestyle=(0, (4, 3)), linewidth=1.0)
        axes.set_title(f'{SIDES[index]} {side.mean:.1f} ± {side.std:.1f}', fontsize=8)
        axes.set_xlabel('x, px' if index % 2 == 0 else 'y, px', fontsize=7, labelpad=1)
    panels[0].set_ylabel(name, fontsize=8)


def _draw_panel(axes: Axes, side: Side, half_width: float, tallest: float, colour: str) -> None:
    """Probabilities as bars, or the normal density up to ``tallest``, within ``half_width`` pixels of the mean."""
    if side.places is None or side.probabilities is None:
        x = np.linspace(side.mean - half_width, side.mean + half_width, 200)
        axes.fill_between(x, side.density(x), color=colour, linewidth=0)
        axes.set_ylim(0, tallest)
    else:
        axes.bar(side.places, side.probabilities, width=0.9 * side.spacing, color=colour)
        axes.set_ylim(0, 1)
    axes.axvline(side.mean, color='black', linewidth=1.0)
    axes.set_xlim(side.mean - half_width, side.mean + half_width)
    axes.tick_params(labelsize=6, length=2, pad=1)
    axes.locator_params(axis='x', nbins=4)
    axes.set_yticks([])
