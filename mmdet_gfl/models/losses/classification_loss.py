"""The class loss of all locations of a batch: fused where the loss can be expressed so, else by the loss module itself.

Dimension letters: R locations of the batch, P positives, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.losses import FocalLoss
from mmdet.models.losses import QualityFocalLoss as MMDetQualityFocalLoss
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from mmdet_gfl.ops import LevelPredictions, LocationCoords

from .fused_focal_loss import FusedForm, fused_focal_loss, modulating_factor
from .quality_focal_loss import quality_focal_form
from .soft_labels import SoftLabelLoss


def takes_quality(loss: nn.Module | dict[str, Any]) -> bool:
    """True if a class loss takes ``(labels, qualities)`` as its target: a property of its class.

    Quality Focal Loss does, MMDetection's and ours, and what derives from them; a loss of another kind says so by
    an attribute ``takes_quality = True``. ``loss`` may be a config.
    """
    if isinstance(loss, dict):
        loss = MMDET_MODELS.build(loss)
    return bool(getattr(loss, 'takes_quality', isinstance(loss, MMDetQualityFocalLoss)))


def classification_loss(
    loss: nn.Module,
    logits: LevelPredictions,
    pos: LocationCoords,
    labels: Tensor,
    quality: Tensor | None,
    weights: Tensor | None,
    avg_factor: Tensor | float,
    num_classes: int | None = None,
) -> Tensor:
    """Class loss of all locations, divided by ``avg_factor`` as MMDetection's losses divide; a scalar.

    Args:
        loss: The loss; see :func:`_fused_form` for those that are computed where the logits lie. Any other is given
            rows (R, C), labels (R,) with C at the background, and weights (R,).
        logits: Class logits; all locations but ``pos`` are background.
        pos: Coordinates of the positives.
        labels: Their classes, (P,) in [0, C).
        quality: Their qualities, (P,) in [0, 1]: ``loss`` is given ``(labels, qualities)``. None: labels alone.
        weights: Weights of all locations, (R,); None: 1.
        avg_factor: Divides the sum.
        num_classes: C, where a softmax has an output more, of the background. None: the number of outputs.
    """
    form = _fused_form(loss, labels, quality, logits.num_outputs)
    if form is not None:
        total = fused_focal_loss(logits, pos, labels, form, weights)
        return total / (avg_factor + torch.finfo(torch.float32).eps)  # as MMDetection divides
    rows = logits.flatten()
    background = logits.num_outputs if num_classes is None else num_classes
    target: Any = labels.new_full((len(rows),), background).index_copy_(0, pos.flat_inds, labels)
    if quality is not None:
        target = (target, rows.new_zeros(len(rows)).index_copy_(0, pos.flat_inds, quality.to(rows)))
    weights = rows.new_ones(len(rows)) if weights is None else weights
    return loss(rows, target, weights, avg_factor=avg_factor)  # the weights have no one name


def _fused_form(loss: Any, labels: Tensor, quality: Tensor | None, num_classes: int) -> FusedForm | None:
    """The fused form of a loss; None where it has none.

    A loss offers one by a method ``fused_form(labels, quality, num_classes)``, which the property ``form`` is enough
    for in a :class:`SoftLabelLoss`. A subclass may compute something else, so it does not inherit the offer.
    MMDetection's Quality Focal Loss and focal loss have one too. Each is of logits, with the mean as reduction, and not
    declined by ``fused=False``.
    """
    kind = type(loss)
    if getattr(loss, 'reduction', None) != 'mean' or not getattr(loss, 'fused', True):
        return None
    if kind is FocalLoss:
        return hard_focal_form(loss, quality)
    if kind is MMDetQualityFocalLoss and not loss.activated:
        return quality_focal_form(loss.beta).fused(labels, quality, num_classes, loss.loss_weight)
    offer = 'fused_form' in vars(kind) or (isinstance(loss, SoftLabelLoss) and 'form' in vars(kind))
    return loss.fused_form(labels, quality, num_classes) if offer else None


def hard_focal_form(loss: FocalLoss, quality: Tensor | None) -> FusedForm | None:
    """The fused form of MMDetection's focal loss, ``-α (1 - σ)^γ log σ`` at the labels: of logits and hard labels."""
    if quality is not None or loss.activated or not loss.use_sigmoid:
        return None
    gamma, alpha = loss.gamma, loss.alpha

    def positive_loss(logits: Tensor) -> Tensor:
        return alpha * modulating_factor((-logits).sigmoid(), gamma) * F.softplus(-logits)

    return FusedForm(positive_loss, gamma, 1 - alpha, loss.loss_weight)
