"""Deformable convolution by the calling conventions of ``mmcv._ext``, through torchvision.

torchvision's operator stems from the same code: offsets are [y, x] per point of the kernel, (N, 2·G·kh·kw, H', W') for
G deformable groups, masks (N, G·kh·kw, H', W'). It reads both numbers of groups from the shapes. Gradients come from
running it once more under autograd; as mmcv's operators do, these *add* to what they are given (mmcv gives zeros).
``columns`` and ``ones`` are scratch space of mmcv's operators and are not used.
"""

from typing import Any

import torch
from torch import Tensor

from mmdet_gfl.compat.operators import missing_operator, torchvision_ops

_Pair = tuple[int, int]

#: Names of stride, padding and dilation, y and x, in the plain operators and in the modulated ones.
_PLAIN = ('dH', 'dW'), ('padH', 'padW'), ('dilationH', 'dilationW')
_MODULATED = ('stride_h', 'stride_w'), ('pad_h', 'pad_w'), ('dilation_h', 'dilation_w')


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    *_scratch: Tensor,
    **geometry: int,
) -> None:
    """Write the convolution of ``input`` (N, C, H, W) into ``output`` (N, C', H', W')."""
    tensors = dict(input=input, offset=offset, weight=weight)
    output.copy_(_convolve('deform_conv_forward', tensors, _pairs(geometry, _PLAIN)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    *_scratch: Tensor,
    **geometry: int,
) -> None:
    """Add the gradients by the input and by the offsets."""
    tensors, totals = dict(input=input, offset=offset, weight=weight), dict(input=grad_input, offset=grad_offset)
    _add_gradients('deform_conv_backward_input', tensors, _pairs(geometry, _PLAIN), grad_output, totals)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float = 1.0,
    **geometry: int,
) -> None:
    """Add ``scale`` times the gradient by the weight, (C', C / groups, kh, kw)."""
    kernel = torch.zeros_like(grad_weight)  # the output is linear in it: its value does not matter
    tensors, totals = dict(input=input, offset=offset, weight=kernel), dict(weight=grad_weight)
    _add_gradients('deform_conv_backward_parameters', tensors, _pairs(geometry, _PLAIN), grad_output * scale, totals)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Write the convolution of ``input`` (N, C, H, W), its samples weighted by ``mask``, into ``output``."""
    tensors = dict(input=input, offset=offset, weight=weight, mask=mask)
    result = _convolve('modulated_deform_conv_forward', tensors, _pairs(geometry, _MODULATED))
    output.copy_(result + bias.view(1, -1, 1, 1) if with_bias else result)


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Add the gradients by the input, the weight, the bias if there is one, the offsets and the mask."""
    tensors = dict(input=input, offset=offset, weight=weight, mask=mask)
    totals = dict(input=grad_input, offset=grad_offset, weight=grad_weight, mask=grad_mask)
    _add_gradients('modulated_deform_conv_backward', tensors, _pairs(geometry, _MODULATED), grad_output, totals)
    if with_bias:
        grad_bias.add_(grad_output.sum((0, 2, 3)))


def _pairs(geometry: dict[str, int], names: tuple[tuple[str, str], ...]) -> dict[str, _Pair]:
    """Read the geometry by an operator's names of it; numbers of groups and ``im2col_step`` are not needed."""
    return {key: (geometry[h], geometry[w]) for key, (h, w) in zip(('stride', 'padding', 'dilation'), names)}


def _convolve(name: str, tensors: dict[str, Tensor], geometry: dict[str, _Pair]) -> Tensor:
    """Call torchvision, or raise the error of the operator ``name`` where it is not there."""
    ops: Any = torchvision_ops()
    if ops is None:
        why = 'needs a torchvision that fits the installed torch, which is not there'
        missing_operator(name, f"{why}; shipped configs without 'dconv' in their name do not need it")()
    result: Tensor = ops.deform_conv2d(**tensors, **geometry)
    return result


def _add_gradients(
    name: str,
    tensors: dict[str, Tensor],
    geometry: dict[str, _Pair],
    grad_output: Tensor,
    totals: dict[str, Tensor],
) -> None:
    """Add the gradients of a convolution by some of its tensors to the totals of these."""
    leaves = {key: tensors[key].detach().requires_grad_() for key in totals}
    with torch.enable_grad():
        output = _convolve(name, tensors | leaves, geometry)
    for total, gradient in zip(totals.values(), torch.autograd.grad(output, tuple(leaves.values()), grad_output)):
        total.add_(gradient)
