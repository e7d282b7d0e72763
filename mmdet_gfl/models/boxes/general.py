"""General distribution of a box side: n+1 logits whose integral is the distance (section 3.2 of GFL)."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from mmdet_gfl.models.layers import Integral, distribution_std
from mmdet_gfl.models.losses import side_loss
from mmdet_gfl.models.task_modules import Locations, Targets
from mmdet_gfl.registry import MODELS

from .base import BoxHead, BoxRepresentation, SideStatistics

#: MMDetection keeps distance targets this far below n, so that a target has two neighbours.
TARGET_MARGIN = 0.1


@MODELS.register_module()
class GeneralBox(BoxRepresentation):
    """The distances l, t, r, b from the location to the sides, in strides, each a distribution over 0, Δ, …, nΔ.

    The distance is the distribution's mean (eq. 5). It is trained by an IoU loss on the decoded box, and, with
    ``loss_dfl``, by Distribution Focal Loss on the two values next to the target (eq. 6). The host's ``bbox_coder`` is
    not used.

    Args:
        reg_max: n. Distances are at most n · Δ strides; ``clipped_share`` in the log is the share of larger targets.
        delta: Δ, in strides.
        loss_dfl: Config of DFL; None trains the distribution by its integral alone ("General" in table 2a).

    Raises:
        ValueError: ``reg_max`` is not an integer ≥ 1, or ``delta`` is not positive.
    """

    statistics = ('stats', 'full')

    def __init__(
        self,
        reg_max: int = 16,
        delta: float = 1.0,
        loss_dfl: dict[str, Any] | None = dict(type='mmdet_gfl.DistributionFocalLoss', loss_weight=0.25),  # noqa: B006
    ) -> None:
        Integral(reg_max, delta)  # validates both
        self.reg_max = reg_max
        self.delta = delta
        if loss_dfl is not None and not isinstance(loss_dfl, dict):
            raise ValueError(f'box.loss_dfl={loss_dfl!r}; give the config of a loss as a dict, or None')
        self.loss_dfl = loss_dfl

    @property
    def channels(self) -> int:
        """N + 1 logits per side."""
        return self.reg_max + 1

    @property
    def max_distance(self) -> float:
        """The largest distance that can be predicted, n · Δ, in strides."""
        return self.reg_max * self.delta

    def build_modules(self, head: BoxHead) -> dict[str, nn.Module]:
        """``integral``, ``loss_bbox`` (the head's if it is an IoU loss, else GIoU, weight 2) and ``loss_dfl``."""
        loss_bbox = head.loss_bbox
        name = type(loss_bbox).__name__
        if 'IoU' not in name or name == 'BoundedIoULoss':  # that one is a loss of each side
            loss_bbox = MMDET_MODELS.build(dict(type='GIoULoss', loss_weight=2.0))
        modules = dict(integral=Integral(self.reg_max, self.delta), loss_bbox=loss_bbox)
        if self.loss_dfl is not None:
            modules['loss_dfl'] = MMDET_MODELS.build(self.loss_dfl)
        return modules

    def init_at_priors(self, conv: nn.Conv2d, prior_distances: Tensor) -> None:
        """Start at the distribution of largest entropy whose mean is ``prior_distances`` (A, 4), in strides.

        A uniform start, as GFL's, predicts boxes of n · Δ strides, which hardly overlap any object.
        """
        if conv.bias is not None and not conv.bias.is_meta:  # which has no values, and an operation takes longest
            slopes = entropic_slopes(prior_distances.flatten() / self.delta, self.reg_max)
            bins = torch.arange(self.channels, device=slopes.device)
            conv.bias.data = (slopes[:, None] * bins).flatten().to(conv.bias)

    def decode(self, bbox_pred: Tensor, locations: Locations, head: BoxHead) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, whose sides are the integrals of the distributions (M, 4(n+1))."""
        return locations.boxes(head.integral(bbox_pred))

    def losses(
        self, bbox_pred: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, avg_factor: Tensor, head: BoxHead
    ) -> dict[str, Tensor]:
        """``loss_bbox``, ``loss_dfl``, and ``clipped_share``: the share of the distance targets above n."""
        bins = targets.locations.distances(targets.gt_bboxes) / self.delta  # (P, 4)
        losses = dict(
            loss_bbox=head.loss_bbox(boxes, targets.gt_bboxes, weight=weights, avg_factor=avg_factor),
            clipped_share=(bins > self.reg_max).sum() / max(bins.numel(), 1),
        )
        if self.loss_dfl is not None:
            losses['loss_dfl'] = side_loss(
                head.loss_dfl,
                bbox_pred.reshape(-1, self.channels),
                bins.clamp(min=0, max=self.reg_max - TARGET_MARGIN).reshape(-1),
                weight=weights[:, None].expand(-1, 4).reshape(-1),
                avg_factor=4 * avg_factor,
            )
        return losses

    def side_statistics(self, bbox_pred: Tensor, head: BoxHead) -> SideStatistics:
        """Mean, standard deviation and probabilities of each side, in strides, of logits (M, 4(n+1))."""
        logits = bbox_pred.reshape(-1, 4, self.channels).float()
        return SideStatistics(
            head.integral(bbox_pred), distribution_std(logits, self.delta), logits.softmax(dim=-1), self.delta
        )


def entropic_slopes(means: Tensor, reg_max: int) -> Tensor:
    """λ (M,) for which ``softmax(λ i)``, i = 0..n, has the ``means`` (M,) in (0, n), at the largest entropy."""
    bins = torch.arange(reg_max + 1.0, dtype=torch.float64, device=means.device)
    low, high = torch.full_like(means, -50.0).double(), torch.full_like(means, 50.0).double()
    for _ in range(60):  # halve the interval: the mean grows with λ
        slopes = (low + high) / 2
        too_large = (slopes[:, None] * bins).softmax(dim=1) @ bins > means
        low, high = slopes.where(~too_large, low), slopes.where(too_large, high)
    return slopes
