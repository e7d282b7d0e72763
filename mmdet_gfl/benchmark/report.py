"""Report of a work dir: Markdown, JSON, and a picture per table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmdet_gfl.engine.files import write

from . import markdown, pictures
from .compare import Comparison, RowComparison, compare
from .progress import unfinished
from .results import Result, read_results
from .rows import RowError, Table


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
    text = markdown.page(comparisons, results, drawn)
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
