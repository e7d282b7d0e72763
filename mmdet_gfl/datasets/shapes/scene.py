"""One picture: objects of all sizes placed on a background, some sides smeared, some hidden, some cut off."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from . import textures
from .edges import Mask, Side, coverage, random_side
from .items import Item, inside, overlap, rendered, window
from .outlines import CLASSES, bounding_box, moved, random_outline

#: COCO's borders between small, medium and large: square roots of the area in pixels.
SMALL, LARGE = 32, 96
#: Sizes drawn (square roots of the area in pixels, log-uniform), and how often each group is tried.
SIZE_GROUPS = ((12.0, float(SMALL)), (float(SMALL), float(LARGE)), (LARGE * 1.02, math.inf))
GROUP_SHARES = (0.4, 0.36, 0.24)
#: No object is longer than this share of the image in either direction.
MAX_LENGTH = 0.92
#: No object's size is more than this share of the image's shorter side.
MAX_SIZE = 0.72
#: What later objects must leave of an earlier one.
MIN_VISIBLE = 0.45
#: Share of the objects that may stick out of the image, and by which share of their length at most.
CUT_SHARE, MAX_CUT = 0.15, 0.35
#: Share of the sides that are smeared, on objects that have any.
SMEARED_OBJECTS, SMEARED_SIDES = 0.6, 0.45
#: Share of the small objects that are of a rare class, where there are any.
RARE_SHARE = 1 / 7
#: Every 20th picture is without objects, every 10th has a crowd, whatever the seed: small sets have some too.
EMPTY_EVERY, CROWD_EVERY, CROWD_AT = 20, 10, 4


class Scene:
    """A picture while it is painted.

    Args:
        size: Width and height in pixels.
        rng: Everything random about the picture.
        clutter: How much there is beside the objects, from 0 to 1.
    """

    def __init__(self, size: tuple[int, int], rng: np.random.Generator, clutter: float = 1.0) -> None:
        self.width, self.height = size
        self.rng = rng
        self.clutter = clutter
        self.items: list[Item] = []
        ground = textures.background((self.height, self.width), rng, clutter)
        self.picture = textures.with_distractors(ground, rng, clutter)

    def paste(self, corner: tuple[int, int], opacity: Mask, surface: textures.Picture) -> None:
        """Lay a surface (3, h, w) of opacity (h, w) over the picture and what it shows."""
        rows, columns = window(corner, opacity.shape)
        ground = self.picture[:, rows, columns]
        ground += opacity * (surface - ground)
        for item in self.items:
            item.visible = item.visible_under(corner, opacity)

    def hides_too_much(self, corner: tuple[int, int], opacity: Mask) -> bool:
        """True if an item would keep less than :data:`MIN_VISIBLE` of itself under this opacity (h, w)."""
        hit = (item for item in self.items if overlap(item.corner, item.opacity.shape, corner, opacity.shape))
        return any(item.visible_under(corner, opacity).sum() < MIN_VISIBLE * item.opacity.sum() for item in hit)

    def paint(self, item: Item, colour: textures.Colour) -> None:
        """Paint an object, sometimes with a shadow or a rim, and add it to ``items``."""
        length = max(item.opacity.shape)
        if self.rng.random() < 0.25 * self.clutter:
            self._paint_shadow(item, length)
        surface = textures.fill(item.opacity.shape, colour, self.rng, self.clutter)
        if length > 24 and self.rng.random() < 0.3:
            thickness = 2 * max(1, int(length * self.rng.uniform(0.015, 0.04))) + 1
            disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thickness, thickness))
            inner = cv2.erode(item.sharp, disc).astype(np.float32)
            surface = surface * (1 - np.float32(self.rng.uniform(0.2, 0.6)) * (1 - inner))
        self.paste(item.corner, item.opacity, surface)
        self.items.append(item)

    def _paint_shadow(self, item: Item, length: int) -> None:
        """A soft shadow beside the object: an edge that belongs to no object and has no uncertainty."""
        dx, dy = self.rng.uniform(-0.12, 0.12, 2) * length
        blur = 0.5 + 0.02 * length
        # Room for the shadow to end in; at the image's border the object goes on, and so does its shadow.
        room = math.ceil(0.12 * length + 4 * blur)
        wide = cv2.copyMakeBorder(item.opacity, room, room, room, room, cv2.BORDER_REPLICATE)
        move = np.array([[1, 0, dx], [0, 1, dy]])
        shifted = cv2.warpAffine(wide, move, wide.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        soft = cv2.GaussianBlur(shifted, (0, 0), blur).astype(np.float32)
        corner, shadow = inside((item.corner[0] - room, item.corner[1] - room), soft, (self.width, self.height))
        rows, columns = window(corner, shadow.shape)
        self.picture[:, rows, columns] *= 1 - np.float32(self.rng.uniform(0.3, 0.6)) * shadow

    def colour_for(self, corner: tuple[int, int], opacity: Mask) -> textures.Colour:
        """A colour that can be told from what lies under an opacity (h, w); now and then only just."""
        rows, columns = window(corner, opacity.shape)
        weights = opacity[::2, ::2]  # a quarter of the pixels will do
        below = (self.picture[:, rows, columns][:, ::2, ::2] * weights).sum(axis=(1, 2)) / max(weights.sum(), 1.0)
        return textures.contrasting_colour(
            below, self.rng, contrast=25 if self.rng.random() < 0.12 * self.clutter else 45
        )


def random_scene(
    size: tuple[int, int],
    index: int,
    rng: np.random.Generator,
    clutter: float = 1.0,
    classes: Sequence[str] = CLASSES,
    rare: Sequence[str] = (),
) -> tuple[NDArray[np.uint8], list[Item]]:
    """A picture (H, W, 3), B, G, R, and what is in it, back to front.

    Args:
        size: Width and height in pixels.
        index: The picture's number, from 0, which decides whether it is empty or has a crowd.
        rng: Everything else.
        clutter: How much there is beside the objects, from 0 to 1.
        classes: What is drawn.
        rare: Those of the classes that are rare and always small.
    """
    scene = Scene(size, rng, clutter)
    common = [CLASSES.index(name) for name in classes if name not in rare]
    uncommon = [CLASSES.index(name) for name in rare]
    if index % EMPTY_EVERY != EMPTY_EVERY - 1:
        if index % CROWD_EVERY == CROWD_AT:
            _add_crowd(scene, common)
        for length in sorted(_random_sizes(size, rng), reverse=True):
            is_rare = bool(uncommon) and length < SMALL and rng.random() < RARE_SHARE
            _add_object(scene, length, uncommon if is_rare else common)
        if rng.random() < 0.25 * clutter:
            _add_occluder(scene)
    return _photographed(scene.picture, rng), scene.items


def _random_sizes(size: tuple[int, int], rng: np.random.Generator) -> list[float]:
    """Square roots of the areas of the objects to try: up to 13 in 320 x 320 px, up to 26 in larger images."""
    largest = MAX_SIZE * min(size)
    groups = [index for index, (low, _) in enumerate(SIZE_GROUPS) if low < largest] or [0]
    shares = np.array(GROUP_SHARES)[groups]
    count = int(rng.integers(1, 6 + min(size[0] * size[1] // 12800, 21)))
    sizes = []
    for group in rng.choice(groups, size=count, p=shares / shares.sum()):
        low, high = (min(end, largest) for end in SIZE_GROUPS[group])
        sizes.append(math.exp(rng.uniform(math.log(min(low, high / 2) if group == 0 else low), math.log(high))))
    return sizes


def _add_object(scene: Scene, size: float, labels: Sequence[int], tries: int = 12) -> None:
    """Add an object of area ``size`` squared where it fits; after some tries there is none."""
    for _ in range(tries):
        item = _random_item(scene, size, labels)
        if item is not None and not scene.hides_too_much(item.corner, item.opacity):
            scene.paint(item, scene.colour_for(item.corner, item.opacity))
            return


def _random_item(scene: Scene, size: float, labels: Sequence[int]) -> Item | None:
    """An object of one of the labels somewhere in the image; None where it is too long for the image."""
    rng = scene.rng
    label = labels[int(rng.integers(len(labels)))]
    outline = moved(random_outline(CLASSES[label], rng), size, 0, 0)
    lengths = bounding_box(outline)[2:] * 2
    if (lengths > MAX_LENGTH * np.array([scene.width, scene.height])).any():
        return None
    x, y = _random_place(scene, lengths)
    outline = moved(outline, 1, x, y)
    sides = _random_sides(lengths, rng)
    corner, sharp, opacity = rendered(outline, sides, (scene.width, scene.height))
    return Item(label, [outline], sides, corner, sharp, opacity)


def _random_place(scene: Scene, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centre x, y such that the object, of ``lengths`` (2,) px, is inside the image, or in part outside."""
    room = np.array([scene.width, scene.height])
    out = MAX_CUT if scene.rng.random() < CUT_SHARE else 0.0
    low = lengths * (0.5 - out)
    return scene.rng.uniform(low, room - low)


def _random_sides(lengths: NDArray[np.float64], rng: np.random.Generator) -> tuple[Side, ...]:
    """Left, top, right, bottom of an object of ``lengths`` (2,) px."""
    if rng.random() >= SMEARED_OBJECTS:
        return (Side(),) * 4
    smear = rng.random(4) < SMEARED_SIDES
    return tuple(random_side(lengths[index % 2], rng) if smear[index] else Side() for index in range(4))


def _add_crowd(scene: Scene, labels: Sequence[int]) -> None:
    """Add many small objects of one class close together, as one item."""
    rng, short = scene.rng, min(scene.width, scene.height)
    label, member = labels[int(rng.integers(len(labels)))], min(rng.uniform(9, 14), short / 8)
    radius = min(rng.uniform(2, 3.5) * member, 0.2 * short)
    centre = rng.uniform(1.5 * radius, np.array([scene.width, scene.height]) - 1.5 * radius)
    offsets = rng.uniform(-radius, radius, (rng.integers(14, 26), 2))
    outlines = [moved(random_outline(CLASSES[label], rng), member, *(centre + offset)) for offset in offsets]
    margin = 2 * member
    x1, y1 = np.maximum(centre - radius - margin, 0).astype(int)
    x2, y2 = np.minimum(centre + radius + margin, (scene.width, scene.height)).astype(int)
    corner = int(x1), int(y1)
    masks = [coverage(outline, corner, (int(y2 - y1), int(x2 - x1))) for outline in outlines]
    colour = scene.colour_for(corner, masks[0])
    for mask in masks:
        tint = colour * np.float32(rng.uniform(0.6, 1.3))
        scene.paste(corner, mask, np.broadcast_to(tint[:, None, None], (3, *mask.shape)))
    union = np.maximum.reduce(masks)
    scene.items.append(Item(label, outlines, (Side(),) * 4, corner, union, union, crowd=True))


def _add_occluder(scene: Scene) -> None:
    """Lay a wavy thing of no class over the picture where it hides no object by more than half."""
    size = scene.rng.uniform(0.12, 0.3) * min(scene.width, scene.height)
    for _ in range(4):
        place = scene.rng.uniform((0, 0), (scene.width, scene.height))
        outline = moved(textures.blob(size, scene.rng), 1, *place)
        corner, opacity, _sharp = rendered(outline, (Side(),) * 4, (scene.width, scene.height))
        if opacity.size and not scene.hides_too_much(corner, opacity):
            surface = textures.fill(opacity.shape, scene.colour_for(corner, opacity), scene.rng)
            scene.paste(corner, opacity, surface)
            return


def _photographed(picture: textures.Picture, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture with a lens's blur of up to 0.7 px, a sensor's noise and 8 bits."""
    blur, grain = rng.uniform(0.3, 0.7), rng.uniform(1.5, 6)
    blurred = np.stack([cv2.GaussianBlur(plane, (0, 0), blur) for plane in picture])
    noisy = blurred + grain * rng.standard_normal(picture.shape[1:], dtype=np.float32)
    return textures.interleaved(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
