"""A picture's objects as COCO annotations, with the truth about each side in fields of their own (docs/shapes.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from .edges import Mask
from .items import Item
from .outlines import CLASSES

#: Share of an object's length that counts as its side in ``side_visible``.
STRIP = 0.1
#: No labelled box is narrower, in pixels, however its sides scatter.
MIN_LENGTH = 2.0


def categories() -> list[dict[str, Any]]:
    """COCO's ``categories``: ids from 1, in the order of :data:`~.outlines.CLASSES`."""
    return [dict(id=index + 1, name=name, supercategory='shape') for index, name in enumerate(CLASSES)]


def annotation(item: Item, size: tuple[int, int], rng: np.random.Generator) -> dict[str, Any]:
    """One annotation without ``id`` and ``image_id``.

    Args:
        item: The object or crowd.
        size: Width and height of the image in pixels.
        rng: Where in a smeared side the label lies.
    """
    limits = np.array([*size, *size], dtype=float)
    errors = np.array([side.label_error(rng) for side in item.sides])
    truth = np.clip(item.box, 0, limits)
    label = np.clip(item.box + errors, 0, limits)
    label[2:] = np.maximum(label[2:], label[:2] + MIN_LENGTH)
    cut = truth != item.box  # the border of the image is the side, beyond doubt
    label[cut] = truth[cut]
    return dict(
        category_id=item.label + 1,
        bbox=_xywh(label),
        area=round(float(item.sharp.sum()), 1),
        iscrowd=int(item.crowd),
        segmentation=_segmentation(item, size),
        true_bbox=_xywh(truth),
        side_std=[0.0 if out else side.std for side, out in zip(item.sides, cut, strict=True)],
        side_kind=['border' if out else side.kind for side, out in zip(item.sides, cut, strict=True)],
        side_visible=side_visible(item.visible, item.opacity, truth - np.tile(item.corner, 2)),
        visible=_share(item.visible, item.opacity),
    )


def side_visible(visible: Mask, opacity: Mask, box: NDArray[np.float64]) -> list[float]:
    """Share of the outer tenth along each side, left, top, right, bottom, that nothing hides.

    Args:
        visible: What is seen of the object (h, w).
        opacity: What was drawn of it (h, w).
        box: Its box (4,), xyxy in pixels of the patch.
    """
    shares = []
    for side in range(4):
        axis = side % 2
        depth = max(1, round(STRIP * (box[axis + 2] - box[axis])))
        start = int(box[side]) if side < 2 else int(np.ceil(box[side])) - depth
        strip = (slice(None), slice(max(start, 0), start + depth)) if axis == 0 else slice(max(start, 0), start + depth)
        shares.append(_share(visible[strip], opacity[strip]))
    return shares


def _share(visible: Mask, opacity: Mask) -> float:
    return round(float(visible.sum() / max(opacity.sum(), np.float32(1e-6))), 3)


def _xywh(box: NDArray[np.float64]) -> list[float]:
    x1, y1, x2, y2 = np.round(box, 2)
    return [float(x1), float(y1), round(float(x2 - x1), 2), round(float(y2 - y1), 2)]


def _segmentation(item: Item, size: tuple[int, int]) -> dict[str, Any]:
    """The sharp mask of the whole object, also where something hides it, as COCO's compressed run lengths."""
    mask = np.zeros((size[1], size[0]), np.uint8, order='F')
    height, width = item.sharp.shape
    x, y = item.corner
    mask[y : y + height, x : x + width] = item.sharp >= 0.5
    encoded = rle.encode(mask)
    return dict(size=[int(length) for length in encoded['size']], counts=encoded['counts'].decode())
