"""SSD (arXiv:1512.02325) as a host of GFL."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn

from mmdet_gfl.models.quality.joint import JointQuality
from mmdet_gfl.models.quality.none import NoQuality
from mmdet_gfl.models.task_modules import Outputs, Picked, Targets
from mmdet_gfl.ops.pick_rows import at_least_float
from mmdet_gfl.registry import MODELS

from .anchor_gfl_mixin import half_anchors
from .dense_gfl_mixin import conv_like
from .max_iou_gfl_mixin import MaxIoUGFLMixin
from .normalizers import count_normalizers


class SSDWithLosses(SSDHead):
    """``SSDHead`` that holds its losses as modules, like every other head, and can score classes by sigmoids.

    Args:
        *args: ``SSDHead``'s.
        loss_cls: A loss with sigmoids, for C class channels; None: softmax over C + 1.
        loss_bbox: The box loss; None: smooth L1 with ``train_cfg.smoothl1_beta``.
        **kwargs: ``SSDHead``'s.
    """

    def __init__(
        self,
        *args: Any,
        loss_cls: dict[str, Any] | None = None,
        loss_bbox: dict[str, Any] | None = None,
        **kwargs: Any,
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
class SSDGFLHead(MaxIoUGFLMixin, SSDWithLosses):
    """MMDetection's ``SSDHead`` with joint quality or none, and any box representation; by default full GFL.

    ``NoQuality`` with ``DiracBox`` is MMDetection's head: softmax over C + 1 classes with hard-negative mining. Joint
    quality has C sigmoids, which start at a score of 0.01: with SSD's bias of 0 the thousands of background anchors
    would begin with a loss of some 17,000. A Gaussian box starts at half its anchor, level by level: 0.7 to 2.7 strides
    on most levels of SSD300, 0.3 to 0.6 on the last.

    Args:
        *args: ``SSDHead``'s.
        quality: ``JointQuality`` or ``NoQuality``.
        box: See :class:`DenseGFLMixin`.
        prior_score: Class score at the start under joint quality; see above.
        loss_bbox: Box loss of Dirac boxes; default smooth L1 with ``train_cfg.smoothl1_beta``, as in MMDetection.
        **kwargs: ``SSDHead``'s.

    Raises:
        ValueError: Another quality, or ``loss_cls`` without joint quality.
    """

    weights_own_boxes = False

    def __init__(self, *args: Any, prior_score: float = 0.01, **kwargs: Any) -> None:
        if isinstance(prior_score, bool) or not isinstance(prior_score, float) or not 0 < prior_score < 1:
            raise ValueError(f'bbox_head.prior_score={prior_score!r}; needs a number between 0 and 1, as 0.01')
        self.prior_score = prior_score
        super().__init__(*args, **kwargs)

    def check_axes(self) -> None:
        """Refuses what softmax over classes and background with hard-negative mining cannot do."""
        if not isinstance(self.quality, (NoQuality, JointQuality)):
            raise ValueError(
                f'quality={type(self.quality).__name__} has no meaning on SSD, which mines its background by the '
                f'softmax of its classes; accepted: mmdet_gfl.JointQuality, mmdet_gfl.NoQuality'
            )
        if self.sigmoid_scores and not isinstance(self.quality, JointQuality):
            raise ValueError(
                "bbox_head.loss_cls is not taken by SSD under quality=NoQuality, whose loss is MMDetection's softmax "
                "with hard-negative mining; leave it out, or use quality=dict(type='mmdet_gfl.JointQuality')"
            )

    def _fit_layers(self) -> None:
        """SSD has output layers of its own on each level, last of the level's convolutions."""
        for convs, num_priors in zip(self.reg_convs, self.num_base_priors):
            if self.box.channels != 1:
                convs[-1] = conv_like(convs[-1], num_priors * 4 * self.box.channels)

    def _start_outputs(self) -> None:
        for level, convs in enumerate(self.reg_convs):
            self.box.start(convs[-1], half_anchors(self.prior_generator, level))
        if self.sigmoid_scores:
            for convs in self.cls_convs:
                nn.init.constant_(convs[-1].bias, bias_init_with_prob(self.prior_score))

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Σ over images of max(1, positives) for all, unless the boxes are weighted; see :func:`count_normalizers`."""
        return count_normalizers(targets.avg_factor, targets.avg_factor, weights, self.uniform_boxes)

    def one_hot_loss(self, logits: Outputs, targets: Targets, weights: Tensor, norm: Tensor) -> Tensor:
        """Softmax: in each image the positives, and the ``neg_pos_ratio`` times as many hardest background anchors.

        Which are the hardest is looked up without a graph; the losses are those of the chosen anchors alone.
        """
        mined = torch.cat((targets.pos, self._hardest(logits, targets, weights))).sort().values
        rows = Outputs(logits.levels, logits.width, Picked(logits.picked.layout, mined)).positives
        return (F.cross_entropy(rows, targets.labels[mined], reduction='none') * weights[mined]).sum() / norm

    @torch.no_grad()
    def _hardest(self, logits: Outputs, targets: Targets, weights: Tensor) -> Tensor:
        """The background anchors with the largest losses of their image, as numbers (K,) among the R locations."""
        layout = logits.picked.layout
        numbers = torch.arange(layout.total, device=weights.device)
        of_image = torch.cat(
            [numbers[a:b].view(layout.num_images, -1) for a, b in zip(layout.starts, layout.starts[1:])], dim=1
        )  # (N, R / N)
        background = targets.labels[of_image] == self.num_classes
        losses = torch.cat([background_loss(level, logits.width) for level in logits.levels], dim=1) * weights[of_image]
        num_background = background.sum(dim=1)
        num_positives = of_image.size(1) - num_background
        wanted = (self.train_cfg['neg_pos_ratio'] * num_positives.double()).long().minimum(num_background)  # (N,)
        hardest = losses.masked_fill(~background, -torch.inf).topk(int(wanted.max())).indices
        rank = torch.arange(hardest.size(1), device=weights.device)
        return of_image.gather(1, hardest)[rank < wanted[:, None]]


def background_loss(level: Tensor, width: int) -> Tensor:
    """Cross entropy of each location with the last of its ``width`` classes: (N, A · width, H, W) to (N, H · W · A)."""
    losses = -at_least_float(level).unflatten(1, (-1, width)).log_softmax(dim=2)[:, :, -1]  # (N, A, H, W)
    return losses.permute(0, 2, 3, 1).flatten(1)
