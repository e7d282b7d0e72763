"""docs/mini_benchmark: its tables are what the results in its report.json give."""

import json
from pathlib import Path

import pytest

from mmdet_gfl.benchmark import markdown, report
from mmdet_gfl.benchmark.compare import compare
from mmdet_gfl.benchmark.rows import read_tables

PAGE = Path(__file__).parents[2] / 'docs' / 'mini_benchmark'
REPORTS = sorted(file.parent for file in PAGE.rglob('report.json'))


def comparisons_of(folder):
    kept = json.loads((folder / 'report.json').read_text())
    results = {}
    for run in kept['results']:
        results.setdefault(run['config'], []).append(run)
    tables = {table.name: table for table in read_tables()}
    return kept, results, [compare(tables[table['name']], results, {}) for table in kept['tables']]


@pytest.mark.parametrize('folder', REPORTS, ids=lambda folder: folder.name)
def test_the_report(folder):
    kept, results, comparisons = comparisons_of(folder)
    drawn = {c.table.name: f'table_{c.table.name}.png' for c in comparisons if any(r.measured['AP'] for r in c.rows)}
    assert (folder / 'report.md').read_text() == markdown.page(comparisons, results, drawn) + '\n'
    assert json.loads(json.dumps(report.as_json(comparisons, results))) == kept
    assert all((folder / name).is_file() for name in drawn.values())


def test_effects_with_several_seeds():
    expected = []
    for comparison in comparisons_of(PAGE)[2]:
        for row in comparison.rows:
            effect = row.effects.get('AP')
            if effect is not None and effect.interval is not None:
                seeds = len(effect.difference.seeds)
                expected.append(
                    f'| {comparison.table.name} | {row.table_row.label} | {seeds} | {effect.measured:+.1f} ± '
                    f'{effect.interval:.1f} | {effect.paper:+.1f} | {seeds + effect.difference.more_seeds} |'
                )
                assert effect.verdict == 'not told apart'  # as the page says
    page = (PAGE / 'README.md').read_text().splitlines()
    first = page.index(expected[0])
    assert page[first : first + len(expected) + 1] == [*expected, '']
