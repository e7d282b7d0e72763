"""The report is what hand-made results say."""

import json
import math

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mmdet_gfl.benchmark import pictures, report, results
from mmdet_gfl.benchmark.compare import Measured, compare, effect, measure
from mmdet_gfl.benchmark.mini import Mini
from mmdet_gfl.benchmark.presets import Preset
from mmdet_gfl.benchmark.rows import RowError, Table, TableRow

TABLES = [
    Table(
        '1a',
        'Quality',
        [
            TableRow('fcos/a.py', 'FCOS, none', dict(AP=37.8)),
            TableRow('atss/b.py', 'ATSS, none', dict(AP=38.0)),
            TableRow('atss/c.py', 'ATSS, branch', dict(AP=39.2)),
            TableRow('gfl/d.py', 'ATSS, joint', dict(AP=39.9)),
        ],
    ),
    Table('3', 'Both', [TableRow('atss/c.py', 'baseline', dict(AP=39.2)), TableRow('gfl/e.py', 'GFL', dict(AP=40.2))]),
    Table(
        '1c',
        'beta',
        [
            TableRow(f'atss/{name}.py', f'beta = {name}', dict(AP=ap))
            for name, ap in (('0', 37.6), ('1', 39.0), ('2.5', 39.7))
        ],
    ),
]


def runs(config, *aps):
    scores = [dict.fromkeys(results.COLUMNS, 10.0) | dict(AP=ap, APL=None) for ap in aps]
    kept = dict(config=config, preset='mini', mini=dict(vars(Mini(epochs=3))), seconds=60, device='CPU, 2 cores')
    more = dict(commit='a' * 40, classes=3, base_channels=16, versions=dict(torch='2.13.0'), resolved='model = ...')
    return [dict(kept, **more, seed=seed, scores=score) for seed, score in enumerate(scores)]


@pytest.fixture
def work_dir(tmp_path):
    """ATSS: none 31 ± sqrt(2), joint 33.5 once; FCOS 20 twice, once without AP; a config of no table."""
    by_hand = {
        'atss/b.py': (30.0, 32.0),
        'gfl/d.py': (33.5,),
        'fcos/a.py': (20.0, math.nan),
        'ssd/x.py': (5.0,),
        'atss/0.py': (30.0, 31.0),
        'atss/2.5.py': (32.0, 33.2),
    }
    for config, aps in by_hand.items():
        for run in runs(config, *aps):
            run_dir = results.run_dir_of(config, run['seed'], tmp_path)
            run_dir.mkdir(parents=True)
            (run_dir / 'result.json').write_text(json.dumps(run))
    return tmp_path


def test_scores_over_seeds():
    two = runs('a', 30.0, 32.0)
    assert measure(two, 'AP') == Measured(31.0, math.sqrt(2), [30.0, 32.0])
    assert measure(two[:1], 'AP') == Measured(30.0, None, [30.0])
    assert measure(runs('a', 30.0, math.nan, None), 'AP') == Measured(30.0, None, [30.0])
    assert measure(two, 'APL') is None and measure([], 'AP') is None


def test_effects():
    row, base = TableRow('a', 'row', dict(AP=39.9)), TableRow('b', 'base', dict(AP=39.2))
    found = effect(row, base, {'a': runs('a', 33.0, 35.4), 'b': runs('b', 30.0, 32.0)}, 'AP')
    assert found.paper == 0.7 and found.measured == pytest.approx(3.2)
    assert found.interval == pytest.approx(12.7062 * 0.2, rel=1e-5)  # the differences 3 and 3.4, one degree of freedom
    one = effect(row, base, {'a': runs('a', 33.0), 'b': runs('b', 30.0, 32.0)}, 'AP')
    assert (one.measured, one.interval) == (3.0, None)  # seed 0 alone is common
    assert effect(row, base, {'a': runs('a', 33.0)}, 'AP').difference is None
    assert effect(row, base, {}, 'AP50').paper is None


@pytest.mark.parametrize(
    'paper, own, verdict, agrees',
    [
        (0.7, (33.0, 35.1, 36.0), 'confirmed', True),
        (-0.7, (33.0, 35.1, 36.0), 'reversed', False),
        (-0.7, (27.0, 29.1, 30.0), 'confirmed', True),
        (0.7, (33.0, 29.0, 38.0), 'not told apart', True),
        (0.7, (30.04, 32.04, 33.04), 'confirmed', True),  # it rounds to 0.0, but its sign is known
        (0.7, (30.0, 32.0), 'not told apart', False),  # 0 has no sign
        (0.0, (33.0, 35.1, 36.0), 'differs, the paper has no effect', None),
        (None, (33.0, 35.1, 36.0), 'differs, not in the paper', None),
        (0.7, (33.0,), 'one seed, no interval', True),
        (0.7, (), 'no seed in common with the baseline', None),
    ],
)
def test_verdicts(paper, own, verdict, agrees):
    quoted = {} if paper is None else dict(AP=39.2 + paper)
    row, base = TableRow('a', 'row', quoted), TableRow('b', 'base', dict(AP=39.2))
    found = effect(row, base, {'a': runs('a', *own), 'b': runs('b', 30.0, 32.0, 33.0)}, 'AP')
    assert (found.verdict, found.agrees) == (verdict, agrees)


def test_report_by_hand(work_dir):
    failed = results.run_dir_of('atss/c.py', 0, work_dir)
    failed.mkdir(parents=True)
    results.write_state(failed, 1.0, 3, 'out of memory: it')
    (failed / 'train.log').touch()
    text = report.write_report(TABLES, work_dir)
    # ATSS and GFL are compared with ATSS's first row, FCOS with its own.
    assert '| ATSS, none | 2 | 38.0 / 31.0 ± 1.4 | - / 10.0 ± 0.0 |' in text
    assert '| ATSS, joint | 1 | 39.9 / 33.5 | - / 10.0 |' in text
    assert '| FCOS, none | 2, 1 without AP | 37.8 / 20.0 |' in text
    assert '| ATSS, joint | +1.9 / +3.5 | - / +0.0 |' in text and '| one seed, no interval |' in text
    assert '| beta = 2.5 | +2.1 / +2.1 ± 1.3 |' in text and '| confirmed |' in text
    assert "Effects on AP with the paper's sign: 1 of 1; none with several seeds." in text
    assert "the paper's sign: 1 of 1; with several seeds: 1 confirmed, 0 reversed, 0 not told apart." in text
    branch = 'ATSS, branch, seed 0 (failed: out of memory: it, see atss/c/seed-0/train.log), seed 1 (not run)'
    assert f'Not measured: {branch}; ATSS, joint, seed 1 (not run).' in text
    assert 'Not measured: baseline (failed: out of memory: it, see atss/c/seed-0/train.log); GFL (not run).' in text
    assert '| ssd/x.py | 1 | 5.0 |' in text and '5 of 8 configs of these tables have results' in text
    assert 'Preset mini' in text and '3 epochs' in text and 'built-in shapes of 160 px with 3 classes, 3 epochs' in text
    assert 'narrow ResNet-18 (16 channels where the usual one has 64)' in text
    assert 'CPU, 2 cores (torch 2.13.0; commit aaaaaaaaaa)' in text
    assert (work_dir / 'report.md').read_text() == text + '\n'
    assert '![table 1a](table_1a.png)' in text and '![table 3]' not in text


def test_ap_by_class_where_it_was_measured(work_dir):
    assert '## AP by class' not in report.write_report(TABLES, work_dir)
    for seed, star in ((0, 12.0), (1, 14.0)):
        file = results.run_dir_of('atss/b.py', seed, work_dir) / 'result.json'
        file.write_text(json.dumps(dict(json.loads(file.read_text()), class_scores=dict(star=star, disc=None))))
    page = report.write_report(TABLES, work_dir)
    assert page.partition('## AP by class')[2].split('##')[0].split('\n')[2:5] == [
        '| config | seeds | star | disc |',
        '|---|---|---|---|',
        '| atss/b.py | 2 | 13.0 ± 1.4 | - |',
    ]


def test_rows_without_quoted_numbers_in_groups(tmp_path):
    """Effects are measured within the named groups; nothing is compared with the paper."""
    labels = ('A', 'A+', 'B', 'B+')
    table = Table('x', 'Hosts', [TableRow(f'gfl/{label}.py', label, named_group=label[0]) for label in labels])
    for label, score in zip(labels, (30.0, 31.0, 20.0, 22.0)):
        run_dir = results.run_dir_of(f'gfl/{label}.py', 0, tmp_path)
        run_dir.mkdir(parents=True)
        (run_dir / 'result.json').write_text(json.dumps(runs(f'gfl/{label}.py', score)[0]))
    text = report.write_report([table], tmp_path)
    assert '| A+ | 1 | - / 31.0 |' in text
    assert '| A+ | - / +1.0 |' in text and '| B+ | - / +2.0 |' in text and '| B | - / ' not in text
    assert 'No effect on AP can be compared with the paper' in text
    assert (tmp_path / 'table_x.png').is_file()


def test_numbers_as_json(work_dir):
    report.write_report(TABLES, work_dir)
    kept = json.loads((work_dir / 'report.json').read_text())
    joint = kept['tables'][0]['rows'][3]
    assert joint['baseline'] == 'atss/b.py' and joint['seeds'] == [0] and joint['state'] == 'partly done'
    assert joint['measured']['AP'] == dict(mean=33.5, std=None, values=[33.5]) and joint['measured']['APL'] is None
    difference = dict(seeds=[0], mean=3.5, std=None, half_width=None)
    verdict = 'one seed, no interval'
    assert joint['effects']['AP'] == dict(paper=1.9, difference=difference, agrees=True, verdict=verdict)
    assert joint['not_measured'] == [dict(seed=1, state='not run')]
    base, branch = kept['tables'][0]['rows'][1:3]
    assert base['state'] == 'done' and base['not_measured'] == [] and base['effects'] == {}
    assert branch['state'] == 'not run' and [entry['seed'] for entry in branch['not_measured']] == [0, 1]
    assert len(kept['results']) == 10 and 'resolved' not in kept['results'][0]


def test_a_row_without_its_baseline(work_dir):
    for seed in (0, 1):
        (results.run_dir_of('atss/b.py', seed, work_dir) / 'result.json').unlink()
    text = report.write_report(TABLES[:1], work_dir)
    assert '| ATSS, joint | +1.9 / - |' in text and 'no seed in common with the baseline' in text
    assert 'No effect on AP can be compared' in text


def test_nothing_measured_yet(tmp_path):
    with pytest.raises(RowError, match='has no runs'):
        report.write_report(TABLES, tmp_path)
    (tmp_path / 'settings.json').write_text('{}')
    text = report.write_report(TABLES, tmp_path)
    assert 'Nothing was measured yet.' in text and '0 of 8 configs' in text and not list(tmp_path.glob('*.png'))
    with pytest.raises(RowError, match='does not exist'):
        report.write_report(TABLES, tmp_path / 'none')


def test_sizes_that_are_not_the_presets_are_named():
    usual, other = (dict(mini=vars(mini), seed=0) for mini in (Mini(), Mini(rare=1, lr=0.001, epochs=4, pretrained=1)))
    first, second = report.settings(dict(a=[usual, other]))
    assert '16 epochs. The paper' in first and '4 epochs, lr=0.001, rare=1. The paper' in second


def test_the_paper_preset_is_named(tmp_path):
    run = runs('atss/b.py', 38.0)[0] | dict(
        preset='paper', mini=None, gpus=8, options=Preset('paper', 8, options=dict(a=1)).options
    )
    run_dir = results.run_dir_of('atss/b.py', 0, tmp_path)
    run_dir.mkdir(parents=True)
    (run_dir / 'result.json').write_text(json.dumps(run))
    text = report.write_report(TABLES, tmp_path)
    assert 'Preset paper: the configs as they are' in text and 'Changed with --cfg-options: a=1.' in text
    assert '8 GPUs per row' in text and 'Preset mini' not in text


def drawn(work_dir, name):
    """The left and the right axes of a table's picture."""
    (table,) = (table for table in TABLES if table.name == name)
    return pictures.draw(compare(table, results.read_results(work_dir), {})).axes


def bars(axes, color):
    """Value by position of the bars of a colour, and value and half-length of each error bar by position."""
    values = {
        bar.get_y() + bar.get_height() / 2: bar.get_width() for bar in axes.patches if bar.get_facecolor() == color
    }
    ends = [segment for lines in axes.collections for segment in lines.get_segments()]
    return values, {start[1]: ((start[0] + end[0]) / 2, (end[0] - start[0]) / 2) for start, end in ends}


def assert_close(found, expected):
    assert list(found) == pytest.approx(list(expected))
    assert [*found.values()] == [pytest.approx(value) for value in expected.values()]


def test_a_picture_is_written_for_each_table_with_results(work_dir):
    report.write_report(TABLES, work_dir)
    assert sorted(file.name for file in work_dir.glob('*.png')) == ['table_1a.png', 'table_1c.png']


def test_bars_of_effects_have_their_intervals(work_dir):
    run_dir = results.run_dir_of('gfl/d.py', 1, work_dir)
    run_dir.mkdir(parents=True)
    (run_dir / 'result.json').write_text(json.dumps(runs('gfl/d.py', 33.5, 36.5)[1]))
    _, right = drawn(work_dir, '1a')
    values, errors = bars(right, to_rgba(pictures.MEASURED))
    assert_close(values, {3.68: 4.0})  # of 3.5 and 4.5
    assert_close(errors, {3.68: (4.0, 12.7062 * math.sqrt(0.5) / math.sqrt(2))})


def test_bars_are_for_named_rows(work_dir):
    """The paper's above the measured one; FCOS is a group of its own, and a gap stands before the next."""
    left, right = drawn(work_dir, '1a')
    paper, measured = to_rgba(pictures.PAPER), to_rgba(pictures.MEASURED)
    ticks = dict(zip((label.get_text() for label in left.get_yticklabels()), left.get_yticks()))
    assert ticks == {'FCOS, none': 0.0, 'ATSS, none': 1.5, 'ATSS, branch': 2.5, 'ATSS, joint': 3.5}
    assert left.get_ylim() == pytest.approx((4.1, -0.6))  # the first row above
    values, _ = bars(left, paper)
    assert_close({y: x for y, x in values.items() if x}, {-0.18: 37.8, 1.32: 38.0, 2.32: 39.2, 3.32: 39.9})
    values, errors = bars(left, measured)
    assert_close({y: x for y, x in values.items() if x}, {0.18: 20.0, 1.68: 31.0, 3.68: 33.5})
    assert_close(errors, {1.68: (31.0, math.sqrt(2))})  # the only row with two scores
    values, _ = bars(right, paper)
    assert_close(values, {2.32: 1.2, 3.32: 1.9})
    values, errors = bars(right, measured)
    assert_close(values, {3.68: 3.5})
    assert errors == {}
    labels = [
        {(one.get_text(), *np.round(one.xy, 2)) for one in axes.texts if hasattr(one, 'xy')} for axes in (left, right)
    ]
    assert {('37.8', 37.8, -0.18), ('20.0', 20.0, 0.18), ('31.0', 32.41, 1.68), ('33.5', 33.5, 3.68)} <= labels[0]
    assert labels[1] == {('+1.2', 1.2, 2.32), ('+1.9', 1.9, 3.32), ('+3.5', 3.5, 3.68)}  # at the end of the error bar
    said = {round(text.get_position()[1], 2): text.get_text() for text in right.texts if text.get_text()[0] == ' '}
    assert said == {0.0: ' baseline', 1.5: ' baseline', 2.68: ' not measured'}


def test_a_bar_below_zero_has_its_number_on_the_left():
    axes = Figure().subplots()
    pictures._bar(axes, 1.0, -2.5, 0.5, pictures.MEASURED, '+.1f')
    (text,) = axes.texts
    assert text.get_text() == '-2.5' and text.xy == (-3.0, 1.0) and text.get_ha() == 'right'


def test_curves_are_over_a_parameter(work_dir):
    """AP on the left, less that of the first value on the right; beta = 1 was not measured."""
    left, right = drawn(work_dir, '1c')
    half = math.sqrt(0.5)
    expected = (
        (left, [37.6, 39.0, 39.7], [30.5, 32.6], [half, math.sqrt(0.72)]),
        (right, [0.0, 1.4, 2.1], [0.0, 2.1], [12.7062 * 0.1]),
    )
    for axes, of_paper, own, errors in expected:
        paper, measured = axes.containers
        assert (paper.get_label(), measured.get_label()) == ('paper (COCO)', 'measured')
        assert paper[0].get_color() == pictures.PAPER and measured[0].get_color() == pictures.MEASURED
        np.testing.assert_allclose(paper[0].get_xydata(), np.transpose([[0, 1, 2.5], of_paper]), atol=1e-9)
        np.testing.assert_allclose(measured[0].get_xydata(), np.transpose([[0, 2.5], own]), atol=1e-9)
        assert not paper.has_yerr and measured.has_yerr
        ends = [segment for segment in measured[2][0].get_segments() if len(segment)]
        assert [(high[1] - low[1]) / 2 for low, high in ends] == pytest.approx(errors)
    assert [label.get_text() for label in left.get_xticklabels()] == ['0', '1', '2.5']
    assert right.get_ylabel() == r'AP less that of $\beta$ = 0 (bars: 95% interval)'


def test_lines_are_for_values_of_one_parameter():
    assert pictures.parameter_of(['beta = 0', 'beta = 2.5']) == ('beta', [0.0, 2.5])
    assert pictures.parameter_of(['n = 12', 'n = 14']) == ('n', [12.0, 14.0])
    assert pictures.parameter_of(['beta = 0', 'n = 2']) is None
    assert pictures.parameter_of(['baseline', 'QFL']) is None


def test_compared_rows():
    rows = compare(TABLES[1], {'gfl/e.py': runs('gfl/e.py', 1.0)}, {'atss/c.py': {0: 'failed: x'}}).rows
    assert [(row.is_baseline, row.seeds) for row in rows] == [(True, []), (False, [0])]
    assert [(row.state, row.missing) for row in rows] == [('failed: x', {0: 'failed: x'}), ('done', {})]
    nothing = compare(TABLES[1], {}, {}).rows
    assert [(row.state, row.missing) for row in nothing] == 2 * [('not run', {0: 'not run'})]


def test_each_seed_that_was_not_measured_is_reported_with_the_reason(tmp_path):
    """A row with some seeds, one with none that it could have, and one of a table that has begun another seed."""
    for run in (*runs('atss/b.py', 31.0, 32.0, 33.0), *runs('gfl/d.py', 33.0)):
        run_dir = results.run_dir_of(run['config'], run['seed'], tmp_path)
        run_dir.mkdir(parents=True)
        (run_dir / 'result.json').write_text(json.dumps(run))
    failed, begun, other = (results.run_dir_of('gfl/d.py', seed, tmp_path) for seed in (1, 2, 7))
    for run_dir in (failed, begun, other.with_name('seed-copy')):
        run_dir.mkdir(parents=True)
    for run_dir in (failed, begun):
        (run_dir / 'train.log').touch()
    results.write_state(failed, 1.0, 3, 'FloatingPointError: the loss is nan')
    text = report.write_report(TABLES[:2], tmp_path)
    said = (
        'Not measured: FCOS, none (not run); ATSS, branch (not run); ATSS, joint, seed 1 (failed: FloatingPointError: '
        'the loss is nan, see gfl/d/seed-1/train.log), seed 2 (begun).'
    )
    assert said in text and 'Not measured: baseline (not run); GFL (not run).' in text
    rows = json.loads((tmp_path / 'report.json').read_text())['tables'][0]['rows']
    assert [row['state'] for row in rows] == ['not run', 'done', 'not run', 'partly done']
    assert [entry['seed'] for entry in rows[0]['not_measured']] == [0, 1, 2]
    assert rows[3]['not_measured'][1] == dict(seed=2, state='begun')
    assert rows[3]['not_measured'][0]['state'].startswith('failed: FloatingPointError')

    (failed / 'state.json').unlink()
    (failed / 'train.log').unlink()
    (begun / 'train.log').unlink()
    assert 'ATSS, joint, seeds 1, 2 (not run).' in report.write_report(TABLES[:1], tmp_path)
