"""RetinaNet with a BatchNorm per level as a host of GFL."""

from collections.abc import Iterable, Sequence
from typing import Any

from mmdet.models.dense_heads import RetinaSepBNHead
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor, nn

from mmdet_gfl.models.dense_heads.anchor_gfl_mixin import AnchorGFLMixin
from mmdet_gfl.models.dense_heads.dense_gfl_mixin import BRANCH_LOSS
from mmdet_gfl.registry import MODELS


@MODELS.register_module()
class RetinaSepBNGFLHead(AnchorGFLMixin, RetinaSepBNHead):
    """MMDetection's ``RetinaSepBNHead`` with any quality and any box representation."""

    stock_head = RetinaSepBNHead
    cls_name, reg_name, quality_name = 'retina_cls', 'retina_reg', 'retina_centerness'
    weights_own_boxes = False

    def __init__(self, *args: Any, loss_centerness: dict[str, Any] = BRANCH_LOSS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_centerness = MMDET_MODELS.build(loss_centerness)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits, box outputs, and with a branch its logits, of each level."""
        return self.finalize_outputs(tuple(zip(*map(self.forward_level, x, self.cls_convs, self.reg_convs))))

    def forward_level(
        self, x: Tensor, cls_convs: Iterable[nn.Module], reg_convs: Iterable[nn.Module]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of one level (N, channels, H, W) from its own layers."""
        cls_feat = reg_feat = x
        for cls_conv, reg_conv in zip(cls_convs, reg_convs):
            cls_feat, reg_feat = cls_conv(cls_feat), reg_conv(reg_feat)
        return self.retina_cls(cls_feat), self.retina_reg(reg_feat), self.retina_centerness(reg_feat)
