"""Check, before a training, that the deformable convolutions of a model can run here."""

from typing import Any

import torch
from torch import nn

__all__ = ['check_deformable_convolutions']


def check_deformable_convolutions(model: Any) -> None:
    """Try the operator of the model's first deformable convolution, if it has one, on an image of one pixel.

    mmcv-lite has such layers (``DCN``, ``DCNv2`` of a config) and not their operators: the stand-in gets them from
    torchvision where that imports. A compiled mmcv may lack them for the device that the model is on.

    Args:
        model: The model on its device, wrapped or not. What is no module yet, as in MMEngine's ``FlexibleRunner``
            before it trains, is not looked into.

    Raises:
        RuntimeError: Names the layer, what is missing and the way out.
    """
    from mmcv.ops import DeformConv2d, ModulatedDeformConv2d

    for name, layer in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(layer, (DeformConv2d, ModulatedDeformConv2d)):
            try:
                _convolve_one_pixel(layer)
            except RuntimeError as error:
                reason = str(error).splitlines()[0].rstrip('.')  # errors from C++ go on with a stack
                key = f'model.{name.removeprefix("module.")}'
                raise RuntimeError(
                    f'{key} is a deformable convolution, which cannot run here: {reason}. '
                    f"Shipped configs without 'dconv' in their name need none."
                ) from error
            return


@torch.no_grad()
def _convolve_one_pixel(layer: Any) -> None:
    """Call the layer's operator on its device, without its weights."""
    from mmcv.ops import DeformConv2d, deform_conv2d, modulated_deform_conv2d

    one = layer.weight.new_zeros(1, 1, 1, 1)
    offset = one.new_zeros(1, 2, 1, 1)
    if isinstance(layer, DeformConv2d):
        deform_conv2d(one, offset, one)
    else:
        modulated_deform_conv2d(one, offset, one, one, None, 1, 0, 1, 1, 1)
