"""A fake GPU: whether code keeps to the device of its tensors, and where its host would synchronize with that device.

Tensors of the fake GPU report the device ``meta`` and hold their values in a tensor on the CPU. Every operator on them
is computed with those values, but, as on a GPU, not together with tensors on the CPU. Each host synchronization is
recorded: a number or a length that the host asks for, or a copy between the two that is not ``non_blocking``. Neither
times nor a GPU's own operators can be observed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Union, get_args
from unittest.mock import patch

import torch
from mmengine.structures import InstanceData, instance_data
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

#: The value of ``device=``.
DEVICE = torch.device('meta')

#: Operators whose result, or its length, the host needs.
_SYNCHRONIZING = (
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.unique_consecutive.default,
)
#: Operators that accept indices on the CPU too, and copy them.
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_COPYING = (aten._to_copy.default, aten.copy_.default)


class FakeGPUTensor(Tensor):
    """A tensor on the fake GPU.

    Attributes:
        held: Its values, on the CPU.
    """

    held: Tensor

    # Results get their class from __torch_dispatch__ alone; torch 2.1 would convert a result on the CPU too.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> FakeGPUTensor:
        """A tensor with the values of ``held``, which it keeps."""
        tensor: FakeGPUTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        tensor.held = held
        return tensor

    # Methods that torch implements in C++, where a tensor on ``meta`` has no values:

    def tolist(self) -> Any:
        """Convert through the CPU."""
        return self.cpu().tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> Tensor:  # type: ignore[override]
        """Created on the CPU and copied."""
        return torch.tensor(data, dtype=dtype or self.dtype).to(DEVICE)

    def __getitem__(self, index: Any) -> Tensor:
        """Lists among the indices are created on the CPU and copied."""
        indices = index if isinstance(index, tuple) else (index,)
        copied = (self.new_tensor(list(i), torch.int64) if isinstance(i, (list, range)) else i for i in indices)
        return super().__getitem__(tuple(copied))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Reached by a tensor that is used outside of a :class:`FakeGPU`."""
        raise RuntimeError(f'{func}: a tensor of the fake GPU, which is not entered')


class FakeGPU(TorchDispatchMode):
    """While entered, as a context manager, tensors can be created on :data:`DEVICE` and computed with.

    Attributes:
        host_syncs: The host synchronizations so far: operator, and file and line of its call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host_syncs: list[str] = []
        self._patches = ExitStack()

    def __enter__(self) -> FakeGPU:
        init_autocast, tensor = torch.autocast.__init__, torch.tensor

        def init_autocast_on_cpu(autocast: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
            init_autocast(autocast, 'cpu' if device_type == DEVICE.type else device_type, *args, **kwargs)

        def tensor_of(data: Any, *, device: Any = None, **rest: Any) -> Tensor:
            made = tensor(data, **rest)
            return made if device is None else made.to(device)

        indices: Any = Union.__getitem__((*get_args(instance_data.IndexType), FakeGPUTensor))  # MMEngine accepts these
        for owner, name, value in (
            (torch.autocast, '__init__', init_autocast_on_cpu),
            (torch, 'tensor', tensor_of),
            (instance_data, 'IndexType', indices),
        ):
            self._patches.enter_context(patch.object(owner, name, value))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operator with the values held."""
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((args, tuple(kwargs.values()))))
        inputs_on_gpu = [isinstance(tensor, FakeGPUTensor) for tensor in tensors]
        wanted = kwargs.get('device')
        result_on_gpu = any(inputs_on_gpu) if wanted is None else torch.device(wanted) == DEVICE
        if not result_on_gpu and not any(inputs_on_gpu):
            return func(*args, **kwargs)
        _validate_devices(func, tensors)
        if _synchronizes(func, args, kwargs, inputs_on_gpu, result_on_gpu):
            self.host_syncs.append(f'{func} at {_caller()}')
        if wanted is not None:
            kwargs['device'] = 'cpu'
        result = func(*_mapped(args, FakeGPUTensor, _held), **_mapped(kwargs, FakeGPUTensor, _held))
        changed = _changed_inputs(func, args, kwargs)
        if changed is not None:
            return changed
        return _mapped(result, Tensor, FakeGPUTensor) if result_on_gpu else result


# Operators take and return tensors, lists and tuples of them; torch's own tree_map takes ten times as long for these.


def _tensors(what: Any) -> Iterator[Tensor]:
    """All tensors among the arguments of an operator."""
    if isinstance(what, Tensor):
        yield what
    elif isinstance(what, (list, tuple)):
        for part in what:
            yield from _tensors(part)


def _mapped(what: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Arguments or results of an operator, or what holds them, with a function applied to those of a kind."""
    if isinstance(what, kind):
        return function(what)
    if isinstance(what, (list, tuple)):
        parts = [_mapped(part, kind, function) for part in what]
        return getattr(what, '_make', type(what))(parts)  # a NamedTuple takes them singly
    if isinstance(what, (dict, InstanceData)):
        mapped = {key: _mapped(part, kind, function) for key, part in what.items()}
        return mapped if isinstance(what, dict) else InstanceData(**mapped)
    return what


def _held(tensor: FakeGPUTensor) -> Tensor:
    return tensor.held


def _changed_inputs(func: Any, args: Any, kwargs: Any) -> Any:
    """The inputs that an operator changes in place and returns; None for an operator that returns something new."""
    schema = func._schema
    if not any(returned.alias_info and returned.alias_info.is_write for returned in schema.returns):
        return None
    given = dict(zip((argument.name for argument in schema.arguments), args), **kwargs)
    changed = [
        given[argument.name] for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write
    ]
    return changed[0] if len(schema.returns) == 1 else tuple(changed)


def _validate_devices(func: Any, tensors: list[Tensor]) -> None:
    others = [tensor for tensor in tensors if not isinstance(tensor, FakeGPUTensor)]
    if any(tensor.device == DEVICE for tensor in others):
        raise RuntimeError(f'{func}: a tensor on {DEVICE} without values, created in a way that is not supported here')
    if func not in _INDEXING + _COPYING and any(tensor.dim() for tensor in others):
        raise RuntimeError(f'{func}: expected all tensors to be on the same device, found {DEVICE} and cpu')


def _synchronizes(func: Any, args: Any, kwargs: Any, inputs_on_gpu: list[bool], result_on_gpu: bool) -> bool:
    if func in _COPYING:
        blocking = not (kwargs.get('non_blocking') or (len(args) > 2 and args[2]))
        devices = {*inputs_on_gpu, result_on_gpu} if func is aten._to_copy.default else {*inputs_on_gpu}
        return blocking and len(devices) == 2
    if func in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        if not all(isinstance(index, FakeGPUTensor) for index in indices):
            return True
        masks = any(index.dtype in (torch.bool, torch.uint8) for index in indices)  # the host needs their counts
        return masks and (func is aten.index.Tensor or args[2].numel() > 1)
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get('output_size') is None
    return func in _SYNCHRONIZING


def _caller() -> str:
    """File and line of the call of an operator, outside of torch and this file."""
    frame: Any = sys._getframe(2)
    while '/torch/' in frame.f_code.co_filename or frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f'{Path(frame.f_code.co_filename).name}:{frame.f_lineno}'


def moved(what: Any) -> Any:
    """All tensors of lists, tuples, dicts and ``InstanceData`` copied to the fake GPU; leaves stay leaves."""
    return _mapped(what, Tensor, lambda one: FakeGPUTensor(one.detach().clone()).requires_grad_(one.requires_grad))


def values(what: Any) -> Any:
    """Inverse of :func:`moved`: the values held, on the CPU, without a host synchronization."""
    return _mapped(what, FakeGPUTensor, _held)
