"""Saying once, in training, that ``reg_max`` cuts objects short."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from torch import Tensor


class ClippingMonitor:
    """Adds up the distance targets above n · Δ and warns once when they are more than a thousandth of all.

    On a GPU the count is read every :attr:`interval` steps, so that the host does not wait at each.
    """

    limit = 1e-3
    interval = 50

    def __init__(self) -> None:
        self.steps = 0
        self.sides = 0
        self.clipped: Tensor | float = 0.0
        self.warned = False

    def update(self, share: Tensor, num_positives: int, reach: float) -> None:
        """Counts one step.

        Args:
            share: The share that is clipped, a scalar.
            num_positives: P; each has four sides.
            reach: n · Δ, in strides, for the message.
        """
        if self.warned:
            return
        self.sides += 4 * num_positives
        self.clipped = self.clipped + share.detach() * (4 * num_positives)
        if share.device.type == 'cpu' or self.steps % self.interval == 0:
            self._judge(float(self.clipped), reach)
        self.steps += 1

    def _judge(self, clipped: float, reach: float) -> None:
        if clipped > self.limit * self.sides:
            self.warned = True
            print_log(
                f'{clipped / self.sides:.2%} of the {self.sides} distance targets so far lie beyond {reach:g} strides '
                f'and were clipped, so large objects cannot be fitted; clipped_share in the log goes on counting. If '
                f'it stays above {self.limit:.1%}, raise reg_max or delta of the box, or add a level with a larger '
                f'stride to the neck and the anchors.',
                logger='current',
                level=logging.WARNING,
            )
