"""ATSS (arXiv:1912.02424) as a host of GFL: the head of the paper's ablations."""

from __future__ import annotations

from typing import Sequence

import torch
from mmdet.models.dense_heads import ATSSHead
from mmdet.models.utils import multi_apply
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_gfl.models.task_modules import Locations, Targets
from mmdet_gfl.registry import MODELS

from .dense_gfl_mixin import DenseGFLMixin, _square, atss_normalizers


@MODELS.register_module()
class ATSSGFLHead(DenseGFLMixin, ATSSHead):
    """MMDetection's ``ATSSHead`` with any quality and any box representation; by default full GFL.

    Args:
        *args: ``ATSSHead``'s.
        quality: See :class:`DenseGFLMixin`.
        box: See :class:`DenseGFLMixin`.
        **kwargs: ``ATSSHead``'s.
    """

    cls_name = 'atss_cls'
    reg_name = 'atss_reg'
    quality_name = 'atss_centerness'

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits, box outputs, and with a branch its logits, of each level; see :meth:`loss_by_feat`."""
        outs = multi_apply(self.forward_single, x, self.scales)
        return outs if self.quality.branch else outs[:2]

    def forward_single(self, x: Tensor, scale: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """One level (N, channels, H, W): the two towers, then the output layers by their names."""
        cls_feat = reg_feat = x
        for cls_conv, reg_conv in zip(self.cls_convs, self.reg_convs):
            cls_feat, reg_feat = cls_conv(cls_feat), reg_conv(reg_feat)
        return (
            getattr(self, self.cls_name)(cls_feat),
            scale(getattr(self, self.reg_name)(reg_feat)).float(),
            getattr(self, self.quality_name)(reg_feat),
        )

    def targets(
        self,
        sizes: list[tuple[int, int]],
        gts: Sequence[InstanceData],
        metas: Sequence[dict],
        ignored: Sequence[InstanceData] | None,
    ) -> Targets:
        """ATSS assignment by MMDetection's assigner, flattened."""
        device = gts[0].bboxes.device
        anchors, flags = self.get_anchors(sizes, metas, device=device)
        anchors, labels, label_weights, boxes, _, avg_factor = self.get_targets(
            anchors, flags, gts, metas, batch_gt_instances_ignore=ignored
        )
        strides = torch.cat([
            level.new_full((level.numel(),), _square(stride), dtype=torch.float)
            for level, stride in zip(labels, self.prior_generator.strides)
        ])
        flat_labels = _rows(labels)
        pos = (flat_labels < self.num_classes).nonzero().squeeze(1)
        return Targets(
            labels=flat_labels,
            label_weights=_rows(label_weights),
            pos=pos,
            gt=_rows(boxes, 4)[pos],
            at=Locations.of_priors(_rows(anchors, 4)[pos], strides[pos]),
            avg_factor=avg_factor,
            num_images=len(metas),
        )

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See :func:`atss_normalizers`."""
        return atss_normalizers(targets, weights)


def _rows(levels: Sequence[Tensor], *width: int) -> Tensor:
    """Levels (N, priors, *width) to (R, *width)."""
    return torch.cat([level.reshape(-1, *width) for level in levels])
