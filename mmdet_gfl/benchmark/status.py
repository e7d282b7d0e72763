"""Status of each run, in a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import locks
from .progress import line_of, progress_of
from .results import found_seeds, headline, read_result, read_state, run_dir_of
from .rows import RowError


def status(configs: Sequence[str], seeds: Sequence[int] | None, work_dir: Path) -> str:
    """A line a run: its AP, how far it is, why it failed, that it has begun, or that it has not; and their numbers.

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
    """``'done'``, ``'running'``, ``'failed'``, ``'begun'`` or ``'not begun'``, and what there is to say beside."""
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
    """Of each seed of a config without a result: whether it fails, trains, or has begun, in words."""
    states = {}
    for seed in found_seeds(config, work_dir):
        kind, more = state_of(run_dir_of(config, seed, work_dir))
        if kind not in ('done', 'not begun'):
            states[seed] = (f'{kind}: {more}' if more else kind).replace(f'{work_dir}/', '')
    return states


def _epochs(run_dir: Path) -> int:
    return int(read_state(run_dir).get('epochs', 0))
