"""A work dir: what of it is still to be trained, its data, and the settings that all its runs share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet_gfl.engine.files import write

from . import locks
from .plan import Plan
from .results import read, read_result, read_results, run_dir_of
from .rows import RowError


@dataclass(frozen=True)
class Run:
    """A row with a seed, and its number among all runs."""

    config: str
    seed: int
    number: int

    def __str__(self) -> str:
        return f'{self.config}, seed {self.seed}'


def open_runs(configs: Sequence[str], seeds: Sequence[int], work_dir: Path) -> tuple[list[Run], int]:
    """The runs without a result, or with a damaged one, and how many have one; numbered from the latter on."""
    pairs = [(config, seed) for seed in seeds for config in configs]
    todo = [pair for pair in pairs if read_result(run_dir_of(*pair, work_dir) / 'result.json') is None]
    done = len(pairs) - len(todo)
    return [Run(config, seed, done + number) for number, (config, seed) in enumerate(todo, start=1)], done


def prepare(work_dir: Path, preset: Plan, log: Callable[[str], None]) -> None:
    """Prepare the work dir for these settings; one process at a time.

    Raises:
        RowError: It is for others, or cannot be written to.
    """
    try:
        with locks.waiting(
            work_dir / '.prepare.lock', lambda: log('waiting for another process that looks at the work dir ...')
        ):
            check_settings(work_dir, preset)
            write(work_dir / 'settings.json', json.dumps(preset.sizes(), indent=1))
    except OSError as error:
        raise not_writable(work_dir, error) from error


def not_writable(work_dir: Path, error: OSError) -> RowError:
    """Error for a work dir that cannot be written to."""
    return RowError(f'--work-dir {work_dir} cannot be written to ({error.strerror}); name another folder')


def check_settings(work_dir: Path, preset: Plan) -> None:
    """Raise for a work dir with runs of another size: they cannot stand in one table, nor be resumed.

    Raises:
        RowError: Names what differs.
    """
    wanted = json.loads(json.dumps(preset.sizes()))
    found = read(work_dir / 'settings.json')
    if not found:  # results put together by hand
        kept = next(iter(read_results(work_dir).values()), None)
        mini = kept[0].get('mini') if kept else None
        found = dict(wanted, preset='mini' if mini else 'paper', **({'mini': mini} if mini else {})) if kept else wanted
    differing = _differences(found, wanted)
    if differing:
        raise RowError(
            f'{work_dir} holds runs of other settings ({differing}); name another --work-dir, or give the same'
        )


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    words = []
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            words.append(_differences(old, new))
        elif old != new:
            words.append(f'{key} is {old!r} there, {new!r} here')
    return ', '.join(word for word in words if word)
