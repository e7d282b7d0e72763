"""Predicted distributions of box sides as places in the image.

A head predicts distances from a location to the four sides; what is drawn is where the sides are. Dimension letters: N
detections, n+1 entries of a distribution. Sides are in the order left, top, right, bottom.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mmengine.structures import InstanceData

from mmdet_gfl.analysis.matching import as_array

SIDES = ('left', 'top', 'right', 'bottom')


class Side(NamedTuple):
    """Position of a side along x (left, right) or y (top, bottom), in pixels of the image.

    Attributes:
        mean: May lie outside the image, to which the box is clipped.
        std: Standard deviation.
        places: What the distribution is over, (n+1,); None where mean and standard deviation are all there is.
        probabilities: (n+1,); None likewise.
    """

    mean: float
    std: float
    places: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    @property
    def spacing(self) -> float:
        """Pixels between neighbouring places; 0 without places."""
        return 0.0 if self.places is None else abs(float(self.places[1] - self.places[0]))

    def density(self, x: np.ndarray) -> np.ndarray:
        """The normal density of mean and standard deviation at ``x``, per pixel."""
        return np.exp(-0.5 * ((x - self.mean) / self.std) ** 2) / (self.std * np.sqrt(2 * np.pi))

    def half_width(self) -> float:
        """Half-width of the visible distribution: entries of 2% and more, or three standard deviations."""
        if self.places is None or self.probabilities is None:
            return 3 * self.std
        seen = self.places[self.probabilities >= 0.02]
        return float(np.abs(seen - self.mean).max(initial=0.0)) + self.spacing


def sides_of(results: InstanceData) -> list[list[Side]]:
    """The four sides of each detection.

    Args:
        results: With ``bbox_location`` (N, 2), ``bbox_mean`` and ``bbox_std`` (N, 4), and if there are any
            ``bbox_distribution`` (N, 4, n+1) and ``bbox_step`` (N, 4); in pixels of the image.
    """
    mean, std, locations = (as_array(results[f'bbox_{name}']) for name in ('mean', 'std', 'location'))
    signs = np.array([-1, -1, 1, 1])
    origins = np.tile(locations, 2)  # (N, 4)
    sides = [(origins + signs * mean).tolist(), std.tolist()]
    if 'bbox_distribution' in results:
        probabilities, step = as_array(results.bbox_distribution), as_array(results.bbox_step)
        places = origins[..., None] + (signs * step)[..., None] * np.arange(probabilities.shape[-1])
        sides += [places, probabilities]
    return [[Side(*side) for side in zip(*detection)] for detection in zip(*sides)]
