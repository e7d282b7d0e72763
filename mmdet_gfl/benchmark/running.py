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
from typing import TextIO

from mmengine.config import Config

from mmdet_gfl.engine import launch
from mmdet_gfl.utils.processes import end_with_parent

from . import locks
from .commands import Launcher, environment
from .plan import Plan
from .presets import lr_notes, missing
from .progress import Progress, line_of, progress_of, reason_of, span, time_left
from .results import (
    Evaluation,
    headline,
    last_evaluation,
    last_test,
    place_of,
    read_result,
    read_state,
    result_of,
    write,
    write_state,
)
from .screen import Screen
from .work_dir import Job, open_jobs, prepare

#: Seconds from one note of the time spent and of the progress to the next.
NOTE_SECONDS = 5
#: Bytes of a log that hold its last lines of progress.
_TAIL = 16_384


@dataclass
class Running:
    """A job with its process.

    Attributes:
        lock: Held by this process and its child, so the folder is nobody else's while either lives.
        offset: Where in the log this attempt begins.
        before: Seconds that former attempts have taken.
        slot: Place among those side by side.
    """

    job: Job
    place: Path
    cfg: Config
    lock: TextIO
    slot: int
    before: float
    offset: int = 0
    started: float = field(default_factory=time.monotonic)
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path()
    noted: float = 0.0
    progress: Progress | None = None

    @property
    def seconds(self) -> float:
        """Of all attempts."""
        return self.before + time.monotonic() - self.started


@dataclass
class Queue:
    """Train the jobs, ``jobs`` at a time; see :func:`run_all`."""

    work_dir: Path
    preset: Plan
    launcher: Launcher
    jobs: int
    visible: Sequence[str]
    total: int
    waiting: deque[Job]
    say: Callable[[str], None]
    running: list[Running] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def run(self, screen: Screen) -> None:
        """Until nothing is left; whatever happens here, no process stays behind."""
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.jobs:
                    self.begin(self.waiting.popleft())
                for run in list(self.running):
                    self.look(run)
                screen.show(self.line())
                time.sleep(0.2 if self.running else 0)
        finally:
            for run in self.running:
                if run.process is not None:
                    run.process.terminate()
            for run in self.running:
                stop(run)

    def begin(self, job: Job) -> None:
        """Start a job's training, unless another process has it, or it cannot run."""
        place = place_of(job.config, job.seed, self.work_dir)
        try:
            run = self.enter(job, place)
        except OSError as error:
            self.count(job, sentence(error, place), 'nothing was started')
            return
        if run is None:
            return
        try:
            problem = missing(run.cfg) if self.launcher.kind != 'slurm' else None
            if not problem:
                run.cfg.dump(place / 'config.py')
                note(run)
                begins = run.cfg.get('load_from') is not None and last_checkpoint(run) is None  # --resume overrides it
                self.start(run, 'train.py', [] if begins else ['--resume'], place, place / 'train.log')
        except OSError as error:
            problem = sentence(error, place)
        if problem:
            self.fail(run, problem, 'nothing was started')
            return
        self.running.append(run)
        self.say(f'[{job.number}/{self.total}] {job}: training')

    def enter(self, job: Job, place: Path) -> Running | None:
        """A job with its folder, locked; None where another process trains it, or has trained it.

        Raises:
            OSError: The folder cannot be made or locked.
        """
        cfg = self.preset.config(job.config, job.seed)
        place.mkdir(parents=True, exist_ok=True)
        lock = locks.acquire(place / '.lock')
        if lock is None:
            self.elsewhere.append(str(job))
            self.say(f'[{job.number}/{self.total}] {job}: another process is training it')
            return None
        if read_result(place / 'result.json') is not None:  # since this one looked
            lock.close()
            self.say(f'[{job.number}/{self.total}] {job}: another process has trained it')
            return None
        taken = {run.slot for run in self.running}
        slot = next(number for number in range(self.jobs) if number not in taken)
        return Running(job, place, cfg, lock, slot, read_state(place).get('seconds', 0.0))

    def start(self, run: Running, tool: str, arguments: list[str], work_dir: Path, log: Path) -> None:
        """Start a process of a run; its output goes behind what the log holds."""
        config = str(run.place / 'config.py')
        name = f'{Path(run.job.config).stem}-{run.job.seed}'
        command = self.launcher.command(tool, [config, *arguments, '--work-dir', str(work_dir)], name)
        env = {**os.environ, **environment(self.launcher, run.slot, self.jobs, self.visible, str(run.job))}
        with log.open('ab') as out:
            run.log, run.offset = log, out.tell()
            run.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                pass_fds=[run.lock.fileno()],
                preexec_fn=partial(end_with_parent, os.getpid()),
            )

    def look(self, run: Running) -> None:
        """Record the progress of a run; finish it if its process has ended."""
        assert run.process is not None
        code = run.process.poll()
        now = time.monotonic()
        if code is None:
            if now - run.noted > NOTE_SECONDS:
                run.noted, run.progress = now, progress_of(tail(run.log, run.offset)) or run.progress
                note(run)
        elif code:
            self.running.remove(run)
            self.fail(run, reason_of(tail(run.log, run.offset, whole=True), code), f'see {run.log}')
        else:
            self.finish(run)

    def finish(self, run: Running) -> None:
        """Keep the result of a run, or test its last checkpoint where its end was not evaluated.

        The end of a training was not evaluated where a kill came between its last checkpoint and the evaluation.
        """
        evaluation, problem = None, 'it ended without a checkpoint or without scores'
        try:
            evaluation = evaluation_of_end(run, self.preset)
            if evaluation is not None:
                keep(run, evaluation, self.preset)
            elif run.log.name != 'test.log' and (checkpoint := last_checkpoint(run)) is not None:
                self.start(run, 'test.py', [checkpoint], run.place / 'test', run.place / 'test.log')
                return
        except OSError as error:
            evaluation, problem = None, sentence(error, run.place)
        except ValueError as error:  # a number that JSON has no word for, or a file of scores that is none
            evaluation, problem = None, f'what was measured cannot be read or kept: {error}'
        self.running.remove(run)
        if evaluation is None:
            self.fail(run, problem, f'see {run.log}')
            return
        job = run.job
        note(run)
        run.lock.close()
        self.durations.append(run.seconds)
        metric = headline(evaluation.scores, 'not defined: no validation image has an object')
        self.say(f'[{job.number}/{self.total}] {job}: {metric} ({span(run.seconds)})')

    def fail(self, run: Running, reason: str, where: str) -> None:
        """Record a run that has failed, and end its process; the other runs continue."""
        if run.process is not None:
            run.process.terminate()
        note(run, reason)
        stop(run)
        self.count(run.job, reason, where)

    def count(self, job: Job, reason: str, where: str) -> None:
        """Say that a job has failed, now and again at the end."""
        self.failed.append(f'{job}: {reason} ({where})')
        self.say(f'[{job.number}/{self.total}] {job}: failed: {reason} ({where})')

    def line(self) -> str:
        """Progress line: the rows in training, their progress, and the time that is left."""
        parts = [
            f'[{run.job.number}/{self.total}] {Path(run.job.config).stem}, seed {run.job.seed}: '
            f'{line_of(run.progress, run.cfg.train_cfg.max_epochs)}'
            for run in self.running
        ]
        running = [(run.seconds, run.progress.eta if run.progress else None) for run in self.running]
        left = time_left(self.durations, running, len(self.waiting), self.jobs)
        return ' | '.join([*([] if left is None else [f'all: {span(left)} left']), *parts])


def run_all(
    configs: Sequence[str],
    seeds: Sequence[int],
    work_dir: Path,
    preset: Plan,
    launcher: Launcher,
    jobs: int = 1,
    visible: Sequence[str] = (),
) -> int:
    """Train every config with every seed that has no result yet; a run that fails does not stop the others.

    Run again after a kill, it keeps what is finished, and an unfinished run goes on from its last checkpoint, which is
    an epoch old at most.

    Args:
        configs: Relative to ``configs/``.
        seeds: Of each config.
        work_dir: Where everything goes.
        preset: How rows are trained.
        launcher: What starts their processes.
        jobs: Rows side by side.
        visible: GPUs of this machine.

    Returns:
        Exit status: 1 if a run failed, else 0.

    Raises:
        RowError: The work dir holds runs of other settings.
    """
    work_dir = work_dir.absolute()
    waiting, done = open_jobs(configs, seeds, work_dir)
    screen = Screen(sys.stdout)
    screen.say(f'{len(waiting) + done} runs, {done} of them done: {work_dir}')
    cfgs = [preset.config(config, seeds[0]) for config in configs]
    for note in lr_notes(cfgs, preset.gpus):
        screen.say(note)
    prepare(work_dir, preset, screen.say)
    queue = Queue(work_dir, preset, launcher, jobs, visible, len(waiting) + done, deque(waiting), screen.say)
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        queue.run(screen)
    except KeyboardInterrupt:
        screen.say('stopped; the same command goes on')
        return 130
    finally:
        signal.signal(signal.SIGTERM, former)
    if queue.elsewhere:
        screen.say('\n'.join(['These runs were left to another process:', *(f'  {name}' for name in queue.elsewhere)]))
    if queue.failed:
        screen.say(
            '\n'.join(['These runs failed; the same command tries them again:', *(f'  {x}' for x in queue.failed)])
        )
    return int(bool(queue.failed))


def last_checkpoint(run: Running) -> str | None:
    """The checkpoint that a run would go on from."""
    cfg = Config(dict(resume=True, load_from=None, work_dir=str(run.place)))
    return launch.find_checkpoint(cfg)


def evaluation_of_end(run: Running, preset: Plan) -> Evaluation | None:
    """A run's test, or the evaluation after its last epoch; None where there is neither."""
    test = last_test(run.place, preset.scores_of) if run.log.name == 'test.log' else None
    last = last_evaluation(run.place, preset.scores_of)
    if test is None and last is not None and last.epoch == run.cfg.train_cfg.max_epochs:
        return last
    return test


def keep(run: Running, evaluation: Evaluation, preset: Plan) -> None:
    """Write the result of a run.

    Raises:
        OSError: It cannot be written.
        ValueError: It holds numbers that JSON has no word for.
    """
    result = result_of(run.job.config, run.job.seed, evaluation, run.seconds, preset, run.cfg, run.place)
    write(run.place / 'result.json', json.dumps(result, indent=1, allow_nan=False))


def tail(log: Path, offset: int, whole: bool = False) -> str:
    """The end of what an attempt has written into its log, or all of it; empty where it cannot be read."""
    try:
        with log.open('rb') as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(offset if whole else max(offset, end - _TAIL))
            return file.read().decode(errors='replace')
    except OSError:
        return ''


def note(run: Running, failed: str | None = None) -> None:
    """Write what is known of a run into its ``state.json``, where that can be written: a run does not end for it."""
    with contextlib.suppress(OSError):
        write_state(run.place, run.seconds, run.cfg.train_cfg.max_epochs, failed)


def sentence(error: OSError, place: Path) -> str:
    """Describe an error of the system with its file; the run's folder where it names none, as of a full disk."""
    return f'{error.strerror or error}: {error.filename or place}'


def stop(run: Running) -> None:
    """Wait for the end of a process that was told to end, and release the lock of its folder."""
    if run.process is not None:
        try:
            run.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            run.process.kill()
            run.process.wait()
    run.lock.close()
