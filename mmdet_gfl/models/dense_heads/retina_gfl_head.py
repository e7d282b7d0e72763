"""RetinaNet (arXiv:1708.02002) as a host of GFL."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor

from mmdet_gfl.registry import MODELS

from .anchor_gfl_mixin import AnchorGFLMixin
from .dense_gfl_mixin import BRANCH_LOSS


@MODELS.register_module()
class RetinaGFLHead(AnchorGFLMixin, RetinaHead):
    """MMDetection's ``RetinaHead`` with any quality and any box representation; by default full GFL.

    ``NoQuality`` with ``DiracBox`` is MMDetection's head. General and Gaussian boxes are l, t, r, b from the anchor's
    centre in strides; a Gaussian box starts at half its anchor: 1.4 to 4.5 strides with the usual nine. A branch is on
    the box tower, as in ATSS; its loss is ``loss_centerness``, a BCE.
    """

    stock_head = RetinaHead
    cls_name = 'retina_cls'
    reg_name = 'retina_reg'
    quality_name = 'retina_centerness'
    weights_own_boxes = False

    def __init__(self, *args: Any, loss_centerness: dict[str, Any] = BRANCH_LOSS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_centerness = MMDET_MODELS.build(loss_centerness)

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One level (N, channels, H, W): class logits, box outputs, branch logits."""
        cls_feat, reg_feat = self.towers(x)
        return self.retina_cls(cls_feat), self.retina_reg(reg_feat), self.retina_centerness(reg_feat)
