"""ATSS (arXiv:1912.02424) as a host of GFL: the head of the paper's ablations."""

from __future__ import annotations

from typing import Any, ClassVar

from mmdet.models.dense_heads import ATSSHead
from mmdet.models.task_modules.assigners import ATSSAssigner
from torch import Tensor, nn

from mmdet_gfl.models.boxes import HostBoxCoder
from mmdet_gfl.models.task_modules import AnchorGrid, AssignmentBatch, Targets, match_atss
from mmdet_gfl.registry import MODELS

from .anchor_gfl_mixin import AnchorBoxCoder, AnchorGFLMixin
from .normalizers import weight_normalizers


@MODELS.register_module()
class ATSSGFLHead(AnchorGFLMixin, ATSSHead):
    """MMDetection's ``ATSSHead`` with any quality and any box representation; by default full GFL.

    ``CenternessBranch`` with ``DiracBox`` is MMDetection's head. A Gaussian box starts at half the anchor, 4 strides
    with the usual anchors.
    """

    stock_head = ATSSHead
    baseline_quality = 'CenternessBranch'
    cls_name = 'atss_cls'
    reg_name = 'atss_reg'
    quality_name = 'atss_centerness'
    #: Layers of GFL's head, the same detector, and their names here.
    aliases: ClassVar[dict[str, str]] = dict(gfl_cls='atss_cls', gfl_reg='atss_reg')

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for old, new in self.aliases.items():
            for name in ('weight', 'bias'):
                if f'{prefix}{old}.{name}' in state_dict and not hasattr(self, old):
                    state_dict[f'{prefix}{new}.{name}'] = state_dict.pop(f'{prefix}{old}.{name}')
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def host_coder(self) -> HostBoxCoder:
        """The ``bbox_coder``'s; the loss of ATSS is always given boxes."""
        return AnchorBoxCoder(self.bbox_coder, on_boxes=True)

    def forward_single(self, x: Tensor, scale: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """One level (N, channels, H, W): the two towers, then the output layers by their names."""
        cls_feat, reg_feat = self.towers(x)
        return (
            getattr(self, self.cls_name)(cls_feat),
            scale(getattr(self, self.reg_name)(reg_feat)).float(),
            getattr(self, self.quality_name)(reg_feat),
        )

    def match(self, grid: AnchorGrid, boxes: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Matching by ATSS, and the weights of the locations."""
        return match_atss(grid, boxes, self.assigner.topk), grid.label_weights()

    def on_grid(self, batch: AssignmentBatch) -> bool:
        """True if :func:`match_atss` is equal to this head's ``get_targets``.

        That is ATSS as the paper has it, with one anchor per cell, and nothing of MMDetection's assignment overridden.
        """
        assigner = self.assigner
        return (
            type(assigner) is ATSSAssigner
            and assigner.alpha is None
            and self.num_base_priors == 1
            and self.assigns_as(self.stock_head, batch)
        )

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Classes: Σ over images of max(1, positives). Boxes: Σ of the weights, at least 1. Means over ranks."""
        return weight_normalizers(targets.avg_factor, weights, (0.0, 1.0))
