"""A Gaussian of each of the host's own four numbers, in place of one of each distance."""

from __future__ import annotations

from torch import Tensor, nn

from mmdet_gfl.models.boxes.base import BoxHead
from mmdet_gfl.models.boxes.gaussian import GaussianBox
from mmdet_gfl.models.task_modules import Locations, Targets
from mmdet_gfl.registry import MODELS


@MODELS.register_module()
class GaussianHostBox(GaussianBox):
    """A Gaussian of each of the host's own four numbers: its coding, but a loss that looks at one number at a time.

    Made for hosts with anchors, where outputs of 0 are the anchor; elsewhere the boxes start empty.
    """

    uses_host_coder = True
    statistics = ()

    def init_weights(self, conv: nn.Conv2d, prior_distances: Tensor) -> None:
        """Start means and log-variances at 0: at the anchor, with a standard deviation of 1."""
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)

    def decode(self, bbox_pred: Tensor, locations: Locations, head: BoxHead) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, from the means in (M, 4 · 2)."""
        return head.host_coder.decode(bbox_pred.reshape(-1, 4, 2)[..., 0], locations)

    def losses(
        self, bbox_pred: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, avg_factor: Tensor, head: BoxHead
    ) -> dict[str, Tensor]:
        """``loss_bbox``: the likelihood of the host's numbers of the objects."""
        numbers = head.host_coder.encode(targets.gt_bboxes, targets.locations)
        pred, weight = bbox_pred.reshape(-1, 4, 2), weights[:, None].expand(-1, 4)
        return dict(loss_bbox=head.loss_bbox(pred, numbers, weight=weight, avg_factor=avg_factor))
