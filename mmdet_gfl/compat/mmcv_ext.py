"""Stands in for ``mmcv._ext`` where mmcv is installed without compiled operators (``mmcv-lite``).

Functions have the names and calling conventions of mmcv 2.x's extension, outputs written in place included. Those
that are not here raise an error on their call, not on their look-up: ``mmcv.ops`` looks up all of its hundred
operators when it is imported. The module says that it stands in, once for all processes.
"""

import logging
from multiprocessing import current_process

from mmdet_gfl.compat.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from mmdet_gfl.compat.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from mmdet_gfl.compat.nms import nms, softnms
from mmdet_gfl.compat.operators import Operator, missing_operator
from mmdet_gfl.engine.errors import is_first_rank

__all__ = [
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'get_compiler_version',
    'get_compiling_cuda_version',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
    'nms',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softnms',
]

# torch.distributed cannot be asked for the rank: mmcv is imported before the process group is made. A child that
# multiprocessing spawns has its name, but not yet its parent, while it imports the main module.
if is_first_rank() and current_process().name == 'MainProcess':
    logging.getLogger('mmdet_gfl').warning(
        'mmcv has no compiled operators here: mmdet_gfl stands in for NMS, soft-NMS, sigmoid focal loss and '
        'deformable convolution; any other operator of mmcv raises an error'
    )


def get_compiler_version() -> str:
    """Return what MMDetection's ``collect_env`` prints as mmcv's compiler."""
    return 'none (mmcv-lite with the mmdet_gfl stand-in)'


def get_compiling_cuda_version() -> str:
    """Return what MMDetection's ``collect_env`` prints as the CUDA version that mmcv was compiled with."""
    return get_compiler_version()


def __getattr__(name: str) -> Operator:
    if name.startswith('__'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return missing_operator(name)
