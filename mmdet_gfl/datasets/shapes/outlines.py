"""The ten classes as outlines: closed polygons in the plane, before they are placed, coloured and blurred.

An outline is a list of contours, each (K, 2) points x, y with y downwards. A second contour is a hole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float64]
Outline = list[Contour]

#: Share of the objects that stand upright, give or take :data:`TILT` radians; the others are turned by any angle.
UPRIGHT = 0.7
TILT = 0.2


def ellipse(rng: np.random.Generator) -> Outline:
    """A circle; :func:`random_outline` stretches it."""
    return [_arc(0, 2 * np.pi, 48)]


def rectangle(rng: np.random.Generator) -> Outline:
    """A rectangle with sides 1 : 1 to 1 : 1.8."""
    stretch = rng.uniform(1, 1.8)
    return [np.array([[-stretch, -1], [stretch, -1], [stretch, 1], [-stretch, 1]])]


def triangle(rng: np.random.Generator) -> Outline:
    """A triangle whose top is not always above the middle."""
    return [np.array([[rng.uniform(-0.4, 0.4), -0.9], [1, 0.8], [-1, 0.8]])]


def hexagon(rng: np.random.Generator) -> Outline:
    """A regular hexagon."""
    return [_arc(0, 2 * np.pi, 6)]


def star(rng: np.random.Generator) -> Outline:
    """Five points, the notches at 38 to 52% of the radius."""
    radius = np.tile([1, rng.uniform(0.38, 0.52)], 5)
    return [_arc(-np.pi / 2, 3 * np.pi / 2, 10) * radius[:, None]]


def cross(rng: np.random.Generator) -> Outline:
    """A plus whose arms are 27 to 42% as thick as it is wide."""
    a = rng.uniform(0.27, 0.42)
    corner = np.array([[a, -1], [a, -a], [1, -a]])
    turns = (np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in np.pi / 2 * np.arange(4))
    return [np.concatenate([corner @ turn.T for turn in turns])]


def ring(rng: np.random.Generator) -> Outline:
    """A circle with a round hole of 45 to 65% of its radius."""
    return [_arc(0, 2 * np.pi, 48), _arc(0, 2 * np.pi, 36) * rng.uniform(0.45, 0.65)]


def crescent(rng: np.random.Generator) -> Outline:
    """A disc less an equal disc, moved by 45 to 75% of the radius."""
    shift = rng.uniform(0.45, 0.75)
    tip = np.arccos(shift / 2)  # where the two circles meet
    outer = _arc(tip, 2 * np.pi - tip, 36)
    inner = _arc(np.pi + tip, np.pi - tip, 24)[1:] + [shift, 0]
    return [np.concatenate([outer, inner])]


def heart(rng: np.random.Generator) -> Outline:
    """The usual heart curve."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([16 * np.sin(t) ** 3, -y], axis=1) / 16]


def arrow(rng: np.random.Generator) -> Outline:
    """An arrow to the right, with a head of 35 to 50% of its length."""
    neck, shaft = 1 - 2 * rng.uniform(0.35, 0.5), rng.uniform(0.25, 0.4)
    upper = [[-1, -shaft], [neck, -shaft], [neck, -0.9], [1, 0]]
    return [np.array([*upper, [neck, 0.9], [neck, shaft], [-1, shaft]])]


#: Class name → function that draws its parameters and returns an outline. The order is the order of the category ids.
SHAPES: dict[str, Callable[[np.random.Generator], Outline]] = {
    shape.__name__: shape
    for shape in (ellipse, rectangle, triangle, hexagon, star, cross, ring, crescent, heart, arrow)
}
CLASSES = tuple(SHAPES)


def random_outline(name: str, rng: np.random.Generator) -> Outline:
    """An outline of the class with random proportions and direction, of area 1 around the middle of its box."""
    stretch = np.exp(rng.uniform(-0.3, 0.3))
    angle = rng.uniform(-TILT, TILT) if rng.random() < UPRIGHT else rng.uniform(0, 2 * np.pi)
    if name == 'arrow':
        angle += np.pi / 2 * rng.integers(4)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = [contour * [stretch, 1 / stretch] @ turn for contour in SHAPES[name](rng)]
    left, top, right, bottom = bounding_box(outline)
    scale = area(outline) ** -0.5
    return [(contour - [(left + right) / 2, (top + bottom) / 2]) * scale for contour in outline]


def moved(outline: Outline, scale: float, x: float, y: float) -> Outline:
    """The outline enlarged by ``scale`` and moved to ``x``, ``y``."""
    return [contour * scale + [x, y] for contour in outline]


def bounding_box(outline: Outline) -> NDArray[np.float64]:
    """The smallest box, (4,) x1, y1, x2, y2, around the outline."""
    return np.concatenate([outline[0].min(axis=0), outline[0].max(axis=0)])


def area(outline: Outline) -> float:
    """Area of the first contour less the holes, by the shoelace formula."""
    areas = [abs(np.sum(p[:, 0] * np.roll(p[:, 1], 1) - np.roll(p[:, 0], 1) * p[:, 1])) / 2 for p in outline]
    return float(areas[0] - sum(areas[1:]))


def _arc(start: float, end: float, points: int) -> Contour:
    """Points (K, 2) of the unit circle from ``start`` to ``end`` (radians); a full turn leaves out its last point."""
    full = np.isclose(abs(end - start), 2 * np.pi)
    angles = np.linspace(start, end, points, endpoint=not full)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
