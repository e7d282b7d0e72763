"""The loss steps of a dense detector, once for all hosts.

The loss is always the same six steps: index the locations of all levels, match them to objects, gather and decode the
positives, measure their quality, box loss, class loss. Three parties supply the variants: the
:class:`~mmdet_gfl.models.quality.Quality`, the :class:`~mmdet_gfl.models.boxes.BoxRepresentation`, and the host head,
which supplies its towers and priors, ``targets``, ``host_coder`` and ``normalizers``.

Dimension letters: N images, L levels, A priors per cell, R locations of the batch, P positives, C classes, k outputs
per side.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, autocast, nn

from mmdet_gfl.models.boxes.base import BoxRepresentation, HostBoxCoder
from mmdet_gfl.models.losses import classification_loss
from mmdet_gfl.models.quality.base import Quality
from mmdet_gfl.models.task_modules import (
    AssignmentBatch,
    Positives,
    Targets,
    validate_ground_truth,
    with_integer_labels,
)
from mmdet_gfl.ops import LevelPredictions, LocationIndex
from mmdet_gfl.utils import build_part
from mmdet_gfl.utils.compiling import uncompiled

from .clipping_monitor import ClippingMonitor
from .predict_mixin import PredictMixin

#: The branch loss of ATSS and FCOS; the default on hosts that have no branch in MMDetection.
BRANCH_LOSS: dict[str, Any] = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)

#: Methods of MMDetection's heads that no host of ours calls, and the extension points in their place.
NEVER_CALLED = dict(
    loss_by_feat_single='DenseGFLMixin computes the losses of all levels at once. Override compute_losses, or write a '
    'Quality or a BoxRepresentation',
    _predict_by_feat_single='PredictMixin computes the detections of all images at once. Override predict_by_feat, '
    'class_scores or clip, or write a BoxRepresentation',
)


class DenseGFLMixin(PredictMixin):
    """Mixin that turns a dense head of MMDetection into a GFL host; stands before it in the bases.

    A host sets the class attributes below, and defines :meth:`targets`, :attr:`host_coder`, :meth:`normalizers` and
    :meth:`prior_distances`. Everything else that is public may be overridden.

    Args:
        *args: The host head's.
        quality: How localization quality is represented: a :class:`Quality` or its config.
            Default: :attr:`default_quality`.
        box: How a box side is represented: a :class:`BoxRepresentation` or its config.
            Default: ``dict(type='mmdet_gfl.GeneralBox')``, with DFL.
        **kwargs: The host head's.

    Raises:
        ValueError: ``quality``, ``box`` or ``test_cfg.with_distribution`` is unknown, or they do not fit together.
    """

    #: MMDetection's head, and the quality with which, and Dirac boxes, the host computes the same.
    stock_head: ClassVar[type | None] = None
    baseline_quality: ClassVar[str] = 'NoQuality'
    #: Whether the head takes ``quality`` and ``box``; else its arguments are those of :attr:`stock_head`, which is at
    #: one point of the plane.
    free_axes: ClassVar[bool] = True
    #: The quality by default.
    default_quality: ClassVar[str] = 'JointQuality'
    #: Names of the host's output layers: class scores, box sides, quality branch.
    cls_name: ClassVar[str]
    reg_name: ClassVar[str]
    quality_name: ClassVar[str]
    #: Layers of the host that this head has under another name, old name first.
    renamed_layers: ClassVar[dict[str, str]] = {}
    #: Whether the host weights its own boxes by their quality; else Dirac boxes weigh 1 under ``box_weight='auto'``.
    weights_own_boxes: ClassVar[bool] = True
    #: Whether the host's assigner measures a quality, see :attr:`Targets.quality`.
    assigns_quality: ClassVar[bool] = False

    def __init__(self, *args: Any, quality: Any = None, box: Any = None, **kwargs: Any) -> None:
        quality = dict(type=f'mmdet_gfl.{self.default_quality}') if quality is None else quality
        self.quality = build_part('quality', quality, Quality)
        self.box = build_part('box', dict(type='mmdet_gfl.GeneralBox') if box is None else box, BoxRepresentation)
        #: The weight of a positive in the box losses: ``'quality'``, ``'score'`` or ``'uniform'``.
        self.box_weight = self.quality.resolve_box_weight(
            'uniform' if self.box.uses_host_coder and not self.weights_own_boxes else None
        )
        loss_cls = self.quality.loss_cls_cfg(kwargs.get('loss_cls'))
        if loss_cls is not None:
            kwargs['loss_cls'] = loss_cls
        super().__init__(*args, **kwargs)
        self._register(kwargs.get('loss_bbox'))
        self.init_outputs()
        self._clipping = ClippingMonitor()
        if self.test_cfg:
            self._validate_with_distribution(self.test_cfg.get('with_distribution'))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raise ``TypeError`` for what nothing would call: :data:`NEVER_CALLED`, the host's ``loss`` or ``predict``."""
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

    def _register(self, loss_bbox: dict[str, Any] | None) -> None:
        """Register the layers and losses of box and quality; log where a ``loss_bbox`` of the config is not used."""
        modules = self.box.build_modules(self)
        new_loss = modules.get('loss_bbox', self.loss_bbox)
        if loss_bbox is not None and new_loss is not self.loss_bbox:
            print_log(
                f'bbox_head.loss_bbox={loss_bbox["type"]} is superseded by {type(new_loss).__name__} of '
                f'{type(self.box).__name__}; it has no effect',
                logger='current',
            )
        for name, module in modules.items():
            setattr(self, name, module)
        for name, module in self.quality.build_modules(self).items():
            setattr(self, name, module)

    @property
    def host_coder(self) -> HostBoxCoder:
        """The host's own coding of a box in four numbers."""
        raise NotImplementedError

    def validate_axes(self) -> None:
        """Raise ``ValueError`` for axes that have no meaning on this host; called before the layers exist."""
        if self.quality.needs_assigned_quality and not self.assigns_quality:
            raise ValueError(
                f'quality={type(self.quality).__name__} learns what a dynamic assigner measures, and the assigner of '
                f"{type(self).__name__} measures nothing; use quality=dict(type='mmdet_gfl.JointQuality')"
            )

    def validate_box_loss(self) -> None:
        """Raise ``ValueError`` for an IoU loss of Dirac boxes whose inputs would be the host's own four numbers."""
        name = type(self.loss_bbox).__name__
        if self.box.uses_host_coder and 'IoU' in name and not self.host_coder.on_boxes:
            raise ValueError(
                f'bbox_head.loss_bbox={name} compares boxes, but with box={type(self.box).__name__} the loss of this '
                f'head is given the four numbers that a box is coded in; use SmoothL1Loss or L1Loss, reg_decoded_bbox='
                f"True on a head with anchors, or box=dict(type='mmdet_gfl.GeneralBox')"
            )

    # Layers ---------------------------------------------------------------------------------------------------------

    def _init_layers(self) -> None:
        """The host's layers, then the box outputs resized to the representation, and the branch added or dropped."""
        self.validate_axes()
        with warnings.catch_warnings():
            # MMDetection's ATSSHead asks for it itself; users can do nothing about it.
            warnings.filterwarnings('ignore', '.*`num_anchors` is deprecated')
            super()._init_layers()
        # In place: the order of the parameters is MMDetection's, which is how optimizers number their states.
        modules = [(self.renamed_layers.get(name, name), module) for name, module in self._modules.items()]
        self._modules.clear()
        self._modules.update(modules)
        self.adapt_layers()

    def adapt_layers(self) -> None:
        """Resize the box outputs to the representation, and add or drop the branch; one layer, or one per level."""
        layers = getattr(self, self.reg_name)
        if self.box.channels != 1:
            num_outputs = self.num_base_priors * 4 * self.box.channels
            setattr(self, self.reg_name, map_layers(lambda conv: conv_like(conv, num_outputs), layers))
        if not self.quality.branch:
            setattr(self, self.quality_name, map_layers(lambda _: nn.Identity(), layers))
        elif not hasattr(self, self.quality_name):
            setattr(self, self.quality_name, map_layers(lambda conv: conv_like(conv, self.num_base_priors), layers))

    def init_weights(self) -> None:
        """Apply the host's ``init_cfg``, then initialize the outputs; a pretrained head is left as it is."""
        super().init_weights()
        if not (isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained'):
            self.init_outputs()

    def init_outputs(self) -> None:
        """Initialize what the box representation and the quality bring along, after the host's own initialization."""
        distances = self.prior_distances()
        start = self.box.init_at_priors if self.assigns_quality else self.box.init_weights
        map_layers(lambda conv: start(conv, distances), getattr(self, self.reg_name))
        self.quality.init_weights(self)

    def prior_distances(self) -> Tensor:
        """A suitable start for a box: l, t, r, b of the priors of a cell, (A, 4), in strides."""
        raise NotImplementedError

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits, box outputs, and with a branch its logits, of each level; see :meth:`loss_by_feat`."""
        return self.finalize_outputs(super().forward(x))

    def finalize_outputs(self, outs: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], ...]:
        """The outputs of a forward pass as losses and predictions take them; each ``forward`` ends with it.

        ``outs`` are class, box and branch outputs of each level; the latter are dropped without a branch.
        """
        cls_scores, bbox_preds, *branch = outs[: 2 + self.quality.branch]
        logits = [self.quality.class_logits(*level, self) for level in zip(cls_scores, bbox_preds)]
        return logits, *map(list, (bbox_preds, *branch))

    def towers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features for the classes and for the boxes, of one level (N, channels, H, W)."""
        cls_feat = reg_feat = x
        for cls_conv, reg_conv in zip(self.cls_convs, self.reg_convs):
            cls_feat, reg_feat = cls_conv(cls_feat), reg_conv(reg_feat)
        return cls_feat, reg_feat

    # Loss -----------------------------------------------------------------------------------------------------------

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of a batch from its features; ``torch.compile`` traces the layers and nothing of the samples.

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
            cls_scores: Class logits of each level, (N, A · C, H, W).
            bbox_preds: Box outputs of each level, (N, A · 4k, H, W).
            *rest: ``centernesses`` (branch logits of each level, (N, A, H, W); only with a branch),
                ``batch_gt_instances``, ``batch_img_metas``, ``batch_gt_instances_ignore=None``.
            **named: The same by name.

        Returns:
            Losses by MMDetection's names, summed over the levels. Keys without ``loss`` are logged and not summed:
            ``pos_iou``, mean IoU of the positives (0 without any), and what the box representation reports.

        Raises:
            ValueError: An object is not finite or its label is not the model's (validated on the CPU only).
        """
        no_branch = () if self.quality.branch else (None,)
        branches, gts, metas, ignored = _loss_arguments(*no_branch, *rest, **named)
        sizes = [(level.size(-2), level.size(-1)) for level in cls_scores]
        with autocast(cls_scores[0].device.type, enabled=False):
            batch = self.assignment_batch(sizes, gts, metas, ignored, cls_scores, bbox_preds)
            return self.compute_losses(batch, branches)

    def compute_losses(self, batch: AssignmentBatch, branches: list[Tensor] | None) -> dict[str, Tensor]:
        """The six steps, with autocast off; ``branches`` are branch logits of each level, (N, A, H, W), or None."""
        validate_ground_truth(batch.batch_gt_instances, batch.batch_img_metas, self.num_classes)
        logits, box_outputs = batch.cls_scores, batch.bbox_preds
        assert logits is not None and box_outputs is not None
        targets = self.targets(batch)

        bbox_pred = box_outputs.gather(targets.pos)  # (P, 4k)
        boxes = self.box.decode(bbox_pred, targets.locations, self)  # (P, 4)
        positives = Positives(logits.gather(targets.pos), boxes, targets, self.class_scores)
        weights = self.quality.box_weights(positives, self.box_weight)  # (P,)
        cls_factor, box_factor = self.normalizers(targets, weights)

        branch = None if branches is None else LevelPredictions(branches, 1, batch.index).gather(targets.pos)[:, 0]
        losses = self.quality.losses(logits, branch, targets, positives, cls_factor, self)
        losses |= self.box.losses(bbox_pred, boxes, targets, weights, box_factor, self)
        return self._with_measures(losses, positives)

    def _with_measures(self, losses: dict[str, Tensor], positives: Positives) -> dict[str, Tensor]:
        num_positives = len(positives.gt_bboxes)
        losses['pos_iou'] = positives.iou.sum() / max(num_positives, 1)
        if self.training and 'clipped_share' in losses:
            self._clipping.update(losses['clipped_share'], num_positives, self.box.max_distance)
        return losses

    def assignment_batch(
        self,
        featmap_sizes: Sequence[tuple[int, int]],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData] | None = None,
        cls_scores: Sequence[Tensor] | None = None,
        bbox_preds: Sequence[Tensor] | None = None,
    ) -> AssignmentBatch:
        """The argument of :meth:`targets`, for levels of ``featmap_sizes`` (h, w).

        ``cls_scores`` and ``bbox_preds``, the outputs of each level, are needed where the assigner is dynamic.
        """
        index = LocationIndex(featmap_sizes, len(batch_img_metas), self.prior_generator.num_base_priors)
        return AssignmentBatch(
            index,
            [with_integer_labels(gt) for gt in batch_gt_instances],
            batch_img_metas,
            batch_gt_instances_ignore,
            None if cls_scores is None else LevelPredictions(cls_scores, self.cls_out_channels, index),
            None if bbox_preds is None else LevelPredictions(bbox_preds, 4 * self.box.channels, index),
        )

    def targets(self, batch: AssignmentBatch) -> Targets:
        """The host's target assignment."""
        raise NotImplementedError

    def normalizers(self, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Divisors of the class and branch losses, and of the box losses with ``weights`` (P,)."""
        raise NotImplementedError

    def hard_label_loss(
        self,
        logits: LevelPredictions,
        targets: Targets,
        weights: Tensor | None = None,
        avg_factor: Tensor | float = 1.0,
        reduction: str = 'mean',
    ) -> Tensor:
        """The host's class loss for hard labels.

        Args:
            logits: Class logits.
            targets: The positives and their labels.
            weights: Weights of all locations, (R,); None: 1.
            avg_factor: Divides the sum.
            reduction: ``'mean'``: all locations, weighted and divided, a scalar. ``'none'``: the positives' losses
                (P,), summed over the classes, before weights.
        """
        if reduction == 'none':
            losses = self.loss_cls(logits.gather(targets.pos), targets.labels, reduction_override='none')
            return losses if losses.dim() == 1 else losses.sum(dim=1)
        return classification_loss(
            self.loss_cls, logits, targets.pos, targets.labels, None, weights, avg_factor, self.num_classes
        )


def _loss_arguments(
    centernesses: Any, batch_gt_instances: Any, batch_img_metas: Any, batch_gt_instances_ignore: Any = None
) -> tuple[Any, Any, Any, Any]:
    return centernesses, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore


def conv_like(conv: nn.Conv2d, out_channels: int) -> nn.Conv2d:
    """A convolution of the same geometry with other outputs."""
    geometry: dict[str, Any] = dict(kernel_size=conv.kernel_size, stride=conv.stride, padding=conv.padding)
    return nn.Conv2d(conv.in_channels, out_channels, **geometry)


def map_layers(function: Callable[[Any], Any], layers: nn.Module) -> Any:
    """Apply a function to a layer, or to each of a list with one layer per level."""
    if not isinstance(layers, nn.ModuleList):
        return function(layers)
    results = [function(layer) for layer in layers]
    return nn.ModuleList(results) if all(isinstance(result, nn.Module) for result in results) else results
