"""ATSS (arXiv:1912.02424) as a host of GFL: the head of the paper's ablations."""

from __future__ import annotations

from mmdet.models.dense_heads import ATSSHead
from torch import Tensor, nn

from mmdet_gfl.models.task_modules import Targets
from mmdet_gfl.registry import MODELS

from .anchor_gfl_mixin import AnchorCoding, AnchorGFLMixin
from .normalizers import atss_normalizers


@MODELS.register_module()
class ATSSGFLHead(AnchorGFLMixin, ATSSHead):
    """MMDetection's ``ATSSHead`` with any quality and any box representation; by default full GFL.

    ``CenternessBranch`` with ``DiracBox`` is MMDetection's head. A Gaussian box starts at half the anchor, 4 strides
    with the usual anchors.

    Args:
        *args: ``ATSSHead``'s.
        quality: See :class:`DenseGFLMixin`.
        box: See :class:`DenseGFLMixin`.
        **kwargs: ``ATSSHead``'s.
    """

    cls_name = 'atss_cls'
    reg_name = 'atss_reg'
    quality_name = 'atss_centerness'

    @property
    def coding(self) -> AnchorCoding:
        """The ``bbox_coder``'s; the loss of ATSS always looks at boxes."""
        return AnchorCoding(self.bbox_coder, decoded=True)

    def forward_single(self, x: Tensor, scale: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """One level (N, channels, H, W): the two towers, then the output layers by their names."""
        cls_feat, reg_feat = self.towers(x)
        return (
            getattr(self, self.cls_name)(cls_feat),
            scale(getattr(self, self.reg_name)(reg_feat)).float(),
            getattr(self, self.quality_name)(reg_feat),
        )

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`atss_normalizers`."""
        return atss_normalizers(targets, weights)
