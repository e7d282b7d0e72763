"""Operators that have no counterpart in torch's exporter: how they run here, and what they are in ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmcv.ops import nms
from mmcv.ops.deform_conv import DeformConv2dFunction
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2dFunction
from mmdet.models.utils.misc import SigmoidGeometricMean
from torch import Tensor

#: Lower scores mark entries that are not candidates; these have -1.
NO_CANDIDATE = -0.5
#: ONNX's numbers of these types.
ONNX_FLOAT, ONNX_BOOL = 1, 9


def nms_mask(boxes: Tensor, scores: Tensor, iou_threshold: float, max_outputs: int) -> Tensor:
    """Mask (N, P) of the boxes that non-maximum suppression keeps: the ``max_outputs`` best of each image.

    Args:
        boxes: (N, P, 4), xyxy.
        scores: (N, P); a box with a score below :data:`NO_CANDIDATE` takes no part.
        iou_threshold: A box is dropped above it.
        max_outputs: How many boxes are kept per image.
    """
    mask: Tensor = _NMSMask.apply(boxes, scores, iou_threshold, max_outputs)
    return mask


class _NMSMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou_threshold: float, max_outputs: int) -> Tensor:
        mask = torch.zeros_like(scores, dtype=torch.bool)
        for of_image, its_boxes, its_scores in zip(mask, boxes, scores):
            candidates = (its_scores > NO_CANDIDATE).nonzero().squeeze(1)
            kept = nms(its_boxes[candidates], its_scores[candidates], iou_threshold)[1]
            of_image[candidates[kept[:max_outputs]]] = True
        return mask

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou_threshold: float, max_outputs: int) -> Any:
        selected = g.op(
            'NonMaxSuppression',
            boxes,
            g.op('Unsqueeze', scores, _constant(g, [1])),
            _constant(g, [max_outputs]),
            _constant(g, [iou_threshold]),
            _constant(g, [NO_CANDIDATE]),
        )  # (S, 3): image, class, box
        places = g.op('Gather', selected, _constant(g, [0, 2]), axis_i=1)
        ones = g.op('Expand', _constant(g, [1.0]), g.op('Shape', selected, start_i=0, end_i=1))
        zeros = g.op('Mul', scores, _constant(g, 0.0))
        return g.op('Cast', g.op('ScatterND', zeros, places, ones), to_i=ONNX_BOOL).setType(
            scores.type().with_dtype(torch.bool)
        )


def _constant(g: Any, value: Any) -> Any:
    return g.op('Constant', value_t=torch.tensor(value))


@contextmanager
def onnx_symbolics() -> Iterator[None]:
    """Export functions of MMCV and MMDetection as operators of ONNX.

    Of mmcv's deformable convolutions: as they are, only MMDeploy's runtimes have them; offsets are [y, x] per point of
    the kernel and the groups are counted alike in both. Of RTMDet's objectness: it has no symbolic of its own.
    """
    symbolics: dict[Any, Any] = {
        DeformConv2dFunction: _deform_conv,
        ModulatedDeformConv2dFunction: _modulated_deform_conv,
        SigmoidGeometricMean: _sigmoid_geometric_mean,
    }
    before = {function: vars(function).get('symbolic') for function in symbolics}
    for function, symbolic in symbolics.items():
        function.symbolic = staticmethod(symbolic)
    try:
        yield
    finally:
        for function, symbolic in before.items():
            if symbolic is None:
                del function.symbolic
            else:
                function.symbolic = symbolic


def _sigmoid_geometric_mean(g: Any, x: Any, y: Any) -> Any:
    return g.op('Sqrt', g.op('Mul', g.op('Sigmoid', x), g.op('Sigmoid', y)))


def _deform_conv(g: Any, input: Any, offset: Any, weight: Any, *geometry: Any) -> Any:
    return _onnx_deform_conv(g, (input, weight, offset), *geometry[:5])


def _modulated_deform_conv(g: Any, input: Any, offset: Any, mask: Any, weight: Any, bias: Any, *geometry: Any) -> Any:
    bias = g.op('Constant', value_t=torch.zeros(weight.type().sizes()[0])) if bias is None else bias
    return _onnx_deform_conv(g, (input, weight, offset, bias, mask), *geometry)


def _onnx_deform_conv(
    g: Any, inputs: tuple[Any, ...], stride: Any, padding: Any, dilation: Any, groups: int, deform_groups: int
) -> Any:
    stride, padding, dilation = (
        pair if isinstance(pair, (list, tuple)) else (pair, pair) for pair in (stride, padding, dilation)
    )
    return g.op(
        'DeformConv',
        *inputs,
        kernel_shape_i=inputs[1].type().sizes()[2:],
        strides_i=stride,
        pads_i=[*padding, *padding],
        dilations_i=dilation,
        group_i=groups,
        offset_group_i=deform_groups,
    )
