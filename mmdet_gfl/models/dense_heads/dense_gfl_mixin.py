"""The loss and predict steps of a dense detector, once for all hosts.

The loss is always the same six steps: flatten the levels, pick the positives, decode their boxes, measure quality, box
loss, class loss. What differs is asked of three parties: the :class:`~mmdet_gfl.models.quality.Quality`, the
:class:`~mmdet_gfl.models.boxes.BoxRepresentation`, and the host head, which brings its towers and priors, ``targets``,
``coding`` and ``normalizers``.

Dimension letters: N images, L levels, A priors a cell, R = all priors of the batch, P positives, M survivors of the
score threshold, C classes, k outputs a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from mmdet.models.utils import filter_scores_and_topk
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_gfl.models.boxes.base import BoxRepresentation, SideCoding
from mmdet_gfl.models.quality.base import Quality
from mmdet_gfl.models.task_modules import Locations, Positives, Targets, check_ground_truth
from mmdet_gfl.utils import build_part

from .clipping_monitor import ClippingMonitor

if TYPE_CHECKING:
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead as HostHead
else:
    HostHead = object  # the class that follows in the bases

#: What ATSS and FCOS train their branch with; the default on hosts that have none in MMDetection.
BRANCH_LOSS: dict[str, Any] = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)

#: What ``test_cfg.with_distribution`` accepts.
WITH_DISTRIBUTION = (None, False, 'stats', 'full')


class DenseGFLMixin(HostHead):
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
        self.quality = build_part('quality', quality or dict(type='mmdet_gfl.JointQuality'), Quality)
        self.box = build_part('box', box or dict(type='mmdet_gfl.GeneralBox'), BoxRepresentation)
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
            TypeError: The class, or a base of it that comes before this one, defines ``loss_by_feat_single``.
        """
        super().__init_subclass__(**kwargs)
        if 'loss_by_feat_single' in vars(cls):
            raise TypeError(
                f'{cls.__name__}.loss_by_feat_single would never be called: DenseGFLMixin computes the losses of all '
                f'levels at once. Override _losses, or write a Quality or a BoxRepresentation'
            )

    def _register(self, modules: dict[str, nn.Module], given: dict[str, Any] | None) -> None:
        """Registers the layers and losses of the box; says so where a ``loss_bbox`` of the config is not used."""
        if given is not None and modules['loss_bbox'] is not self.loss_bbox:
            print_log(
                f'bbox_head.loss_bbox={given["type"]} is superseded by {type(modules["loss_bbox"]).__name__} of '
                f'{type(self.box).__name__}; remove it from the config',
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
        targets = self.targets([(level.size(-2), level.size(-1)) for level in cls_scores], gts, metas, ignored)

        logits = flatten_levels(cls_scores, self.cls_out_channels)  # (R, C)
        raw = flatten_levels(bbox_preds, 4 * self.box.channels)[targets.pos]  # (P, 4k)
        boxes = self.box.decode(raw, targets.at, self)  # (P, 4)
        positives = Positives(logits[targets.pos], boxes, targets, self.class_scores)
        weights = self.quality.box_weights(positives, self.auto_box_weight)  # (P,)
        cls_norm, box_norm = self.normalizers(targets, weights)

        losses = dict(loss_cls=self.quality.class_loss(logits, targets, positives, cls_norm, self))
        losses.update(self.box.losses(raw, boxes, targets, weights, box_norm, self))
        if branches is not None:
            quality = flatten_levels(branches, 1)[targets.pos, 0]  # (P,)
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

    def one_hot_loss(self, logits: Tensor, targets: Targets, weights: Tensor, norm: Tensor) -> Tensor:
        """The host's class loss for one-hot labels: logits (R, C), weights (R,), divided by ``norm``."""
        return self.loss_cls(logits, targets.labels, weights, avg_factor=norm)

    def one_hot_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The same location by location, before weights: logits (P, C), labels (P,) to losses (P,), summed over C."""
        losses = self.loss_cls(logits, labels, reduction_override='none')
        return losses if losses.dim() == 1 else losses.sum(dim=1)

    # Predict --------------------------------------------------------------------------------------------------------

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> list[InstanceData]:
        """Detections of a batch, as MMDetection's, computed in float32 (float64 stays) whatever comes in.

        With ``test_cfg.with_distribution='stats'`` a result also holds ``bbox_mean`` and ``bbox_std`` (N, 4): the
        predicted distances l, t, r, b from the location to the sides and their standard deviations, in pixels of the
        returned image, before clipping to it. ``'full'`` adds ``bbox_distribution`` (N, 4, n+1), the probabilities, and
        ``bbox_step`` (N, 4), the pixels between neighbouring entries.
        """
        in_float = [[at_least_float(level) for level in levels] for levels in (cls_scores, bbox_preds)]
        factors = None if score_factors is None else [at_least_float(level) for level in score_factors]
        return super().predict_by_feat(*in_float, factors, *args, **kwargs)

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor | None],
        mlvl_priors: list[Tensor],
        img_meta: dict[str, Any],
        cfg: ConfigDict | None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceData:
        """Detections of one image: threshold and top k a level, decode the survivors, then MMDetection's NMS."""
        cfg = self.test_cfg if cfg is None else cfg
        what = self._check_with_distribution(cfg.get('with_distribution'))
        levels = [
            self._survivors(*level, cfg)
            for level in zip(
                cls_score_list, bbox_pred_list, score_factor_list, mlvl_priors, self.prior_generator.strides
            )
        ]
        results = InstanceData(**{key: torch.cat([level[key] for level in levels]) for key in levels[0]})
        at = Locations.of_priors(results.pop('priors'), results.pop('strides'))
        raw = results.pop('raw')
        results.bboxes = self.clip(self.box.decode(raw, at, self), img_meta['img_shape'])
        if what:
            results.raw, results.strides = raw, at.strides
        results = self._bbox_post_process(results, cfg, rescale=rescale, with_nms=with_nms, img_meta=img_meta)
        return self._with_statistics(results, what, img_meta['scale_factor'] if rescale else (1, 1))

    def _survivors(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        score_factor: Tensor | None,
        priors: Tensor,
        stride: tuple[int, int],
        cfg: ConfigDict,
    ) -> dict[str, Tensor]:
        """What passes a level's score threshold and top k, (M, …) each."""
        scores = self.class_scores(cls_score.permute(1, 2, 0).reshape(-1, self.cls_out_channels))
        top_k = cfg.get('nms_pre', -1)
        scores, labels, keep, _ = filter_scores_and_topk(
            scores, cfg.get('score_thr', 0), top_k if top_k > 0 else scores.numel()
        )
        survivors = dict(
            scores=scores,
            labels=labels,
            raw=bbox_pred.permute(1, 2, 0).reshape(-1, 4 * self.box.channels)[keep],
            priors=priors[keep],
            strides=priors.new_full(keep.shape, square(stride)),
        )
        if score_factor is not None:
            survivors['score_factors'] = score_factor.permute(1, 2, 0).reshape(-1)[keep].sigmoid()
        return survivors

    def class_scores(self, logits: Tensor) -> Tensor:
        """Scores (M, C) in [0, 1] of logits (M, C), or (M, C + 1) of a softmax whose last entry is the background."""
        return logits.sigmoid() if self.use_sigmoid_cls else logits.softmax(dim=-1)[:, :-1]

    def clip(self, boxes: Tensor, shape: Sequence[int]) -> Tensor:
        """Boxes (M, 4) clipped to an image of ``shape`` (h, w), unless ``bbox_coder.clip_border`` is False."""
        if not getattr(self.bbox_coder, 'clip_border', True):
            return boxes
        corner = boxes.new_tensor([shape[1], shape[0], shape[1], shape[0]])
        return boxes.clamp(min=torch.zeros_like(corner), max=corner)

    def _check_with_distribution(self, what: Any) -> str | None:
        if what not in WITH_DISTRIBUTION:
            raise ValueError(
                f"test_cfg.with_distribution={what!r}; accepted: 'stats' (mean and standard deviation of each side), "
                f"'full' (the probabilities too), or None"
            )
        if what and what not in self.box.statistics:
            can = ' or '.join(repr(name) for name in self.box.statistics) or 'none'
            raise ValueError(
                f'test_cfg.with_distribution={what!r}, but a {type(self.box).__name__} can give {can}; '
                f"use box=dict(type='mmdet_gfl.GeneralBox')"
            )
        return what or None

    def _with_statistics(self, results: InstanceData, what: str | None, scale_factor: Sequence[float]) -> InstanceData:
        """Replaces ``raw`` and ``strides`` of the kept boxes by what was asked for, in pixels of the returned image."""
        if what is None:
            return results
        raw, strides = results.pop('raw'), results.pop('strides')
        sides = self.box.side_statistics(raw, self)
        pixels = strides[:, None] / strides.new_tensor([*scale_factor, *scale_factor])  # (M, 4) of l, t, r, b
        results.bbox_mean = sides.mean * pixels
        results.bbox_std = sides.std * pixels
        if what == 'full':
            results.bbox_distribution = sides.distribution
            results.bbox_step = sides.step * pixels
        return results


def flatten_levels(levels: Sequence[Tensor], width: int) -> Tensor:
    """All locations of a batch in one row each, at least float32: levels (N, A · width, H, W) to (R, width).

    In the order of :class:`~mmdet_gfl.models.task_modules.Targets`.
    """
    return torch.cat([at_least_float(level.permute(0, 2, 3, 1).reshape(-1, width)) for level in levels])


def at_least_float(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is narrower."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def conv_like(conv: nn.Conv2d, out_channels: int) -> nn.Conv2d:
    """A convolution of the same geometry with other outputs."""
    geometry: dict[str, Any] = dict(kernel_size=conv.kernel_size, stride=conv.stride, padding=conv.padding)
    return nn.Conv2d(conv.in_channels, out_channels, **geometry)


def square(stride: int | Sequence[int]) -> int:
    """The one stride of a level; distances are in strides, so width and height must agree.

    Raises:
        ValueError: They do not.
    """
    if isinstance(stride, (int, float)):
        return stride
    if stride[0] != stride[1]:
        raise ValueError(
            f'prior strides {tuple(stride)} differ in width and height; distances in strides need square cells'
        )
    return stride[0]
