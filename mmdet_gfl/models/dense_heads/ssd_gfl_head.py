"""SSD (arXiv:1512.02325) as a host of GFL."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn

from mmdet_gfl.models.task_modules import Targets
from mmdet_gfl.ops import LevelPredictions, upcast
from mmdet_gfl.registry import MODELS

from .anchor_gfl_mixin import AnchorGFLMixin
from .dense_gfl_mixin import conv_like


class SSDWithLosses(SSDHead):
    """``SSDHead`` that holds its losses as modules, like every other head, and can score classes by sigmoids.

    ``loss_cls`` is a loss with sigmoids, for C class channels; None means softmax over C + 1.
    """

    def __init__(
        self, *args: Any, loss_cls: dict[str, Any] | None = None, loss_bbox: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self.sigmoid_scores = loss_cls is not None
        super().__init__(*args, **kwargs)
        self.use_sigmoid_cls = self.sigmoid_scores
        self.loss_cls = MMDET_MODELS.build(loss_cls or dict(type='CrossEntropyLoss', loss_weight=1.0))
        beta = (self.train_cfg or {}).get('smoothl1_beta', 1.0)
        self.loss_bbox = MMDET_MODELS.build(loss_bbox or dict(type='SmoothL1Loss', beta=beta, loss_weight=1.0))

    def _init_layers(self) -> None:
        self.cls_out_channels = self.num_classes + (not self.sigmoid_scores)
        super()._init_layers()


@MODELS.register_module()
class SSDGFLHead(AnchorGFLMixin, SSDWithLosses):
    """MMDetection's ``SSDHead`` with joint quality or none, and any box representation; by default full GFL.

    ``NoQuality`` with ``DiracBox`` is MMDetection's head: softmax over C + 1 classes with hard-negative mining. Joint
    quality has C sigmoids, which start at a score of 0.01: with SSD's bias of 0 the thousands of background anchors
    would begin with a loss of some 17,000. A Gaussian box starts at half its anchor, level by level: 0.7 to 2.7 strides
    on most levels of SSD300, 0.3 to 0.6 on the last.

    ``prior_score`` is the class score at the start under joint quality. ``loss_bbox`` is the box loss of Dirac boxes,
    by default smooth L1 with ``train_cfg.smoothl1_beta``, as in MMDetection.

    Raises:
        ValueError: ``quality`` is neither ``NoQuality`` nor one with soft labels, or ``loss_cls`` without the latter.
    """

    stock_head = SSDHead
    weights_own_boxes = False

    def __init__(self, *args: Any, prior_score: float = 0.01, **kwargs: Any) -> None:
        if isinstance(prior_score, bool) or not isinstance(prior_score, float) or not 0 < prior_score < 1:
            raise ValueError(f'bbox_head.prior_score={prior_score!r}; needs a number between 0 and 1, as 0.01')
        self.prior_score = prior_score
        super().__init__(*args, **kwargs)

    def validate_axes(self) -> None:
        """Raise for what softmax over classes and background with hard-negative mining cannot do."""
        super().validate_axes()
        if self.quality.branch or self.quality.reweights_labels:
            raise ValueError(
                f'quality={type(self.quality).__name__} has no meaning on SSD, which mines its background by the '
                f'softmax of its classes; accepted: qualities with soft labels, as mmdet_gfl.JointQuality, and '
                f'mmdet_gfl.NoQuality'
            )
        if self.sigmoid_scores and not self.quality.soft_labels:
            raise ValueError(
                f'bbox_head.loss_cls is not taken by SSD under quality={type(self.quality).__name__}, whose loss is '
                f"MMDetection's softmax with hard-negative mining; leave it out, or use "
                f"quality=dict(type='mmdet_gfl.JointQuality')"
            )

    def adapt_layers(self) -> None:
        """Resize the box outputs; SSD has output layers of its own on each level, last of the level's convolutions."""
        for convs, num_priors in zip(self.reg_convs, self.num_base_priors):
            if self.box.channels != 1:
                convs[-1] = conv_like(convs[-1], num_priors * 4 * self.box.channels)

    def init_outputs(self) -> None:
        """Initialize the outputs of each level by its anchors, and under sigmoids the class scores at a low value."""
        for level, convs in enumerate(self.reg_convs):
            self.box.init_weights(convs[-1], self.prior_distances(level))
        if self.sigmoid_scores:
            for convs in self.cls_convs:
                nn.init.constant_(convs[-1].bias, bias_init_with_prob(self.prior_score))
        self.quality.init_weights(self)

    def hard_label_loss(
        self,
        logits: LevelPredictions,
        targets: Targets,
        weights: Tensor | None = None,
        avg_factor: Tensor | float = 1.0,
        reduction: str = 'mean',
    ) -> Tensor:
        """Softmax: in each image the positives, and the ``neg_pos_ratio`` times as many hardest background anchors.

        The hardest are selected without a graph; only the losses of the chosen anchors are computed with one.
        """
        pos = targets.pos
        if reduction == 'none':
            return F.cross_entropy(logits.gather(pos), targets.labels, reduction='none')
        background = torch.ones(logits.index.total, dtype=torch.bool, device=pos.flat_inds.device)
        background.index_fill_(0, pos.flat_inds, False)
        mined = self._hardest(logits, background, weights)
        chosen, order = torch.cat((pos.flat_inds, mined)).sort()
        labels = torch.cat((targets.labels, mined.new_full((len(mined),), self.num_classes)))[order]
        losses = F.cross_entropy(logits.gather(logits.index.coords(chosen)), labels, reduction='none')
        return (losses if weights is None else losses * weights[chosen]).sum() / avg_factor

    @torch.no_grad()
    def _hardest(self, logits: LevelPredictions, background: Tensor, weights: Tensor | None) -> Tensor:
        """The anchors of a mask ``background`` (R,) with the largest losses of their image, as flat indices."""
        index = logits.index
        flat_inds = index.image_major(torch.arange(index.total, device=background.device))  # (N, K)
        background = background[flat_inds]
        losses = torch.cat([background_loss(level, logits.num_outputs) for level in logits.levels], dim=1)
        losses = losses if weights is None else losses * weights[flat_inds]
        num_background = background.sum(dim=1)
        num_positives = flat_inds.size(1) - num_background
        wanted = (self.train_cfg['neg_pos_ratio'] * num_positives.double()).long().minimum(num_background)  # (N,)
        hardest = losses.masked_fill(~background, -torch.inf).topk(int(wanted.max())).indices
        rank = torch.arange(hardest.size(1), device=losses.device)
        return flat_inds.gather(1, hardest)[rank < wanted[:, None]]


def background_loss(level: Tensor, num_classes: int) -> Tensor:
    """Cross entropy of each location with the last of its classes: (N, A · num_classes, H, W) to (N, H · W · A)."""
    losses = -upcast(level).unflatten(1, (-1, num_classes)).log_softmax(dim=2)[:, :, -1]  # (N, A, H, W)
    return losses.permute(0, 2, 3, 1).flatten(1)
