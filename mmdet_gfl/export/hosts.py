"""The exported head of a detector: a host of ours, or the one that stands for a head of MMDetection."""

from __future__ import annotations

import copy
from typing import Any

from mmdet.models.detectors import SingleStageDetector
from mmengine.config import Config, ConfigDict

from mmdet_gfl.analysis.counterparts import with_host
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.dense_heads.predict_mixin import PredictMixin
from mmdet_gfl.registry import MODELS, host_names, hosts_of_stock_heads


def exportable(model: Any, cfg: Config) -> SingleStageDetector:
    """The detector with a head of ours.

    A head of MMDetection is replaced by the host that stands for it, with the same weights: at its baseline point that
    host computes the same.

    Args:
        model: The detector with its weights.
        cfg: Its config.

    Raises:
        UserError: It has no such head, or one whose predictions are its own.
    """
    head = getattr(model, 'bbox_head', None)
    if not isinstance(model, SingleStageDetector) or head is None:
        raise UserError(
            f'config {cfg.filename}: model.type={type(model).__name__} is not a detector with one dense bbox_head; '
            f'exported are those with one of {host_names()}, or the head of MMDetection that it stands for'
        )
    if not isinstance(head, DenseGFLMixin):
        host = hosts_of_stock_heads().get(type(head))
        if host is None:
            raise UserError(
                f'config {cfg.filename}: model.bbox_head.type={type(head).__name__} is not exported; accepted are '
                f'{host_names()}, and the heads of MMDetection that they stand for'
            )
        model.bbox_head = _converted(head, host, cfg)
    elif type(head).predict_by_feat is not PredictMixin.predict_by_feat:
        raise UserError(
            f'model.bbox_head.type={type(head).__name__} overrides predict_by_feat, which the graph would not contain; '
            f'override class_scores or clip instead, or write a quality or box representation'
        )
    return model.eval()


def _converted(head: Any, host: type[DenseGFLMixin], cfg: Config) -> Any:
    """A host with the weights of the head of MMDetection that it stands for."""
    head_cfg = dict(cfg.model.bbox_head, train_cfg=cfg.model.get('train_cfg'), test_cfg=cfg.model.get('test_cfg'))
    converted = MODELS.build(with_host(ConfigDict(copy.deepcopy(head_cfg)), host))
    converted.load_state_dict(head.state_dict())
    return converted
