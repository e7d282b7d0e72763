"""Joint quality whose box losses keep each positive, however low its class score."""

from typing import Any

from mmengine.logging import MessageHub
from torch import Tensor

from mmdet_gfl.models.quality.joint import JointQuality
from mmdet_gfl.models.task_modules import Positives
from mmdet_gfl.registry import MODELS


@MODELS.register_module()
class FlooredJointQuality(JointQuality):
    """``JointQuality`` with box weights that do not fall below a floor.

    Args:
        floor: The least weight of a positive in the box losses, in [0, 1].
        steps: Number of first steps of the training in which the least weight falls linearly from 1, down to ``floor``.
        **options: Of ``JointQuality``.

    Raises:
        ValueError: ``floor`` is not in [0, 1].
    """

    def __init__(self, floor: float = 0.0, steps: int = 0, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= floor <= 1:
            raise ValueError(f'floor={floor}; accepted: from 0 (the weights as they are) to 1 (all weigh the same)')
        self.floor, self.steps = floor, steps

    def box_weights(self, positives: Positives, kind: str) -> Tensor:
        """The weights of ``box_weight``, by default the class scores, but at least the floor, (P,)."""
        done = MessageHub.get_current_instance().get_info('iter', default=0)
        floor = max(self.floor, 1 - done / self.steps) if self.steps else self.floor
        return super().box_weights(positives, kind).clamp(min=floor)
