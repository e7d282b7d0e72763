"""Guided qualities: a measure of localization weighs the positives in the class loss."""

from __future__ import annotations

import torch
from mmdet.utils import reduce_mean
from torch import Tensor

from mmdet_gfl.models.task_modules import Positives, Targets
from mmdet_gfl.ops import LevelPredictions
from mmdet_gfl.registry import MODELS

from .base import Quality, QualityHead


class GuidedQuality(Quality):
    """The class score learns the one-hot label, a positive is weighted by its :meth:`target` (PISA, arXiv:1904.04821).

    The weights are rescaled so that the sum of the positives' class losses is unchanged: the weighting changes the
    share of each positive, not their share beside the background, nor the optimum.
    """

    reweights_labels = True

    def class_loss(
        self, logits: LevelPredictions, targets: Targets, positives: Positives, avg_factor: Tensor, head: QualityHead
    ) -> Tensor:
        """The host's loss for hard labels, with the positives' weights rescaled, see :func:`rescaled_weights`."""
        losses = head.hard_label_loss(logits, targets, reduction='none').detach()  # (P,)
        weights = targets.label_weights
        weights = losses.new_ones(logits.index.total) if weights is None else weights.clone()
        before = weights[targets.pos.flat_inds]  # (P,)
        weights[targets.pos.flat_inds] = before * rescaled_weights(self.target(positives), before * losses).to(before)
        return head.hard_label_loss(logits, targets, weights, avg_factor)


@MODELS.register_module()
class CenternessGuided(GuidedQuality):
    """The positives' class loss is weighted by their centerness; ``box_weight='auto'`` is the centerness too."""

    auto_box_weight = 'quality'

    def target(self, positives: Positives) -> Tensor:
        """Centerness of the locations in their objects, (P,)."""
        return positives.centerness


@MODELS.register_module()
class IoUGuided(GuidedQuality):
    """The weight is the detached IoU of the boxes (IoU-balanced loss, arXiv:1908.05641); ``box_weight='auto'`` is 1."""


def rescaled_weights(weights: Tensor, losses: Tensor) -> Tensor:
    """``w' = w · ΣL / Σ(w L)``: weights that leave the total loss unchanged, ``Σ(w' L) = ΣL``; detached.

    The sums are over all ranks, which must all call this: several processes train as one with the joint batch would.
    All are (P,) and not negative; the result is ones if Σ(w L) is 0, so that the loss is not lost.
    """
    weights, losses = weights.detach(), losses.detach()
    total, weighted = reduce_mean(torch.stack([losses.sum(), (weights * losses).sum()]))
    usable = weighted > torch.finfo(weighted.dtype).tiny ** 0.5  # far from overflow
    return torch.where(usable, weights * (total / weighted.masked_fill(~usable, 1)), torch.ones_like(weights))
