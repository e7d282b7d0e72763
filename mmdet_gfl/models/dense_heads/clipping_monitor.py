"""Saying once, in training, that ``reg_max`` cuts objects short."""

from __future__ import annotations

import math

from mmengine.logging import print_log
from torch import Tensor


class ClippingMonitor:
    """Adds up the share of distance targets above n · Δ and warns once when it is more than a thousandth.

    A positive has four sides, and an object a dozen positives that are cut alike, so a share just above the limit
    means nothing in the first batches: the warning waits until it is three standard errors above. On a GPU the count
    is read every :attr:`interval` steps, so that the host does not wait at each.
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
        if not share.is_cuda or self.steps % self.interval == 0:
            self._judge(float(self.clipped), reach)
        self.steps += 1

    def _judge(self, clipped: float, reach: float) -> None:
        sides_at_once = 16  # sides that one object clips together, about
        error = math.sqrt(self.limit * self.sides * sides_at_once)
        if clipped > self.limit * self.sides + min(3 * error, 0.5 * self.sides):
            self.warned = True
            print_log(
                f'{clipped / self.sides:.1%} of the {self.sides} distance targets so far lie beyond {reach:g} strides '
                f'and were clipped (clipped_share in the log), so large objects cannot be fitted. Raise reg_max or '
                f'delta of the box, or add a level with a larger stride to the neck and the anchors.',
                logger='current',
                level=30,
            )
