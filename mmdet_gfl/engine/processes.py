"""The cores of a process, and processes that end with the one that has started them."""

from __future__ import annotations

import ctypes
import os
import signal

_PRCTL = getattr(ctypes.CDLL(None), 'prctl', None) if os.name == 'posix' else None
_PR_SET_PDEATHSIG = 1


def cores() -> int:
    """Number of the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def end_with_parent(parent: int) -> None:
    """End this process when its parent ends, however that ends; Linux alone can, elsewhere nothing happens.

    Args:
        parent: Process number of the parent; if it has ended already, so does this process.
    """
    if _PRCTL is None:
        return
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)
