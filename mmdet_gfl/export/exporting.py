"""The whole of an export: what can be wrong is looked for first, then it is traced, compared and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.config import Config

from mmdet_gfl.analysis.counterparts import build_head, head_config
from mmdet_gfl.analysis.detector import Detector
from mmdet_gfl.compat.operators import MissingOperatorError
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.engine.files import make_folder_of
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.dense_heads.predict_mixin import PredictMixin
from mmdet_gfl.registry import host_names, hosts_of_stock_heads

from . import checking, metadata, writing
from .graph import ExportedDetector
from .selection import Thresholds, thresholds_of

if TYPE_CHECKING:
    import onnx

#: By how much the size differs, at most, at which a graph for any size is tried beside its own, in pixels.
LARGEST_STEP = 128


class Settings(NamedTuple):
    """The options of an export, by the names of ``tools/export_onnx.py``.

    Attributes:
        output: ``'nms'``, ``'decoded'`` or ``'raw'``.
        with_std: ``--std``.
        shape: Height and width; None: the test pipeline's.
        dynamic: ``'none'``, ``'batch'`` or ``'all'``.
        preprocess: See :class:`ExportedDetector`.
        half: ``--fp16``.
        opset: Version of ONNX's operators.
    """

    output: str = 'nms'
    with_std: bool = False
    shape: tuple[int, int] | None = None
    dynamic: str = 'all'
    preprocess: bool = False
    half: bool = False
    opset: int = 18


def default_path(checkpoint: str) -> Path:
    """The file beside a checkpoint, with its name; that of a remote one in the current folder."""
    path = Path(checkpoint.rpartition('/')[2]) if '://' in checkpoint else Path(checkpoint)
    return path.with_suffix('.onnx')


def prepare(settings: Settings, out: Path, images: Sequence[str] = ()) -> None:
    """Look for what is wrong before a model is built.

    Raises:
        UserError: A package or an image is missing, options do not fit each other, or ``out`` cannot be written.
    """
    writing.require_packages()
    if settings.with_std and settings.output == 'raw':
        raise UserError('--std with --output raw: the raw box outputs hold the distributions; leave --std out')
    if settings.shape is not None and min(settings.shape) < 1:
        raise UserError(
            f'--shape {settings.shape[0]} {settings.shape[1]}: height and width are whole numbers from 1 on'
        )
    for image in images:
        if not Path(image).is_file():
            raise UserError(f'--check {image}: there is no such file')
    if out.suffix != '.onnx':
        raise UserError(f'OUT {out}: the name of the file must end in .onnx')
    make_folder_of('OUT', out)


def export(loaded: Detector, settings: Settings, out: Path, images: Sequence[str] = ()) -> None:
    """Write a detector as ONNX, after a comparison with torch.

    Args:
        loaded: The detector; MMDetection's head in it is replaced by its counterpart.
        settings: The options.
        out: The file.
        images: Compared beside random ones.

    Raises:
        UserError: The detector cannot be exported, or onnxruntime and torch differ by more than they may.
    """
    graph, facts = make_graph(loaded, settings)
    shape = _shape(graph, settings.shape or metadata.input_shape(facts))
    single = graph if not settings.half else make_graph(loaded, settings._replace(half=False))[0]
    limits = checking.HALF_LIMITS if settings.half else checking.LIMITS
    model, dynamic = _traced(graph, single, shape, settings, facts | dict(shape=list(shape)), limits)
    inputs = [checking.random_input(single, 1 if dynamic == 'none' else 3, shape)]
    inputs += [checking.image_input(single, loaded.cfg, image, None if dynamic == 'all' else shape) for image in images]
    session = checking.open_session(model)
    failed = []
    for given in inputs:
        difference = checking.difference(session, single, given, limits)
        print(f'onnxruntime beside torch on {given.name}: {difference}', flush=True)
        if not difference.within(limits):
            failed.append(given.name)
    if failed:
        raise UserError(
            f'onnxruntime and torch differ by more than {limits.pixels} pixels, {limits.score} in score or a detection '
            f'on {", ".join(failed)}; {out} is not written'
        )
    writing.write(model, out)
    print(f'{out}: {out.stat().st_size / 1e6:.1f} MB, {settings.output}, outputs {", ".join(graph.output_names)}')


def make_graph(loaded: Detector, settings: Settings) -> tuple[ExportedDetector, dict[str, Any]]:
    """The graph, and the facts of its metadata.

    Raises:
        UserError: See :func:`export`.
    """
    model = exportable(loaded.model, loaded.cfg)
    writing.check_opset(model, settings.opset)
    rule = metadata.input_rule(loaded.cfg, model.data_preprocessor)
    thresholds: Thresholds | None = thresholds_of(model.bbox_head.test_cfg) if settings.output == 'nms' else None
    if settings.with_std and not model.bbox_head.box.statistics:
        raise UserError(
            f'--std: a {type(model.bbox_head.box).__name__} predicts no distribution; leave --std out, or train a '
            f"model with box=dict(type='mmdet_gfl.GeneralBox')"
        )
    graph = ExportedDetector(
        model, settings.output, thresholds, settings.with_std, settings.preprocess, settings.half
    ).eval()
    facts = rule | metadata.model_facts(model, loaded.classes)
    return graph, facts | dict(output=settings.output, preprocess=settings.preprocess)


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
        if type(head) not in hosts_of_stock_heads():
            raise UserError(
                f'config {cfg.filename}: model.bbox_head.type={type(head).__name__} is not exported; accepted are '
                f'{host_names()}, and the heads of MMDetection that they stand for'
            )
        model.bbox_head = build_head(head_config(cfg.model))
        model.bbox_head.load_state_dict(head.state_dict())
    elif type(head).predict_by_feat is not PredictMixin.predict_by_feat:
        raise UserError(
            f'model.bbox_head.type={type(head).__name__} overrides predict_by_feat, which the graph would not contain; '
            f'override class_scores or clip instead, or write a quality or box representation'
        )
    return model.eval()


def _shape(graph: ExportedDetector, shape: tuple[int, int] | None) -> tuple[int, int]:
    """The size of the input, tried; raises where the test pipeline does not tell it, or the detector cannot take it."""
    if shape is None:
        raise UserError('the test pipeline does not resize, so it has no size of its own: give --shape H W')
    try:
        with torch.no_grad():
            graph.head_outputs(torch.zeros(1, 3, *shape))
    except MissingOperatorError as error:
        raise UserError(str(error)) from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition('\n')[0]
        raise UserError(
            f'--shape {shape[0]} {shape[1]}: the detector cannot take images of this size ({reason}); multiples of its '
            f'largest stride, {max(graph.model.bbox_head.prior_generator.strides)}, are safe'
        ) from error
    return shape


def _traced(
    graph: ExportedDetector,
    single: ExportedDetector,
    shape: tuple[int, int],
    settings: Settings,
    facts: dict[str, Any],
    limits: checking.Limits,
) -> tuple[onnx.ModelProto, str]:
    """The model, and what is dynamic in it: the batch alone, where another size does not come out right."""
    model = writing.to_onnx(graph, shape, settings.dynamic, settings.opset, metadata.encoded(facts))
    if settings.dynamic != 'all':
        return model, settings.dynamic
    step = min(max(facts['strides']), LARGEST_STEP)
    other = checking.random_input(single, 1, (shape[0] + 2 * step, shape[1] + step))
    try:
        difference = checking.difference(checking.open_session(model), single, other, limits)
        reason = '' if difference.within(limits) else str(difference)
    except Exception as error:  # onnxruntime's errors have no common class
        reason = str(error).partition('\n')[0]
    if not reason:
        return model, 'all'
    print(f'note: --dynamic all: {other.name} does not come out right ({reason}); --dynamic batch is taken', flush=True)
    return _traced(graph, single, shape, settings._replace(dynamic='batch'), facts, limits)
