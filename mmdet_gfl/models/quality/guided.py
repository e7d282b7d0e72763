"""What guided qualities share: a measure of localization weighs the positives in the class loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from mmdet.utils import reduce_mean
from torch import Tensor

from mmdet_gfl.models.task_modules import Outputs, Positives, Targets

from .base import Quality

if TYPE_CHECKING:
    from mmdet_gfl.models.dense_heads.dense_gfl_mixin import DenseGFLMixin


class GuidedQuality(Quality):
    """The class score learns the one-hot label, a positive counts by its :meth:`target` (PISA, arXiv:1904.04821).

    The weights are rescaled so that the positives' class loss as a whole stays what it was: how much each counts
    changes, not how much they count beside the background, nor the optimum.
    """

    def class_loss(
        self, logits: Outputs, targets: Targets, positives: Positives, norm: Tensor, head: DenseGFLMixin
    ) -> Tensor:
        """The host's loss for one-hot labels, with the positives' weights rescaled, see :func:`rescaled_weights`."""
        before = targets.label_weights[targets.pos]  # (P,)
        losses = head.one_hot_losses(positives.logits, positives.labels)  # (P,)
        weights = targets.label_weights.clone()
        weights[targets.pos] = before * rescaled_weights(self.target(positives), before * losses)
        return head.one_hot_loss(logits, targets, weights, norm)


def rescaled_weights(weights: Tensor, losses: Tensor) -> Tensor:
    """``w' = w · ΣL / Σ(w L)``: weights that leave the total loss unchanged, ``Σ(w' L) = ΣL``; detached.

    The sums are over all ranks, which must all call this: several processes train as one with the joint batch would.

    Args:
        weights: w, (P,), not negative.
        losses: L, (P,), not negative.

    Returns:
        (P,); ones if Σ(w L) is 0, so that the loss is not lost.
    """
    weights, losses = weights.detach(), losses.detach()
    total, weighted = reduce_mean(torch.stack([losses.sum(), (weights * losses).sum()]))
    usable = weighted > torch.finfo(weighted.dtype).tiny ** 0.5  # far from overflow
    return torch.where(usable, weights * (total / weighted.masked_fill(~usable, 1)), torch.ones_like(weights))
