"""Exclusion of code from ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

try:
    from torch.compiler import disable
    from torch.compiler import is_compiling as is_compiling
except ImportError:  # torch before 2.3
    from torch._dynamo import disable
    from torch._dynamo.external_utils import is_compiling as is_compiling

_P = ParamSpec('_P')
_R = TypeVar('_R')


def is_tracing() -> bool:
    """True while ``torch.compile``, an exporter or ``torch.jit.trace`` records operators."""
    return is_compiling() or torch._C._get_tracing_state() is not None or torch.onnx.is_in_onnx_export()


def uncompiled(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """A method that runs as it stands where ``torch.compile`` meets it, with all that it calls.

    For steps whose sizes depend on the data, and whose large passes are fused by hand: traced, they fall apart into
    dozens of graphs, which are compiled anew for other sizes, and in which what is done in place is done on copies.
    Nothing of it is traced, so nothing is compiled anew for other images and objects.
    """
    return disable(method)
