"""The ONNX file: traced by torch, completed with its metadata, written whole or not at all."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from torch import nn

from mmdet_gfl.engine import files
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.versions import parse_release

from .graph import ExportedDetector
from .operators import onnx_symbolics

if TYPE_CHECKING:
    import onnx

#: Versions of ONNX's operators that torch's exporter writes, and the first that has deformable convolution.
OPSETS = range(16, 21)
DEFORM_CONV_OPSET = 19
DYNAMIC = ('none', 'batch', 'all')
#: Images of the example that is traced. With one, a batch of one could become a constant.
EXAMPLE_BATCH = 2
#: The size that boxes are clipped to, in pixels, where ``image_sizes`` is not given: that of the input.
UNLIMITED = 2.0**20

PIP_LINE = "pip install 'mmdet_gfl[onnx]', or pip install onnx onnxruntime"


def require_packages() -> None:
    """Raise where the packages that export needs are missing or too old.

    Raises:
        UserError: Names them and the way to install them.
    """
    if parse_release(torch.__version__) < (2, 2):
        raise UserError(
            f'torch {torch.__version__} writes graphs that are not valid ONNX (ReduceMax): install a later one, '
            'tested is 2.13.0'
        )
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f'export needs the packages onnx and onnxruntime ({error}): {PIP_LINE}') from error


def check_opset(model: nn.Module, opset: int) -> None:
    """Raise for a version of ONNX's operators in which the model cannot be written.

    Raises:
        UserError: Names the versions that can.
    """
    if opset not in OPSETS:
        raise UserError(f'--opset {opset}: accepted are {OPSETS[0]} to {OPSETS[-1]}')
    if opset < DEFORM_CONV_OPSET:
        for name, layer in model.named_modules():
            if isinstance(layer, (DeformConv2d, ModulatedDeformConv2d)):
                raise UserError(
                    f'--opset {opset}: model.{name} is a deformable convolution, which ONNX has from opset '
                    f'{DEFORM_CONV_OPSET} on; give --opset {DEFORM_CONV_OPSET}'
                )


def to_onnx(
    detector: ExportedDetector, shape: tuple[int, int], dynamic: str, opset: int, metadata: dict[str, str]
) -> onnx.ModelProto:
    """The graph of a detector as an ONNX model.

    Torch has two exporters. This is the one that traces TorchScript: it takes seconds where the one on ``torch.export``
    takes a minute (the sizes of a pyramid are long symbolic expressions there), works with every torch that this
    package accepts, and its graphs give the same values.

    Args:
        detector: The graph.
        shape: Height and width of the input.
        dynamic: ``'none'``: a batch of one of this shape. ``'batch'``: any batch. ``'all'``: any batch of any size that
            the layers can take.
        opset: Version of ONNX's operators.
        metadata: Texts by key.

    Raises:
        UserError: Torch has no counterpart in ONNX for one of its layers.
    """
    images = torch.rand(1 if dynamic == 'none' else EXAMPLE_BATCH, 3, *shape)
    inputs = dict(images=images)
    if detector.output != 'raw':
        inputs['image_sizes'] = torch.tensor([shape], dtype=torch.float32).expand(len(images), -1)
    names = detector.output_names
    buffer: Any = io.BytesIO()
    try:
        with torch.no_grad(), _quiet(), onnx_symbolics():
            torch.onnx.export(
                detector,
                tuple(inputs.values()),
                buffer,
                input_names=list(inputs),
                output_names=names,
                dynamic_axes=_dynamic_axes(detector, dynamic, [*inputs, *names]),
                opset_version=opset,
                **exporter_options(),
            )
    except RuntimeError as error:  # torch.onnx.OnnxExporterError is one too
        reason = str(error).partition('\n')[0]
        raise UserError(
            f'torch cannot write this detector as ONNX ({reason}); a torch.autograd.Function of your own needs a '
            'symbolic'
        ) from error
    return _completed(buffer.getvalue(), detector, dynamic, metadata)


def exporter_options() -> dict[str, Any]:
    """The options of ``torch.onnx.export`` that choose the TorchScript exporter, as far as this torch knows them.

    Of torch 2.5 and 2.1: the exporter, and functions by their own symbols instead of what their forward consists of.
    """
    accepted = inspect.signature(torch.onnx.export).parameters
    return {key: False for key in ('dynamo', 'autograd_inlining') if key in accepted}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's advice on its exporters, and its warnings of constants; running at another size finds those."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def _dynamic_axes(detector: ExportedDetector, dynamic: str, names: list[str]) -> dict[str, dict[int, str]]:
    """Names of the axes that are not constant; all outputs of the head share what the input leaves open."""
    if dynamic == 'none':
        return {}
    axes = {name: {0: 'batch'} for name in names}
    if dynamic == 'all':
        axes['images'] |= {2: 'height', 3: 'width'}
        if detector.output == 'decoded':
            for name in detector.output_names:
                axes[name][1] = 'locations'
        if detector.output == 'raw':
            for name in detector.output_names:
                level = name.rpartition('_')[2]
                axes[name] |= {2: f'height_{level}', 3: f'width_{level}'}
    return axes


def _completed(data: bytes, detector: ExportedDetector, dynamic: str, metadata: dict[str, str]) -> onnx.ModelProto:
    """The model with the sizes of the detections, a default for ``image_sizes``, and the metadata."""
    import numpy as np
    import onnx

    model = onnx.load_from_string(data)
    if detector.thresholds is not None and detector.output == 'nms':
        for output in model.graph.output:
            sizes = ['batch' if dynamic != 'none' else 1, detector.thresholds.max_per_img, *_last_sizes(output.name)]
            kind = output.type.tensor_type.elem_type
            output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, sizes))
    if detector.output != 'raw':
        default = np.full((1, 2), UNLIMITED, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(default, 'image_sizes'))
        (given,) = (value for value in model.graph.input if value.name == 'image_sizes')
        given.CopyFrom(onnx.helper.make_tensor_value_info('image_sizes', onnx.TensorProto.FLOAT, ['sizes', 2]))
    model.producer_name = 'mmdet_gfl'
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model


def _last_sizes(name: str) -> list[int]:
    return dict(dets=[5], labels=[], std=[4])[name]


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write the file whole, or leave what was there before.

    Raises:
        UserError: It cannot be written.
    """
    try:
        files.write(path, model.SerializeToString())
    except OSError as error:
        raise UserError(f'{path} cannot be written ({error.strerror}); name another file or free some space') from error
