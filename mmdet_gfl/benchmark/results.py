"""Files of a run: its folder, state, scores and result, each written atomically."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_gfl.engine.checkout import commit
from mmdet_gfl.engine.files import write
from mmdet_gfl.version import __version__

from .hooks import WHERE
from .plan import Plan

#: The paper's columns and MMEngine's names of them.
COLUMNS = dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', APS='mAP_s', APM='mAP_m', APL='mAP_l')

#: AP in percent by column; None where it is not defined, as for large objects where there are none.
Scores = dict[str, float | None]
Result = dict[str, Any]


def run_dir_of(config: str, seed: int, work_dir: Path) -> Path:
    """Folder of a run."""
    return work_dir / Path(config).with_suffix('') / f'seed-{seed}'


def found_configs(work_dir: Path) -> list[str]:
    """The configs that a work dir has runs of."""
    return sorted({f'{run_dir.parent.relative_to(work_dir).as_posix()}.py' for run_dir in work_dir.glob('*/*/seed-*')})


def found_seeds(config: str, work_dir: Path) -> list[int]:
    """The seeds that a work dir has folders of."""
    names = [run_dir.name.removeprefix('seed-') for run_dir in run_dir_of(config, 0, work_dir).parent.glob('seed-*')]
    return sorted(int(name) for name in names if name.isdecimal())


def read(path: Path) -> dict[str, Any]:
    """A file of JSON; empty where it is not there or no JSON object."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def scores_of(entry: dict[str, Any]) -> Scores:
    """MMEngine's metrics as the paper's columns.

    MMDetection's ``CocoMetric`` gives -1 where a score is not defined, and nothing where no image has a detection,
    which is AP 0.
    """
    if 'coco/bbox_mAP' not in entry:
        return dict.fromkeys(COLUMNS, 0.0)
    values = {column: float(entry.get(f'coco/bbox_{name}', math.nan)) for column, name in COLUMNS.items()}
    return {column: round(100 * value, 6) if value >= 0 else None for column, value in values.items()}


def class_scores_of(entry: dict[str, Any]) -> Scores:
    """AP in percent by class, from what MMDetection's ``CocoMetric`` gives with ``classwise=True``."""
    end = '_precision'
    values = {key[len('coco/') : -len(end)]: value for key, value in entry.items() if key.endswith(end)}
    return {name: round(100 * value, 6) if value >= 0 else None for name, value in values.items()}


def headline(scores: Scores, undefined: str = 'not defined') -> str:
    """The metric of a run in words: ``AP 41.2`` in percent, or another evaluator's first value as it gives it."""
    name, value = next(iter(scores.items()))
    if value is None:
        return f'{name} {undefined}'
    return f'{name} {value:.1f}' if name in COLUMNS else f'{name} {value:.4g}'


def last_evaluation(run_dir: Path) -> dict[str, Any] | None:
    """Values that a training has logged of its last evaluation (``step``: the epoch); None where there was none."""
    found = None
    for file in sorted(run_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # cut short by a kill
                continue
            if 'loss' not in entry and 'step' in entry:
                found = entry
    return found


def last_test(run_dir: Path) -> dict[str, Any] | None:
    """Values of the last test below ``run_dir/test``; None where there was none."""
    files = sorted((run_dir / 'test').glob('*/*.json'))
    return read(files[-1]) if files else None


def result_of(
    config: str, seed: int, evaluation: dict[str, Any], seconds: float, preset: Plan, cfg: Config, run_dir: Path
) -> Result:
    """All that is known about a finished run; paths inside its work dir are given from there.

    Raises:
        ValueError: The evaluation holds no scores.
    """
    where, image_seconds = read(run_dir / WHERE), None
    if {'time', 'data_time'} <= evaluation.keys():  # of a batch, the latter to read it
        val_batch = (cfg.get('val_dataloader') or {}).get('batch_size') or 1
        image_seconds = round((evaluation['time'] - evaluation['data_time']) / val_batch, 6)
    return dict(
        config=config,
        seed=seed,
        scores=preset.scores_of(evaluation),
        class_scores=class_scores_of(evaluation),
        seconds=round(seconds),
        image_seconds=image_seconds,
        preset=preset.name,
        mini=asdict(preset.mini) if preset.mini else None,
        classes=(cfg.model.get('bbox_head') or {}).get('num_classes'),
        parameters=where.get('parameters'),
        base_channels=cfg.model.backbone.get('base_channels', 64) if preset.mini else None,
        options=preset.options,
        gpus=preset.gpus,
        images_per_step=preset.gpus * cfg.train_dataloader.get('batch_size', 1),
        epochs=cfg.train_cfg.max_epochs,
        versions={**where.get('versions', {}), 'mmdet_gfl': __version__},
        device=where.get('device', 'unknown'),
        threads=where.get('threads'),
        commit=commit(),
        resolved=cfg.pretty_text.replace(f'{run_dir.parents[2]}/', ''),
    )


def read_result(file: Path) -> Result | None:
    """A result; scores that are not numbers become None. None where the file is not a result."""
    result = read(file)
    scores = result.get('scores')
    if not isinstance(scores, dict) or 'config' not in result:
        return None
    columns = scores if scores.keys() - COLUMNS.keys() else COLUMNS  # of another evaluator, or the paper's
    values = {column: scores.get(column) for column in columns}
    return {
        **result,
        'scores': {c: v if isinstance(v, (int, float)) and math.isfinite(v) else None for c, v in values.items()},
    }


def read_results(work_dir: Path) -> dict[str, list[Result]]:
    """All results of a work dir by config, in order of their seeds."""
    results: dict[str, list[Result]] = {}
    for file in sorted(work_dir.glob('*/*/seed-*/result.json')):
        result = read_result(file)
        if result is not None:
            results.setdefault(result['config'], []).append(result)
    return {config: sorted(runs, key=lambda run: run.get('seed', 0)) for config, runs in results.items()}


def read_state(run_dir: Path) -> dict[str, Any]:
    """Contents of ``state.json``: ``seconds`` so far, ``epochs``, and ``failed``, why the last attempt did, or None."""
    return read(run_dir / 'state.json')


def write_state(run_dir: Path, seconds: float, epochs: int, failed: str | None = None) -> None:
    """Write ``state.json``; see :func:`read_state`."""
    write(run_dir / 'state.json', json.dumps(dict(seconds=round(seconds, 1), epochs=epochs, failed=failed)))
