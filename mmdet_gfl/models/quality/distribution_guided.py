"""Distribution-guided quality (GFLv2, arXiv:2011.12885): the shape of a box's distributions guides its class score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import constant_init, normal_init
from torch import Tensor, nn

from mmdet_gfl.models.layers import distribution_statistics, validate_statistics
from mmdet_gfl.models.losses.utils import check_integer
from mmdet_gfl.ops import upcast
from mmdet_gfl.registry import MODELS

from .base import QualityHead
from .joint import JointQuality


@MODELS.register_module()
class DistributionGuidedQuality(JointQuality):
    """A joint quality whose class score is σ(class logit) · I, with I predicted from the distributions of the sides.

    A small network, shared by all levels and priors, sees the largest probabilities of each side's distribution and
    their mean: sharp distributions are those of well localized boxes. ``forward`` gives the logit of the product, so
    everything behind it is as for :class:`JointQuality`. Nothing is detached: the class loss trains the distributions
    too. The head holds the network as ``reg_conf``, which the released code calls so.

    Args:
        topk: Number of largest probabilities per side.
        channels: Hidden channels of the network.
        statistics: Inputs of the network per side, see :func:`distribution_statistics`: ``'topk'``, ``'mean'`` (of the
            ``topk``) and ``'var'`` (of the distribution, where top k cannot be deployed).
        additive: Add the network's output to the class logit, with a last layer that starts at 0, instead of the
            product (D-FINE's variant, arXiv:2410.13842).
        **kwargs: ``JointQuality``'s.

    Raises:
        ValueError: ``topk``, ``channels`` or ``statistics`` is not accepted, or the box has no distribution over bins.
    """

    def __init__(
        self,
        topk: int = 4,
        channels: int = 64,
        statistics: Sequence[str] = ('topk', 'mean'),
        additive: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.topk = check_integer('quality.topk', topk, low=1)
        self.channels = check_integer('quality.channels', channels, low=1)
        validate_statistics('quality.statistics', statistics)
        self.statistics = tuple(statistics)
        self.additive = additive

    def build_modules(self, head: QualityHead) -> dict[str, nn.Module]:
        """``reg_conf``: two convolutions of kernel 1 with a ReLU between them."""
        box = head.box
        if 'full' not in box.statistics:
            raise ValueError(
                f'quality={type(self).__name__} needs the distribution of a box side over bins, and '
                f"box={type(box).__name__} has none; use box=dict(type='mmdet_gfl.GeneralBox')"
            )
        if self.topk > box.channels:
            raise ValueError(f'quality.topk={self.topk} exceeds the {box.channels} bins of a side (reg_max + 1)')
        num_inputs = 4 * sum(self.topk if name == 'topk' else 1 for name in self.statistics)
        layers = nn.Conv2d(num_inputs, self.channels, 1), nn.ReLU(inplace=True), nn.Conv2d(self.channels, 1, 1)
        return dict(reg_conf=nn.Sequential(*layers))

    def init_weights(self, head: Any) -> None:
        """Convolutions N(0, 0.01) and biases 0, so that I starts near 0.5."""
        first, _, last = head.reg_conf
        normal_init(first, std=0.01)
        if self.additive:
            constant_init(last, 0)
        else:
            normal_init(last, std=0.01)

    def class_logits(self, cls_score: Tensor, bbox_pred: Tensor, head: Any) -> Tensor:
        """Logits z with σ(z) = σ(c) σ(q), that is ``q - softplus(softplus(q) - c)``; q is the network's output."""
        shape = distribution_statistics(bbox_pred, head.box.channels, self.topk, self.statistics)
        num_priors = bbox_pred.size(1) // (4 * head.box.channels)
        q = head.reg_conf(shape.unflatten(1, (num_priors, -1)).flatten(0, 1).to(head.reg_conf[0].weight))
        q = upcast(q).unflatten(0, (-1, num_priors))  # (N, A, 1, H, W)
        c = upcast(cls_score).unflatten(1, (num_priors, -1))  # (N, A, C, H, W)
        z = c + q if self.additive else q - F.softplus(F.softplus(q) - c)
        return z.flatten(1, 2)
