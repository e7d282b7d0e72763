"""Report of ``tools/analysis_tools/benchmark_head.py``: Markdown, JSON, curves."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmdet
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from mmdet_gfl.analysis.benchmark_head import FLOOR, OURS, PARTS, THEIRS, TYPE_CHANGED, Result
from mmdet_gfl.analysis.measuring import Spread, ratios
from mmdet_gfl.compat import mmcv_flavour
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.utils import tables

MIB = 1024 * 1024


def machine(device: torch.device) -> dict[str, Any]:
    """Machine and versions, which the numbers depend on besides the command."""
    return dict(
        cpu=cpu_model(),
        gpu=torch.cuda.get_device_name(device) if device.type == 'cuda' else None,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        mmdet=mmdet.__version__,
        mmcv=mmcv_flavour(),
        python=platform.python_version(),
    )


def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*:\s*(.+)$', info.read_text(), flags=re.MULTILINE) if info.is_file() else []
    return names[0].strip() if names else platform.processor() or platform.machine()


# JSON ---------------------------------------------------------------------------------------------------------------


def as_dict(result: Result) -> dict[str, Any]:
    """A result for JSON: medians and quartiles in ms and as ratios, memory in bytes."""
    times: dict[str, Any] = {}
    for part, samples in result.times.items():
        times[part] = {name: Spread.of(values)._asdict() for name, values in samples.items()}
        for key, name in (('ratio', OURS), ('ratio_type_changed', TYPE_CHANGED)):
            if THEIRS in samples and name in samples:
                times[part][key] = ratios(samples[THEIRS], samples[name])._asdict()
    memory: dict[str, Any] = dict(
        kept_for_backward=result.kept,
        allocated_by_losses={name: value._asdict() for name, value in result.losses.items()},
        allocated_by_assignment={name: value._asdict() for name, value in result.assignment.items()},
    )
    sizes = dict(memory, class_logits=result.logits, predictions=result.predictions)
    if result.kept_in_forward is not None:
        sizes['kept_by_class_logits'] = result.kept_in_forward
    return dict(ms=times, bytes=sizes, waits=result.host_syncs)


# Markdown -----------------------------------------------------------------------------------------------------------


def markdown(header: dict[str, Any], results: dict[str, Result]) -> str:
    """The report of one config.

    Args:
        header: ``config``, ``names``, ``note`` (of the heads), ``settings`` (a sentence), ``checked`` (a sentence),
            ``machine``, ``commit``, ``command``.
        results: By what tells a row from the next, as ``'40'``, under the heading ``header['rows']``.
    """
    ours, theirs = header['names']
    said = (
        f'**{header["config"]}**: `{ours}` beside `{theirs}`. {header["settings"]}',
        header['note'],
        header['checked'],
    )
    made = (table(header['rows'], results) for table in (time_table, memory_table, host_syncs_table))
    return '\n\n'.join(['\n'.join(filter(None, said)), *made, _origin(header)])


def time_table(rows: str, results: dict[str, Result]) -> str:
    """Times in ms as median (quartiles), and their ratio; the floor under each."""
    columns = _columns(results)
    cells = []
    for part, title in PARTS.items():
        for row, result in results.items():
            if part in result.times:
                samples = result.times[part]
                times = {name: spread(Spread.of(values)) for name, values in samples.items()}
                above = {
                    name: spread(ratios(samples[THEIRS], samples[name]), 'x')
                    for name in columns[1:]
                    if THEIRS in samples and name in samples
                }
                cells.append([title, row, *_cells(times, above, columns)])
    for row, result in results.items():
        samples = result.times['step']
        title = f'floor: one read and one write of the predictions ({mebibytes(result.predictions)})'
        theirs, ours, *third = (f'step: {digits(ratios(samples[n], samples[FLOOR]).median)}x this' for n in columns)
        cells.append([title, row, theirs, ours, f'{spread(Spread.of(samples[FLOOR]))} ms', *third])
    return tables.markdown(_heading('part, ms', rows, columns), cells)


def _columns(results: dict[str, Result]) -> tuple[str, ...]:
    """The heads with a column: the third where it was measured."""
    third = any(TYPE_CHANGED in result.kept for result in results.values())
    return (THEIRS, OURS, TYPE_CHANGED) if third else (THEIRS, OURS)


def _heading(title: str, rows: str, columns: Sequence[str]) -> list[str]:
    """Heading of a table; the ratio to ours has a column, that to a third head stands in its cells."""
    return [title, rows, THEIRS, OURS, f'{THEIRS} / {OURS}', *columns[2:]]


def _cells(values: dict[str, str], above: dict[str, str], columns: Sequence[str]) -> list[str]:
    """Values of MMDetection and of ours, their ratio, and of a third head both; a dash where one was not measured.

    Args:
        values: By head.
        above: MMDetection's value over the head's, by head.
        columns: The heads.
    """
    bold = {name: f'**{ratio}**' for name, ratio in above.items()}
    third = [f'{values[name]}: {bold.get(name, "-")}' if name in values else '-' for name in columns[2:]]
    return [values.get(THEIRS, '-'), values[OURS], bold.get(OURS, '-'), *third]


def memory_table(rows: str, results: dict[str, Result]) -> str:
    """Memory in MiB, and over the class logits' bytes."""
    columns = _columns(results)
    cells = []
    for title, over_logits, read in (
        (
            "kept for backward by the quality's class logits, over them",
            True,
            lambda r: {} if r.kept_in_forward is None else {OURS: r.kept_in_forward},
        ),
        ('kept for backward, over the class logits', True, lambda r: r.kept),
        ('the same, as bytes still allocated', True, lambda r: _field(r.losses, 'alive')),
        ('peak of losses, over the class logits', True, lambda r: _field(r.losses, 'peak')),
        ('peak of assignment', False, lambda r: _field(r.assignment, 'peak')),
    ):
        for row, result in results.items():
            if sizes := read(result):
                values = {
                    n: f'{size / result.logits:.2f}' if over_logits else mebibytes(size) for n, size in sizes.items()
                }
                theirs = sizes.get(THEIRS)
                above = {name: f'{theirs / size:.2f}x' for name, size in sizes.items() if theirs is not None and size}
                cells.append([title, row, *_cells(values, above, columns)])
    return tables.markdown(_heading('memory', rows, columns), cells)


def host_syncs_table(rows: str, results: dict[str, Result]) -> str:
    """Numbers of host synchronizations."""
    cells = [
        [PARTS[part], row, str(result.host_syncs[part][THEIRS]), str(result.host_syncs[part][OURS])]
        for part in next(iter(results.values())).host_syncs
        for row, result in results.items()
    ]
    return tables.markdown(['host synchronizations with a GPU', rows, THEIRS, OURS], cells)


def _field(allocations: Any, name: str) -> dict[str, int]:
    return {head: getattr(value, name) for head, value in allocations.items()}


def spread(value: Spread, unit: str = '') -> str:
    """Median (quartiles), three digits each: ``91.2 (89.0-94.1)``."""
    return f'{digits(value.median)}{unit} ({digits(value.low)}-{digits(value.high)})'


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    for limit, places in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= limit:
            return f'{value:.{places}f}'
    return f'{value:.3f}'


def mebibytes(count: int) -> str:
    """A number of bytes as ``12.3 MiB``."""
    return f'{digits(count / MIB)} MiB'


def _origin(header: dict[str, Any]) -> str:
    where = header['machine']
    device = f'{where["gpu"]}, host {where["cpu"]}' if where['gpu'] else where['cpu']
    threads = '1 thread' if where['threads'] == 1 else f'{where["threads"]} threads'
    mmcv = {'stand-in': "mmcv-lite with this package's operators", 'compiled': 'compiled mmcv'}
    commit = f'; commit {header["commit"]}' if header['commit'] else ''
    return (
        f'{device}; {threads}; torch {where["torch"]}; MMDetection {where["mmdet"]}, '
        f'{mmcv.get(where["mmcv"], where["mmcv"])}; Python {where["python"]}{commit}\n\n'
        f'```bash\n{header["command"]}\n```'
    )


def place_of(page: Path, name: str) -> re.Match[str]:
    """The place between ``<!-- name -->`` and ``<!-- /name -->`` of a page.

    Raises:
        UserError: The page has no such place.
    """
    place = rf'(?<=<!-- {re.escape(name)} -->\n).*?(?=<!-- /{re.escape(name)} -->)'
    found = list(re.finditer(place, page.read_text(encoding='utf-8') if page.is_file() else '', flags=re.DOTALL))
    if len(found) != 1:
        raise UserError(f'--into {page}#{name}: needs one place in {page} from <!-- {name} --> to <!-- /{name} -->')
    return found[0]


def paste(page: Path, name: str, text: str) -> None:
    """Put ``text`` into its place; see :func:`place_of`."""
    place = place_of(page, name)
    page.write_text(f'{place.string[: place.start()]}{text}\n{place.string[place.end() :]}', encoding='utf-8')


# Curves -------------------------------------------------------------------------------------------------------------

COLORS = {OURS: 'tab:blue', THEIRS: 'tab:orange', TYPE_CHANGED: 'tab:green', FLOOR: 'tab:gray'}


def draw(axis_name: str, values: Sequence[float], results: Sequence[Result], title: str) -> Figure:
    """Curves of one sweep: times above, memory below; a band spans the quartiles.

    Args:
        axis_name: What grows.
        values: Values of the quantity, one per result.
        results: The measurements.
        title: Above all.
    """
    figure = Figure(figsize=(10, 7.4), layout='constrained')
    axes = figure.subplots(2, 2, sharex=True)
    for axes_of, part in zip(axes[0], ('step', 'assignment')):
        for name in (THEIRS, OURS, TYPE_CHANGED, FLOOR):
            if name in results[0].times[part]:
                spreads = [Spread.of(result.times[part][name]) for result in results]
                _curve(axes_of, values, spreads, name)
        axes_of.set(title=PARTS[part], ylabel='ms')
    for name in results[0].kept:
        kept = [result.kept[name] / MIB for result in results]
        peak = [result.assignment[name].peak / MIB for result in results if name in result.assignment]
        for axes_of, sizes in zip(axes[1], (kept, peak)):
            if sizes:
                _curve(axes_of, values, [Spread(size, size, size) for size in sizes], name)
    logits = [result.logits / MIB for result in results]
    axes[1][0].plot(values, logits, color=COLORS[FLOOR], linestyle=':', label='the class logits themselves')
    axes[1][0].set(title='kept for backward', ylabel='MiB')
    axes[1][1].set(title='peak of assignment', ylabel='MiB')
    for axes_of in axes.flat:
        axes_of.set(xscale='log', yscale='log')
        axes_of.set_xticks(values, [f'{value:g}' for value in values], rotation=30, ha='right', rotation_mode='anchor')
        axes_of.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes_of.yaxis.set_major_formatter('{x:g}')
        axes_of.minorticks_off()
        axes_of.grid(alpha=0.3)
    for axes_of in axes[1]:
        axes_of.set_xlabel(axis_name)
    lines = {line.get_label(): line for axes_of in axes.flat for line in axes_of.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc='outside lower center', ncols=len(lines))
    figure.suptitle(title)
    return figure


def _curve(axes: Any, values: Sequence[float], spreads: Sequence[Spread], name: str) -> None:
    label = 'one read and one write of the predictions' if name == FLOOR else name
    style = '--' if name == FLOOR else '-'
    axes.plot(values, [one.median for one in spreads], style, marker='o', ms=4, color=COLORS[name], label=label)
    axes.fill_between(
        values, [one.low for one in spreads], [one.high for one in spreads], color=COLORS[name], alpha=0.2, lw=0
    )
