"""From outputs to detections: scores are selected first, and everything else is computed for those that pass.

Dimension letters: N images, A priors per cell, P candidates, M any number of locations, C classes, k outputs per side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.models.boxes.base import BoxRepresentation
from mmdet_gfl.models.task_modules import Locations, preselect, select_topk
from mmdet_gfl.ops import LevelPredictions, LocationIndex, constant_like, upcast
from mmdet_gfl.utils.compiling import uncompiled

if TYPE_CHECKING:
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead as HostHead
else:
    HostHead = object  # the class that follows in the bases

#: What ``test_cfg.with_distribution`` accepts.
WITH_DISTRIBUTION = (None, False, 'stats', 'full')


class PredictMixin(HostHead):
    """Detections for any quality and any box representation; a base of :class:`DenseGFLMixin`."""

    box: BoxRepresentation
    _last_priors: tuple[Any, Tensor] | None = None

    def predict(self, x: Sequence[Tensor], batch_data_samples: SampleList, rescale: bool = False) -> list[InstanceData]:
        """Detections of a batch from its features; ``torch.compile`` sees the layers and nothing of the samples."""
        return self._predict_of(self(x), batch_data_samples, rescale)

    @uncompiled
    def _predict_of(self, outs: Any, batch_data_samples: SampleList, rescale: bool) -> list[InstanceData]:
        metas = [sample.metainfo for sample in batch_data_samples]
        named: dict[str, Any] = dict(batch_img_metas=metas, rescale=rescale)
        return self.predict_by_feat(*outs, **named)

    @uncompiled
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

        With ``test_cfg.with_distribution='stats'`` a result also holds ``bbox_location`` (N, 2), the location xy that
        predicts the box, and ``bbox_mean`` and ``bbox_std`` (N, 4): the predicted distances l, t, r, b from the
        location to the sides and their standard deviations, before clipping to the image. All are in pixels of the
        returned image. ``'full'`` adds ``bbox_distribution`` (N, 4, n+1), the probabilities, and ``bbox_step`` (N, 4),
        the pixels between neighbouring entries.

        Args:
            cls_scores: Class logits of each level, (N, A · C, H, W).
            bbox_preds: Box outputs of each level, (N, A · 4k, H, W).
            score_factors: Branch logits of each level, (N, A, H, W); their sigmoids multiply the scores.
            batch_img_metas: The images' meta information.
            cfg: Takes the place of ``test_cfg``.
            rescale: Give boxes in pixels of the original image.
            with_nms: Suppress overlapping boxes.
        """
        cfg = self.test_cfg if cfg is None else cfg
        what = self._validate_with_distribution(cfg.get('with_distribution'))
        shapes = [[meta['img_shape'][1], meta['img_shape'][0]] * 2 for meta in batch_img_metas]
        with torch.no_grad():
            counts, results = self._candidates(cls_scores, bbox_preds, score_factors, shapes, cfg, bool(what))
        detections = []
        images = zip(*(values.split(counts) for values in results.values()))
        for image, meta in zip(images, batch_img_metas, strict=True):
            candidates = InstanceData(**dict(zip(results, image)))
            kept = self._bbox_post_process(candidates, cfg, rescale=rescale, with_nms=with_nms, img_meta=meta)
            detections.append(self._with_statistics(kept, what, meta['scale_factor'] if rescale else (1, 1)))
        return detections

    def _candidates(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        score_factors: Sequence[Tensor] | None,
        shapes: Sequence[Sequence[int]],
        cfg: ConfigDict,
        with_statistics: bool,
    ) -> tuple[list[int], dict[str, Tensor]]:
        """Predictions that pass each level's score threshold and top k: their number per image, and (P, …) per kind.

        Boxes are decoded at the preselected locations: these are no more than the candidates, but for equal scores and
        NaN, since each has one.
        """
        sizes = [(level.size(-2), level.size(-1)) for level in cls_scores]
        index = LocationIndex(sizes, len(cls_scores[0]), self.prior_generator.num_base_priors)
        top_k = cfg.get('nms_pre', -1)
        threshold = cfg.get('score_thr', 0) if top_k else torch.inf  # nms_pre=0 keeps nothing, as in MMDetection
        top_k = top_k if top_k > 0 else max(index.level_sizes) * self.cls_out_channels
        to_scores = self.class_scores if self.use_sigmoid_cls else upcast
        levels = cls_scores if self.use_sigmoid_cls else [self._softmax(level) for level in cls_scores]
        logits = LevelPredictions(levels, self.cls_out_channels, index)
        preselection = preselect(logits, to_scores, threshold, top_k)
        coords = preselection.coords
        kept = select_topk(to_scores(logits.gather(coords)), preselection, top_k)

        priors = self._priors_of(cls_scores)
        strides = coords.of_levels(self.level_strides, priors.dtype)
        locations = Locations.of_priors(priors[coords.prior_inds], strides)
        bbox_pred = LevelPredictions(bbox_preds, 4 * self.box.channels, index).gather(coords)
        boxes = self.box.decode(bbox_pred, locations, self)
        boxes = self.clip(boxes, coords.of_images(shapes, boxes.dtype))
        results = dict(scores=kept.scores, labels=kept.labels, bboxes=boxes[kept.rows])
        if with_statistics:
            results |= {
                'bbox_pred': bbox_pred[kept.rows],
                'bbox_location': locations.centers[kept.rows],
                'strides': locations.strides[kept.rows],
            }
        if score_factors is not None:
            factors = LevelPredictions(score_factors, 1, index).gather(coords)
            results['score_factors'] = factors.flatten()[kept.rows].sigmoid()
        return kept.counts, results

    def _softmax(self, level: Tensor) -> Tensor:
        """Scores of a level's logits (N, A · (C + 1), H, W) in their layout; that of the background is -inf."""
        scores = upcast(level).unflatten(1, (-1, self.cls_out_channels)).softmax(dim=2)
        scores[:, :, -1] = -torch.inf
        return scores.flatten(1, 2)

    def _priors_of(self, cls_scores: Sequence[Tensor]) -> Tensor:
        """Priors of all levels of an image; images of one size in a row share them."""
        dtype, device = torch.promote_types(cls_scores[0].dtype, torch.float32), cls_scores[0].device
        wanted = ([tuple(level.shape[-2:]) for level in cls_scores], dtype, device)
        last = self._last_priors  # read and written once: another thread may predict other sizes with this head
        if last is None or last[0] != wanted:
            priors = self.prior_generator.grid_priors(wanted[0], dtype=dtype, device=device)
            last = self._last_priors = wanted, torch.cat([get_box_tensor(level) for level in priors])
        return last[1]

    @property
    def level_strides(self) -> list[int]:
        """Stride of each level, in pixels."""
        return [scalar_stride(stride) for stride in self.prior_generator.strides]

    def class_scores(self, logits: Tensor) -> Tensor:
        """Scores (M, C) in [0, 1] of logits (M, C), or (M, C + 1) of a softmax whose last entry is the background."""
        return logits.sigmoid() if self.use_sigmoid_cls else logits.softmax(dim=-1)[:, :-1]

    def clip(self, boxes: Tensor, corners: Tensor) -> Tensor:
        """Boxes (M, 4) clipped to their images, ``corners`` (M, 4) as (w, h, w, h), unless the coder says otherwise.

        That is ``bbox_coder.clip_border=False``.
        """
        if not getattr(self.bbox_coder, 'clip_border', True):
            return boxes
        return boxes.clamp(min=0).minimum(corners)

    def _validate_with_distribution(self, what: Any) -> str | None:
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
        """Replace ``bbox_pred`` and ``strides`` by the statistics asked for, in pixels of the returned image."""
        if what is None:
            return results
        bbox_pred, strides = results.pop('bbox_pred'), results.pop('strides')
        sides = self.box.side_statistics(bbox_pred, self)
        scale = constant_like(strides, [*scale_factor, *scale_factor])
        pixels = strides[:, None] / scale  # (M, 4) of l, t, r, b
        results.bbox_location = results.bbox_location / scale[:2]
        results.bbox_mean = sides.mean * pixels
        results.bbox_std = sides.std * pixels
        if what == 'full':
            results.bbox_distribution = sides.distribution
            results.bbox_step = sides.step * pixels
        return results


def scalar_stride(stride: int | Sequence[int]) -> int:
    """The one stride of a level, in pixels; raise ``ValueError`` where those of width and height differ."""
    if isinstance(stride, (int, float)):
        return stride
    if stride[0] != stride[1]:
        raise ValueError(
            f'strides: {tuple(stride)} differ in width and height; distances in strides need square cells, so give '
            f'each level one stride, as {stride[0]}'
        )
    return stride[0]
