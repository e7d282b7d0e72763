"""Progress of a training, from what its hook notes, and the reason for its end, from its log."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .hooks import PROGRESS
from .results import read

_ERROR = re.compile(
    r'^(?:\[?rank\d+\]?:\s*|\d+:\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit))(?:: (.*))?$', re.M
)
#: What torchrun says of any process that failed.
_TORCHRUN = re.compile(r'^[IWE]\d{4} .*(?:elastic|distributed/run).*$', re.M)
_CHILD_CODE = re.compile(r'\(exitcode: (-\d+)\)')
_WRAPPERS = ('ChildFailedError', 'SignalException', 'CalledProcessError')


@dataclass(frozen=True)
class Progress:
    """Progress of a training; see :class:`mmdet_gfl.benchmark.hooks.ProgressHook`.

    Attributes:
        epoch: From 1.
        iteration: Of the epoch, from 1.
        iterations: Of an epoch.
        eta: Seconds to the end of the training.
        ap: Of the last evaluation, in percent; None where there was none.
    """

    epoch: int
    iteration: int
    iterations: int
    eta: float
    ap: float | None = None


def progress_of(run_dir: Path) -> Progress | None:
    """Progress of the last training in a folder; None before its first note."""
    try:
        return Progress(**read(run_dir / PROGRESS))
    except TypeError:
        return None


def reason_of(log: str, code: int) -> str:
    """Why a process ended, in a line.

    Args:
        log: What it wrote.
        code: Its exit status; the negative of a signal's number where that ended it.
    """
    own = _TORCHRUN.split(log)[0]
    child = _CHILD_CODE.search(log)
    code = int(child.group(1)) if child else code
    errors = [(kind, text) for kind, text in _ERROR.findall(log) if not kind.endswith(_WRAPPERS)]
    if code < 0 and not errors:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f'signal {-code}'
        return f'killed by {name}' + ('; most often for want of memory' if -code == signal.SIGKILL else '')
    if errors:
        kind, text = errors[-1]
        text = text.strip().rstrip('.') or 'see the log'
        short = text if len(text) < 300 else f'{text[:300]}...'
        lacks = 'OutOfMemory' in kind or 'out of memory' in text or "can't allocate memory" in text
        return f'{"out of memory: " if lacks else ""}{kind}: {short}'
    lines = [line.strip() for line in own.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if not line.startswith('srun:')), lines[-1] if lines else '')
    return f'exit status {code}' + (f': {last[:300]}' if last else '')


def line_of(progress: Progress | None, epochs: int) -> str:
    """A training's progress in a few words."""
    if progress is None:
        return 'starting'
    ap = '' if progress.ap is None else f', AP {progress.ap:.1f} so far'
    return (
        f'epoch {progress.epoch}/{epochs} [{progress.iteration}/{progress.iterations}]{ap}, {span(progress.eta)} left'
    )


def time_left(
    finished: Sequence[float], running: Sequence[tuple[float, float | None]], waiting: int, jobs: int
) -> float | None:
    """Seconds until all rows are trained; None while nothing is known, or rows in training take longer than expected.

    Args:
        finished: Seconds of each row that is trained, over all its attempts.
        running: Seconds so far of each row in training, over all its attempts, and to its end, None where that is not
            known.
        waiting: Rows not begun.
        jobs: Rows side by side.
    """
    whole = [*finished, *(since + left for since, left in running if left is not None)]
    if not whole:
        return None
    row = sum(whole) / len(whole)
    rest = [max(row - since, 0.0) if left is None else left for since, left in running]
    total = max(max(rest, default=0.0), (sum(rest) + waiting * row) / jobs)
    return None if running and round(total) == 0 else total


def span(seconds: float) -> str:
    """A time in words: ``45 s``, ``12 min``, ``3 h 05 min``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'
