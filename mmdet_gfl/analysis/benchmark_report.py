"""Report of ``tools/analysis_tools/benchmark_head.py``: Markdown, JSON, curves."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmdet
import torch

from mmdet_gfl.analysis.benchmark_head import FLOOR, OURS, PARTS, THEIRS, TYPE_CHANGED, Result
from mmdet_gfl.analysis.measuring import Spread, ratios
from mmdet_gfl.compat import mmcv_flavour
from mmdet_gfl.engine.launch import UserError

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
    lines = [f'**{header["config"]}**: `{ours}` beside `{theirs}`. {header["settings"]}']
    lines += [header['note']] if header['note'] else []
    lines += [header['checked']] if header['checked'] else []
    lines.append('')
    lines += time_table(header['rows'], results)
    lines += ['', *memory_table(header['rows'], results)]
    lines += ['', *host_syncs_table(header['rows'], results), '']
    return '\n'.join([*lines, *_origin(header)])


def time_table(rows: str, results: dict[str, Result]) -> list[str]:
    """Times in ms as median (quartiles), and their ratio; the floor under each."""
    columns = _columns(results)
    lines = _heading('part, ms', rows, columns)
    for part, title in PARTS.items():
        for row, result in results.items():
            if part in result.times:
                cells = _time_cells(result.times[part], columns)
                lines.append(f'| {title} | {row} | {" | ".join(cells)} |')
    for row, result in results.items():
        samples = result.times['step']
        title = f'floor: one read and one write of the predictions ({mebibytes(result.predictions)})'
        above = {name: f'step: {digits(ratios(samples[name], samples[FLOOR]).median)}x this' for name in columns}
        cells = [above[THEIRS], above[OURS], f'{spread(Spread.of(samples[FLOOR]))} ms', *list(above.values())[2:]]
        lines.append(f'| {title} | {row} | {" | ".join(cells)} |')
    return lines


def _columns(results: dict[str, Result]) -> tuple[str, ...]:
    """The heads with a column: the third where it was measured."""
    third = any(TYPE_CHANGED in result.kept for result in results.values())
    return (THEIRS, OURS, TYPE_CHANGED) if third else (THEIRS, OURS)


def _heading(title: str, rows: str, columns: Sequence[str]) -> list[str]:
    """The first two lines of a table; the ratio to ours has a column, that to a third head stands in its cells."""
    names = [title, rows, THEIRS, OURS, f'{THEIRS} / {OURS}', *columns[2:]]
    return [f'| {" | ".join(names)} |', '|---' * len(names) + '|']


def _time_cells(samples: dict[str, list[float]], columns: Sequence[str]) -> list[str]:
    """Times of MMDetection and of ours, their ratio, and of a third head both; a dash where one was not measured."""
    times = {name: spread(Spread.of(values)) for name, values in samples.items()}
    above = {
        name: f'**{spread(ratios(samples[THEIRS], samples[name]), "x")}**'
        for name in columns[1:]
        if THEIRS in samples and name in samples
    }
    third = [f'{times[name]}: {above[name]}' if name in above else '-' for name in columns[2:]]
    return [times.get(THEIRS, '-'), times[OURS], above.get(OURS, '-'), *third]


def memory_table(rows: str, results: dict[str, Result]) -> list[str]:
    """Memory in MiB, and over the class logits' bytes."""
    columns = _columns(results)
    lines = _heading('memory', rows, columns)
    for title, logits, read in (
        ("kept for backward by the quality's class logits, over them", True, _kept_in_forward),
        ('kept for backward, over the class logits', True, lambda r: r.kept),
        ('the same by what the allocator has not got back', True, lambda r: _field(r.losses, 'alive')),
        ('peak of losses, over the class logits', True, lambda r: _field(r.losses, 'peak')),
        ('peak of assignment', False, lambda r: _field(r.assignment, 'peak')),
    ):
        for row, result in results.items():
            values = read(result)
            if values:
                cells = _memory_cells(values, result.logits if logits else None, columns)
                lines.append(f'| {title} | {row} | {" | ".join(cells)} |')
    return lines


def _kept_in_forward(result: Result) -> dict[str, int]:
    return {} if result.kept_in_forward is None else {OURS: result.kept_in_forward}


def _memory_cells(values: dict[str, int], logits: int | None, columns: Sequence[str]) -> list[str]:
    """As :func:`_time_cells`, in MiB or over ``logits`` bytes."""
    sizes = {name: f'{size / logits:.2f}' if logits else mebibytes(size) for name, size in values.items()}
    above = {
        name: f'**{values[THEIRS] / values[name]:.2f}x**'
        for name in columns[1:]
        if THEIRS in values and values.get(name)
    }
    third = [': '.join([sizes[name], above.get(name, '-')]) if name in sizes else '-' for name in columns[2:]]
    return [sizes.get(THEIRS, '-'), sizes[OURS], above.get(OURS, '-'), *third]


def host_syncs_table(rows: str, results: dict[str, Result]) -> list[str]:
    """Numbers of host synchronizations."""
    lines = [f'| host synchronizations with a GPU | {rows} | {THEIRS} | {OURS} |', '|---|---|---|---|']
    for part in next(iter(results.values())).host_syncs:
        for row, result in results.items():
            counts = result.host_syncs[part]
            lines.append(f'| {PARTS[part]} | {row} | {counts[THEIRS]} | {counts[OURS]} |')
    return lines


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


def _origin(header: dict[str, Any]) -> list[str]:
    where = header['machine']
    device = f'{where["gpu"]}, host {where["cpu"]}' if where['gpu'] else where['cpu']
    threads = '1 thread' if where['threads'] == 1 else f'{where["threads"]} threads'
    mmcv = {'stand-in': "mmcv-lite with this package's operators", 'compiled': 'compiled mmcv'}
    return [
        f'{device}; {threads}; torch {where["torch"]}; MMDetection {where["mmdet"]}, '
        f'{mmcv.get(where["mmcv"], where["mmcv"])}; Python {where["python"]}'
        + (f'; commit {header["commit"]}' if header['commit'] else ''),
        '',
        '```bash',
        header['command'],
        '```',
    ]


def paste(page: Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- name -->`` and ``<!-- /name -->`` of a page.

    Raises:
        UserError: The page has no such place.
    """
    place = rf'(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)'
    old = page.read_text(encoding='utf-8') if page.is_file() else ''
    new, count = re.subn(place, lambda match: f'{match[1]}{text}\n{match[2]}', old, flags=re.DOTALL)
    if count != 1:
        raise UserError(f'--into {page}#{name}: needs one place in {page} from <!-- {name} --> to <!-- /{name} -->')
    page.write_text(new, encoding='utf-8')


# Curves -------------------------------------------------------------------------------------------------------------

COLORS = {OURS: 'tab:blue', THEIRS: 'tab:orange', TYPE_CHANGED: 'tab:green', FLOOR: 'tab:gray'}


def draw(axis_name: str, values: Sequence[float], results: Sequence[Result], title: str, out: Path) -> None:
    """Curves of one sweep: times above, memory below; a band spans the quartiles.

    Args:
        axis_name: What grows.
        values: By how much, one a result.
        results: The measurements.
        title: Above all.
        out: Picture to write.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, axes = plt.subplots(2, 2, figsize=(10, 7.4), layout='constrained', sharex=True)
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
    figure.savefig(out, dpi=100)
    plt.close(figure)


def _curve(axes: Any, values: Sequence[float], spreads: Sequence[Spread], name: str) -> None:
    label = 'one read and one write of the predictions' if name == FLOOR else name
    style = '--' if name == FLOOR else '-'
    axes.plot(values, [one.median for one in spreads], style, marker='o', ms=4, color=COLORS[name], label=label)
    axes.fill_between(
        values, [one.low for one in spreads], [one.high for one in spreads], color=COLORS[name], alpha=0.2, lw=0
    )
