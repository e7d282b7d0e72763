"""Gaussian of a box side: mean and log-variance of its distance (Gaussian YOLOv3, the "Gaussian" of table 2a)."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from mmdet_gfl.models.losses import gaussian_std
from mmdet_gfl.models.task_modules import Locations, Targets
from mmdet_gfl.registry import MODELS

from .base import BoxHead, BoxRepresentation, SideStatistics


@MODELS.register_module()
class GaussianBox(BoxRepresentation):
    """The distances l, t, r, b from the location to the sides, in strides, each a Gaussian.

    The negative log-likelihood of the distance takes the place of the host's IoU loss, with the same weights and the
    same normaliser, summed over the four sides. The mean is decoded. It starts at the host's ``prior_distances``, about
    half an anchor, with σ = 1 stride. The host's ``bbox_coder`` and ``loss_bbox`` are not used.

    Args:
        loss_bbox: Config of the likelihood; its ``log_var_range`` bounds the log-variance.
    """

    statistics = ('stats',)
    channels = 2  #: mean and log-variance per side

    def __init__(
        self,
        loss_bbox: dict[str, Any] = dict(type='mmdet_gfl.GaussianNLLLoss', loss_weight=1.0),  # noqa: B006
    ) -> None:
        self.loss_bbox = loss_bbox

    def build_modules(self, head: BoxHead) -> dict[str, nn.Module]:
        """``loss_bbox``: the likelihood, in place of the host's; ``ValueError`` if it has no ``log_var_range``."""
        likelihood = MMDET_MODELS.build(self.loss_bbox)
        if not hasattr(likelihood, 'log_var_range'):
            raise ValueError(
                f'box.loss_bbox={type(likelihood).__name__} is not a likelihood of a mean and a log-variance; '
                f"accepted: dict(type='mmdet_gfl.GaussianNLLLoss', ...) or a class with its call and its log_var_range"
            )
        return dict(loss_bbox=likelihood)

    def init_weights(self, conv: nn.Conv2d, prior_distances: Tensor) -> None:
        """Start the means at ``prior_distances`` (A, 4) in strides, the log-variances at 0."""
        if conv.bias is not None:
            sides = prior_distances.to(conv.bias)
            conv.bias.data = torch.stack((sides, torch.zeros_like(sides)), dim=-1).flatten()

    def decode(self, bbox_pred: Tensor, locations: Locations, head: BoxHead) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, from the means in (M, 4 · 2); a mean below 0 counts as 0."""
        return locations.boxes(_means(bbox_pred))

    def losses(
        self, bbox_pred: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, avg_factor: Tensor, head: BoxHead
    ) -> dict[str, Tensor]:
        """``loss_bbox``; where the location lies outside its object, the distance to learn is 0."""
        distances = targets.locations.distances(targets.gt_bboxes).clamp(min=0)  # (P, 4)
        pred, weight = bbox_pred.reshape(-1, 4, 2), weights[:, None].expand(-1, 4)
        return dict(loss_bbox=head.loss_bbox(pred, distances, weight=weight, avg_factor=avg_factor))

    def side_statistics(self, bbox_pred: Tensor, head: BoxHead) -> SideStatistics:
        """Mean and standard deviation of each side, in strides, of outputs (M, 4 · 2)."""
        std = gaussian_std(bbox_pred.reshape(-1, 4, 2), head.loss_bbox.log_var_range)
        return SideStatistics(_means(bbox_pred), std)


def _means(bbox_pred: Tensor) -> Tensor:
    return bbox_pred.reshape(-1, 4, 2)[..., 0].clamp(min=0)
