"""RTMDet (arXiv:2212.07784) as a host of GFL: a head whose assigner looks at the predictions.

Dimension letters: N images, K locations per image, P positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RTMDetHead, RTMDetSepBNHead
from mmdet.models.layers.transformer import inverse_sigmoid
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmdet.models.utils import multi_apply, sigmoid_geometric_mean
from torch import Tensor

from mmdet_gfl.models.boxes import HostBoxCoder
from mmdet_gfl.models.task_modules import AssignmentBatch, Locations, Targets, targets_from_levels
from mmdet_gfl.ops import upcast
from mmdet_gfl.registry import MODELS

from .anchor_gfl_mixin import AnchorBoxCoder
from .dense_gfl_mixin import DenseGFLMixin
from .normalizers import weight_normalizers


@MODELS.register_module()
class RTMDetGFLHead(DenseGFLMixin, RTMDetHead):
    """MMDetection's ``RTMDetHead`` with any quality and any box representation; by default General boxes with DFL.

    ``AssignedQuality``, the default, with ``DiracBox`` is MMDetection's head. General and Gaussian boxes are in strides
    and do not go through RTMDet's exponential. The class score learns the IoU that the assigner measured; with
    ``JointQuality`` it learns the same IoU, and the class score weights the boxes. Qualities with hard labels need a
    ``loss_cls`` for them, such as ``FocalLoss``. A branch is on the box tower.

    Raises:
        ValueError: The priors are not points, or ``bbox_coder`` does not code distances from them.
    """

    stock_head = RTMDetHead
    baseline_quality = 'AssignedQuality'
    default_quality = 'AssignedQuality'
    cls_name = 'rtm_cls'
    reg_name = 'rtm_reg'
    quality_name = 'rtm_centerness'
    assigns_quality = True

    def validate_axes(self) -> None:
        """Raise for priors and a coder with which no box can be decoded; MMDetection's defaults are such."""
        super().validate_axes()
        for key, part, kind in (
            ('anchor_generator', self.prior_generator, MlvlPointGenerator),
            ('bbox_coder', self.bbox_coder, DistancePointBBoxCoder),
        ):
            if not isinstance(part, kind):
                raise ValueError(
                    f'bbox_head.{key}={type(part).__name__} does not fit {type(self).__name__}, whose boxes are '
                    f"distances from points; use {key}=dict(type='{kind.__name__}', ...)"
                )

    @property
    def host_coder(self) -> HostBoxCoder:
        """The ``bbox_coder``'s: distances from the point, in pixels. The loss is given boxes."""
        return AnchorBoxCoder(self.bbox_coder, on_boxes=True)

    def prior_distances(self) -> Tensor:
        """One stride on each side, (1, 4), where RTMDet's exponential starts too.

        The assigner compares boxes, and the IoU that it measures weighs the box loss: boxes that hardly overlap
        with any object learn slowly.
        """
        return torch.full((1, 4), 1.0)

    def layer(self, name: str, level: int) -> Any:
        """The output layer or tower of a name at a level: here one serves all levels."""
        return getattr(self, name)

    def distances(self, outputs: Tensor, level: int) -> Tensor:
        """Box outputs of the last layer, scaled; those of a Dirac box as distances in pixels."""
        if self.box.uses_host_coder:
            return self.scales[level](upcast(outputs).exp()) * self.level_strides[level]
        return self.scales[level](upcast(outputs))

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits, box outputs, and with a branch its logits, of each level."""
        return self.finalize_outputs(multi_apply(self.forward_single, x, range(len(x))))

    def forward_single(self, x: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """One level (N, channels, H, W): class logits, box outputs, branch logits."""
        cls_feat = reg_feat = x
        for cls_conv, reg_conv in zip(self.layer('cls_convs', level), self.layer('reg_convs', level)):
            cls_feat, reg_feat = cls_conv(cls_feat), reg_conv(reg_feat)
        cls_score = self.layer('rtm_cls', level)(cls_feat)
        if self.with_objectness:
            objectness = self.layer('rtm_obj', level)(reg_feat)
            # In float32: in half precision the inverse is infinite from a score of 0.9998 on.
            score = sigmoid_geometric_mean(upcast(cls_score), upcast(objectness))
            cls_score = inverse_sigmoid(score).to(cls_score.dtype)
        bbox_pred = self.distances(self.layer('rtm_reg', level)(reg_feat), level)
        return cls_score, bbox_pred, self.layer(self.quality_name, level)(reg_feat)

    def targets(self, batch: AssignmentBatch) -> Targets:
        """Assignment by MMDetection's ``get_targets``, from the class logits and decoded boxes of all locations.

        Objects that are not finite would make all costs NaN; they are left out.
        """
        metas = batch.batch_img_metas
        self.validate_image_sizes(metas)
        priors, flags = self.get_anchors(batch.featmap_sizes, metas, device=batch.device)
        points = torch.cat(priors[0])  # (K, 4): x, y and the stride twice; before get_targets joins the list
        locations = Locations.of_priors(points[:, :2], points[:, 2])
        cls_scores, bbox_preds = batch.predictions()
        boxes = torch.stack([self.box.decode(of_image, locations, self) for of_image in bbox_preds])  # (N, K, 4)
        gts = batch.usable_gt_instances
        _, labels, label_weights, gt_bboxes, quality, *_ = self.get_targets(
            cls_scores, boxes, priors, flags, gts, metas, batch_gt_instances_ignore=batch.batch_gt_instances_ignore
        )
        targets = targets_from_levels(batch, labels, gt_bboxes, label_weights, locations, self.num_classes, quality)
        assert targets.quality is not None
        return targets._replace(avg_factor=targets.quality.sum()) if self.quality.soft_labels else targets

    def validate_image_sizes(self, metas: Sequence[dict[str, Any]]) -> None:
        """Raise where ``train_cfg.allowed_border`` rules out all locations of an image, which MMDetection cannot do."""
        smallest = min(min(meta['img_shape'][:2]) for meta in metas)
        border, stride = self.train_cfg['allowed_border'], min(self.level_strides)
        if 0 <= border <= stride - smallest:
            raise ValueError(
                f'train_cfg.allowed_border={border} leaves no valid location in an image of {smallest} pixels at '
                f'stride {stride}; use larger images, or allowed_border=-1'
            )

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Classes: Σ of the assigned qualities, or positives for hard labels. Boxes: Σ of the weights. At least 1."""
        return weight_normalizers(targets.avg_factor, weights, (1.0, 1.0))


@MODELS.register_module()
class RTMDetSepBNGFLHead(RTMDetGFLHead, RTMDetSepBNHead):
    """MMDetection's ``RTMDetSepBNHead``, the head of the released models, likewise; see :class:`RTMDetGFLHead`.

    ``exp_on_reg`` concerns Dirac boxes only.
    """

    stock_head = RTMDetSepBNHead

    def layer(self, name: str, level: int) -> Any:
        """The output layer or tower of a name at a level: each level has its own."""
        return getattr(self, name)[level]

    def distances(self, outputs: Tensor, level: int) -> Tensor:
        """Box outputs of the last layer; those of a Dirac box as distances in pixels."""
        outputs = upcast(outputs)
        if not self.box.uses_host_coder:
            return outputs
        stride = self.level_strides[level]
        return (outputs.exp() if self.exp_on_reg else outputs) * stride
