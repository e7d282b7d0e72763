"""ATSS (arXiv:1912.02424) as a host of GFL: the head of the paper's ablations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads import ATSSHead
from mmdet.models.task_modules.assigners import ATSSAssigner
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_gfl.models.task_modules import AnchorGrid, Targets, atss_owners
from mmdet_gfl.registry import MODELS

from .anchor_gfl_mixin import AnchorCoding, AnchorGFLMixin
from .normalizers import atss_normalizers

#: A method of MMDetection's assignment that only this head has.
WITHIN = 'get_num_level_anchors_inside'


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

    def targets(
        self,
        sizes: list[tuple[int, int]],
        gts: Sequence[InstanceData],
        metas: Sequence[dict[str, Any]],
        ignored: Sequence[InstanceData] | None,
    ) -> Targets:
        """ATSS's assignment: on the grid where the config allows it, see :meth:`on_grid`, else by MMDetection's."""
        if not self.on_grid(ignored):
            return super().targets(sizes, gts, metas, ignored)
        grid = AnchorGrid.of(self.prior_generator, sizes, metas, gts[0].labels.device)
        owners = atss_owners(grid, [get_box_tensor(gt.bboxes) for gt in gts], self.assigner.topk)
        return self.targets_on_grid(grid, owners, grid.weights(), gts)

    def on_grid(self, ignored: Sequence[InstanceData] | None) -> bool:
        """Whether :func:`atss_owners` does what this head's ``get_targets`` would do.

        That is ATSS as the paper has it, with one anchor a cell, and nothing of MMDetection's assignment overridden.
        """
        assigner = self.assigner
        return (
            type(assigner) is ATSSAssigner
            and assigner.alpha is None
            and self.num_base_priors == 1
            and getattr(type(self), WITHIN) is getattr(ATSSHead, WITHIN)
            and self.assigns_like(ATSSHead, ignored)
        )

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`atss_normalizers`."""
        return atss_normalizers(targets, weights)
