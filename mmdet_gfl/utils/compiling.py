"""What ``torch.compile`` leaves alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec('_P')
_R = TypeVar('_R')


def uncompiled(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """A method that runs as it stands where ``torch.compile`` meets it, with all that it calls.

    For steps whose sizes depend on the data, and whose large passes are fused by hand: traced, they fall apart into
    dozens of graphs, which are compiled anew for other sizes, and in which what is done in place is done on copies.
    """

    @functools.wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if torch.compiler.is_compiling():
            as_it_stands: Callable[_P, _R] = torch.compiler.disable(method)
            return as_it_stands(*args, **kwargs)
        return method(*args, **kwargs)

    return call
