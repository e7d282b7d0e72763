"""File locks that end with their process: a killed process holds none."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def acquire(path: Path, tries: int = 5) -> TextIO | None:
    """Lock a file, which is made, and return it open; None where another process holds it.

    The lock lasts until the file is closed here and in every child that inherited it.
    """
    file = path.open('a')
    for left in reversed(range(tries)):  # `is_held` looks at it for an instant
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.02 if left else 0)
        else:
            return file
    file.close()
    return None


def is_held(path: Path) -> bool:
    """True if a process holds the lock of this file."""
    if not path.is_file():
        return False
    with path.open('a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextmanager
def waiting(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file; ``on_wait`` is called once where another process has to be waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = acquire(path)
    if file is None:
        on_wait()
        file = path.open('a')
        fcntl.flock(file, fcntl.LOCK_EX)
    with file:
        yield
