"""Measurements of ``tools/analysis_tools/benchmark_head.py``: times in turn, their spread, and memory."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import timeit
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils import benchmark


class Spread(NamedTuple):
    """Median and quartiles of some samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of at least one sample; quartiles between two samples are interpolated."""
        low, median, high = np.percentile(samples, [25, 50, 75])
        return cls(float(median), float(low), float(high))


class Allocation(NamedTuple):
    """Bytes that a function allocates.

    Attributes:
        peak: Most that is allocated at once, beyond what was before.
        alive: What is left of it when the function has returned, its result included.
    """

    peak: int
    alive: int


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Spread of theirs over ours, turn by turn: whatever else the machine does in a turn slows both."""
    return Spread.of([their / our for their, our in zip(theirs, ours, strict=True)])


def times_in_turn(
    functions: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Milliseconds of each function, ``repeats`` samples each.

    In a turn every function runs once, in an order that moves on by one from turn to turn, with the garbage collector
    off. On a GPU, torch's current one, a sample ends when all its kernels have; to free the result is not part of it.

    Args:
        functions: What to time, by name.
        repeats: Turns that count.
        warm_up: Turns before them that do not.
    """
    names = list(functions)
    timers = {
        name: timeit.Timer('result = function()', timer=benchmark.timer, globals=dict(function=function))
        for name, function in functions.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm_up + repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            milliseconds = 1e3 * timers[name].timeit(1)
            if turn >= warm_up:
                samples[name].append(milliseconds)
    return samples


class _Kept:
    """Placeholder that autograd holds for a saved tensor; freed with its graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def bytes_kept_for_backward(function: Callable[[], object]) -> int:
    """Bytes that the graph behind the function's result keeps for its backward.

    Each storage counts once, however many tensors share it, and only if the graph that saved it still lives when the
    function has returned. Inputs that are saved count too: nothing else would keep them.
    """
    alive: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Kept:
        kept = _Kept(tensor.detach())  # a result that is saved would keep its own graph alive
        alive.add(kept)
        return kept

    with saved_tensors_hooks(pack, lambda kept: kept.tensor):
        result = function()
    storages = [kept.tensor.untyped_storage() for kept in alive]
    del result
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def allocation(function: Callable[[], object], device: torch.device) -> Allocation:
    """Bytes that a function allocates on ``device``: by CUDA's own statistics, or by the profiler on the CPU."""
    return _allocation_on_cuda(function, device) if device.type == 'cuda' else _allocation_on_cpu(function)


def _allocation_on_cuda(function: Callable[[], object], device: torch.device) -> Allocation:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = function()
    torch.cuda.synchronize(device)
    peak, alive = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    del result
    return Allocation(peak - before, alive - before)


def _allocation_on_cpu(function: Callable[[], object]) -> Allocation:
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding='utf-8'))['traceEvents']
    del result
    return running_sum(memory_changes(events))


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """The profiler's library tells stderr whenever it starts or stops, whatever its log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, 'w') as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def memory_changes(events: Sequence[Mapping[str, Any]]) -> list[int]:
    """Bytes that each allocation of a profiler's trace adds, or takes away where negative, in order of time."""
    changes = [event for event in events if event.get('name') == '[memory]' and event['args']['Device Type'] == 0]
    return [event['args']['Bytes'] for event in sorted(changes, key=lambda event: event['ts'])]


def running_sum(changes: Sequence[int]) -> Allocation:
    """Peak and end of a running sum that starts at 0."""
    sums = np.cumsum([0, *changes])
    return Allocation(int(sums.max()), int(sums[-1]))
