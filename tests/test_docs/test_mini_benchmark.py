"""docs/mini_benchmark: its tables are what the results in its report.json give."""

import json
import statistics
from functools import partial
from pathlib import Path

import pytest

from mmdet_gfl.benchmark import report
from mmdet_gfl.benchmark.compare import by_seed, compare, effect, paired
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


#: Rows that are compared with another than the first of their table: report, table, labels.
BETWEEN = [
    ('pretrained', '1a', 'ATSS, joint w/ QFL', 'ATSS, IoU-branch'),
    ('pretrained', '1a', 'FCOS, joint w/ QFL', 'FCOS, IoU-branch'),
    ('pretrained', '1a', 'FCOS, joint w/ QFL', 'FCOS, centerness-branch'),
    ('pretrained', '2a', 'ATSS, General w/ DFL', 'ATSS, General'),
    ('pretrained_hosts', '2a', 'FCOS, General w/ DFL', 'FCOS, General'),
    ('pretrained_hosts', '1c', 'beta = 2', 'beta = 1'),
    ('pretrained_hosts', '1c', 'beta = 2', 'beta = 2.5'),
    ('pretrained_hosts', '1c', 'beta = 2', 'beta = 4'),
    ('pretrained_hosts', '2c', 'delta = 1', 'delta = 4'),
]


def between_lines():
    """The page's lines of differences between two rows, of which none is a baseline."""
    tables, lines = {table.name: table for table in read_tables()}, []
    for folder, name, label, other in BETWEEN:
        rows = {row.label: row for row in tables[name].rows}
        found = effect(rows[label], rows[other], comparisons_of(PAGE / folder)[1], 'AP')
        words = f'{label} less {other.rpartition(", ")[2]}'
        seeds, shown = len(found.difference.seeds), found.difference.show(1)
        lines.append(f'| {name} | {words} | {seeds} | {shown} | {found.paper:+.1f} | {found.verdict} |')
    return lines


#: Hosts: report, and what the configs of baseline, full GFL and GFLv2 share.
HOST_ROWS = {
    'FCOS': ('pretrained_hosts', 'fcos/fcos_r50-caffe_fpn{}_1x_coco.py'),
    'RetinaNet': ('pretrained_hosts', 'retinanet/retinanet_r50_fpn{}_1x_coco.py'),
    'FoveaBox': ('pretrained_hosts', 'foveabox/fovea_r50_fpn{}_4xb4-1x_coco.py'),
    'SSD': ('ssd_long', 'ssd/ssd512{}_coco.py'),
}


def host_lines():
    """AP of the baseline, and what full GFL and then GFLv2 add to it, seed by seed."""
    lines = []
    for host, (folder, config) in HOST_ROWS.items():
        results = comparisons_of(PAGE / folder)[1]
        base, gfl, gflv2 = (by_seed(results[config.format(end)], 'AP') for end in ('', '_gfl', '_gflv2'))
        added = ' | '.join(paired(*pair).show(1) for pair in ((gfl, base), (gflv2, gfl)))
        lines.append(f'| {host} | {len(base)} | {statistics.fmean(base.values()):.1f} | {added} |')
    return lines


#: Runs with changed settings: what, their report, the config, and that of what they are compared with.
CHANGED = [
    ('SSD joint, QFL with weight 4', 'ssd_long_weight4', 'ssd/ssd512_joint_coco.py', 'ssd_long', 'ssd/ssd512_coco.py'),
    (
        'RetinaNet, GIoU in place of L1',
        'retina_giou',
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        'pretrained_hosts',
        'retinanet/retinanet_r50_fpn_1x_coco.py',
    ),
    (
        'FCOS, centerness-guided, uniform box weights',
        'guided_uniform',
        'fcos/fcos_r50-caffe_fpn_centerness-guided_1x_coco.py',
        'guided',
        'fcos/fcos_r50-caffe_fpn_no-quality_1x_coco.py',
    ),
]


def changed_lines():
    """Effects of settings on AP."""
    lines = []
    for words, folder, config, base_folder, base in CHANGED:
        runs = [comparisons_of(PAGE / one)[1][name] for one, name in ((folder, config), (base_folder, base))]
        found = paired(*(by_seed(one, 'AP') for one in runs))
        lines.append(f'| {words} | {len(found.seeds)} | {found.show(1)} |')
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


FCOS, FCOS_JOINT = 'fcos/fcos_r50-caffe_fpn_1x_coco.py', 'fcos/fcos_r50-caffe_fpn_joint_1x_coco.py'
ATSS, ATSS_JOINT = 'atss/atss_r50_fpn_1x_coco.py', 'atss/atss_r50_fpn_joint_1x_coco.py'
#: Rows of the page's table of a rare class: schedule, words, report and config; those of its row without and with QFL.
RARE = [
    ('short', 'FCOS', ('rare', FCOS), None, None),
    ('short', 'FCOS, QFL', ('rare', FCOS_JOINT), ('rare', FCOS), None),
    ('short', 'uniform', ('rare_uniform', FCOS_JOINT), ('rare', FCOS), ('rare', FCOS_JOINT)),
    ('short', 'quality', ('rare_quality', FCOS_JOINT), ('rare', FCOS), ('rare', FCOS_JOINT)),
    ('short', 'floor of 0.25', ('rare_floor', FCOS_JOINT), ('rare', FCOS), ('rare', FCOS_JOINT)),
    ('short', 'warm-up', ('rare_warm_up', FCOS_JOINT), ('rare', FCOS), ('rare', FCOS_JOINT)),
    ('short', 'full GFL', ('rare', 'fcos/fcos_r50-caffe_fpn_gfl_1x_coco.py'), ('rare', FCOS), ('rare', FCOS_JOINT)),
    ('long', 'FCOS', ('rare_long', FCOS), None, None),
    ('long', 'FCOS, QFL', ('rare_long', FCOS_JOINT), ('rare_long', FCOS), None),
    ('long', 'ATSS', ('rare_long', ATSS), None, None),
    ('long', 'ATSS, QFL', ('rare_long', ATSS_JOINT), ('rare_long', ATSS), None),
]


def rare_lines():
    """AP of all classes and of each, means over the seeds; the rare class's less that without and with QFL."""

    def runs_of(place):
        folder, config = place
        return comparisons_of(PAGE / folder)[1][config]

    def stars(runs):
        return {run['seed']: run['class_scores']['star'] for run in runs}

    lines = []
    for schedule, words, place, *others in RARE:
        runs = runs_of(place)
        values = zip(*((run['scores']['AP'], *run['class_scores'].values()) for run in runs))
        cells = [schedule, words, str(len(runs)), *(f'{statistics.fmean(value):.1f}' for value in values)]
        cells += [paired(stars(runs), stars(runs_of(other))).show(1) if other else '' for other in others]
        lines.append(f'| {" | ".join(cells)} |')
    return lines


@pytest.mark.parametrize(
    'lines',
    [
        pytest.param(partial(effect_lines, PAGE / 'pretrained'), id='frozen backbone'),
        pytest.param(partial(effect_lines, PAGE / 'pretrained_hosts'), id='other tables'),
        pytest.param(partial(effect_lines, PAGE / 'ssd_long'), id='SSD'),
        pytest.param(host_lines, id='hosts'),
        pytest.param(changed_lines, id='changed settings'),
        pytest.param(between_lines, id='between'),
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
