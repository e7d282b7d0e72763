"""What hosts share whose anchors are assigned by IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads import AnchorHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import AnchorGrid, MaxIoURules, Targets, max_iou_owners

from .anchor_gfl_mixin import AnchorGFLMixin


class MaxIoUGFLMixin(AnchorGFLMixin):
    """An :class:`AnchorGFLMixin` that assigns on the grid where the config has MMDetection's ``MaxIoUAssigner``."""

    def targets(
        self,
        sizes: list[tuple[int, int]],
        gts: Sequence[InstanceData],
        metas: Sequence[dict[str, Any]],
        ignored: Sequence[InstanceData] | None,
    ) -> Targets:
        """Assignment by IoU: on the grid where the config allows it, see :meth:`on_grid`, else by MMDetection's."""
        if not self.on_grid(ignored):
            return super().targets(sizes, gts, metas, ignored)
        grid = AnchorGrid.of(self.prior_generator, sizes, metas, gts[0].labels.device)
        boxes = [get_box_tensor(gt.bboxes) for gt in gts]
        owners, weights = max_iou_owners(grid, boxes, MaxIoURules.of(self.assigner))
        return self.targets_on_grid(grid, owners, weights, gts)

    def on_grid(self, ignored: Sequence[InstanceData] | None) -> bool:
        """Whether :func:`max_iou_owners` does what this head's ``get_targets`` would do."""
        return MaxIoURules.fit(self.assigner) and self.assigns_like(AnchorHead, ignored)
