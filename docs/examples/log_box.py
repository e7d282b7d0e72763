"""General distribution of a box side over distances that lie denser towards 0."""

from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from mmdet_gfl.models.boxes.base import BoxRepresentation, SideStatistics
from mmdet_gfl.models.layers import Integral, distribution_std
from mmdet_gfl.models.task_modules import Locations, Targets
from mmdet_gfl.registry import MODELS


@MODELS.register_module()
class LogBox(BoxRepresentation):
    """The distances l, t, r, b, each a distribution over n + 1 values (``reg_max``) up to ``max_distance`` strides."""

    statistics = ('stats',)

    def __init__(self, reg_max: int = 16, max_distance: float = 32.0) -> None:
        if not max_distance > 0:
            raise ValueError(f'box.max_distance={max_distance!r} must be positive, in strides')
        self.reg_max = reg_max
        self.largest = max_distance

    @property
    def channels(self) -> int:
        """Logits per side."""
        return self.reg_max + 1

    @property
    def max_distance(self) -> float:
        """The largest distance that can be predicted, in strides."""
        return self.largest

    def build_modules(self, head: Any) -> dict[str, nn.Module]:
        """``log_integral``, which holds the values; the head's IoU loss, else GIoU with weight 2; DFL."""
        integral = Integral(self.reg_max)
        integral.project = (1 + self.max_distance) ** torch.linspace(0, 1, self.channels) - 1
        loss_bbox = head.loss_bbox
        if 'IoU' not in type(loss_bbox).__name__:
            loss_bbox = MMDET_MODELS.build(dict(type='GIoULoss', loss_weight=2.0))
        loss_dfl = MMDET_MODELS.build(dict(type='mmdet_gfl.DistributionFocalLoss', loss_weight=0.25))
        return dict(log_integral=integral, loss_bbox=loss_bbox, loss_dfl=loss_dfl)

    def decode(self, bbox_pred: Tensor, locations: Locations, head: Any) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, whose sides are the means of the distributions (M, 4(n+1))."""
        return locations.boxes(head.log_integral(bbox_pred))

    def losses(
        self, bbox_pred: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, avg_factor: Tensor, head: Any
    ) -> dict[str, Tensor]:
        """``loss_bbox``, ``loss_dfl`` on the two values next to the target, ``clipped_share`` beyond the last."""
        distances = targets.locations.distances(targets.gt_bboxes)  # (P, 4)
        bins = to_bins(distances, head.log_integral.project).reshape(-1)  # (4P,)
        logits = bbox_pred.reshape(-1, self.channels)  # (4P, n+1)
        side_weights = weights[:, None].expand(-1, 4).reshape(-1)
        return dict(
            loss_bbox=head.loss_bbox(boxes, targets.gt_bboxes, weight=weights, avg_factor=avg_factor),
            loss_dfl=head.loss_dfl(logits, bins, weight=side_weights, avg_factor=4 * avg_factor),
            clipped_share=(distances > self.max_distance).sum() / max(distances.numel(), 1),
        )

    def side_statistics(self, bbox_pred: Tensor, head: Any) -> SideStatistics:
        """Mean and standard deviation of each side, in strides, of logits (M, 4(n+1))."""
        std = distribution_std(bbox_pred.reshape(-1, 4, self.channels), project=head.log_integral.project)
        return SideStatistics(head.log_integral(bbox_pred), std)


def to_bins(distances: Tensor, values: Tensor) -> Tensor:
    """Positions of distances among ascending values (n + 1,): bin numbers in [0, n], linear in between."""
    distances = distances.clamp(min=0).minimum(values[-1])
    left = torch.searchsorted(values, distances, right=True).sub(1).clamp(0, len(values) - 2)
    return left + (distances - values[left]) / (values[left + 1] - values[left])
