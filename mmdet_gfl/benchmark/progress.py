"""Progress of trainings, from what their hook notes, the reason for an end, from the log, and the state of all runs."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from . import locks
from .hooks import PROGRESS
from .results import found_seeds, headline, read, read_result, read_state, run_dir_of
from .rows import RowError

_ERROR = re.compile(
    r'^(?:\[?rank\d+\]?:\s*|\d+:\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit))(?:: (.*))?$', re.M
)
#: What torchrun says of any process that failed.
_TORCHRUN = re.compile(r'^[IWE]\d{4} .*(?:elastic|distributed/run).*$', re.M)
#: What nanobind writes at the end of a Python from 3.13 on.
_LEAKS = re.compile(r'^nanobind: leaked ', re.M)
_CHILD_CODE = re.compile(r'\(exitcode: (-\d+)\)')
_WRAPPERS = ('ChildFailedError', 'SignalException', 'CalledProcessError')
#: Seconds between lines of progress where the output is not a terminal.
LINE_SECONDS = 30


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
    own = _LEAKS.split(_TORCHRUN.split(log)[0])[0]
    child = _CHILD_CODE.search(log)
    code = int(child.group(1)) if child else code
    errors = [(kind, text) for kind, text in _ERROR.findall(log) if not kind.endswith(_WRAPPERS)]
    if code < 0 and not errors:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f'signal {-code}'
        return f'killed by {name}' + ('; most often because memory ran out' if -code == signal.SIGKILL else '')
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


class Screen:
    """Progress as one line that changes on a terminal, else as a line now and then."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.shown, self.since = out, '', time.monotonic()

    def show(self, line: str) -> None:
        """Show the line."""
        if self.out.isatty():
            if line != self.shown:
                width = os.get_terminal_size(self.out.fileno()).columns
                self.out.write(f'\r\x1b[K{line[: width - 1]}')
                self.out.flush()
                self.shown = line
        elif line and time.monotonic() - self.since > LINE_SECONDS:
            self.log(line)

    def log(self, text: str) -> None:
        """A line that stays."""
        self.out.write(f'\r\x1b[K{text}\n' if self.out.isatty() else f'{text}\n')
        self.out.flush()
        self.shown, self.since = '', time.monotonic()


def status(configs: Sequence[str], seeds: Sequence[int] | None, work_dir: Path) -> str:
    """A line for each run: its AP, its progress, why it failed, or that it has not begun; and their numbers.

    Args:
        configs: Relative to ``configs/``.
        seeds: Of each config; None: all that the work dir has of one of them.
        work_dir: Of a run.

    Raises:
        RowError: There is no such work dir.
    """
    if not work_dir.is_dir():
        raise RowError(f'--work-dir {work_dir} does not exist; name the one of a `reproduce.py run`')
    seeds = seeds or sorted({seed for config in configs for seed in found_seeds(config, work_dir)}) or [0]
    states = [(state_of(run_dir_of(config, seed, work_dir)), config, seed) for config in configs for seed in seeds]
    counts = Counter(kind for (kind, _), _, _ in states)
    lines = [f'{kind:9} {config}, seed {seed}' + (f': {more}' if more else '') for (kind, more), config, seed in states]
    return '\n'.join([*lines, ', '.join(f'{count} {kind}' for kind, count in counts.items())])


def state_of(run_dir: Path) -> tuple[str, str]:
    """``'done'``, ``'running'``, ``'failed'``, ``'begun'`` or ``'not begun'``, and details."""
    result = read_result(run_dir / 'result.json')
    if result is not None:
        return 'done', headline(result['scores'])
    log = run_dir / 'train.log'
    progress = progress_of(run_dir)
    if locks.is_held(run_dir / '.lock'):
        return 'running', line_of(progress, _epochs(run_dir))
    failed = read_state(run_dir).get('failed')
    if failed:
        return 'failed', f'{failed}, see {log}' if log.is_file() else failed
    if not log.is_file():
        return 'not begun', ''
    return 'begun', f'in epoch {progress.epoch}/{_epochs(run_dir)}' if progress else ''


def unfinished(config: str, work_dir: Path) -> dict[int, str]:
    """State in words of each seed of a config without a result: that it fails, trains, or has begun."""
    states = {}
    for seed in found_seeds(config, work_dir):
        kind, more = state_of(run_dir_of(config, seed, work_dir))
        if kind not in ('done', 'not begun'):
            states[seed] = (f'{kind}: {more}' if more else kind).replace(f'{work_dir}/', '')
    return states


def _epochs(run_dir: Path) -> int:
    return int(read_state(run_dir).get('epochs', 0))
