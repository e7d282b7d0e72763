"""Metadata of the graph: the preprocessing of an image, and the meaning of the outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import mmcv.transforms as mmcv_transforms
import mmdet
import mmdet.datasets.transforms as mmdet_transforms
import mmengine
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import TRANSFORMS
from mmengine.config import Config

import mmdet_gfl
from mmdet_gfl.engine.errors import UserError

#: Steps of a test pipeline that concern the annotations alone.
_ANNOTATIONS = (mmdet_transforms.LoadAnnotations, mmcv_transforms.LoadAnnotations, mmdet_transforms.PackDetInputs)
_LOADERS = (mmcv_transforms.LoadImageFromFile,)
_RESIZES = (mmdet_transforms.Resize, mmcv_transforms.Resize)
_PADS = (mmdet_transforms.Pad, mmcv_transforms.Pad)


def input_rule(cfg: Config, preprocessor: Any) -> dict[str, Any]:
    """Preprocessing from a file to the input of the graph, by the keys of the metadata.

    Args:
        cfg: Holds the test pipeline.
        preprocessor: The detector's ``data_preprocessor``.

    Returns:
        ``resize``: ``scale`` (width, height), ``keep_ratio``, ``interpolation``; None if images are not resized.
        ``pad``: ``size`` (width, height) or None, ``divisor`` or None, ``square``, ``value`` (B, G, R); before the
        normalisation; None likewise. ``mean`` and ``std`` in ``channel_order``; ``size_divisor`` and ``pad_value`` of
        the padding after the normalisation.

    Raises:
        UserError: A step that a runtime without MMDetection cannot do.
    """
    rule: dict[str, Any] = dict(resize=None, pad=None)
    for step in test_pipeline(cfg):
        transform = TRANSFORMS.build(step)
        kind = type(transform)
        if kind in _LOADERS and (transform.color_type, transform.imdecode_backend) == ('color', 'cv2'):
            pass
        elif (
            kind in _RESIZES and transform.scale and transform.backend == 'cv2' and rule == dict(resize=None, pad=None)
        ):
            rule['resize'] = dict(
                scale=list(transform.scale), keep_ratio=transform.keep_ratio, interpolation=transform.interpolation
            )
        elif kind in _PADS and transform.padding_mode == 'constant' and rule['pad'] is None:
            rule['pad'] = _pad_rule(transform)
        elif kind not in _ANNOTATIONS:
            raise UserError(
                f'config {cfg.filename}: step {dict(step)} of the test pipeline cannot be done without MMDetection; '
                f"accepted are LoadImageFromFile (colour, cv2), then Resize with a scale (backend='cv2'), then Pad "
                f'with a constant, each at most once, beside LoadAnnotations and PackDetInputs'
            )
    return rule | _normalization(preprocessor)


def test_pipeline(cfg: Config) -> Sequence[Any]:
    """The steps of the test data.

    Raises:
        UserError: The config has no test data with a pipeline.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    pipeline: Sequence[Any] | None = dataset.get('pipeline')
    if not pipeline:
        raise UserError(
            f'config {cfg.filename} has no test_dataloader.dataset.pipeline, which says how an image becomes the '
            f"model's input; add one, as configs/_base_/datasets do"
        )
    return pipeline


def _pad_rule(pad: Any) -> dict[str, Any]:
    value = pad.pad_val.get('img', 0)
    return dict(
        size=None if pad.size is None else list(pad.size),
        divisor=pad.size_divisor,
        square=pad.pad_to_square,
        value=list(value) if isinstance(value, (tuple, list)) else [value] * 3,
    )


def _normalization(preprocessor: Any) -> dict[str, Any]:
    """The part of :func:`input_rule` that the detector does itself; raises for one that does more."""
    if type(preprocessor) is not DetDataPreprocessor:
        raise UserError(
            f'model.data_preprocessor.type={type(preprocessor).__name__} is not exported; accepted: DetDataPreprocessor'
        )
    normalizes = preprocessor._enable_normalize
    return dict(
        mean=preprocessor.mean.flatten().tolist() if normalizes else [0.0] * 3,
        std=preprocessor.std.flatten().tolist() if normalizes else [1.0] * 3,
        channel_order='RGB' if preprocessor._channel_conversion else 'BGR',
        size_divisor=preprocessor.pad_size_divisor,
        pad_value=preprocessor.pad_value,
    )


def input_shape(rule: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the largest input of the test pipeline, lying; None where images are not resized."""
    if rule['pad'] and rule['pad']['size']:
        width, height = rule['pad']['size']
    elif rule['resize']:
        scale = rule['resize']['scale']
        width, height = (max(scale), min(scale)) if rule['resize']['keep_ratio'] else scale
    else:
        return None
    divisor = rule['size_divisor']
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def model_facts(model: Any, classes: Sequence[str]) -> dict[str, Any]:
    """Meaning of the outputs: classes, strides, the box representation and the ``test_cfg``."""
    head = model.bbox_head
    test_cfg = head.test_cfg or {}
    return dict(
        classes=list(classes),
        strides=head.level_strides,
        head=type(head).__name__,
        quality=type(head.quality).__name__,
        box=dict(type=type(head.box).__name__, channels=head.box.channels)
        | {name: getattr(head.box, name) for name in ('reg_max', 'delta') if hasattr(head.box, name)},
        thresholds={key: test_cfg.get(key) for key in ('score_thr', 'nms_pre', 'min_bbox_size', 'nms', 'max_per_img')},
        versions=dict(
            mmdet_gfl=mmdet_gfl.__version__,
            mmdet=mmdet.__version__,
            mmengine=mmengine.__version__,
            torch=torch.__version__,
        ),
    )


def encoded(facts: dict[str, Any]) -> dict[str, str]:
    """Each fact as JSON, which is what the metadata of an ONNX file can hold."""
    return {key: json.dumps(value) for key, value in facts.items()}
