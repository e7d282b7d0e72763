"""FoveaBox (arXiv:1904.03797) as a host of GFL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import FoveaHead
from mmdet.models.utils import multi_apply
from mmdet.registry import MODELS as MMDET_MODELS
from torch import Tensor

from mmdet_gfl.models.boxes import HostBoxCoder
from mmdet_gfl.models.task_modules import AssignmentBatch, Locations, PointGrid, Targets, match_fovea
from mmdet_gfl.ops import constant_like
from mmdet_gfl.registry import MODELS

from .dense_gfl_mixin import BRANCH_LOSS, DenseGFLMixin
from .normalizers import weight_normalizers
from .points import assigns_as, grid_targets, stock_targets
from .predict_mixin import scalar_stride


class FoveaBoxCoder(HostBoxCoder):
    """The logarithm of the distances l, t, r, b, in base edges of the level.

    ``strides``, ascending, and ``base_edges`` are those of the levels, in pixels.
    """

    on_boxes = False
    #: FoveaBox learns no distance beyond these, in base edges.
    limits = (1 / 16, 16.0)

    def __init__(self, strides: Sequence[int], base_edges: Sequence[int]) -> None:
        self.strides = strides
        self.base_edges = base_edges

    def _unit(self, locations: Locations) -> Tensor:
        """Base edges in strides, (M, 1)."""
        strides = locations.strides
        level = (strides[:, None] > constant_like(strides, self.strides)).sum(dim=1)
        return (constant_like(strides, self.base_edges)[level] / strides)[:, None]

    def decode(self, bbox_pred: Tensor, locations: Locations) -> Tensor:
        """Boxes (M, 4), xyxy in pixels."""
        return locations.boxes(bbox_pred.exp() * self._unit(locations))

    def encode(self, boxes: Tensor, locations: Locations) -> Tensor:
        """Logarithms (M, 4) of the distances, clamped to :attr:`limits`."""
        return (locations.distances(boxes) / self._unit(locations)).clamp(*self.limits).log()


@MODELS.register_module()
class FoveaGFLHead(DenseGFLMixin, FoveaHead):
    """MMDetection's ``FoveaHead`` with any quality and any box representation; by default full GFL.

    ``NoQuality`` with ``DiracBox`` is MMDetection's head. A Gaussian box starts at the base edge on each side, where
    the logarithm of a Dirac box starts: 2 strides with the usual levels. A branch is on the box tower; its loss is
    ``loss_centerness``, a BCE.

    Raises:
        ValueError: ``with_deform`` with other than Dirac boxes, or strides that do not ascend.
    """

    stock_head = FoveaHead
    cls_name = 'conv_cls'
    reg_name = 'conv_reg'
    quality_name = 'conv_centerness'
    weights_own_boxes = False

    def __init__(self, *args: Any, loss_centerness: dict[str, Any] = BRANCH_LOSS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_centerness = MMDET_MODELS.build(loss_centerness)
        self.validate_box_loss()

    def validate_axes(self) -> None:
        """Raise for boxes that the deformable convolution cannot take, and for strides that do not ascend."""
        super().validate_axes()
        if self.with_deform and not self.box.uses_host_coder:
            raise ValueError(
                f'bbox_head.with_deform=True needs the four numbers of a Dirac box as the offsets of its deformable '
                f"convolution, got box={type(self.box).__name__}; use box=dict(type='mmdet_gfl.DiracBox'), or "
                f'with_deform=False'
            )
        strides = [scalar_stride(stride) for stride in self.strides]
        if any(low >= high for low, high in zip(strides, strides[1:])):
            raise ValueError(f'bbox_head.strides={strides} must ascend from level to level')

    @property
    def host_coder(self) -> FoveaBoxCoder:
        """The logarithm of the distances in base edges."""
        return FoveaBoxCoder(self.level_strides, self.base_edge_list)

    def prior_distances(self) -> Tensor:
        """The base edge in strides on each side, (1, 4), the mean over the levels."""
        units = [edge / stride for edge, stride in zip(self.base_edge_list, self.level_strides)]
        return torch.full((1, 4), sum(units) / len(units))

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits, box outputs, and with a branch its logits, of each level."""
        return self.finalize_outputs(multi_apply(self.forward_single, x))

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One level (N, channels, H, W): class logits, box outputs, branch logits."""
        cls_feat = reg_feat = x
        for conv in self.reg_convs:
            reg_feat = conv(reg_feat)
        bbox_pred = self.conv_reg(reg_feat)
        if self.with_deform:
            cls_feat = self.feature_adaption(cls_feat, bbox_pred.exp())
        for conv in self.cls_convs:
            cls_feat = conv(cls_feat)
        return self.conv_cls(cls_feat), bbox_pred, self.conv_centerness(reg_feat)

    def targets(self, batch: AssignmentBatch) -> Targets:
        """FoveaBox's assignment; it does not use ignored regions, as in MMDetection.

        On the grid, unless a subclass has overridden what MMDetection assigns by.
        """
        if assigns_as(self, FoveaHead):
            grid = PointGrid.of(self.prior_generator, batch.index, batch.device)
            return grid_targets(self, batch, grid, match_fovea(grid, batch.gt_bboxes, self.scale_ranges, self.sigma))
        sizes = batch.featmap_sizes
        return stock_targets(self, batch, lambda points, gts: self.get_targets(gts, sizes, points)[0])

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Classes: positives + images. Boxes: Σ of the weights, at least 1e-6: positives, unless weighted."""
        return weight_normalizers(targets.avg_factor + targets.num_images, weights, (0.0, 1e-6))

    def clip(self, boxes: Tensor, corners: Tensor) -> Tensor:
        """Boxes (M, 4) clipped to the last pixels of their images, as FoveaBox does."""
        return super().clip(boxes, corners - 1)
