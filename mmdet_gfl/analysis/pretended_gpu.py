"""A GPU for machines that have none: whether code keeps to its tensors' device, and where its host would wait for it.

Tensors of the pretended GPU say that they lie on ``meta`` and hold their values in a tensor of the CPU. Every operator
on them is computed with those, but, as on a GPU, not together with tensors of the CPU. What a GPU's host has to wait
for is noted: numbers and lengths that it asks for, and copies between it and the GPU that are not ``non_blocking``. How
long anything takes, and a GPU's own operators, are not to be seen here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Union, get_args

import torch
from mmengine.structures import InstanceData, instance_data
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

aten = torch.ops.aten

#: What ``device=`` calls it.
DEVICE = torch.device('meta')

#: For these the host waits for a number or a length.
_ASKING = (
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.unique_consecutive.default,
)
#: These take indices of the CPU too, and copy them.
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_COPYING = (aten._to_copy.default, aten.copy_.default)


class GPUTensor(Tensor):
    """A tensor of the pretended GPU.

    Attributes:
        held: Its values, on the CPU.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> GPUTensor:
        """A tensor with the values of ``held``, which it keeps."""
        layout = held.size(), held.stride(), held.storage_offset()
        tensor: GPUTensor = Tensor._make_wrapper_subclass(cls, *layout, dtype=held.dtype, device=DEVICE)
        tensor.held = held
        return tensor

    # What torch does in C++, where it knows only that a tensor of ``meta`` has no values:

    def tolist(self) -> Any:
        """By way of the CPU."""
        return self.cpu().tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> Tensor:  # type: ignore[override]
        """Made on the CPU and copied."""
        return torch.tensor(data, dtype=dtype or self.dtype).to(DEVICE)

    def __getitem__(self, index: Any) -> Tensor:
        """With lists as indices, which are made on the CPU and copied."""
        indices = index if isinstance(index, tuple) else (index,)
        copied = (self.new_tensor(list(i), torch.int64) if isinstance(i, (list, range)) else i for i in indices)
        return super().__getitem__(tuple(copied))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Reached by a tensor that is used outside of a :class:`PretendedGPU`."""
        raise RuntimeError(f'{func}: a tensor of the pretended GPU, which is not entered')


class PretendedGPU(TorchDispatchMode):
    """While entered, as a context manager, tensors of :data:`DEVICE` can be made and computed with.

    Attributes:
        waits: What the host has waited for: the operator, and the file and line that asked for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._patches = ExitStack()

    def __enter__(self) -> PretendedGPU:
        autocast, tensor = torch.autocast, torch.tensor

        def autocast_of(device_type: str, **rest: Any) -> torch.autocast:
            return autocast('cpu' if device_type == DEVICE.type else device_type, **rest)

        def tensor_of(data: Any, *, device: Any = None, **rest: Any) -> Tensor:
            made = tensor(data, **rest)
            return made if device is None else made.to(device)

        indices: Any = Union.__getitem__((*get_args(instance_data.IndexType), GPUTensor))  # what MMEngine lets through
        for owner, name, value in (
            (torch, 'autocast', autocast_of),
            (torch, 'tensor', tensor_of),
            (instance_data, 'IndexType', indices),
        ):
            self._patches.enter_context(_patched(owner, name, value))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Computes an operator with the values held."""
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        here = [isinstance(tensor, GPUTensor) for tensor in tensors]
        wanted = kwargs.get('device')
        there = any(here) if wanted is None else torch.device(wanted) == DEVICE
        if not there and not any(here):
            return func(*args, **kwargs)
        _check_devices(func, tensors)
        if _waits(func, args, kwargs, here, there):
            self.waits.append(f'{func} at {_caller()}')
        if wanted is not None:
            kwargs['device'] = 'cpu'
        result = func(*values(args), **values(kwargs))
        if not there:
            return result
        result = tree_map_only(Tensor, GPUTensor, result)
        return return_and_correct_aliasing(func, args, kwargs, result) if any(here) else result


def _check_devices(func: Any, tensors: list[Tensor]) -> None:
    strangers = [tensor for tensor in tensors if not isinstance(tensor, GPUTensor)]
    if any(tensor.device == DEVICE for tensor in strangers):
        raise RuntimeError(f'{func}: a tensor of {DEVICE} without values, made in a way that is not pretended here')
    if func not in _INDEXING + _COPYING and any(tensor.dim() for tensor in strangers):
        raise RuntimeError(f'{func}: expected all tensors to be on the same device, found {DEVICE} and cpu')


def _waits(func: Any, args: Any, kwargs: Any, here: list[bool], there: bool) -> bool:
    if func in _COPYING:
        blocking = not (kwargs.get('non_blocking') or (len(args) > 2 and args[2]))
        return blocking and len({*here, there} if func is aten._to_copy.default else {*here}) == 2
    if func in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        if not all(isinstance(index, GPUTensor) for index in indices):
            return True
        masks = any(index.dtype in (torch.bool, torch.uint8) for index in indices)  # how many they pick is asked
        return masks and (func is aten.index.Tensor or args[2].numel() > 1)
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get('output_size') is None
    return func in _ASKING


def _caller() -> str:
    """File and line of what asked for an operator, without torch and this file."""
    frame: Any = sys._getframe(2)
    while '/torch/' in frame.f_code.co_filename or frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f'{Path(frame.f_code.co_filename).name}:{frame.f_lineno}'


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def moved(what: Any) -> Any:
    """All tensors of lists, tuples, dicts and ``InstanceData`` copied to the pretended GPU; leaves stay leaves."""
    if isinstance(what, InstanceData):
        return InstanceData(**{name: moved(value) for name, value in what.items()})
    if isinstance(what, (list, tuple)):
        return type(what)(moved(part) for part in what)
    return tree_map_only(
        Tensor, lambda tensor: GPUTensor(tensor.detach().clone()).requires_grad_(tensor.requires_grad), what
    )


def values(what: Any) -> Any:
    """The same with tensors of the CPU, whose values they are; nobody waits."""
    if isinstance(what, InstanceData):
        return InstanceData(**{name: values(value) for name, value in what.items()})
    if isinstance(what, list):
        return [values(part) for part in what]
    return tree_map_only(GPUTensor, lambda tensor: tensor.held, what)


def move_module(module: nn.Module) -> nn.Module:
    """Moves parameters and buffers, in place; to be called while a :class:`PretendedGPU` is entered."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(moved(parameter), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = moved(buffer)
    return module
