"""Small operations on tensors that several steps need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def upcast(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it is half precision; float64 stays float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def constant_like(like: Tensor, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    """Numbers as a tensor on the device of ``like``, in its dtype unless another is given.

    The copy is asynchronous: the host does not wait for the device.
    """
    return torch.tensor(values, dtype=dtype or like.dtype).to(like.device, non_blocking=True)


def floor_divmod(values: Tensor, divisor: Tensor | int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of non-negative integers."""
    quotient = torch.div(values, divisor, rounding_mode='floor')
    return quotient, values - quotient * divisor
