"""The loss steps of a dense detector, once for all hosts.

The loss is always the same six steps: flatten the levels (here: number their locations, so that outputs can be read
where they lie), pick the positives, decode their boxes, measure quality, box loss, class loss. What differs is asked of
three parties: the :class:`~mmdet_gfl.models.quality.Quality`, the :class:`~mmdet_gfl.models.boxes.BoxRepresentation`,
and the host head, which brings its towers and priors, ``targets``, ``coding`` and ``normalizers``.

Dimension letters: N images, L levels, A priors a cell, R = all priors of the batch, P positives, C classes, k outputs a
side.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.losses import FocalLoss
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_gfl.models.boxes.base import BoxRepresentation, SideCoding
from mmdet_gfl.models.losses.focal_loss_of_levels import focal_loss_of_levels, one_hot_focal_loss
from mmdet_gfl.models.quality.base import Quality
from mmdet_gfl.models.task_modules import Layout, Outputs, Picked, Positives, Targets, check_ground_truth
from mmdet_gfl.utils import build_part
from mmdet_gfl.utils.compiling import uncompiled

from .clipping_monitor import ClippingMonitor
from .predict_mixin import PredictMixin, square

__all__ = ['BRANCH_LOSS', 'DenseGFLMixin', 'conv_like', 'square']

#: What ATSS and FCOS train their branch with; the default on hosts that have none in MMDetection.
BRANCH_LOSS: dict[str, Any] = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)

#: Methods of MMDetection's heads that have no part in a head of ours, and what there is instead.
NEVER_CALLED = dict(
    loss_by_feat_single='DenseGFLMixin computes the losses of all levels at once. Override _losses, or write a Quality '
    'or a BoxRepresentation',
    _predict_by_feat_single='PredictMixin computes the detections of all images at once. Override predict_by_feat, '
    'class_scores or clip, or write a BoxRepresentation',
)


class DenseGFLMixin(PredictMixin):
    """Turns a dense head of MMDetection into a GFL host; stands before it in the bases.

    Args:
        *args: The host head's.
        quality: How localization quality is represented: a :class:`Quality` or its config.
            Default: ``dict(type='mmdet_gfl.JointQuality')``.
        box: How a box side is represented: a :class:`BoxRepresentation` or its config.
            Default: ``dict(type='mmdet_gfl.GeneralBox')``, with DFL.
        **kwargs: The host head's.

    Raises:
        ValueError: ``quality``, ``box`` or ``test_cfg.with_distribution`` is unknown, or they do not fit together.
    """

    #: Names of the host's output layers: class scores, box sides, quality branch.
    cls_name: ClassVar[str]
    reg_name: ClassVar[str]
    quality_name: ClassVar[str]
    #: Layers of the host that this head calls by another name, old name first.
    renamed: ClassVar[dict[str, str]] = {}
    #: Whether the host weights its own boxes by their quality; else Dirac boxes count 1 under ``box_weight='auto'``.
    weights_own_boxes: ClassVar[bool] = True

    def __init__(self, *args: Any, quality: Any = None, box: Any = None, **kwargs: Any) -> None:
        self.quality = build_part(
            'quality', dict(type='mmdet_gfl.JointQuality') if quality is None else quality, Quality
        )
        self.box = build_part('box', dict(type='mmdet_gfl.GeneralBox') if box is None else box, BoxRepresentation)
        loss_cls = self.quality.class_loss_cfg(kwargs.get('loss_cls'))
        if loss_cls is not None:
            kwargs['loss_cls'] = loss_cls
        super().__init__(*args, **kwargs)
        self._register(self.box.modules(self.loss_bbox), kwargs.get('loss_bbox'))
        self._clipping = ClippingMonitor()
        if self.test_cfg:
            self._check_with_distribution(self.test_cfg.get('with_distribution'))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses an override that nothing would call.

        Raises:
            TypeError: The class defines one of :data:`NEVER_CALLED`, or its host has its own ``loss`` or ``predict``.
        """
        super().__init_subclass__(**kwargs)
        for name in NEVER_CALLED.keys() & vars(cls):
            raise TypeError(f'{cls.__name__}.{name} would never be called: {NEVER_CALLED[name]}')
        for name in ('loss', 'predict'):
            first, *others = (base for base in cls.__mro__ if name in vars(base))
            host = others[0] if others and first in (DenseGFLMixin, PredictMixin) else BaseDenseHead
            if host is not BaseDenseHead:
                raise TypeError(
                    f'{cls.__name__}: {host.__name__}.{name} would never be called; to have it, write '
                    f'{name} = {host.__name__}.{name} in the class'
                )

    def check_box_loss(self) -> None:
        """Refuses an IoU loss that would be given what is no box.

        Raises:
            ValueError: Boxes are Dirac, and the host's loss looks at its own four numbers.
        """
        name = type(self.loss_bbox).__name__
        if self.box.in_host_coding and 'IoU' in name and not self.coding.in_pixels:
            raise ValueError(
                f'bbox_head.loss_bbox={name} compares boxes, but with box={type(self.box).__name__} the loss of this '
                f'head is given the four numbers that a box is coded in; use SmoothL1Loss or L1Loss, reg_decoded_bbox='
                f"True on a head with anchors, or box=dict(type='mmdet_gfl.GeneralBox')"
            )

    def _register(self, modules: dict[str, nn.Module], given: dict[str, Any] | None) -> None:
        """Registers the layers and losses of the box; says so where a ``loss_bbox`` of the config is not used."""
        if given is not None and modules['loss_bbox'] is not self.loss_bbox:
            print_log(
                f'bbox_head.loss_bbox={given["type"]} is superseded by {type(modules["loss_bbox"]).__name__} of '
                f'{type(self.box).__name__}; it has no effect',
                logger='current',
            )
        for name, module in modules.items():
            setattr(self, name, module)

    @property
    def coding(self) -> SideCoding:
        """The host's own coding of a box in four numbers."""
        raise NotImplementedError

    @property
    def uniform_boxes(self) -> bool:
        """Whether every positive weighs 1 in the box losses."""
        return self.quality.box_weight_kind(self.auto_box_weight) == 'uniform'

    @property
    def auto_box_weight(self) -> str | None:
        """What ``box_weight='auto'`` stands for here; None leaves it to the quality."""
        return 'uniform' if self.box.in_host_coding and not self.weights_own_boxes else None

    def check_axes(self) -> None:
        """Refuses what has no meaning on this host; called before the layers are made.

        Raises:
            ValueError: Quality and box representation do not fit the host or its arguments.
        """

    # Layers ---------------------------------------------------------------------------------------------------------

    def _init_layers(self) -> None:
        """The host's layers, then the box outputs resized to the representation, and the branch added or dropped."""
        self.check_axes()
        with warnings.catch_warnings():
            # MMDetection's ATSSHead asks for it itself; users can do nothing about it.
            warnings.filterwarnings('ignore', '.*`num_anchors` is deprecated')
            super()._init_layers()
        # In place: the order of the parameters is MMDetection's, which is how optimizers number their states.
        modules = [(self.renamed.get(name, name), module) for name, module in self._modules.items()]
        self._modules.clear()
        self._modules.update(modules)
        self._fit_layers()
        self._start_outputs()

    def _fit_layers(self) -> None:
        conv = getattr(self, self.reg_name)
        if self.box.channels != 1:
            setattr(self, self.reg_name, conv_like(conv, self.num_base_priors * 4 * self.box.channels))
        if not self.quality.branch:
            setattr(self, self.quality_name, nn.Identity())
        elif not hasattr(self, self.quality_name):
            setattr(self, self.quality_name, conv_like(conv, self.num_base_priors))

    def init_weights(self) -> None:
        """The host's ``init_cfg``, then where the box outputs start; a pretrained head is left alone."""
        super().init_weights()
        if not (isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained'):
            self._start_outputs()

    def _start_outputs(self) -> None:
        self.box.start(getattr(self, self.reg_name), self.start_distances())

    def start_distances(self) -> Tensor:
        """Where a box may start: l, t, r, b of the priors of a cell, (A, 4), in strides."""
        raise NotImplementedError

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits, box outputs, and with a branch its logits, of each level; see :meth:`loss_by_feat`."""
        return super().forward(x)[: 2 + self.quality.branch]

    def towers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features for the classes and for the boxes, of one level (N, channels, H, W)."""
        cls_feat = reg_feat = x
        for cls_conv, reg_conv in zip(self.cls_convs, self.reg_convs):
            cls_feat, reg_feat = cls_conv(cls_feat), reg_conv(reg_feat)
        return cls_feat, reg_feat

    # Loss -----------------------------------------------------------------------------------------------------------

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of a batch from its features; ``torch.compile`` sees the layers and nothing of the samples.

        It takes the names of images for constants, and would compile anew for others.
        """
        return self._loss_of(self(x), batch_data_samples)

    @uncompiled
    def _loss_of(self, outs: Any, batch_data_samples: SampleList) -> dict[str, Tensor]:
        gts, ignored, metas = unpack_gt_instances(batch_data_samples)
        return self.loss_by_feat(*outs, gts, metas, ignored)

    @uncompiled
    def loss_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *rest: Any, **named: Any
    ) -> dict[str, Tensor]:
        """Losses of a batch; the arguments are those of the MMDetection head at the same point of the plane.

        Args:
            cls_scores: A level's class logits, (N, A · C, H, W).
            bbox_preds: A level's box outputs, (N, A · 4k, H, W).
            *rest: ``centernesses`` (a level's branch logits, (N, A, H, W); only with a branch),
                ``batch_gt_instances``, ``batch_img_metas``, ``batch_gt_instances_ignore=None``.
            **named: The same by name.

        Returns:
            Losses by MMDetection's names, summed over the levels. Keys without ``loss`` are logged and not summed:
            ``pos_iou``, mean IoU of the positives (0 without any), and what the box representation reports.

        Raises:
            ValueError: An object is not finite or its label is not the model's (looked at on the CPU only).
        """
        branches, gts, metas, ignored = self._loss_arguments(*rest, **named)
        with torch.autocast(cls_scores[0].device.type, enabled=False):
            return self._losses(cls_scores, bbox_preds, branches, gts, metas, ignored)

    def _loss_arguments(self, *rest: Any, **named: Any) -> tuple[Any, Any, Any, Any]:
        """Branch logits (None without a branch), objects, meta information and ignored regions.

        Raises:
            TypeError: Too few, too many, or of other names.
        """

        def with_branch(
            centernesses: Any, batch_gt_instances: Any, batch_img_metas: Any, batch_gt_instances_ignore: Any = None
        ) -> tuple[Any, Any, Any, Any]:
            return centernesses, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore

        return with_branch(*rest, **named) if self.quality.branch else with_branch(None, *rest, **named)

    def _losses(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        branches: list[Tensor] | None,
        gts: Sequence[InstanceData],
        metas: Sequence[dict[str, Any]],
        ignored: Sequence[InstanceData] | None,
    ) -> dict[str, Tensor]:
        check_ground_truth(gts, metas, self.num_classes)
        sizes = [(level.size(-2), level.size(-1)) for level in cls_scores]
        targets = self.targets(sizes, gts, metas, ignored)

        picked = Picked(Layout(sizes, len(metas), self.prior_generator.num_base_priors), targets.pos)
        logits = Outputs(cls_scores, self.cls_out_channels, picked)
        raw = Outputs(bbox_preds, 4 * self.box.channels, picked).positives  # (P, 4k)
        boxes = self.box.decode(raw, targets.at, self)  # (P, 4)
        positives = Positives(logits.positives, boxes, targets, self.class_scores)
        weights = self.quality.box_weights(positives, self.auto_box_weight)  # (P,)
        cls_norm, box_norm = self.normalizers(targets, weights)

        losses = dict(loss_cls=self.quality.class_loss(logits, targets, positives, cls_norm, self))
        losses.update(self.box.losses(raw, boxes, targets, weights, box_norm, self))
        if branches is not None:
            quality = Outputs(branches, 1, picked).positives[:, 0]  # (P,)
            losses.update(self.quality.branch_losses(quality, positives, cls_norm, self))
        return self._with_measures(losses, positives)

    def _with_measures(self, losses: dict[str, Tensor], positives: Positives) -> dict[str, Tensor]:
        num_positives = len(positives.gt)
        losses['pos_iou'] = positives.iou.sum() / max(num_positives, 1)
        if self.training and 'clipped_share' in losses:
            self._clipping.update(losses['clipped_share'], num_positives, self.box.reach)
        return losses

    def targets(
        self,
        sizes: list[tuple[int, int]],
        gts: Sequence[InstanceData],
        metas: Sequence[dict[str, Any]],
        ignored: Sequence[InstanceData] | None,
    ) -> Targets:
        """The host's target assignment for feature maps of ``sizes`` (h, w)."""
        raise NotImplementedError

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What the host divides by: the class and branch losses, and the box losses with ``weights`` (P,)."""
        raise NotImplementedError

    def one_hot_loss(self, logits: Outputs, targets: Targets, weights: Tensor, norm: Tensor) -> Tensor:
        """The host's class loss for one-hot labels, with weights (R,), divided by ``norm``.

        MMDetection's focal loss is computed where the logits lie; any other gets them as rows.
        """
        loss = self.loss_cls
        if type(loss) is FocalLoss and loss.use_sigmoid and not loss.activated and loss.reduction == 'mean':
            labels = targets.labels[targets.pos]
            total = focal_loss_of_levels(
                logits,
                labels,
                lambda at_label: one_hot_focal_loss(at_label, loss.gamma, loss.alpha),
                None if targets.all_count and weights is targets.label_weights else weights,
                loss.gamma,
                1 - loss.alpha,
            )
            return loss.loss_weight * (total / (norm + torch.finfo(torch.float32).eps))  # as MMDetection divides
        return self.loss_cls(logits.rows, targets.labels, weights, avg_factor=norm)

    def one_hot_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The same location by location, before weights: logits (P, C), labels (P,) to losses (P,), summed over C."""
        losses = self.loss_cls(logits, labels, reduction_override='none')
        return losses if losses.dim() == 1 else losses.sum(dim=1)


def conv_like(conv: nn.Conv2d, out_channels: int) -> nn.Conv2d:
    """A convolution of the same geometry with other outputs."""
    geometry: dict[str, Any] = dict(kernel_size=conv.kernel_size, stride=conv.stride, padding=conv.padding)
    return nn.Conv2d(conv.in_channels, out_channels, **geometry)
