"""Dry run: the rows that would be trained and, from a few real iterations, the time that they would take."""

from __future__ import annotations

import copy
import fcntl
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config

from .commands import Launcher, environment
from .hooks import ITERATIONS
from .locks import is_held
from .mini import Mini
from .plan import Plan
from .presets import Preset, lr_notes, missing
from .progress import reason_of, span
from .results import read
from .work_dir import check_settings, not_writable, open_runs

#: Start of the name of a passing folder, and the lock that its dry run holds.
TIMING, LOCK = '.mmdet_gfl-timing-', '.mmdet_gfl.lock'


@dataclass(frozen=True)
class Timing:
    """Result of a short timing of a row.

    Attributes:
        iteration: Seconds of a training iteration.
        iterations: Of an epoch.
        images: Of training.
        val_image: Seconds of a validation image on one GPU.
        val_images: Of validation.
        checkpoint: Bytes of a checkpoint; 0 where unknown.
        memory: Bytes that a GPU has reserved for it; 0 on a CPU.
    """

    iteration: float
    iterations: int
    images: int
    val_image: float
    val_images: int
    checkpoint: int = 0
    memory: int = 0

    def seconds(self, epochs: int, evaluations: int, gpus: int) -> float:
        """Seconds of a whole training with its evaluations, for which the images are shared out to the GPUs."""
        return epochs * self.iterations * self.iteration + evaluations * self.val_images * self.val_image / gpus


def dry_run(
    configs: Sequence[str],
    seeds: Sequence[int],
    work_dir: Path,
    preset: Plan,
    launcher: Launcher,
    jobs: int,
    quick: bool,
    log: Callable[[str], None],
) -> int:
    """Say what :func:`.running.run_all` would train, with images, hours, disk and memory; train nothing.

    With ``quick`` only the first config that can run is timed, and the others are taken to be as fast; two that fail
    for the same reason stand for all. ``log`` takes a line. The other arguments are those of ``run_all``.

    Returns:
        Exit status: 1 if a row could not run, else 0.

    Raises:
        RowError: The work dir holds runs of other settings, or cannot be written to.
    """
    work_dir = work_dir.absolute()
    check_settings(work_dir, preset)
    waiting, done = open_runs(configs, seeds, work_dir)
    log(f'{len(waiting) + done} runs, {done} of them done: {work_dir}')
    left = list(dict.fromkeys(run.config for run in waiting))
    for note in lr_notes([preset.config(config, seeds[0]) for config in left], preset.gpus):
        log(note)
    known: Timing | None = None
    problems: list[str] = []
    total, failed, sizes, memory, features = 0.0, 0, list[int](), 0, dict[str, float]()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(_timing_folder(work_dir)))
        few = _with_few_images(preset)
        for config in left:
            cfg = few.config(config, seeds[0])
            count = sum(run.config == config for run in waiting)
            timing = known if quick and known is not None else None
            problem = missing(cfg) if launcher.kind != 'slurm' else None  # the data is where the rows train
            problem = problem or (_shared(problems) if quick and timing is None else None)
            if problem is None and timing is None:
                timing, problem = measure_kept(cfg, folder / Path(config).stem, launcher, preset.mini, features)
                problems.append(str(problem))
            if problem is not None or timing is None:
                log(f'  cannot run: {config}: {problem}')
                failed += 1
                continue
            known = timing
            timing = _whole(timing, preset)
            epochs, interval = cfg.train_cfg.max_epochs, cfg.train_cfg.get('val_interval', 1)
            seconds = timing.seconds(epochs, math.ceil(epochs / interval), launcher.gpus)
            total += count * seconds
            sizes += count * [timing.checkpoint]
            memory = max(memory, timing.memory)
            log(f'  {config}, {count} x: {timing.images} images x {epochs} epochs, {_hours(seconds)} each')
    if left and failed == len(left):
        log('in all unknown: no row could be timed')
        return 1
    if any(sizes):
        at_once = sum(sizes) + min(jobs, len(sizes)) * max(sizes)  # a run keeps one, and writes the next beside it
        log(f'disk: about {_size(at_once)} for the checkpoints of {len(sizes)} run{"s" * (len(sizes) > 1)}')
    if memory:
        log(f'memory: up to {_size(memory)} on a GPU for a run')
    if features and preset.mini:
        extra = sum(features.values()) * (2 * preset.mini.train + preset.mini.val)  # images are mirrored at random
        total += jobs * extra
        log(f'features of the frozen backbone: {_hours(extra)} of the total, once; none if they are kept from before')
    beside = f', {jobs} side by side if that slows none' if jobs > 1 else ''
    timed = ' (one row was timed, the others are taken to be as fast)' if quick and len(left) > 1 else ''
    without = f', without the {f"{failed} rows" if failed > 1 else "row"} that cannot run' if failed else ''
    log(f'in all about {_hours(total / jobs)}{beside}{timed}{without}')
    return int(bool(failed))


def _shared(problems: Sequence[str]) -> str | None:
    """A sentence for the other rows where the last two failed for one reason; not for one of a row's own size."""
    alike = len(problems) > 1 and problems[-1] == problems[-2]
    if not alike or 'killed by' in problems[-1] or 'out of memory' in problems[-1]:
        return None
    return f'not tried, since two rows failed alike ({problems[-1]})'


def measure_kept(
    cfg: Config, folder: Path, launcher: Launcher, mini: Mini | None, features: dict[str, float]
) -> tuple[Timing | None, str | None]:
    """As :func:`measure`, with the features of a frozen backbone kept.

    ``features`` maps a backbone to the time that the features of an image take, in seconds. A new backbone is timed
    twice on the same images, of which the first time computes the features.
    """
    timing, problem = measure(cfg, folder, launcher)
    backbone = str(cfg.model.backbone)
    if timing is None or mini is None or not mini.pretrained or backbone in features:
        return timing, problem
    computing = timing.iteration
    timing, problem = measure(cfg, folder, launcher)  # the same images
    if timing is not None:
        features[backbone] = max(0.0, computing - timing.iteration) / mini.batch_size
    return timing, problem


def measure(cfg: Config, folder: Path, launcher: Launcher) -> tuple[Timing | None, str | None]:
    """Train a few iterations and stop; return their times, or None and why there are none."""
    folder.mkdir(exist_ok=True)
    out = folder / 'timing.json'
    timed = copy.deepcopy(cfg)
    timed.custom_hooks = [*cfg.custom_hooks, dict(type='mmdet_gfl.TimingHook', out=str(out))]
    timed.default_hooks.checkpoint.interval = -1
    timed.train_cfg.max_epochs = timed.train_cfg.val_interval = 10_000  # where an epoch is shorter than the timing
    timed.dump(folder / 'config.py')
    command = launcher.command('train.py', [str(folder / 'config.py'), '--work-dir', str(folder)], 'timing')
    env = {**os.environ, **environment(launcher, 0, 1, 'timing'), 'MMDET_GFL_CACHE': str(folder.parent)}
    with (folder / 'log').open('w') as log:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env
        ).returncode
    found = read(out)
    if code or not found:
        return None, reason_of((folder / 'log').read_text(errors='replace'), code)
    return Timing(**found), None


def _with_few_images(preset: Plan) -> Plan:
    """The preset with as many of the shapes as a timing needs; COCO is taken as it is."""
    if not isinstance(preset, Preset) or preset.mini is None:
        return preset
    few = ITERATIONS * preset.mini.batch_size
    return replace(preset, mini=replace(preset.mini, train=min(few, preset.mini.train), val=min(few, preset.mini.val)))


def _whole(timing: Timing, preset: Plan) -> Timing:
    """The timing for all images, where it was made on a few."""
    if preset.mini is None:
        return timing
    mini = preset.mini
    return replace(timing, iterations=math.ceil(mini.train / mini.batch_size), images=mini.train, val_images=mini.val)


@contextmanager
def _timing_folder(work_dir: Path) -> Iterator[str]:
    """A passing folder in the work dir, or in the nearest folder above it that is there; killed runs' are removed."""
    nearest = next(place for place in (work_dir, *work_dir.parents) if place.exists())
    for lock in nearest.glob(f'{TIMING}*/{LOCK}') if nearest.is_dir() else ():
        if not is_held(lock):
            shutil.rmtree(lock.parent, ignore_errors=True)
    try:
        passing = tempfile.TemporaryDirectory(prefix=TIMING, dir=nearest)
    except OSError as error:
        raise not_writable(work_dir, error) from error
    with passing as folder, Path(folder, LOCK).open('a') as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield folder


def _hours(seconds: float) -> str:
    return f'{seconds / 3600:.1f} h' if seconds > 5400 else f'{seconds / 3600:.2f} h ({span(seconds)})'


def _size(count: int) -> str:
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{math.ceil(count / 1e6)} MB'
