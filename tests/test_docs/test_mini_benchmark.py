"""docs/mini_benchmark: its tables are what the results in its report.json give."""

import json
import re
import statistics
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


def effects_of(folder):
    """Table, label and effect on AP of each row of a report that has several seeds, as its baseline has."""
    for comparison in comparisons_of(folder)[2]:
        for row in comparison.rows:
            found = row.effects.get('AP')
            if found is not None and found.interval is not None:
                yield comparison.table.name, row.table_row.label, found


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


FCOS = [f'fcos/fcos_r50-caffe_fpn_{row}1x_coco.py' for row in ('', 'joint_', 'gfl_')]
ATSS = ['atss/atss_r50_fpn_1x_coco.py', 'atss/atss_r50_fpn_joint_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py']
RETINANET = [f'retinanet/retinanet_r50_fpn_{row}1x_coco.py' for row in ('', 'joint_', 'gfl_')]
FOVEABOX = [f'foveabox/fovea_r50_fpn_{row}4xb4-1x_coco.py' for row in ('', 'joint_', 'gfl_')]
SSD = [f'ssd/ssd512_{row}coco.py' for row in ('', 'joint_')]
GUIDED = 'fcos/fcos_r50-caffe_fpn_centerness-guided_1x_coco.py', 'atss/atss_r50_fpn_centerness-guided_1x_coco.py'
NO_QUALITY = 'fcos/fcos_r50-caffe_fpn_no-quality_1x_coco.py', 'atss/atss_r50_fpn_no-quality_1x_coco.py'
GAUSSIAN = 'atss/atss_r50_fpn_gaussian_1x_coco.py'
#: Runs with changed settings: what, their report, the config, and that of what they are compared with.
CHANGED = [
    ('FCOS, centerness-guided, uniform box weights', 'guided_uniform', GUIDED[0], 'guided', NO_QUALITY[0]),
    ('ATSS, centerness-guided, uniform box weights', 'guided_uniform', GUIDED[1], 'guided', NO_QUALITY[1]),
    ('ATSS, Gaussian', 'gaussian', GAUSSIAN, 'gaussian', ATSS[0]),
    ('ATSS, Gaussian, likelihood of weight 0.25', 'gaussian_weight', GAUSSIAN, 'gaussian', ATSS[0]),
    ("ATSS, Gaussian of the host's own numbers", 'gaussian_host', GAUSSIAN, 'gaussian', ATSS[0]),
    ('ATSS, linear distances, GIoU', 'gaussian_linear', GAUSSIAN, 'gaussian', ATSS[0]),
    ('RetinaNet, GIoU in place of L1', 'retina_giou', RETINANET[0], 'pretrained_hosts', RETINANET[0]),
    ('SSD joint, QFL with weight 4', 'ssd_long_weight4', SSD[1], 'ssd_long', SSD[0]),
    ('RetinaNet, full GFL: uniform less score', 'gfl_uniform', RETINANET[2], 'pretrained_hosts', RETINANET[2]),
    ('FoveaBox, full GFL: uniform less score', 'gfl_uniform', FOVEABOX[2], 'pretrained_hosts', FOVEABOX[2]),
    ('FCOS, full GFL: uniform less score', 'gfl_uniform', FCOS[2], 'pretrained_hosts', FCOS[2]),
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
    'scratch': 'ResNet-18 of quarter width, from scratch',
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


#: Hosts with a rare class: report, configs of baseline, QFL and full GFL; report and config of QFL and of full GFL with
#: uniform box weights, where these are others.
RARE = {
    'FCOS': ('rare', FCOS, ('rare_uniform', FCOS[1]), ('rare_uniform', FCOS[2])),
    'ATSS': ('rare', ATSS, ('rare_uniform', ATSS[1]), ('rare_uniform_gfl', ATSS[1])),
    'RetinaNet': ('rare', RETINANET, None, ('rare_uniform', RETINANET[2])),
    'FoveaBox': ('rare', FOVEABOX, None, ('rare_uniform', FOVEABOX[2])),
    'SSD': ('rare_ssd', SSD, None, None),
    'FCOS, long': ('rare_long', FCOS, None, None),
    'ATSS, long': ('rare_long', ATSS, None, None),
}


def scores_of(folder, config):
    """AP of the rare class, and the mean of the others', by seed."""
    runs = comparisons_of(PAGE / folder)[1][config]
    classes = {run['seed']: dict(run['class_scores']) for run in runs}
    rare = {seed: scores.pop('star') for seed, scores in classes.items()}
    return rare, {seed: statistics.fmean(scores.values()) for seed, scores in classes.items()}


def rare_lines():
    """AP of the rare class and of the others, and what QFL, full GFL and uniform box weights change."""
    lines = []
    for host, (folder, (base, joint, *gfl), uniform_joint, uniform_gfl) in RARE.items():
        start, qfl = scores_of(folder, base), scores_of(folder, joint)
        full = scores_of(folder, gfl[0]) if gfl else None
        cells = [host, str(len(start[0])), *(f'{statistics.fmean(one.values()):.1f}' for one in start)]
        cells += [paired(one, other).show(1) for one, other in zip(qfl, start)]
        cells += [paired(scores_of(*uniform_joint)[0], qfl[0]).show(1) if uniform_joint else '']
        cells += [paired(one, other).show(1) for one, other in zip(full, start)] if full else ['', '']
        cells += [paired(scores_of(*uniform_gfl)[0], full[0]).show(1) if uniform_gfl else '']
        lines.append(f'| {" | ".join(cells)} |')
    return lines


#: Settings of FCOS's joint row with a rare class, which are compared with the row as it is.
RARE_SETTINGS = ['rare_quality', 'rare_floor', 'rare_warm_up', 'rare_uniform']


@pytest.mark.parametrize('lines', [host_lines, changed_lines, between_lines, noise_lines, rare_lines])
def test_the_tables_of_the_page(lines):
    expected = lines()
    page = (PAGE / 'README.md').read_text().splitlines()
    first = page.index(expected[0])
    assert page[first : first + len(expected) + 1] == [*expected, '']


#: A difference and its interval, of which a sentence may leave out the sign.
SHOWN = re.compile(r'\d+\.\d+ ± \d+\.\d+')


def test_the_numbers_in_the_sentences_are_of_a_report():
    known = [found.difference.show(1) for folder in REPORTS for _, _, found in effects_of(folder)]
    known += between_lines() + host_lines() + changed_lines() + rare_lines()
    retinanet = [comparisons_of(PAGE / folder)[1][RETINANET[2]] for folder in ('rare_uniform', 'rare')]
    known.append(paired(*(by_seed(runs, 'AP') for runs in retinanet)).show(1))
    for folder in RARE_SETTINGS:
        known += [
            paired(one, other).show(1) for one, other in zip(scores_of(folder, FCOS[1]), scores_of('rare', FCOS[1]))
        ]
    page = re.sub(r'^```.*?^```$', '', (PAGE / 'README.md').read_text(), flags=re.MULTILINE | re.DOTALL)
    sentences = '\n'.join(line for line in page.splitlines() if not line.startswith('|'))
    shown = SHOWN.findall(sentences)
    assert len(shown) > 20 and set(shown) <= set(SHOWN.findall(' '.join(known)))


def test_the_line_of_the_readme():
    rows = {
        row.table_row.label: row
        for c in comparisons_of(PAGE / 'pretrained')[2]
        if c.table.name == '3'
        for row in c.rows
    }
    scores = ', '.join(f'{statistics.fmean(row.measured["AP"].values):.1f}' for row in rows.values())
    effects = ', '.join(row.effects['AP'].difference.show(1) for row in rows.values() if 'AP' in row.effects)
    line = next(line for line in (PAGE.parents[1] / 'README.md').read_text().splitlines() if 'short training' in line)
    assert f'| {scores} |' in line and f'; {effects} by seed' in line
