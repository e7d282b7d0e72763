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


def rounded(content):
    """JSON with six digits after the point: Pythons differ in the last digit of a standard deviation."""
    return json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 6))


@pytest.mark.parametrize('folder', REPORTS, ids=lambda folder: folder.name)
def test_the_report(folder):
    kept, results, comparisons = comparisons_of(folder)
    drawn = {c.table.name: f'table_{c.table.name}.png' for c in comparisons if any(r.measured['AP'] for r in c.rows)}
    assert (folder / 'report.md').read_text() == markdown.page(comparisons, results, drawn) + '\n'
    assert rounded(report.as_json(comparisons, results)) == rounded(kept)
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


#: Rows of the page's table of a rare class: report, config.
RARE = {
    'FCOS': ('rare_score', 'fcos/fcos_r50-caffe_fpn_1x_coco.py'),
    'FCOS, QFL': ('rare_score', 'fcos/fcos_r50-caffe_fpn_joint_1x_coco.py'),
    'FCOS, QFL, uniform': ('rare_uniform', 'fcos/fcos_r50-caffe_fpn_joint_1x_coco.py'),
    'FCOS, GFL': ('rare_score', 'fcos/fcos_r50-caffe_fpn_gfl_1x_coco.py'),
    'FCOS, GFL, uniform': ('rare_uniform', 'fcos/fcos_r50-caffe_fpn_gfl_1x_coco.py'),
    'ATSS': ('rare_score', 'atss/atss_r50_fpn_1x_coco.py'),
    'ATSS, QFL': ('rare_score', 'atss/atss_r50_fpn_joint_1x_coco.py'),
    'ATSS, QFL, uniform': ('rare_uniform', 'atss/atss_r50_fpn_joint_1x_coco.py'),
    'ATSS, DFL': ('rare_score', 'atss/atss_r50_fpn_general-dfl_1x_coco.py'),
    'ATSS, GFL': ('rare_score', 'gfl/gfl_r50_fpn_1x_coco.py'),
}


def test_ap_of_a_rare_class():
    expected = []
    for row, (folder, config) in RARE.items():
        (run,) = (r for r in comparisons_of(PAGE / folder)[1][config] if r['seed'] == 0)
        values = [run['scores']['AP'], *run['class_scores'].values()]
        expected.append(' | '.join([f'| {row}', *(f'{value:.1f}' for value in values)]) + ' |')
    page = (PAGE / 'README.md').read_text().splitlines()
    first = page.index(expected[0])
    assert page[first : first + len(expected) + 1] == [*expected, '']


def test_table_3_on_a_frozen_backbone():
    (comparison,) = comparisons_of(PAGE / 'pretrained')[2]
    cells = [', '.join(f'{value:.1f}' for value in row.measured['AP'].values) for row in comparison.rows]
    assert f'| ATSS | {" | ".join(cells)} |' in (PAGE / 'README.md').read_text().splitlines()
    spreads = {row.table_row.label: row.effects['AP'].difference.std for row in comparison.rows[1:]}
    words = f'deviation of {spreads["QFL + DFL (GFL)"]:.1f} AP (from scratch 3.0, three seeds), that of QFL'
    assert words in ' '.join((PAGE / 'README.md').read_text().split())
