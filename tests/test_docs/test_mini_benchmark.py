"""docs/mini_benchmark: its tables are what the results in its report.json give."""

import json
import statistics
from functools import partial
from pathlib import Path

import pytest

from mmdet_gfl.benchmark import report
from mmdet_gfl.benchmark.compare import compare, effect
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
    assert (folder / 'report.md').read_text() == report.page(comparisons, results, drawn) + '\n'
    assert rounded(report.as_json(comparisons, results)) == rounded(kept)
    assert all((folder / name).is_file() for name in drawn.values())


def effect_lines(folder):
    """The page's lines of a report: rows with several seeds, and whether their effect on AP is told from 0."""
    lines = []
    for comparison in comparisons_of(folder)[2]:
        for row in comparison.rows:
            effect = row.effects.get('AP')
            if effect is not None and effect.interval is not None:
                paper = '' if effect.paper is None else f'{effect.paper:+.1f}'
                lines.append(
                    f'| {comparison.table.name} | {row.table_row.label} | {len(effect.difference.seeds)} | '
                    f'{effect.difference.show(1)} | {paper} | {effect.verdict} |'
                )
    return lines


#: Rows that are compared with another than the first of their table.
BETWEEN = [
    ('1a', 'ATSS, joint w/ QFL', 'ATSS, IoU-branch'),
    ('1a', 'FCOS, joint w/ QFL', 'FCOS, IoU-branch'),
    ('1a', 'FCOS, joint w/ QFL', 'FCOS, centerness-branch'),
    ('2a', 'ATSS, General w/ DFL', 'ATSS, General'),
]


def between_lines():
    """The page's lines of differences between two rows, of which none is a baseline."""
    results, tables, lines = comparisons_of(PAGE / 'pretrained')[1], {table.name: table for table in read_tables()}, []
    for name, label, other in BETWEEN:
        rows = {row.label: row for row in tables[name].rows}
        found = effect(rows[label], rows[other], results, 'AP')
        words = f'{label} less {other.partition(", ")[2]}'
        seeds, shown = len(found.difference.seeds), found.difference.show(1)
        lines.append(f'| {name} | {words} | {seeds} | {shown} | {found.paper:+.1f} | {found.verdict} |')
    return lines


#: Of the table of what was tried against noise: report, words of the page.
TRIED = {
    '.': 'ResNet-18 of quarter width, from scratch',
    'pretrained_own_start': 'frozen backbone',
    'pretrained': 'frozen backbone, neck and towers of a seed start alike',
    'pretrained_long': 'the same with three times the images and steps',
}


def noise_lines():
    """What was tried, seeds, the baseline's AP, and mean and standard deviation of GFL less the baseline by seed."""
    lines = []
    for folder, words in TRIED.items():
        kept, results, comparisons = comparisons_of(PAGE / folder)
        rows = {row.table_row.label: row for c in comparisons if c.table.name == '3' for row in c.rows}
        difference = rows['QFL + DFL (GFL)'].effects['AP'].difference
        baseline = statistics.fmean(rows['baseline'].measured['AP'].values)
        lines.append(
            f'| {words} | {len(difference.seeds)} | {baseline:.1f} | {difference.mean:+.1f} | {difference.std:.2f} |'
        )
    return lines


#: Rows of the page's table of a rare class: words, reports (score, uniform), config.
RARE = [
    ('short', 'FCOS', 'rare_short', 'fcos/fcos_r50-caffe_fpn_1x_coco.py'),
    ('short', 'FCOS, QFL', 'rare_short', 'fcos/fcos_r50-caffe_fpn_joint_1x_coco.py'),
    ('short', 'FCOS, QFL, uniform', 'rare_short_uniform', 'fcos/fcos_r50-caffe_fpn_joint_1x_coco.py'),
    ('short', 'FCOS, QFL, quality', 'rare_short_quality', 'fcos/fcos_r50-caffe_fpn_joint_1x_coco.py'),
    ('long', 'FCOS', 'rare_long', 'fcos/fcos_r50-caffe_fpn_1x_coco.py'),
    ('long', 'FCOS, QFL', 'rare_long', 'fcos/fcos_r50-caffe_fpn_joint_1x_coco.py'),
    ('long', 'ATSS', 'rare_long', 'atss/atss_r50_fpn_1x_coco.py'),
    ('long', 'ATSS, QFL', 'rare_long', 'atss/atss_r50_fpn_joint_1x_coco.py'),
    ('short, own start', 'FCOS, GFL', 'rare_score', 'fcos/fcos_r50-caffe_fpn_gfl_1x_coco.py'),
    ('short, own start', 'FCOS, GFL, uniform', 'rare_uniform', 'fcos/fcos_r50-caffe_fpn_gfl_1x_coco.py'),
    ('short, own start', 'ATSS', 'rare_score', 'atss/atss_r50_fpn_1x_coco.py'),
    ('short, own start', 'ATSS, QFL', 'rare_score', 'atss/atss_r50_fpn_joint_1x_coco.py'),
    ('short, own start', 'ATSS, DFL', 'rare_score', 'atss/atss_r50_fpn_general-dfl_1x_coco.py'),
    ('short, own start', 'ATSS, GFL', 'rare_score', 'gfl/gfl_r50_fpn_1x_coco.py'),
]


def rare_lines():
    """AP of all classes and of each, means over the seeds."""
    lines = []
    for schedule, row, folder, config in RARE:
        runs = comparisons_of(PAGE / folder)[1][config]
        values = zip(*((run['scores']['AP'], *run['class_scores'].values()) for run in runs))
        means = ' | '.join(f'{statistics.fmean(value):.1f}' for value in values)
        lines.append(f'| {schedule} | {row} | {len(runs)} | {means} |')
    return lines


@pytest.mark.parametrize(
    'lines',
    [
        pytest.param(partial(effect_lines, PAGE / 'pretrained'), id='frozen backbone'),
        pytest.param(between_lines, id='between'),
        pytest.param(partial(effect_lines, PAGE / 'pretrained_long'), id='long'),
        pytest.param(noise_lines, id='noise'),
        pytest.param(rare_lines, id='rare class'),
    ],
)
def test_the_tables_of_the_page(lines):
    expected = lines()
    page = (PAGE / 'README.md').read_text().splitlines()
    first = page.index(expected[0])
    assert page[first : first + len(expected) + 1] == [*expected, '']


def test_from_scratch_no_effect_is_told_apart():
    lines = effect_lines(PAGE)
    assert len(lines) == 11 and all(line.endswith('| not told apart |') for line in lines)
    assert 'of the effects with several none is told apart from 0' in (PAGE / 'README.md').read_text()
