"""A warning, once per training, that ``reg_max`` is too small for the objects."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from torch import Tensor


class ClippingMonitor:
    """Count the distance targets above n · Δ, and warn once when they are more than a thousandth of all.

    On a GPU the count is read every :attr:`interval` steps, so that the host does not synchronize at each.
    """

    limit = 1e-3
    interval = 50

    def __init__(self) -> None:
        self.steps = 0
        self.sides = 0
        self.clipped: Tensor | float = 0.0
        self.warned = False

    def update(self, share: Tensor, num_positives: int, max_distance: float) -> None:
        """Count a step with a scalar ``share`` of clipped targets; ``max_distance``, n · Δ strides, is logged."""
        if self.warned:
            return
        self.sides += 4 * num_positives
        self.clipped = self.clipped + share.detach() * (4 * num_positives)
        if share.device.type == 'cpu' or self.steps % self.interval == 0:
            self._check(float(self.clipped), max_distance)
        self.steps += 1

    def _check(self, clipped: float, max_distance: float) -> None:
        if clipped > self.limit * self.sides:
            self.warned = True
            print_log(
                f'{clipped / self.sides:.2%} of the {self.sides} distance targets so far lie beyond {max_distance:g} '
                f'strides and were clipped, so large objects cannot be fitted; clipped_share is logged at each step. '
                f'If it stays above {self.limit:.1%}, raise reg_max or delta of the box, or add a level with a larger '
                f'stride to the neck and the anchors.',
                logger='current',
                level=logging.WARNING,
            )
