"""Counts of distance targets, kept small whatever the size of the data set, and what they say about ``reg_max``.

Percentiles, the share that is clipped and the smallest ``reg_max`` that is safe, of a level or of all of them.

Dimension letters: P positives of a level, each with four targets, l, t, r, b; G objects of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdet_gfl.models.boxes.general import TARGET_MARGIN, GeneralBox

#: Distances are kept in bins of one RESOLUTION-th of a stride, so that a data set of any size fits into memory.
RESOLUTION = 64
#: Areas that COCO calls small (below the first) and medium (below the second), in square pixels.
COCO_AREAS = (32**2, 96**2)


@dataclass
class TargetHistogram:
    """Counts of distance targets, in strides; those below 0 (the centre lies outside the object) count as 0.

    Attributes:
        box: The representation that shall learn them: its ``reg_max`` (n) and ``delta`` (Δ).
        positives: P.
        targets: 4P, or as many as were added.
        bins: Bin k counts the targets in (k-1, k] / :data:`RESOLUTION`.
        needs: Entry n counts the targets that DFL learns unchanged from ``reg_max=n`` on.
        clipped: Targets above n · Δ, as ``clipped_share`` of the training log counts them.
        outside: Targets below 0.
        largest: The largest target.
    """

    box: GeneralBox
    positives: int = 0
    targets: int = 0
    bins: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(1, np.int64))
    needs: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(2, np.int64))
    clipped: int = 0
    outside: int = 0
    largest: float = 0.0

    def add(self, distances: Tensor) -> None:
        """Count the targets of positives, (P, 4) in strides; or some of each, (P, less)."""
        if not len(distances):
            return
        self.positives += len(distances)
        self.targets += distances.numel()
        self.outside += int((distances < 0).sum())
        self.clipped += int((distances / self.box.delta > self.box.reg_max).sum())
        values = distances.clamp(min=0).double().flatten()
        self.largest = max(self.largest, float(values.max()))
        self.bins = _with_counts(self.bins, (values * RESOLUTION).ceil())
        # As in float32, so that n - TARGET_MARGIN itself needs no more than n.
        least = (values / self.box.delta + (TARGET_MARGIN - 1e-6)).ceil().clamp(min=1)
        self.needs = _with_counts(self.needs, least)

    @property
    def clipped_share(self) -> float:
        """Share of the targets above n · Δ; 0 without targets."""
        return self.clipped / max(self.targets, 1)

    def percentile(self, percent: float) -> float:
        """Distance, in strides, that ``percent`` of the targets do not exceed; at most 1/64 above the exact one."""
        if not self.targets:
            return float('nan')
        rank = np.ceil(percent / 100 * self.targets)
        return min(float(np.searchsorted(self.bins.cumsum(), rank)) / RESOLUTION, self.largest)

    def smallest_reg_max(self, share: float) -> int | None:
        """The smallest n that cuts at most ``share`` of the targets short; None without targets.

        DFL learns targets up to (n - 0.1) · Δ unchanged, so a target d asks for n ≥ d / Δ + 0.1.
        """
        if not self.targets:
            return None
        cut = self.targets - self.needs.cumsum()  # entry n: targets that ask for more than n
        return max(1, int(np.argmax(cut <= share * self.targets)))

    def beyond(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Share of the targets above k / :data:`RESOLUTION` strides, by k."""
        return 1 - self.bins.cumsum() / max(self.targets, 1)


def _with_counts(counts: np.ndarray[Any, Any], values: Tensor) -> np.ndarray[Any, Any]:
    """Counts of whole numbers, by number, and those of ``values`` added, which may be larger than any before."""
    total: np.ndarray[Any, Any] = torch.bincount(values.long(), minlength=len(counts)).numpy()
    total[: len(counts)] += counts
    return total


@dataclass
class Report:
    """Result.

    Attributes:
        levels: Counts by level.
        all: Counts of all levels together.
        longest: Counts, over all levels, of each positive's longest side only.
        strides: Of the levels, in pixels.
        assumed: Whether the config's head has no ``reg_max``, so that the default one stands in.
        available: Images that the data set offers.
        images: Images that were read.
        empty_images: Of these, those without an object.
        objects: Objects that count, by COCO's areas in the network's input: small, medium, large.
        unassigned: Objects that no location learns, by the same areas.
        ignored: Crowd and other ignored regions.
        ideal_predictions: Whether the assigner depends on predictions, and was given ideal ones.
    """

    levels: list[TargetHistogram]
    all: TargetHistogram
    longest: TargetHistogram
    strides: list[int]
    assumed: bool
    available: int
    images: int = 0
    empty_images: int = 0
    objects: list[int] = field(default_factory=lambda: [0, 0, 0])
    unassigned: list[int] = field(default_factory=lambda: [0, 0, 0])
    ignored: int = 0
    ideal_predictions: bool = False

    def add(self, distances: Sequence[Tensor]) -> None:
        """Count the targets of an image's positives, for each level (P, 4) in strides."""
        joint = torch.cat(list(distances))
        for histogram, part in zip((*self.levels, self.all, self.longest), (*distances, joint, joint.amax(1, True))):
            histogram.add(part)

    @property
    def decisive(self) -> TargetHistogram:
        """The counts by which a ``reg_max`` is safe: all levels together; after ideal predictions the coarsest used.

        An assigner that depends on predictions matches an object on every level whose boxes can reach its sides. So the
        counts of the finer levels grow with ``reg_max``, up to any number of strides; what a finer level cannot reach
        is matched on a coarser one, and lost only if the coarsest cannot reach it either.
        """
        used = [level for level in self.levels if level.targets]
        return used[-1] if self.ideal_predictions and used else self.all

    @property
    def box(self) -> GeneralBox:
        """The representation that the targets are judged by."""
        return self.levels[0].box


def density(histogram: TargetHistogram, width: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Left edges of bins of ``width`` strides, a multiple of 1 / :data:`RESOLUTION`, and the density in each."""
    step = round(width * RESOLUTION)
    wide = (np.arange(len(histogram.bins)) - 1).clip(min=0) // step  # bin 0, the target 0 itself, is of the first
    counts = np.bincount(wide, histogram.bins)
    return np.arange(len(counts)) * width, counts / max(histogram.targets, 1) / width


def by_area(boxes: Tensor) -> list[int]:
    """Number of boxes (G, 4), xyxy in pixels, that are small, medium and large by COCO's areas."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    size = torch.bucketize(areas, areas.new_tensor(COCO_AREAS), right=True)
    return torch.bincount(size, minlength=3).tolist()
