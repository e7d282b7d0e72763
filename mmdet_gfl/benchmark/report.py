"""Report of a work dir: Markdown, JSON, and a picture per table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from mmdet_gfl.engine.files import write
from mmdet_gfl.utils.tables import markdown

from . import pictures
from .compare import Comparison, Effect, Measured, RowComparison, compare, measure, signed
from .mini import Mini
from .progress import span, unfinished
from .results import COLUMNS, Result, read_results
from .rows import RowError, Table
from .small import EVERY, SIZE

_HOW_TO_READ = (
    'Cells are paper / measured, AP in percent, the measured one as mean ± standard deviation over seeds. An effect is '
    "a row less the table's first row of the same host (tables gflv2 and rtmdet: of the same backbone and schedule), "
    "seed by seed; its ± is Student's 95% interval over the seeds that both have. It is confirmed where the interval "
    "leaves out 0 on the side of the paper's effect, reversed on the other. Effects, not absolute values, are what a "
    'reduced run can confirm.'
)


def write_report(tables: Sequence[Table], work_dir: Path) -> str:
    """Write ``report.md``, ``report.json`` and a picture per table with results; return the first.

    Raises:
        RowError: There is no such work dir, or none of a run.
    """
    if not work_dir.is_dir():
        raise RowError(f'--work-dir {work_dir} does not exist; name the one of a `reproduce.py run`')
    if not (work_dir / 'settings.json').is_file() and not read_results(work_dir):
        raise RowError(f'--work-dir {work_dir} has no runs; name the one of a `reproduce.py run`, or start one')
    configs = {row.config for table in tables for row in table.rows}
    states = {config: unfinished(config, work_dir) for config in configs}  # before the results, for what ends meanwhile
    results = read_results(work_dir)
    comparisons = [compare(table, results, states) for table in tables]
    drawn = {}
    for comparison in comparisons:
        if any(row.measured['AP'] for row in comparison.rows):
            name = f'table_{comparison.table.name}.png'
            pictures.draw(comparison).savefig(work_dir / name, dpi=110)
            drawn[comparison.table.name] = name
    text = page(comparisons, results, drawn)
    write(work_dir / 'report.md', text + '\n')
    write(work_dir / 'report.json', json.dumps(as_json(comparisons, results), indent=1, allow_nan=False))
    return text


def as_json(comparisons: Sequence[Comparison], results: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """All numbers of the report, and the results they come from without their resolved configs."""
    tables = [
        dict(
            name=comparison.table.name,
            title=comparison.table.title,
            rows=[_row_as_json(row, comparison.table) for row in comparison.rows],
        )
        for comparison in comparisons
    ]
    return dict(tables=tables, results=without_configs(results))


def without_configs(results: Mapping[str, Sequence[Result]]) -> list[Result]:
    """All results without their resolved configs."""
    return [{k: v for k, v in run.items() if k != 'resolved'} for runs in results.values() for run in runs]


def _row_as_json(row: RowComparison, table: Table) -> dict[str, Any]:
    effects = {
        column: dict(asdict(found), agrees=found.agrees, verdict=found.verdict) for column, found in row.effects.items()
    }
    return dict(
        config=row.table_row.config,
        label=row.table_row.label,
        baseline=table.baseline(row.table_row).config,
        seeds=row.seeds,
        paper=row.table_row.paper,
        measured={column: found and asdict(found) for column, found in row.measured.items()},
        effects=effects,
        state=row.state,
        not_measured=[dict(seed=seed, state=state) for seed, state in row.missing.items()],
    )


def page(comparisons: Sequence[Comparison], results: Mapping[str, Sequence[Result]], drawn: Mapping[str, str]) -> str:
    """The whole report in words and tables.

    Args:
        comparisons: Of each table.
        results: By config.
        drawn: File of the picture by table, where there is one.
    """
    inside = {row.table_row.config for comparison in comparisons for row in comparison.rows}
    measured = sum(config in results for config in inside)
    parts = ['# The paper and what was measured', *settings(results)]
    parts.append(f'{measured} of {len(inside)} configs of these tables have results. {_HOW_TO_READ}')
    parts += [_table(comparison, drawn.get(comparison.table.name)) for comparison in comparisons]
    parts += _by_class(results)
    others = {config: runs for config, runs in results.items() if config not in inside}
    if others:
        parts.append(_by_config('In none of these tables', others, COLUMNS))
    return '\n\n'.join(parts)


def settings(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """Describe models, data and machine of the results: a sentence for each combination."""
    ways: dict[str, list[Result]] = {}
    for runs in results.values():
        for run in runs:
            ways.setdefault(_way(run), []).append(run)
    return [f'{way} {circumstances(runs)}' for way, runs in ways.items()] or ['Nothing was measured yet.']


def _way(run: Result) -> str:
    mini, options = run.get('mini'), run.get('options')
    changed = f' Changed with --cfg-options: {", ".join(f"{k}={v}" for k, v in options.items())}.' if options else ''
    if mini:
        base, classes = run.get('base_channels'), run.get('classes')
        width = f' ({base} channels where the usual one has 64)' if base else ''
        backbone = f'a narrow ResNet-18{width} from scratch'
        if mini.get('pretrained'):
            backbone = 'an EfficientNet-Lite0 from ImageNet that does not learn'
        kinds = f' with {classes} classes' if classes else ''
        return (
            f'Preset mini, no reproduction of absolute values: {backbone}, '
            f'{mini["channels"]} channels in the heads, {mini["train"]} training and {mini["val"]} validation images '
            f'of the built-in shapes of {mini["size"]} px{kinds}, {mini["epochs"]} epochs{_unusual(mini)}.{changed} '
            f'The paper has COCO and ResNet-50.'
        )
    if run.get('preset') == 'small':
        return (
            'Preset small, no reproduction of absolute values: a ResNet-18 from ImageNet, the training images of COCO '
            f'whose id is a multiple of {EVERY}, {SIZE} px, {run.get("epochs")} epochs.{changed} The paper has all '
            'images, ResNet-50 and 800 px.'
        )
    return f'Preset paper: the configs as they are, on the COCO images of data/coco.{changed}'


def _unusual(mini: Mapping[str, Any]) -> str:
    """Sizes that are not the preset's own, but for those that are in each description."""
    described = {'size', 'train', 'val', 'epochs', 'channels', 'pretrained'}
    defaults = {field.name: field.default for field in fields(Mini) if field.name not in described}
    return ''.join(f', {key}={mini[key]}' for key, usual in defaults.items() if mini.get(key, usual) != usual)


def circumstances(runs: Sequence[Result]) -> str:
    """Runs, seeds, hours, machines and versions in a sentence."""

    def values_of(key: str) -> str:
        return ', '.join(dict.fromkeys(str(run.get(key)) for run in runs if run.get(key) is not None)) or 'unknown'

    versions = dict.fromkeys(f'torch {v["torch"]}' for run in runs if 'torch' in (v := run.get('versions', {})))
    gpus = dict.fromkeys(f', {run["gpus"]} GPUs per row' for run in runs if run.get('gpus', 1) > 1)
    found = [str(run['commit']) for run in runs if run.get('commit')]
    commits = ', '.join(dict.fromkeys(commit[:10] + '-dirty' * commit.endswith('-dirty') for commit in found))
    time = span(sum(run.get('seconds', 0) for run in runs))
    seeds = ', '.join(map(str, sorted({run.get('seed', 0) for run in runs})))
    of = f'{len(runs)} runs, seeds {seeds}' if len(runs) > 1 else f'One run, seed {seeds}'
    what = '; '.join([', '.join(versions) or 'torch unknown', *([f'commit {commits}'] if commits else [])])
    return f'{of}; {time} of training on {values_of("device")}{"".join(gpus)} ({what}).'


def _table(comparison: Comparison, picture: str | None) -> str:
    table, rows = comparison.table, comparison.rows
    parts = [f'## Table {table.name}: {table.title}']
    measured = [row for row in rows if row.seeds]
    if picture:
        parts.append(f'![table {table.name}]({picture})')
    if measured:
        cells = [
            [row.table_row.label, _seeds(row), *(_score(row.table_row.paper.get(c), row.measured[c]) for c in COLUMNS)]
            for row in measured
        ]
        parts.append(markdown(['row', 'seeds', *COLUMNS], cells))
    compared = [row for row in measured if row.effects]
    if compared:
        cells = [
            [row.table_row.label, *(_effect(row.effects[c]) for c in COLUMNS), _verdict(row.effects['AP'])]
            for row in compared
        ]
        parts.append(markdown(['effect of', *COLUMNS, 'on AP'], cells))
        parts.append(_summary([row.effects['AP'] for row in compared]))
    if any(row.missing for row in rows):
        parts.append('Not measured: ' + '; '.join(_not_measured(row) for row in rows if row.missing) + '.')
    return '\n\n'.join(parts)


def _verdict(effect: Effect) -> str:
    """Verdict on an effect, and the seeds that it would take."""
    if effect.verdict != 'not told apart' or effect.difference is None:
        return effect.verdict
    more = effect.difference.more_seeds
    plural = 's' * (more != 1)
    return f'not told apart; {more} more seed{plural} would, if mean and spread stay' if more else 'not told apart'


def _summary(effects: Sequence[Effect]) -> str:
    comparable = [effect for effect in effects if effect.agrees is not None]
    if not comparable:
        return 'No effect on AP can be compared with the paper yet.'
    verdicts = [effect.verdict for effect in comparable if effect.interval is not None]
    counts = [f'{verdicts.count(kind)} {kind}' for kind in ('confirmed', 'reversed', 'not told apart')]
    several = f'with several seeds: {", ".join(counts)}' if verdicts else 'none with several seeds'
    agreeing = sum(bool(effect.agrees) for effect in comparable)
    return f"Effects on AP with the paper's sign: {agreeing} of {len(comparable)}; {several}."


def _not_measured(row: RowComparison) -> str:
    seeds: dict[str, list[str]] = {}
    for seed, reason in row.missing.items():
        seeds.setdefault(reason, []).append(str(seed))
    if not row.seeds and len(seeds) == 1:
        return f'{row.table_row.label} ({row.state})'
    parts = [f'seed{"s" * (len(those) > 1)} {", ".join(those)} ({reason})' for reason, those in seeds.items()]
    return ', '.join([row.table_row.label, *parts])


def _seeds(row: RowComparison) -> str:
    lost = len(row.seeds) - (len(row.measured['AP'].values) if row.measured['AP'] else 0)
    return f'{len(row.seeds)}' + (f', {lost} without AP' if lost else '')


def _score(paper: float | None, measured: Measured | None) -> str:
    return f'{"-" if paper is None else f"{paper:.1f}"} / {_spread(measured)}'


def _effect(effect: Effect) -> str:
    own = '-' if effect.difference is None else effect.difference.show(1)
    return f'{"-" if effect.paper is None else signed(effect.paper, 1)} / {own}'


def _spread(measured: Measured | None) -> str:
    return '-' if measured is None else measured.show(1)


def _by_class(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """AP by class, where it was measured."""
    scored = {
        config: [dict(run, scores=run['class_scores']) for run in runs if run.get('class_scores')]
        for config, runs in results.items()
    }
    names = dict.fromkeys(name for runs in scored.values() for run in runs for name in run['scores'])
    return [_by_config('AP by class', {k: runs for k, runs in scored.items() if runs}, names)] if names else []


def _by_config(title: str, results: Mapping[str, Sequence[Result]], columns: Iterable[str]) -> str:
    cells = [
        [config, str(len(runs)), *(_spread(measure(runs, column)) for column in columns)]
        for config, runs in results.items()
    ]
    return f'## {title}\n\n' + markdown(['config', 'seeds', *columns], cells)
