"""Training of rows: each in processes of its own, several side by side, resumed after any interruption."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from mmengine.config import Config

from mmdet_gfl.engine import launch
from mmdet_gfl.engine.files import write
from mmdet_gfl.engine.processes import end_with_parent

from . import locks
from .commands import Launcher, environment
from .plan import Plan
from .presets import lr_notes, missing
from .progress import Progress, Screen, line_of, progress_of, reason_of, span, time_left
from .results import headline, last_evaluation, last_test, read_result, read_state, result_of, run_dir_of, write_state
from .work_dir import Run, open_runs, prepare

#: Seconds from one note of the time spent and of the progress to the next.
NOTE_SECONDS = 5


@dataclass
class RunProcess:
    """A run with its process.

    Attributes:
        lock: Held by this process and its child, so the folder is nobody else's while either lives.
        offset: Where in the log this attempt begins.
        before: Seconds that former attempts have taken.
        earlier: Progress that a former attempt has noted last.
        slot: Place among those side by side.
    """

    run: Run
    run_dir: Path
    cfg: Config
    lock: TextIO
    slot: int
    before: float
    offset: int = 0
    started: float = field(default_factory=time.monotonic)
    popen: subprocess.Popen[bytes] | None = None
    log: Path = Path()
    noted: float = 0.0
    progress: Progress | None = None
    earlier: Progress | None = None

    @property
    def seconds(self) -> float:
        """Seconds of all attempts."""
        return self.before + time.monotonic() - self.started


@dataclass
class Queue:
    """Train the runs, ``jobs`` at a time; see :func:`run_all`."""

    work_dir: Path
    preset: Plan
    launcher: Launcher
    jobs: int
    total: int
    waiting: deque[Run]
    log: Callable[[str], None]
    running: list[RunProcess] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def run(self, screen: Screen) -> None:
        """Until nothing is left; whatever happens here, no process stays behind."""
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.jobs:
                    self.begin(self.waiting.popleft())
                for process in list(self.running):
                    self.update(process)
                screen.show(self.line())
                time.sleep(0.2 if self.running else 0)
        finally:
            for process in self.running:
                if process.popen is not None:
                    process.popen.terminate()
            for process in self.running:
                stop(process)

    def begin(self, run: Run) -> None:
        """Start a run, unless another process has it, or it cannot run."""
        run_dir = run_dir_of(run.config, run.seed, self.work_dir)
        try:
            process = self.enter(run, run_dir)
        except OSError as error:
            self.count(run, sentence(error, run_dir), 'nothing was started')
            return
        if process is None:
            return
        try:
            problem = missing(process.cfg) if self.launcher.kind != 'slurm' else None
            if not problem:
                process.cfg.dump(run_dir / 'config.py')
                note(process)
                begins = process.cfg.get('load_from') is not None and last_checkpoint(process) is None
                resume = [] if begins else ['--resume']  # which overrides load_from
                self.start(process, 'train.py', resume, run_dir, run_dir / 'train.log')
        except OSError as error:
            problem = sentence(error, run_dir)
        if problem:
            self.fail(process, problem, 'nothing was started')
            return
        self.running.append(process)
        self.log(f'[{run.number}/{self.total}] {run}: training')

    def enter(self, run: Run, run_dir: Path) -> RunProcess | None:
        """A run with its folder, locked; None where another process trains it, or has trained it.

        Raises:
            OSError: The folder cannot be made or locked.
        """
        cfg = self.preset.config(run.config, run.seed)
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = locks.acquire(run_dir / '.lock')
        if lock is None:
            self.elsewhere.append(str(run))
            self.log(f'[{run.number}/{self.total}] {run}: another process is training it')
            return None
        if read_result(run_dir / 'result.json') is not None:  # since this one looked
            lock.close()
            self.log(f'[{run.number}/{self.total}] {run}: another process has trained it')
            return None
        taken = {process.slot for process in self.running}
        slot = next(number for number in range(self.jobs) if number not in taken)
        return RunProcess(run, run_dir, cfg, lock, slot, read_state(run_dir).get('seconds', 0.0))

    def start(self, process: RunProcess, tool: str, arguments: list[str], work_dir: Path, log: Path) -> None:
        """Start a process of a run; its output goes behind what the log holds."""
        config = str(process.run_dir / 'config.py')
        name = f'{Path(process.run.config).stem}-{process.run.seed}'
        command = self.launcher.command(tool, [config, *arguments, '--work-dir', str(work_dir)], name)
        env = {**os.environ, **environment(self.launcher, process.slot, self.jobs, str(process.run))}
        with log.open('ab') as out:
            process.log, process.offset, process.earlier = log, out.tell(), progress_of(process.run_dir)
            process.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                pass_fds=[process.lock.fileno()],
                preexec_fn=partial(end_with_parent, os.getpid()),
            )

    def update(self, process: RunProcess) -> None:
        """Record the progress of a run; finish it if its process has ended."""
        assert process.popen is not None
        code = process.popen.poll()
        now = time.monotonic()
        if code is None:
            if now - process.noted > NOTE_SECONDS:
                process.noted = now
                progress = progress_of(process.run_dir)
                process.progress = process.progress if progress == process.earlier else progress
                note(process)
        elif code:
            self.running.remove(process)
            self.fail(process, reason_of(tail(process.log, process.offset), code), f'see {process.log}')
        else:
            self.finish(process)

    def finish(self, process: RunProcess) -> None:
        """Keep the result of a run, or test its last checkpoint where its end was not evaluated.

        The end of a training was not evaluated where a kill came between its last checkpoint and the evaluation.
        """
        run, scores, problem = process.run, None, 'it ended without a checkpoint or without scores'
        try:
            evaluation = evaluation_of_end(process)
            if evaluation is not None:
                how = (evaluation, process.seconds, self.preset, process.cfg, process.run_dir)
                result = result_of(run.config, run.seed, *how)
                write(process.run_dir / 'result.json', json.dumps(result, indent=1, allow_nan=False))
                scores = result['scores']
            elif process.log.name != 'test.log' and (checkpoint := last_checkpoint(process)) is not None:
                self.start(process, 'test.py', [checkpoint], process.run_dir / 'test', process.run_dir / 'test.log')
                return
        except OSError as error:
            problem = sentence(error, process.run_dir)
        except ValueError as error:  # a number that JSON cannot represent, or an invalid file of scores
            problem = f'what was measured cannot be read or kept: {error}'
        self.running.remove(process)
        if scores is None:
            self.fail(process, problem, f'see {process.log}')
            return
        note(process)
        process.lock.close()
        self.durations.append(process.seconds)
        metric = headline(scores, 'not defined: no validation image has an object')
        self.log(f'[{run.number}/{self.total}] {run}: {metric} ({span(process.seconds)})')

    def fail(self, process: RunProcess, reason: str, where: str) -> None:
        """Record a run that has failed, and end its process; the other runs continue."""
        if process.popen is not None:
            process.popen.terminate()
        note(process, reason)
        stop(process)
        self.count(process.run, reason, where)

    def count(self, run: Run, reason: str, where: str) -> None:
        """Say that a run has failed, now and again at the end."""
        self.failed.append(f'{run}: {reason} ({where})')
        self.log(f'[{run.number}/{self.total}] {run}: failed: {reason} ({where})')

    def line(self) -> str:
        """Progress line: the rows in training, their progress, and the time that is left."""
        parts = [
            f'[{process.run.number}/{self.total}] {Path(process.run.config).stem}, seed {process.run.seed}: '
            f'{line_of(process.progress, process.cfg.train_cfg.max_epochs)}'
            for process in self.running
        ]
        running = [(process.seconds, process.progress.eta if process.progress else None) for process in self.running]
        left = time_left(self.durations, running, len(self.waiting), self.jobs)
        return ' | '.join([*([] if left is None else [f'all: {span(left)} left']), *parts])


def run_all(
    configs: Sequence[str],
    seeds: Sequence[int],
    work_dir: Path,
    preset: Plan,
    launcher: Launcher,
    jobs: int = 1,
) -> int:
    """Train every config with every seed that has no result yet; a run that fails does not stop the others.

    Run again after a kill, it keeps what is finished, and an unfinished run resumes from its last checkpoint, which is
    an epoch old at most.

    Args:
        configs: Relative to ``configs/``.
        seeds: Of each config.
        work_dir: Where everything goes.
        preset: How rows are trained.
        launcher: What starts their processes.
        jobs: Rows side by side.

    Returns:
        Exit status: 1 if a run failed, else 0.

    Raises:
        RowError: The work dir holds runs of other settings.
    """
    work_dir = work_dir.absolute()
    waiting, done = open_runs(configs, seeds, work_dir)
    screen = Screen(sys.stdout)
    screen.log(f'{len(waiting) + done} runs, {done} of them done: {work_dir}')
    cfgs = [preset.config(config, seeds[0]) for config in configs]
    for note in lr_notes(cfgs, preset.gpus):
        screen.log(note)
    prepare(work_dir, preset, screen.log)
    queue = Queue(work_dir, preset, launcher, jobs, len(waiting) + done, deque(waiting), screen.log)
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        queue.run(screen)
    except KeyboardInterrupt:
        screen.log('stopped; the same command resumes')
        return 130
    finally:
        signal.signal(signal.SIGTERM, former)
    for title, runs in (
        ('These runs were left to another process:', queue.elsewhere),
        ('These runs failed; the same command tries them again:', queue.failed),
    ):
        if runs:
            screen.log('\n  '.join([title, *runs]))
    return int(bool(queue.failed))


def last_checkpoint(process: RunProcess) -> str | None:
    """The checkpoint that a run would resume from."""
    cfg = Config(dict(resume=True, load_from=None, work_dir=str(process.run_dir)))
    return launch.find_checkpoint(cfg)


def evaluation_of_end(process: RunProcess) -> dict[str, Any] | None:
    """Values of a run's test, or of the evaluation after its last epoch; None where there is neither."""
    test = last_test(process.run_dir) if process.log.name == 'test.log' else None
    last = last_evaluation(process.run_dir)
    if test is None and last is not None and last['step'] == process.cfg.train_cfg.max_epochs:
        return last
    return test


def tail(log: Path, offset: int) -> str:
    """Output of an attempt in its log; empty where it cannot be read."""
    try:
        with log.open('rb') as file:
            file.seek(offset)
            return file.read().decode(errors='replace')
    except OSError:
        return ''


def note(process: RunProcess, failed: str | None = None) -> None:
    """Write what is known of a run into its ``state.json``, where that can be written: a run does not end for it."""
    with contextlib.suppress(OSError):
        write_state(process.run_dir, process.seconds, process.cfg.train_cfg.max_epochs, failed)


def sentence(error: OSError, run_dir: Path) -> str:
    """Describe an error of the system with its file; the run's folder where it names none, as of a full disk."""
    return f'{error.strerror or error}: {error.filename or run_dir}'


def stop(process: RunProcess) -> None:
    """Wait for the end of a process that was told to end, and release the lock of its folder."""
    if process.popen is not None:
        try:
            process.popen.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()
    process.lock.close()
