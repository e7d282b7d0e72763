"""Training rows one after another, keeping each result, and setting them beside the paper's numbers."""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_gfl.datasets.shapes.generator import make_shapes
from mmdet_gfl.shipped_configs import CONFIG_DIR

from .mini import Mini, shrink
from .rows import Row, RowError, Table

#: The paper's columns and MMEngine's names of them.
COLUMNS = dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', APS='mAP_s', APM='mAP_m', APL='mAP_l')

#: AP in percent by column.
Scores = dict[str, float]

_TRAIN = Path(__file__).parents[1] / '.mim' / 'tools' / 'train.py'


def place_of(config: str, seed: int, work_dir: Path) -> Path:
    """Folder of a run."""
    return work_dir / Path(config).with_suffix('') / f'seed-{seed}'


def run_all(configs: Sequence[str], seeds: Sequence[int], work_dir: Path, mini: Mini, dry: bool = False) -> int:
    """Trains every config with every seed that has no result yet; a run that fails does not stop the others.

    Run again after a kill, it keeps what is finished, and an unfinished run goes on from its checkpoint.

    Returns:
        Exit status: 1 if a run failed, else 0.
    """
    work_dir = work_dir.absolute()
    _check_same_settings(work_dir, mini)
    todo = [(c, s) for s in seeds for c in configs if not (place_of(c, s, work_dir) / 'result.json').is_file()]
    print(f'{len(configs) * len(seeds)} runs, {len(configs) * len(seeds) - len(todo)} of them done: {work_dir}')
    if dry:
        print('\n'.join(f'  would train {config}, seed {seed}' for config, seed in todo))
        return 0
    make_shapes(work_dir / 'shapes', mini.shapes, workers=len(os.sched_getaffinity(0)))
    failed = []
    for number, (config, seed) in enumerate(todo, start=1):
        start = time.monotonic()
        print(f'[{number}/{len(todo)}] {config}, seed {seed}: ', end='', flush=True)
        said = run_one(config, seed, work_dir, mini)
        print(f'{said} ({time.monotonic() - start:.0f} s)', flush=True)
        if said.startswith('failed'):
            failed.append(f'  {config}, seed {seed}: {said}')
    if failed:
        print('\n'.join(['These runs failed; run again to go on with them:', *failed]))
    return int(bool(failed))


def _check_same_settings(work_dir: Path, mini: Mini) -> None:
    """Refuses a work dir with results of another size: they cannot stand in one table."""
    for results in read_results(work_dir).values():
        for result in results:
            if result['mini'] != asdict(mini):
                raise RowError(
                    f'{work_dir} holds {result["config"]} with {result["mini"]}, and this run has {asdict(mini)}; name '
                    f'another --work-dir, or give the same --train-images and --epochs'
                )


def run_one(config: str, seed: int, work_dir: Path, mini: Mini) -> str:
    """Trains one row, or goes on with it, and writes its ``result.json``; returns what became of it in a few words."""
    place = place_of(config, seed, work_dir)
    place.mkdir(parents=True, exist_ok=True)
    with _held(place) as free:
        if not free:
            return 'left to the process that is training it'
        small = shrink(Config.fromfile(CONFIG_DIR / config), work_dir / 'shapes', mini, seed)
        small.dump(place / 'config.py')
        start = time.monotonic()
        with (place / 'train.log').open('a') as log:
            command = [sys.executable, str(_TRAIN), str(place / 'config.py'), '--work-dir', str(place), '--resume']
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if code:
            return f'failed with exit status {code}, see {place / "train.log"}'
        scores = read_scores(place) or dict.fromkeys(COLUMNS, 0.0)  # nothing detected at all is not evaluated
        result = dict(
            config=config, seed=seed, scores=scores, seconds=round(time.monotonic() - start), mini=asdict(mini)
        )
        _write(
            place / 'result.json', json.dumps({**result, **_circumstances(), 'resolved': small.pretty_text}, indent=1)
        )
        return f'AP {scores["AP"]:.1f}'


@contextmanager
def _held(place: Path) -> Iterator[bool]:
    """Whether this process has the folder to itself; another invocation on the same work dir waits for nothing."""
    with (place / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def read_scores(place: Path) -> Scores | None:
    """AP of the last evaluation of a work dir, in percent by the paper's columns.

    None where there was none; MMDetection's ``CocoMetric`` leaves it out where no image has a detection.
    """
    found = None
    for file in sorted(place.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            if 'coco/bbox_mAP' in entry:
                found = {column: 100 * entry[f'coco/bbox_{name}'] for column, name in COLUMNS.items()}
    return found


def _circumstances() -> dict[str, Any]:
    """Versions, device and commit of a result."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {os.cpu_count()} cores'
    git = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=Path(__file__).parent, capture_output=True, text=True)
    names = ('torch', 'mmdet', 'mmengine', 'numpy')
    return dict(versions={name: version(name) for name in names}, device=device, commit=git.stdout.strip() or None)


def _write(path: Path, text: str) -> None:
    """The whole file or none of it."""
    part = path.with_name(f'.{path.name}.part')
    part.write_text(text)
    os.replace(part, path)


def read_results(work_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """All results of a work dir by config."""
    results: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(work_dir.glob('*/*/seed-*/result.json')):
        result = json.loads(file.read_text())
        results.setdefault(result['config'], []).append(result)
    return results


def status(configs: Sequence[str], seeds: Sequence[int], work_dir: Path) -> str:
    """A line a run: its AP, or that it has begun, or that it has not."""
    if not work_dir.is_dir():
        raise RowError(f'--work-dir {work_dir} does not exist; name the one of a `reproduce.py run`')
    lines = []
    for config in configs:
        for seed in seeds:
            place = place_of(config, seed, work_dir)
            state = 'begun' if (place / 'train.log').is_file() else 'not begun'
            if (place / 'result.json').is_file():
                state = f'AP {json.loads((place / "result.json").read_text())["scores"]["AP"]:.1f}'
            lines.append(f'{state:10} {config}, seed {seed}')
    return '\n'.join(lines)


def write_report(tables: list[Table], results: dict[str, list[dict[str, Any]]], work_dir: Path) -> str:
    """Writes ``report.md`` and ``report.json`` and returns the first."""
    if not results:
        raise RowError(f'--work-dir {work_dir} has no results; `reproduce.py run` makes them')
    text = report(tables, results)
    _write(work_dir / 'report.md', text + '\n')
    _write(work_dir / 'report.json', json.dumps(list(results.values()), indent=1))
    return text


def report(tables: list[Table], results: dict[str, list[dict[str, Any]]]) -> str:
    """A table of Markdown for each table of the paper: the paper's AP, the measured one, and their effects.

    An effect is the difference to the table's first row of the same host; effects, not absolute values, are what a
    shrunk run can confirm. Configs of no table come last, and rows that were not run are listed in words.
    """
    parts = [_settings(results), *(_table(table, results) for table in tables)]
    inside = {row.config for table in tables for row in table.rows}
    others = [config for config in results if config not in inside]
    if others:
        lines = [f'| {config} | {len(results[config])} | {_cells(results[config])} |' for config in others]
        parts.append('\n'.join(['### In no table', '', *_head('config', 'seeds'), *lines]))
    return '\n\n'.join(parts)


def _settings(results: dict[str, list[dict[str, Any]]]) -> str:
    """What was measured, in a sentence."""
    mini = next(iter(results.values()))[0]['mini']
    return (
        f'Mini preset, no reproduction of absolute values: ResNet-18 of half width, {mini["channels"]} channels in the '
        f'heads, {mini["train"]} images of the built-in shapes of {mini["size"]} px, {mini["epochs"]} epochs, '
        f'{mini["val"]} validation images. The paper has COCO and ResNet-50. An effect is the difference to the '
        f"table's first row of the same host."
    )


def _table(table: Table, results: dict[str, list[dict[str, Any]]]) -> str:
    measured = [row for row in table.rows if row.config in results]
    lines = [f'### Table {table.name}: {table.title}', '']
    if measured:
        lines += _head('row', 'seeds', "paper's AP (effect)", 'measured effect')
        for row in measured:
            base = next(other for other in table.rows if other.host == row.host)
            paper = f'{row.paper["AP"]:.1f} ({row.paper["AP"] - base.paper["AP"]:+.1f})'
            own = [row.label, str(len(results[row.config])), paper, _effect(row, base, results)]
            lines.append(f'| {" | ".join(own)} | {_cells(results[row.config])} |')
    missing = [row.label for row in table.rows if row.config not in results]
    if missing:
        lines += ['', f'Not run: {"; ".join(missing)}.']
    return '\n'.join(lines)


def _effect(row: Row, base: Row, results: dict[str, list[dict[str, Any]]]) -> str:
    if base.config not in results:
        return 'first row not run'
    return f'{_mean(results[row.config], "AP") - _mean(results[base.config], "AP"):+.1f}'


def _head(*own: str) -> list[str]:
    names = [*own, *COLUMNS]
    return ['| ' + ' | '.join(names) + ' |', '|' + '---|' * len(names)]


def _cells(runs: list[dict[str, Any]]) -> str:
    return ' | '.join(_spread(runs, column) for column in COLUMNS)


def _mean(runs: list[dict[str, Any]], column: str) -> float:
    return statistics.fmean(run['scores'][column] for run in runs)


def _spread(runs: list[dict[str, Any]], column: str) -> str:
    """Mean, and with several seeds the standard deviation."""
    values = [run['scores'][column] for run in runs]
    return f'{statistics.fmean(values):.1f}' + (f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else '')
