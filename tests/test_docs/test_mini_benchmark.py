"""docs/mini_benchmark: its tables are what the results in its report.json give."""

import json

import pytest

from mmdet_gfl.benchmark import markdown, report
from mmdet_gfl.benchmark.compare import compare
from mmdet_gfl.benchmark.rows import read_tables


@pytest.fixture(scope='module')
def folder(root):
    return root / 'docs' / 'mini_benchmark'


@pytest.fixture(scope='module')
def kept(folder):
    return json.loads((folder / 'report.json').read_text())


@pytest.fixture(scope='module')
def results(kept):
    by_config = {}
    for run in kept['results']:
        by_config.setdefault(run['config'], []).append(run)
    return by_config


@pytest.fixture(scope='module')
def comparisons(kept, results):
    tables = {table.name: table for table in read_tables()}
    return [compare(tables[table['name']], results, {}) for table in kept['tables']]


def test_the_report(folder, kept, results, comparisons):
    drawn = {table['name']: f'table_{table["name"]}.png' for table in kept['tables']}
    assert (folder / 'report.md').read_text() == markdown.page(comparisons, results, drawn) + '\n'
    assert json.loads(json.dumps(report.as_json(comparisons, results))) == kept
    assert all((folder / name).is_file() for name in drawn.values())


def test_effects_with_several_seeds(folder, comparisons):
    expected = []
    for comparison in comparisons:
        for row in comparison.rows:
            effect = row.effects.get('AP')
            if effect is not None and effect.interval is not None:
                seeds = len(effect.difference.seeds)
                expected.append(
                    f'| {comparison.table.name} | {row.table_row.label} | {seeds} | {effect.measured:+.1f} ± '
                    f'{effect.interval:.1f} | {effect.paper:+.1f} | {seeds + effect.difference.more_seeds} |'
                )
                assert effect.verdict == 'not told apart'  # as the page says
    page = (folder / 'README.md').read_text().splitlines()
    first = page.index(expected[0])
    assert page[first : first + len(expected) + 1] == [*expected, '']
