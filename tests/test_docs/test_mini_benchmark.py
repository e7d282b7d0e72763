"""docs/mini_benchmark: its tables are what the results in its report.json give."""

import functools
import json
import re
import statistics
from pathlib import Path

import pytest
from scipy import stats

from mmdet_gfl.benchmark import report
from mmdet_gfl.benchmark.compare import by_seed, compare, effect, paired
from mmdet_gfl.benchmark.rows import read_tables

PAGE = Path(__file__).parents[2] / 'docs' / 'mini_benchmark'
REPORTS = sorted(file.parent for file in PAGE.rglob('report.json'))


@functools.cache
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


#: What the page opens with: words, table and label of a row on ATSS.
OPENING = [
    ('full GFL', '3', 'QFL + DFL (GFL)'),
    ('General boxes with DFL', '2a', 'ATSS, General w/ DFL'),
    ('QFL over no quality', '1a', 'ATSS, joint w/ QFL'),
    ('QFL in place of the centerness branch', '3', 'QFL'),
    ('centerness-guided scores over no quality', '1a', 'ATSS, centerness-guided'),
    ('Gaussian boxes', '2a', 'ATSS, Gaussian'),
]


def opening_lines():
    """The page's first lines: effects on ATSS, the paper's beside them."""
    found = {(table, label): effect for table, label, effect in effects_of(PAGE / 'pretrained')}
    lines = []
    for words, table, label in OPENING:
        one = found[table, label]
        shown, seeds = one.difference.show(1), len(one.difference.seeds)
        lines.append(f'| {words} | {seeds} | {shown} | {one.paper:+.1f} | {one.verdict} |')
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


FCOS = [f'fcos/fcos_r50-caffe_fpn_{row}1x_coco.py' for row in ('', 'joint_', 'gfl_')]
ATSS = ['atss/atss_r50_fpn_1x_coco.py', 'atss/atss_r50_fpn_joint_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py']
RETINANET = [f'retinanet/retinanet_r50_fpn_{row}1x_coco.py' for row in ('', 'joint_', 'gfl_')]
FOVEABOX = [f'foveabox/fovea_r50_fpn_{row}4xb4-1x_coco.py' for row in ('', 'joint_', 'gfl_')]
SSD = [f'ssd/ssd512_{row}coco.py' for row in ('', 'joint_', 'gfl_')]
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
    ('RetinaNet, full GFL: uniform less score', 'gfl_uniform', RETINANET[2], 'gfl_score', RETINANET[2]),
    ('FoveaBox, full GFL: uniform less score', 'gfl_uniform', FOVEABOX[2], 'pretrained_hosts', FOVEABOX[2]),
    ('FCOS, full GFL: uniform less score', 'gfl_uniform', FCOS[2], 'gfl_score', FCOS[2]),
]


def changed_lines():
    """Effects of settings on AP."""
    lines = []
    for words, folder, config, base_folder, base in CHANGED:
        runs = [comparisons_of(PAGE / one)[1][name] for one, name in ((folder, config), (base_folder, base))]
        found = paired(*(by_seed(one, 'AP') for one in runs))
        lines.append(f'| {words} | {len(found.seeds)} | {found.show(1)} |')
    return lines


#: Candidates against the noise: report, words of the page.
TRIED = {
    'pretrained': 'the preset: frozen backbone, rows of a seed start alike',
    'noise_own_start': 'each row starts from weights of its own',
    'noise_val': '250 validation images in place of 1,000',
    'noise_ema': 'averaged weights, momentum 0.01',
    'noise_lr': 'learning rate 0.001 in place of 0.002',
    'noise_long': 'three times the images and steps',
    'scratch': 'ResNet-18 of quarter width, from scratch, 250 validation images',
}


def noise_lines():
    """Lines of the candidates: seeds, baseline AP, GFL less it by seed, its standard deviation, seconds per run."""
    lines = []
    for folder, words in TRIED.items():
        kept, results, comparisons = comparisons_of(PAGE / folder)
        rows = {row.table_row.label: row for c in comparisons if c.table.name == '3' for row in c.rows}
        difference = rows['QFL + DFL (GFL)'].effects['AP'].difference
        baseline = statistics.fmean(rows['baseline'].measured['AP'].values)
        seconds = statistics.median(run['seconds'] for config in (ATSS[0], ATSS[2]) for run in results[config])
        numbers = (
            f'{len(difference.seeds)} | {baseline:.1f} | {difference.show(1)} | {difference.std:.2f} | {seconds:.0f}'
        )
        lines.append(f'| {words} | {numbers} |')
    return lines


#: Hosts with a rare class: report, configs of baseline, QFL and full GFL.
RARE = {
    'FCOS': ('rare', FCOS),
    'ATSS': ('rare', ATSS),
    'RetinaNet': ('rare', RETINANET),
    'FoveaBox': ('rare', FOVEABOX),
    'SSD': ('rare_ssd', SSD),
    'FCOS, three times the steps': ('rare_steps', FCOS),
    'FCOS, long': ('rare_long', FCOS),
    'ATSS, long': ('rare_long', ATSS),
    'RetinaNet, long': ('rare_long', RETINANET),
    'FoveaBox, long': ('rare_long', FOVEABOX),
    'SSD, long': ('rare_long_ssd', SSD),
}


def scores_of(folder, config):
    """AP of the rare class, the mean of the others', and the mean of all, by seed."""
    runs = comparisons_of(PAGE / folder)[1][config]
    classes = {run['seed']: dict(run['class_scores']) for run in runs}
    rare = {seed: scores.pop('star') for seed, scores in classes.items()}
    others = {seed: statistics.fmean(scores.values()) for seed, scores in classes.items()}
    return rare, others, by_seed(runs, 'AP')


def rare_lines():
    """AP of the rare class and of the others, and what QFL and full GFL change."""
    lines = []
    for host, (folder, configs) in RARE.items():
        start, *rows = (scores_of(folder, config)[:2] for config in configs)
        cells = [host, str(len(start[0])), *(f'{statistics.fmean(one.values()):.1f}' for one in start)]
        cells += [paired(one, other).show(1) for row in rows for one, other in zip(row, start)]
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def gaps():
    """Gains of the rare class less those of the others, by QFL and by full GFL, seed by seed."""
    found = []
    for folder, configs in RARE.values():
        start, *rows = (scores_of(folder, config)[:2] for config in configs)
        for row in rows:
            rare, others = ({seed: one[seed] - base[seed] for seed in one} for one, base in zip(row, start))
            found.append(paired(rare, others).show(1))
    return found


#: Box weights in place of the class score: the page's columns and their reports.
WEIGHTS = ('rare_uniform', 'rare_quality', 'rare_floor', 'rare_warm_up')
#: Rows with a rare class: their report and config; report and config of the uniform weights where these are others.
WEIGHTED = {
    'FCOS, QFL': ('rare', FCOS[1], None),
    'ATSS, QFL': ('rare', ATSS[1], None),
    'FCOS, full GFL': ('rare_score', FCOS[2], ('rare_uniform', FCOS[2])),
    'ATSS, full GFL': ('rare', ATSS[2], ('rare_uniform_gfl', ATSS[1])),
    'RetinaNet, full GFL': ('rare', RETINANET[2], None),
    'FoveaBox, full GFL': ('rare', FOVEABOX[2], None),
    'RetinaNet, full GFL, long': ('rare_long', RETINANET[2], ('rare_long_uniform', RETINANET[2])),
}


def weights_lines(score=0):
    """Differences by other box weights, in the AP of the rare class (0), of the others (1), or of all (2)."""
    lines = []
    for words, (report_of_score, config, other) in WEIGHTED.items():
        runs = [(folder, config) for folder in (WEIGHTS if report_of_score == 'rare' else WEIGHTS[:1])]
        runs[0] = other or runs[0]
        base = scores_of(report_of_score, config)[score]
        made = [config in comparisons_of(PAGE / folder)[1] for folder, config in runs]
        cells = [paired(scores_of(*run)[score], base).show(1) if ran else '' for run, ran in zip(runs, made)]
        cells += [''] * (len(WEIGHTS) - len(cells))
        lines.append(f'| {words} | {" | ".join(cells)} |')
    return lines


@pytest.mark.parametrize(
    'lines', [opening_lines, host_lines, changed_lines, between_lines, noise_lines, rare_lines, weights_lines]
)
def test_the_tables_of_the_page(lines):
    expected = lines()
    page = (PAGE / 'README.md').read_text().splitlines()
    first = page.index(expected[0])
    assert page[first : first + len(expected) + 1] == [*expected, '']


#: What the rows of a seed share at the start, of the commits in the reports.
STARTS = {
    'c3ed714': 'neck and towers',
    '0974403': 'neck and towers',
    '2ea8a96': 'neck and towers',
    '6ad6efe': 'neck and towers',
    '7a45747': 'nothing',
    'd692d8b': 'layers of one name',
    'e5c4481': 'layers of one name, and the class layers of GFLHead and ATSSHead',
}


def compared_in_reports():
    """Report and config of a row and its baseline, of all tables of all reports."""
    for folder in REPORTS:
        for comparison in comparisons_of(folder)[2]:
            for row in comparison.rows:
                if 'AP' in row.effects and row.effects['AP'].difference:
                    base = comparison.table.baseline(row.table_row)
                    yield (folder.name, row.table_row.config), (folder.name, base.config)


def compared_on_the_page():
    """Likewise of the two rows of each further line of the page."""
    rows = {(table.name, row.label): row.config for table in read_tables() for row in table.rows}
    for folder, name, *labels in BETWEEN:
        yield tuple((folder, rows[name, label]) for label in labels)
    for folder, config in HOST_ROWS.values():
        base, gfl, gflv2 = ((folder, config.format(end)) for end in ('', '_gfl', '_gflv2'))
        yield from ((gfl, base), (gflv2, gfl))
    for _, folder, config, base_folder, base in CHANGED:
        yield (folder, config), (base_folder, base)
    for folder, configs in RARE.values():
        yield from (((folder, config), (folder, configs[0])) for config in configs[1:])
    for folder, config, other in WEIGHTED.values():
        yield other or (WEIGHTS[0], config), (folder, config)
        if folder == 'rare':
            yield from (((one, config), (folder, config)) for one in WEIGHTS[1:])


def test_compared_rows_start_alike():
    results = {folder.name: comparisons_of(folder)[1] for folder in REPORTS}
    for pair in [*compared_in_reports(), *compared_on_the_page()]:
        runs = [run for folder, config in pair for run in results[folder].get(config, ())]
        assert len({STARTS[run['commit'][:7]] for run in runs}) == 1, pair


def test_repeated_runs_give_the_same_ap():
    pairs = [('pretrained_hosts', 'gfl_score', config) for config in (FCOS[2], RETINANET[2])]
    for first, second, config in [*pairs, ('rare', 'rare_score', FCOS[2])]:
        one, other = (by_seed(comparisons_of(PAGE / folder)[1][config], 'AP') for folder in (first, second))
        assert one == other and len(one) == 3


#: A difference and its interval, of which a sentence may leave out the sign.
SHOWN = re.compile(r'\d+\.\d+ ± \d+\.\d+')


def test_the_numbers_in_the_sentences_are_of_a_report():
    known = [found.difference.show(1) for folder in REPORTS for _, _, found in effects_of(folder)]
    known += gaps() + between_lines() + host_lines() + changed_lines() + noise_lines() + rare_lines()
    known += weights_lines() + weights_lines(1) + weights_lines(2)
    page = re.sub(r'^```.*?^```$', '', (PAGE / 'README.md').read_text(), flags=re.MULTILINE | re.DOTALL)
    sentences = '\n'.join(line for line in page.splitlines() if not line.startswith('|'))
    shown = SHOWN.findall(sentences)
    assert len(shown) > 20 and set(shown) <= set(SHOWN.findall(' '.join(known)))


def spread(folder, label):
    """Standard deviation over seeds of a table-3 row's AP less the baseline's."""
    return next(e.difference.std for table, row, e in effects_of(PAGE / folder) if table == '3' and row == label)


def test_the_spreads_in_the_sentences():
    """The F test of two spreads of eight seeds each, and what is known of one of them (chi squared)."""
    page = (PAGE / 'README.md').read_text()
    section = ' '.join(page[page.index('## What was tried') : page.index('## How it was run')].split())
    gfl = {folder: spread(folder, 'QFL + DFL (GFL)') for folder in TRIED}
    seconds = next(line for line in noise_lines() if TRIED['pretrained'] in line).split(' | ')[-1].rstrip(' |')
    three = [spread(folder, label) for folder in ('pretrained', 'scratch') for label in ('QFL', 'DFL')]
    assert f'with {gfl["pretrained"]:.2f} in {seconds} s; QFL alone has {three[0]:.1f}, DFL {three[1]:.1f}.' in section
    assert f'QFL has {three[2]:.1f}, DFL {three[3]:.1f}.' in section

    own, preset = gfl['noise_own_start'], gfl['pretrained']
    changed = sorted(gfl[name] for name in ('noise_val', 'noise_ema', 'noise_lr', 'noise_long'))
    assert f'{own:.2f}, above the {changed[0]:.2f} to {changed[-1]:.2f} of the four lines below' in section
    bound = stats.f.ppf(0.975, 7, 7)
    assert own**2 / changed[-1] ** 2 > bound
    assert f"not told from the preset's {preset:.2f}" in section and own**2 / preset**2 < bound
    assert f'standard deviation of {gfl["scratch"]:.2f}, told from {preset:.2f}.' in section
    assert gfl['scratch'] ** 2 / preset**2 > bound
    others = [
        found.difference.std
        for folder in ('pretrained', 'pretrained_hosts')
        for _, label, found in effects_of(PAGE / folder)
        if label.startswith(('FCOS', 'RetinaNet'))
    ]
    assert f'Rows of FCOS and RetinaNet have {min(others):.1f} to {max(others):.1f}.' in section
    factors = [(7 / stats.chi2.ppf(level, 7)) ** 0.5 for level in (0.975, 0.025)]
    assert f'within a factor of {factors[0]:.2f} to {factors[1]:.1f}' in section


def test_the_papers_effects_in_the_sentences():
    """In parentheses behind the measured one that they belong to, as +1.6 ± 0.3 (+1.9)."""
    known = {
        (e.difference.show(1), f'{e.paper:+.1f}') for folder in REPORTS for _, _, e in effects_of(folder) if e.paper
    }
    page = (PAGE / 'README.md').read_text()
    sentences = ' '.join(page[page.index('Effect by effect') : page.index('<summary>Differences between two')].split())
    quoted = re.findall(
        r"([+-]\d+\.\d+ ± \d+\.\d+)(?: AP| over eight seeds)? \((?:the paper's )?([+-]\d\.\d)", sentences
    )
    between = {tuple(line.split(' | ')[3:5]) for line in between_lines()}
    assert len(quoted) > 10 and set(quoted) <= known | between, set(quoted) - known - between


def test_the_tables_that_were_not_run():
    run = {run['config'] for name in ('pretrained', 'pretrained_hosts', 'ssd_long') for run in json.loads(
        (PAGE / name / 'report.json').read_text())['results']}  # fmt: skip
    left = {table.name for table in read_tables() if any(row.config not in run for row in table.rows)}
    page = (PAGE / 'README.md').read_text()
    assert re.search(r'\*\*Not run\*\*: the tables `(\w+)` and `(\w+)`', page).groups() == tuple(sorted(left))


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


def test_the_numbers_of_the_uncertainty_are_in_its_tables():
    tables = (PAGE / 'uncertainty_tables.md').read_text()
    section = ' '.join(tables[: tables.index('## The command')].split())
    rows = {
        tuple(cells[:2]): cells for cells in ([c.strip() for c in line.split('|')[1:-1]] for line in tables.split('\n'))
    }
    gfl, gaussian, beyond, sharp = (
        rows[key]
        for key in (
            ('GFL', '10574'),
            ('Gaussian', '8482'),
            ('GFL, beyond its floor', '10574'),
            ('sharp', 'GFL, beyond its floor'),
        )
    )
    percent = [f'{float(row[5]):.0%}' for row in (gfl, gaussian)]
    for words in (
        f'in {percent[0]} of the pairs by GFL, in {percent[1]} by the Gaussian row',
        f'rank correlation of {gfl[4]} and {gaussian[4]}',
        f'{sharp[4]} px at sharp sides, which it misses by {sharp[5]}, and holds {beyond[6]} of the labels',
    ):
        assert words in section


def test_every_report_has_its_command():
    """By its work dir, or by the function that joins it: ``rare floor`` makes ``rare_floor``."""
    commands = (PAGE / 'commands.sh').read_text()
    for name in (folder.name for folder in REPORTS):
        start, _, end = name.partition('_')
        calls = [f'work_dirs/{name}', *([rf'^{start} _?{end}', rf'\btried {end}'] if end else [])]
        assert re.search(rf'({"|".join(calls)})\b', commands, flags=re.MULTILINE), name
