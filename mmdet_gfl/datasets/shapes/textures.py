"""Colours and textures of backgrounds, objects and distractors.

Colours are B, G, R from 0 to 255; pictures are three planes, (3, h, w), which NumPy goes through fastest.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .outlines import Outline

Picture = NDArray[np.float32]
Colour = NDArray[np.float32]


def random_colour(rng: np.random.Generator) -> Colour:
    """A colour (3,) of any hue, rarely very dark, bright or loud."""
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(0.1, 0.75), rng.uniform(0.2, 0.95)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32) * 255


def contrasting_colour(other: Colour, rng: np.random.Generator, contrast: float) -> Colour:
    """A colour that differs from ``other`` by ``contrast`` at least in its mean channel difference, if one is found."""
    for _ in range(20):
        colour = random_colour(rng)
        if abs(colour - other).mean() >= contrast:
            break
    return colour


def noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> Picture:
    """Smooth noise (h, w) from 0 to 1 whose blobs are ``cell`` pixels wide."""
    grid = rng.random((int(shape[0] / cell) + 2, int(shape[1] / cell) + 2), dtype=np.float32)
    return np.clip(cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)


def ramp(shape: tuple[int, int], rng: np.random.Generator) -> Picture:
    """A linear slope (h, w) from -1 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    x = np.linspace(-1, 1, shape[1], dtype=np.float32) * np.float32(np.cos(angle))
    return ((x + y) / (abs(np.sin(angle)) + abs(np.cos(angle)))).astype(np.float32)


def pattern(shape: tuple[int, int], period: float, rng: np.random.Generator) -> Picture:
    """Stripes, checks or dots (h, w) from 0 to 1, turned by any angle."""
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)
    scale = np.float32(2 * np.pi / period)
    u = np.sin(scale * (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) + np.float32(phase))
    kind = rng.integers(3)
    if kind == 0:
        return np.clip(u * 3 + 0.5, 0, 1)
    v = np.sin(scale * (np.float32(-np.sin(angle)) * x + np.float32(np.cos(angle)) * y))
    return np.clip(u * v * 6 + 0.5 if kind == 1 else (u + v - 0.8) * 4, 0, 1)


def background(shape: tuple[int, int], rng: np.random.Generator, clutter: float = 1.0) -> Picture:
    """A textured ground (3, H, W): two colours mixed by noise of three scales, often a pattern, a slope of light.

    Below a ``clutter`` of 1 the mixture is weaker and patterns are rarer.
    """
    size = max(shape)
    first, second = random_colour(rng), random_colour(rng)
    scales = ((size / 3, 0.55), (size / 10, 0.3), (5.0, 0.15))
    mix = sum((weight * noise(shape, cell, rng) for cell, weight in scales), np.zeros(shape, np.float32))
    if rng.random() < 0.4 * clutter:
        mix = mix + rng.uniform(0.1, 0.35) * (pattern(shape, rng.uniform(6, 40), rng) - 0.5)
    mix = (mix - 0.5) * rng.uniform(0.6, 1.6) * (0.25 + 0.75 * clutter) + 0.5
    light = 1 + rng.uniform(0, 0.3) * ramp(shape, rng)
    return _blended(first, second, mix) * light


def fill(shape: tuple[int, int], colour: Colour, rng: np.random.Generator, clutter: float = 1.0) -> Picture:
    """The surface (3, h, w) of an object: shaded across, plain, or in a share of ``clutter`` patterned or mottled."""
    light = 1 + rng.uniform(0.05, 0.35) * ramp(shape, rng)
    surface = rng.random()
    if surface < 1 - 0.45 * clutter:
        return colour[:, None, None] * light
    size = max(shape)
    share = (
        pattern(shape, rng.uniform(5, max(8, size / 3)), rng)
        if surface < 1 - 0.2 * clutter
        else noise(shape, size / 6 + 2, rng)
    )
    other = colour + np.float32(rng.uniform(0.2, 0.6)) * (random_colour(rng) - colour)
    return _blended(colour, other, share) * light


def _blended(first: Colour, second: Colour, share: NDArray[np.float32]) -> Picture:
    """A picture (3, h, w) that is ``first`` where the share (h, w) of the second colour is 0."""
    return (first[:, None, None] + (second - first)[:, None, None] * share).astype(np.float32)


def with_distractors(ground: Picture, rng: np.random.Generator, clutter: float = 1.0) -> Picture:
    """A ground (3, H, W) with things of no class on it: lines, arcs, zigzags, empty outlines and blobs."""
    height, width = ground.shape[1:]
    picture = interleaved(np.clip(ground, 0, 255).astype(np.uint8))  # OpenCV smooths its lines in 8 bits only
    for _ in range(round(clutter * rng.integers(3, 8 + min(height * width // 20000, 12)))):
        size = np.exp(rng.uniform(np.log(6), np.log(max(10, min(height, width) / 4))))
        centre = rng.uniform((0, 0), (width, height))
        _draw_distractor(picture, centre, float(size), rng)
    return np.ascontiguousarray(picture.transpose(2, 0, 1), dtype=np.float32)


def interleaved(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (3, h, w) as OpenCV wants it, (h, w, 3)."""
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _draw_distractor(
    picture: NDArray[np.uint8], centre: NDArray[np.float64], size: float, rng: np.random.Generator
) -> None:
    colour, thickness, kind = random_colour(rng).tolist(), int(rng.integers(1, 3)), rng.integers(5)
    if kind == 0:
        points = np.array([[0, 0], rng.uniform(-2, 2, 2)])
    elif kind == 1:
        angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2.6, 16)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif kind == 2:
        points = rng.uniform(-0.6, 0.6, (rng.integers(4, 8), 2))
    else:
        points = blob(1, rng)[0]
    contour = np.round((points * size + centre) * 16).astype(np.int32)
    if kind == 4:
        cv2.fillPoly(picture, [contour], colour, cv2.LINE_AA, shift=4)
    else:
        cv2.polylines(picture, [contour], bool(kind == 3), colour, thickness, cv2.LINE_AA, shift=4)


def blob(size: float, rng: np.random.Generator) -> Outline:
    """A wavy, lopsided outline about ``size`` pixels across, which is of no class."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = np.ones(40)
    for waves in (2, 3, 4, 5):
        radius += rng.uniform(0.1, 0.3) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return [np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.maximum(radius, 0.2)[:, None] * size / 2]
