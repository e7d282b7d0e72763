"""From outputs to detections: what only few survive is decided first, and all else computed for the survivors alone.

Dimension letters: N images, A priors a cell, M locations or survivors, C classes, k outputs a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.utils import filter_scores_and_topk, select_single_mlvl
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.models.boxes.base import BoxRepresentation
from mmdet_gfl.models.task_modules import Locations
from mmdet_gfl.ops.pick_rows import at_least_float

if TYPE_CHECKING:
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead as HostHead
else:
    HostHead = object  # the class that follows in the bases

#: What ``test_cfg.with_distribution`` accepts.
WITH_DISTRIBUTION = (None, False, 'stats', 'full')

#: By how much the score of one logit may lie above that of a larger one, where rounding differs: far more than it can.
ROUNDING = 1e-5


class PredictMixin(HostHead):
    """Detections for any quality and any box representation; a base of :class:`DenseGFLMixin`."""

    box: BoxRepresentation

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
        batch_img_metas: Sequence[dict[str, Any]] = (),
        cfg: ConfigDict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Detections of a batch, as MMDetection's, computed in float32 (float64 stays) whatever comes in.

        With ``test_cfg.with_distribution='stats'`` a result also holds ``bbox_mean`` and ``bbox_std`` (N, 4): the
        predicted distances l, t, r, b from the location to the sides and their standard deviations, in pixels of the
        returned image, before clipping to it. ``'full'`` adds ``bbox_distribution`` (N, 4, n+1), the probabilities, and
        ``bbox_step`` (N, 4), the pixels between neighbouring entries.

        Args:
            cls_scores: A level's class logits, (N, A · C, H, W).
            bbox_preds: A level's box outputs, (N, A · 4k, H, W).
            score_factors: A level's branch logits, (N, A, H, W); their sigmoids multiply the scores.
            batch_img_metas: The images' meta information.
            cfg: Takes the place of ``test_cfg``.
            rescale: Give boxes in pixels of the original image.
            with_nms: Suppress what overlaps.
        """
        dtype = torch.promote_types(cls_scores[0].dtype, torch.float32)
        sizes = [level.shape[-2:] for level in cls_scores]
        priors = self.prior_generator.grid_priors(sizes, dtype=dtype, device=cls_scores[0].device)
        results = []
        for image, meta in enumerate(batch_img_metas):
            scores, boxes = (select_single_mlvl(levels, image, detach=True) for levels in (cls_scores, bbox_preds))
            factors = [None] * len(scores)
            if score_factors is not None:
                factors = select_single_mlvl(score_factors, image, detach=True)
            results.append(self._predict_by_feat_single(scores, boxes, factors, priors, meta, cfg, rescale, with_nms))
        return results

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: Sequence[Tensor | None],
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
        """What passes a level's score threshold and top k, (M, …) each, as MMDetection's ``filter_scores_and_topk``."""
        threshold, top_k = cfg.get('score_thr', 0), cfg.get('nms_pre', -1)
        top_k = top_k if top_k > 0 else cls_score.numel()
        scores, labels, keep = self._best_classes(cls_score, threshold, top_k)
        survivors = dict(
            scores=scores,
            labels=labels,
            raw=rows_at(bbox_pred, 4 * self.box.channels, keep),
            priors=priors[keep],
            strides=priors.new_full(keep.shape, square(stride)),
        )
        if score_factor is not None:
            survivors['score_factors'] = rows_at(score_factor, 1, keep)[:, 0].sigmoid()
        return survivors

    def class_scores(self, logits: Tensor) -> Tensor:
        """Scores (M, C) in [0, 1] of logits (M, C), or (M, C + 1) of a softmax whose last entry is the background."""
        return logits.sigmoid() if self.use_sigmoid_cls else logits.softmax(dim=-1)[:, :-1]

    def _best_classes(self, cls_score: Tensor, threshold: float, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
        """The ``top_k`` scores above ``threshold`` of a level (A · C, H, W), descending, their classes and locations.

        A softmax is MMDetection's to filter. With sigmoids only those locations are computed whose largest logit says
        that it is worth it.
        """
        if not self.use_sigmoid_cls:
            rows = at_least_float(cls_score.permute(1, 2, 0).reshape(-1, self.cls_out_channels))
            scores, labels, keep, _ = filter_scores_and_topk(self.class_scores(rows), threshold, top_k)
            return scores, labels, keep
        largest = cls_score.unflatten(0, (-1, self.cls_out_channels)).amax(dim=1)  # (A, H, W)
        largest = self.class_scores(at_least_float(largest.permute(1, 2, 0).reshape(-1, 1)))[:, 0]  # (H · W · A,)
        places = worth_a_look(largest, threshold, top_k)
        rows = rows_at(cls_score, self.cls_out_channels, places)
        scores, labels, index = best_scores(self.class_scores(rows), threshold, top_k)
        return scores, labels, places[index]

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


def worth_a_look(largest: Tensor, threshold: float, top_k: int) -> Tensor:
    """Locations that may hold one of the ``top_k`` scores above ``threshold``, ascending.

    At least ``top_k`` scores are no smaller than the ``top_k``-th largest of the locations' largest scores: those
    themselves. What lies below it need not be looked at. NaN says nothing of a location's other scores.

    Args:
        largest: Largest score of each location, (M,), up to :data:`ROUNDING`.
        threshold: Score to be surpassed.
        top_k: How many scores are wanted.
    """
    bound = largest * (1 + ROUNDING)
    out = bound <= threshold
    if len(largest) > top_k:
        out |= bound < largest.nan_to_num(-1.0).topk(top_k).values[-1]
    return (~out).nonzero()[:, 0]


def best_scores(scores: Tensor, threshold: float, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``top_k`` largest of ``scores`` (M, C) above ``threshold``, descending, with their columns and rows.

    Which of equal scores comes first is left to the sort, MMDetection's; it is the same where all survive.
    """
    flat = scores.reshape(-1)
    index = (flat > threshold).nonzero()[:, 0]
    values = flat[index]
    if len(values) > top_k:
        enough = values >= values.topk(top_k).values[-1]
        values, index = values[enough], index[enough]
    values, order = values.sort(descending=True)
    index = index[order[:top_k]]
    return values[:top_k], index % scores.size(1), index // scores.size(1)


def rows_at(level: Tensor, width: int, places: Tensor) -> Tensor:
    """Outputs (M, width) of locations of a level (A · width, H, W), which are numbered as (H, W, A) flattens."""
    if level.size(0) == width:  # one prior a cell: the same, sooner
        return at_least_float(level.flatten(1).index_select(1, places).t())
    level = level.unflatten(0, (-1, width))
    num_priors, _, _, wide = level.shape
    cell, anchor = places // num_priors, places % num_priors
    return at_least_float(level[anchor, :, cell // wide, cell % wide])


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
