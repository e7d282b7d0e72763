"""Joint quality whose box losses lose no positive, however low the class scores it."""

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
        steps: In the first steps of a training the floor falls linearly from 1, which is ``box_weight='uniform'``.
        **options: Of ``JointQuality``.
    """

    def __init__(self, floor: float = 0.0, steps: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.floor, self.steps = floor, steps

    def box_weights(self, positives: Positives, kind: str) -> Tensor:
        """The class scores or the floor, whichever is higher, (P,)."""
        done = MessageHub.get_current_instance().get_info('iter', default=0)
        floor = max(self.floor, 1 - done / self.steps) if self.steps else self.floor
        return super().box_weights(positives, kind).clamp(min=floor)
