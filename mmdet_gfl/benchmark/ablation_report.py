"""The report of an ablation: Markdown, JSON and a picture of each row beside the baseline."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mmdet_gfl.engine.files import write
from mmdet_gfl.utils.tables import markdown

from .ablation import BASELINE, read_rows
from .compare import Measured, Paired, by_seed, measure, paired, signed
from .pictures import GREY, MEASURED, tidy
from .progress import unfinished
from .report import circumstances, without_configs
from .results import Result, read, read_results

#: Columns of the tables; an evaluator may give one per class.
SHOWN = 6
#: Names of scores that are lower for a better detector, in lower case: CrowdHuman's miss rate, and what users measure.
LOWER_IS_BETTER = frozenset({'mmr', 'mr', 'loss', 'error', 'mae', 'mse', 'rmse', 'fppi'})
_HOW_TO_READ = (
    "Differences are paired: a row's score less the baseline's with the same seed, averaged over the seeds that both "
    "have. The interval is Student's, 95%, over these seeds: it holds the spread of trainings on these images, not "
    'that of other images. A row is better or worse where its interval leaves out zero, by {metric}, of which '
    '{direction} is better. With several rows, one in twenty intervals leaves out zero by chance.'
)
_TIMES = (
    'ms per image: detection on the validation images after training, from the batch to the boxes, without reading the '
    'image; median over seeds. Rows trained side by side slow each other down.'
)
_THRESHOLDS = (
    'A score of a GFL head means class x IoU, so a score threshold of the baseline does not carry over: '
    '`tools/analysis_tools/select_thresholds.py` selects one on the validation images.'
)


@dataclass(frozen=True)
class RowReport:
    """Measurements of a row.

    Attributes:
        name: Of the row.
        head: In words.
        same_as: The row that stands for it; None where it has runs of its own.
        measured: By column; None where no seed has the score.
        differences: To the baseline by column; None without a common seed. Empty for the baseline.
        parameters: Of the detector; None where unknown.
        image_seconds: Of detection in a validation image, the median over seeds; None where unknown.
        missing: State of the seeds without a result, in words.
    """

    name: str
    head: str
    same_as: str | None
    measured: dict[str, Measured | None]
    differences: dict[str, Paired | None]
    parameters: int | None
    image_seconds: float | None
    missing: dict[int, str]


@dataclass(frozen=True)
class Scale:
    """A column's unit and name in the report.

    Attributes:
        factor: 100 for fractions, which are shown in percent; else 1.
        digits: After the point.
        label: The column's name without the evaluator's.
        lower: Lower is better.
    """

    factor: float
    digits: int
    label: str
    lower: bool = False


def write_report(work_dir: Path, lower: bool = False) -> str:
    """Write ``report.md``, ``report.json`` and ``report.png``; return the first.

    Args:
        work_dir: Of an ablation.
        lower: The metric is lower for a better detector; :data:`LOWER_IS_BETTER` need not be told.

    Raises:
        RowError: It is not the work dir of an ablation.
    """
    known = read_rows(work_dir)
    states = {name: unfinished(row['path'], work_dir) for name, row in known.items()}  # before the results
    results = read_results(work_dir)
    scales = scales_of([run for runs in results.values() for run in runs], lower)
    reports = rows_of(known, results, states, scales)
    picture = 'report.png' if scales and any(report.measured[next(iter(scales))] for report in reports) else None
    if picture:
        draw(reports, scales).savefig(work_dir / picture, dpi=110)
    title = next(iter(known.values()))['path'].partition('/')[0]
    text = page(title, reports, scales, results, read(work_dir / 'settings.json'), picture)
    write(work_dir / 'report.md', text + '\n')
    write(work_dir / 'report.json', json.dumps(as_json(reports, scales, results), indent=1, allow_nan=False))
    return text


def scales_of(results: Sequence[Result], lower: bool = False) -> dict[str, Scale]:
    """The columns that the evaluator gives, its first value first, and how each is shown.

    Args:
        results: Of all rows.
        lower: The first one is lower for a better detector.
    """
    if not results:
        return {}
    fullest = max(results, key=lambda run: len(run['scores']))
    scales: dict[str, Scale] = {}
    for column in list(fullest['scores'])[:SHOWN]:
        values = [value for run in results if (value := run['scores'].get(column)) is not None]
        fractions = all(0 <= value <= 1 for value in values)
        digits = 1 if fractions or max(map(abs, values)) >= 10 else 3
        label = column.rpartition('/')[2].removeprefix('bbox_')
        falls = label.lower() in LOWER_IS_BETTER or (lower and not scales)
        scales[column] = Scale(100.0 if fractions else 1.0, digits, label, falls)
    return scales


def rows_of(
    known: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Sequence[Result]],
    states: Mapping[str, Mapping[int, str]],
    scales: Mapping[str, Scale],
) -> list[RowReport]:
    """Each row with its scores and its differences to the baseline, in the order in which they were asked for."""
    scaled = {name: [_scaled(run, scales) for run in results.get(row['path'], ())] for name, row in known.items()}
    wanted = {seed for name in known for seed in (*(run['seed'] for run in scaled[name]), *states[name])}
    reports = []
    for name, row in known.items():
        own, base = [] if row['same_as'] else scaled[name], scaled.get(BASELINE, ())
        done = {run['seed'] for run in own}
        missing = {} if row['same_as'] else {seed: states[name].get(seed, 'not run') for seed in sorted(wanted - done)}
        differences = {c: paired(by_seed(own, c), by_seed(base, c)) for c in scales if name != BASELINE}
        parameters = next((run['parameters'] for run in own if run.get('parameters')), None)
        times = [run['image_seconds'] for run in own if run.get('image_seconds') is not None]
        seconds = statistics.median(times) if times else None
        scores = {column: measure(own, column) for column in scales}, differences
        reports.append(RowReport(name, row['head'], row['same_as'], *scores, parameters, seconds, missing))
    return reports


def _scaled(run: Result, scales: Mapping[str, Scale]) -> Result:
    scores = {
        column: None if (value := run['scores'].get(column)) is None else scale.factor * value
        for column, scale in scales.items()
    }
    return dict(run, scores=scores)


def page(
    title: str,
    reports: Sequence[RowReport],
    scales: Mapping[str, Scale],
    results: Mapping[str, Sequence[Result]],
    settings: Mapping[str, Any],
    picture: str | None,
) -> str:
    """The whole report in Markdown."""
    parts = [f'# Does GFL help on {title}?', _settings(settings, [run for runs in results.values() for run in runs])]
    if scales:
        metric, scale = next(iter(scales.items()))
        parts += [f'![rows beside the baseline]({picture})'] if picture else []
        parts += ['\n'.join(f'- {sentence(report, scales)}' for report in reports if report.name != BASELINE)]
        if not scale.lower and not any(found.mean for report in reports if (found := report.measured[metric])):
            parts.append('Every score is 0: train longer before you compare.')
        parts += ['## Scores', _scores_table(reports, scales), '## Differences to the baseline']
        parts += [
            _differences_table(reports, scales),
            _HOW_TO_READ.format(metric=metric, direction='lower' if scale.lower else 'higher'),
        ]
        parts += [_TIMES, _THRESHOLDS]
    missing = [f'{report.name} seed {seed} ({state})' for report in reports for seed, state in report.missing.items()]
    if missing:
        parts.append(f'Not measured: {"; ".join(missing)}.')
    return '\n\n'.join(part for part in parts if part)


def _settings(settings: Mapping[str, Any], results: Sequence[Result]) -> str:
    if not results:
        return 'Nothing was measured yet.'
    share = f', {settings["fraction"]:.0%} of the training images' if settings.get('fraction', 1) < 1 else ''
    options = results[0].get('options')
    changed = f', {" ".join(f"{key}={value}" for key, value in options.items())}' if options else ''
    return (
        f'Epochs: {settings.get("epochs")}{share}; images per step: {settings.get("images_per_step")}{changed}. '
        f'{circumstances(results)}'
    )


def sentence(report: RowReport, scales: Mapping[str, Scale]) -> str:
    """Better, worse or not told apart, with the seeds that would tell."""
    if report.same_as:
        return f'**{report.name}** is `{report.same_as}` on this host, and was not trained twice.'
    metric, scale = next(iter(scales.items()))
    found = report.differences.get(metric)
    if found is None:
        return f'**{report.name}**: no seed in common with the baseline.'
    amount = f'{signed(found.mean, scale.digits)} {scale.label}'
    if found.half_width is None:
        return f'**{report.name}**: {amount} with one seed, which shows no spread; run at least three.'
    interval = f'{amount}, 95% interval {found.show_interval(scale.digits)} over {len(found.seeds)} seeds'
    if found.differs:
        verdict = 'worse' if (found.mean > 0) == scale.lower else 'better'
        return f'**{report.name}** is {verdict} than the baseline: {interval}.'
    return f'**{report.name}** is not told apart from the baseline: {interval}; {_more(found)}.'


def _more(found: Paired) -> str:
    more = found.more_seeds
    if more is None:
        return 'the difference is too small for any feasible number of seeds'
    return f'{more} more seed{"s" * (more != 1)} would tell, if difference and spread stay as they are'


def _scores_table(reports: Sequence[RowReport], scales: Mapping[str, Scale]) -> str:
    cells = []
    for report in reports:
        if report.same_as:
            continue
        first = report.measured[next(iter(scales))]
        size = '-' if report.parameters is None else f'{report.parameters / 1e6:.2f} M'
        shown = [found.show(scale.digits) if (found := report.measured[c]) else '-' for c, scale in scales.items()]
        time = '-' if report.image_seconds is None else f'{1000 * report.image_seconds:.3g}'
        cells.append([report.name, report.head, str(len(first.values) if first else 0), *shown, size, time])
    labels = [f'{scale.label} (lower is better)' if scale.lower else scale.label for scale in scales.values()]
    return markdown(['row', 'head', 'seeds', *labels, 'parameters', 'ms per image'], cells)


def _differences_table(reports: Sequence[RowReport], scales: Mapping[str, Scale]) -> str:
    cells = [
        [report.name, *(found.show(scales[c].digits) if found else '-' for c, found in report.differences.items())]
        for report in reports
        if report.differences and not report.same_as
    ]
    return markdown(['row', *(scale.label for scale in scales.values())], cells) if cells else ''


def as_json(
    reports: Sequence[RowReport], scales: Mapping[str, Scale], results: Mapping[str, Sequence[Result]]
) -> dict[str, Any]:
    """All numbers of the report, and the results that they come from, without their resolved configs."""
    rows = []
    for report in reports:
        row = asdict(report)
        for column, found in report.differences.items():
            if found is not None:
                row['differences'][column].update(differs=found.differs, more_seeds=found.more_seeds)
        rows.append(row)
    metric = next(iter(scales), None)
    factors = {column: scale.factor for column, scale in scales.items()}
    return dict(
        metric=metric,
        lower_is_better=bool(metric and scales[metric].lower),
        factors=factors,
        rows=rows,
        results=without_configs(results),
    )


def draw(reports: Sequence[RowReport], scales: Mapping[str, Scale]) -> Figure:
    """Draw each row's seeds and mean on the left, its difference to the baseline with the interval on the right."""
    column, scale = next(iter(scales.items()))
    drawn = [report for report in reports if report.measured[column] is not None]
    figure = Figure(figsize=(9, 1.5 + 0.45 * len(drawn)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    for place, report in enumerate(drawn):
        found = report.measured[column]
        assert found is not None
        left.plot(found.values, [place] * len(found.values), 'o', color=MEASURED, alpha=0.4, markersize=4)
        left.plot(found.mean, place, '|', color=MEASURED, markersize=16, markeredgewidth=2)
        difference = report.differences.get(column)
        if difference is not None:
            right.errorbar(
                difference.mean, place, xerr=difference.half_width, color=MEASURED, fmt='o', capsize=4, elinewidth=1.5
            )
    left.set_yticks(range(len(drawn)), [report.name for report in drawn])
    left.set_ylim(len(drawn) - 0.5, -0.5)
    left.set_xlabel(f'{scale.label}{", lower is better" if scale.lower else ""} (dots: seeds, line: mean)', fontsize=9)
    right.set_xlabel(f'{scale.label} less the baseline (bar: 95% interval)', fontsize=9)
    right.axvline(0, color=GREY, linewidth=0.8)
    for axes in (left, right):
        tidy(axes, 'x')
    return figure
