"""An object in a picture, and the patch of pixels around it that it is drawn in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .edges import Mask, Side, coverage, smeared
from .outlines import Outline, bounding_box


@dataclass
class Item:
    """One object, or one crowd, in a picture.

    Attributes:
        label: Index in :data:`~.outlines.CLASSES`.
        outlines: The sharp outlines in pixels; several in a crowd.
        sides: Left, top, right, bottom.
        corner: x, y of the first pixel of the patches below.
        sharp: Coverage (h, w) of the outlines, inside the image.
        opacity: Coverage after smearing (h, w), inside the image.
        crowd: Whether this is a crowd.
        visible: What later items leave of ``opacity`` (h, w).
    """

    label: int
    outlines: list[Outline]
    sides: tuple[Side, ...]
    corner: tuple[int, int]
    sharp: Mask
    opacity: Mask
    crowd: bool = False
    visible: Mask = field(init=False)

    def __post_init__(self) -> None:
        self.visible = self.opacity

    @property
    def box(self) -> NDArray[np.float64]:
        """Box (4,) of the sharp outlines, xyxy in pixels, also where they leave the image."""
        boxes = np.array([bounding_box(outline) for outline in self.outlines])
        return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])

    def visible_under(self, corner: tuple[int, int], opacity: Mask) -> Mask:
        """Visible part (h, w) of the item under an additional opacity; the item is not changed."""
        if not overlap(self.corner, self.opacity.shape, corner, opacity.shape):
            return self.visible
        visible = self.visible.copy()
        x1, y1 = max(self.corner[0], corner[0]), max(self.corner[1], corner[1])
        x2 = min(self.corner[0] + visible.shape[1], corner[0] + opacity.shape[1])
        y2 = min(self.corner[1] + visible.shape[0], corner[1] + opacity.shape[0])
        above = opacity[y1 - corner[1] : y2 - corner[1], x1 - corner[0] : x2 - corner[0]]
        visible[y1 - self.corner[1] : y2 - self.corner[1], x1 - self.corner[0] : x2 - self.corner[0]] *= 1 - above
        return visible


def rendered(outline: Outline, sides: tuple[Side, ...], size: tuple[int, int]) -> tuple[tuple[int, int], Mask, Mask]:
    """Corner, coverage (h, w) and opacity (h, w) of an object, cropped to the image of width and height ``size``."""
    box = bounding_box(outline)
    left, top, right, bottom = (side.radius + 2 for side in sides)
    x1, y1 = math.floor(box[0]) - left, math.floor(box[1]) - top
    x2, y2 = math.ceil(box[2]) + right, math.ceil(box[3]) + bottom
    sharp = coverage(outline, (x1, y1), (y2 - y1, x2 - x1))
    opacity = smeared(sharp, box - [x1, y1, x1, y1], sides)
    corner, sharp_inside = inside((x1, y1), sharp, size)
    return corner, sharp_inside, inside((x1, y1), opacity, size)[1]


def inside(corner: tuple[int, int], patch: Mask, size: tuple[int, int]) -> tuple[tuple[int, int], Mask]:
    """Part of a patch (h, w) at ``corner`` x, y inside the image of width and height ``size``, and its corner."""
    x, y = max(corner[0], 0), max(corner[1], 0)
    return (x, y), patch[y - corner[1] : size[1] - corner[1], x - corner[0] : size[0] - corner[0]]


def window(corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the picture that a patch of ``shape`` h, w at ``corner`` x, y takes."""
    return slice(corner[1], corner[1] + shape[0]), slice(corner[0], corner[0] + shape[1])


def overlap(
    corner: tuple[int, int], shape: tuple[int, ...], other: tuple[int, int], other_shape: tuple[int, ...]
) -> bool:
    """True if two patches of ``shape`` h, w at a ``corner`` x, y share pixels."""
    return all(
        corner[axis] < other[axis] + other_shape[1 - axis] and other[axis] < corner[axis] + shape[1 - axis]
        for axis in range(2)
    )
