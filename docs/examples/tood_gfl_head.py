"""TOOD (arXiv:2108.07755) as a host of GFL."""

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads import TOODHead
from torch import Tensor

from mmdet_gfl.models.boxes import HostBoxCoder
from mmdet_gfl.models.dense_heads.anchor_gfl_mixin import AnchorGFLMixin
from mmdet_gfl.models.dense_heads.normalizers import weight_normalizers
from mmdet_gfl.models.task_modules import AssignmentBatch, Locations, Targets, targets_from_levels
from mmdet_gfl.registry import MODELS


class DecodedBoxCoder(HostBoxCoder):
    """Boxes xyxy in strides: TOOD's head decodes itself."""

    def decode(self, bbox_pred: Tensor, locations: Locations) -> Tensor:
        """Boxes (M, 4), xyxy in pixels."""
        return bbox_pred * locations.strides[:, None]

    def encode(self, boxes: Tensor, locations: Locations) -> Tensor:
        """Boxes (M, 4), xyxy in strides."""
        return boxes / locations.strides[:, None]


@MODELS.register_module()
class TOODGFLHead(AnchorGFLMixin, TOODHead):
    """MMDetection's ``TOODHead`` from ``initial_epoch`` on; before it, ATSS's positives have a metric of 1."""

    stock_head = TOODHead
    default_quality = baseline_quality = 'AssignedQuality'
    cls_name, reg_name, quality_name = 'tood_cls', 'tood_reg', 'tood_centerness'
    assigns_quality = True

    def __init__(self, *args: Any, loss_cls: dict[str, Any], box: Any = None, **kwargs: Any) -> None:
        loss_cls = {key: value for key, value in loss_cls.items() if key != 'activated'}  # of logits, see `forward`
        super().__init__(*args, loss_cls=loss_cls, box=box or dict(type='mmdet_gfl.DiracBox'), **kwargs)

    def validate_axes(self) -> None:
        """Raise for what the layers cannot predict."""
        super().validate_axes()
        if self.quality.branch or not self.box.uses_host_coder:
            raise ValueError('TOODGFLHead has Dirac boxes and no branch; use mmdet_gfl.DiracBox and JointQuality')

    @property
    def host_coder(self) -> DecodedBoxCoder:
        """Boxes in strides."""
        return DecodedBoxCoder()

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits of TOOD's probabilities, and decoded boxes, of each level."""
        scores, bbox_preds = TOODHead.forward(self, x)
        return self.finalize_outputs(([score.float().logit(eps=1e-6) for score in scores], bbox_preds))

    def targets(self, batch: AssignmentBatch) -> Targets:
        """TOOD's assignment, which looks at the predictions."""
        logits, bbox_pred = batch.predictions()  # (N, K, C), (N, K, 4)
        gts, metas = batch.usable_gt_instances, batch.batch_img_metas
        anchors, flags = self.get_anchors(batch.featmap_sizes, metas, device=batch.device)
        locations = self.all_locations(anchors[0])
        boxes, ignored = bbox_pred * locations.strides[:, None], batch.batch_gt_instances_ignore
        _, labels, label_weights, gt_bboxes, metric = self.get_targets(
            logits.sigmoid(), boxes, anchors, flags, gts, metas, ignored
        )
        targets = targets_from_levels(batch, labels, gt_bboxes, label_weights, locations, self.num_classes, metric)
        return targets._replace(avg_factor=targets.quality.sum())

    def clip(self, boxes: Tensor, corners: Tensor) -> Tensor:
        """Boxes as they are: MMDetection does not clip TOOD's."""
        return boxes

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the metrics and of the box weights: means over ranks, at least 1."""
        return weight_normalizers(targets.avg_factor, weights, (1.0, 1.0))
