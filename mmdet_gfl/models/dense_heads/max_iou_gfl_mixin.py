"""Shared by hosts whose anchors are assigned by IoU."""

from __future__ import annotations

from torch import Tensor

from mmdet_gfl.models.task_modules import AnchorGrid, AssignmentBatch, MaxIoURules, Targets, match_max_iou

from .anchor_gfl_mixin import AnchorGFLMixin
from .normalizers import count_normalizers


class MaxIoUGFLMixin(AnchorGFLMixin):
    """An :class:`AnchorGFLMixin` that assigns by IoU, on the grid under MMDetection's ``MaxIoUAssigner``."""

    def targets(self, batch: AssignmentBatch) -> Targets:
        """Assignment by IoU: on the grid where the config allows it, see :meth:`on_grid`, else by MMDetection's."""
        if not self.on_grid(batch):
            return super().targets(batch)
        grid = AnchorGrid.of(self.prior_generator, batch.index, batch.batch_img_metas, batch.device)
        matched, weights = match_max_iou(grid, batch.gt_bboxes, MaxIoURules.of(self.assigner))
        return self.targets_on_grid(batch, grid, matched, weights)

    def on_grid(self, batch: AssignmentBatch) -> bool:
        """True if :func:`match_max_iou` is equal to this head's ``get_targets``."""
        return MaxIoURules.fit(self.assigner) and self.assigns_like_stock(batch)

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Σ over images of max(1, positives) for all, unless the boxes are weighted; see :func:`count_normalizers`."""
        return count_normalizers(targets.avg_factor, targets.avg_factor, weights, self.box_weight == 'uniform')
