"""Ambiguous sides: how one side of an object is smeared, and how far labels scatter around it.

**The kernel that smears a side is the distribution of its label.** Opacity across a smeared side falls from 1 to 0; an
annotator who puts the edge where it passes a level, any level being as likely as another, puts it at a random place
whose density is the slope of that fall, which for a straight edge is the kernel. So the distribution that a perfect
detector would predict for a side is known, and its standard deviation is :attr:`Side.std`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .outlines import Outline

Mask = NDArray[np.float32]

#: Sub-pixels a pixel and direction in :func:`coverage`, and binary digits of a coordinate behind the point.
SUPERSAMPLING = 4
SHIFT = 4
#: A normal kernel ends this many standard deviations from its middle.
CUT_OFF = 3.0
#: Labels and kernel end at CUT_OFF, which makes their standard deviation smaller than the normal's by this factor.
_TRUNCATED_STD = math.sqrt(
    1 - 2 * CUT_OFF * math.exp(-(CUT_OFF**2) / 2) / math.sqrt(2 * math.pi) / math.erf(CUT_OFF / math.sqrt(2))
)

#: How a side can look. ``sharp``: the label is the edge. ``blur``: normal. ``fade``: opacity falls linearly, labels are
#: uniform. ``ghost``: a half-transparent band, labels at its inner or its outer end. ``border``: cut off by the image.
KINDS = ('sharp', 'blur', 'fade', 'ghost', 'border')


@dataclass(frozen=True)
class Side:
    """One side of an object.

    Attributes:
        kind: One of :data:`KINDS`.
        std: Standard deviation of the label around the true edge, in pixels; 0 where there is no doubt.
    """

    kind: str = 'sharp'
    std: float = 0.0

    def kernel(self) -> NDArray[np.float64]:
        """Weights (K,), K odd, sum 1, mean 0, whose standard deviation is ``std`` pixels."""
        at = np.arange(-self.radius, self.radius + 1)
        if self.kind == 'blur':
            weights = np.exp(-0.5 * (at / (self.std / _TRUNCATED_STD)) ** 2)
        elif self.kind == 'fade':
            weights = np.clip(self._half_fade + 0.5 - abs(at), 0, 1)
        elif self.kind == 'ghost':
            weights = (abs(at) == self.radius).astype(float)
        else:
            weights = (at == 0).astype(float)
        return weights / weights.sum()

    @property
    def radius(self) -> int:
        """Pixels on each side of the edge that the kernel covers."""
        if self.kind == 'blur':
            return math.ceil(CUT_OFF * self.std / _TRUNCATED_STD)
        if self.kind == 'fade':
            return math.ceil(self._half_fade)
        return round(self.std)

    @property
    def _half_fade(self) -> float:
        return self.std * math.sqrt(3)

    def label_error(self, rng: np.random.Generator) -> float:
        """Offset of a label from the true edge, in pixels: a draw from the kernel's distribution."""
        if self.kind == 'blur':
            normal = rng.standard_normal(16)  # the odds that all 16 lie beyond CUT_OFF are 1 in 10^41
            return float(normal[abs(normal) < CUT_OFF][0] * self.std / _TRUNCATED_STD)
        if self.kind == 'fade':
            return float(rng.uniform(-self._half_fade, self._half_fade))
        return float(rng.choice([-1, 1]) * self.std) if self.kind == 'ghost' else 0.0


def random_side(length: float, rng: np.random.Generator) -> Side:
    """A smeared side of an object that is ``length`` pixels long in that direction: 4 to 11% of it, at least 1 px."""
    std = max(1.0, length * rng.uniform(0.04, 0.11))
    kind = str(rng.choice(['blur', 'fade', 'ghost'], p=[0.5, 0.3, 0.2]))
    if kind == 'ghost' and std < 2:  # two edges this close look like one
        kind = 'blur'
    return Side(kind, float(round(std)) if kind == 'ghost' else round(std, 2))


def coverage(outline: Outline, origin: tuple[int, int], shape: tuple[int, int]) -> Mask:
    """Share (h, w) of each pixel that an outline covers.

    Args:
        outline: Contours in pixels; pixel i reaches from i to i + 1.
        origin: x, y of the first pixel's corner.
        shape: h, w.
    """
    fine = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    # OpenCV's coordinates are those of pixel centres, and fillPoly fills the sub-pixels on the contour too: halve them.
    contours = [np.round(((p - origin) * SUPERSAMPLING - 0.5) * 2**SHIFT).astype(np.int32) for p in outline]
    cv2.fillPoly(fine, contours, 254, shift=SHIFT)
    cv2.polylines(fine, contours, True, 127, shift=SHIFT)
    return (cv2.resize(fine, shape[::-1], interpolation=cv2.INTER_AREA) / np.float32(254)).astype(np.float32)


def smeared(mask: Mask, box: NDArray[np.float64], sides: tuple[Side, ...]) -> Mask:
    """Opacity (h, w) of an object with its sides smeared.

    Args:
        mask: Coverage (h, w) of the sharp object, with room for the kernels around it.
        box: The object's box (4,), xyxy in pixels of the mask.
        sides: Left, top, right, bottom.
    """
    left, top, right, bottom = sides
    mask = _smeared_along(mask, box[0::2], left, right)
    return _smeared_along(mask.T, box[1::2], top, bottom).T


def _smeared_along(mask: Mask, ends: NDArray[np.float64], low: Side, high: Side) -> Mask:
    """Blur the rows; the kernel of ``low`` blends into that of ``high`` in the middle of the object."""
    if low == high:
        return _convolved(mask, low)
    share = (np.arange(mask.shape[1]) + 0.5 - ends[0]) / (ends[1] - ends[0])
    high_weight = np.clip((share - 0.35) / 0.3, 0, 1).astype(np.float32)  # (w,)
    return _convolved(mask, low) * (1 - high_weight) + _convolved(mask, high) * high_weight


def _convolved(mask: Mask, side: Side) -> Mask:
    if side.radius == 0:
        return mask
    return cv2.sepFilter2D(np.ascontiguousarray(mask), cv2.CV_32F, side.kernel(), np.ones(1)).astype(np.float32)
