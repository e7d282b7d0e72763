"""Rows are trained once, kept, resumed; the report is what the results say."""

import json
from dataclasses import asdict

import pytest

from mmdet_gfl.benchmark import rows, runs
from mmdet_gfl.benchmark.mini import Mini
from mmdet_gfl.benchmark.rows import Row, RowError, Table

TABLES = [
    Table(
        '1a',
        'Quality',
        [
            Row('fcos/a.py', 'FCOS, none', dict(AP=37.8)),
            Row('atss/b.py', 'ATSS, none', dict(AP=38.0)),
            Row('atss/c.py', 'ATSS, branch', dict(AP=39.2)),
            Row('gfl/d.py', 'ATSS, joint', dict(AP=39.9)),
        ],
    ),
    Table('3', 'Both', [Row('atss/c.py', 'baseline', dict(AP=39.2)), Row('gfl/e.py', 'GFL', dict(AP=40.2))]),
]


def result(config, *aps):
    scores = [dict.fromkeys(runs.COLUMNS, 0.0) | dict(AP=ap) for ap in aps]
    mini = asdict(Mini(epochs=3))
    return [dict(config=config, seed=seed, scores=score, mini=mini) for seed, score in enumerate(scores)]


def test_report_by_hand():
    results = {
        'atss/b.py': result('atss/b.py', 30.0, 32.0),
        'gfl/d.py': result('gfl/d.py', 33.5),
        'fcos/a.py': result('fcos/a.py', 20.0),
        'ssd/x.py': result('ssd/x.py', 5.0),
    }
    text = runs.report(TABLES, results)
    # ATSS and GFL are compared with ATSS's first row, FCOS with its own; two seeds give 31 ± sqrt(2).
    assert '| ATSS, none | 2 | 38.0 (+0.0) | +0.0 | 31.0 ± 1.4 |' in text
    assert '| ATSS, joint | 1 | 39.9 (+1.9) | +2.5 | 33.5 |' in text
    assert '| FCOS, none | 1 | 37.8 (+0.0) | +0.0 | 20.0 |' in text
    assert 'Not run: ATSS, branch.' in text and 'Not run: baseline; GFL.' in text
    assert '| ssd/x.py | 1 | 5.0 |' in text
    assert 'ResNet-18' in text and '3 epochs' in text
    del results['atss/b.py']
    assert '| ATSS, joint | 1 | 39.9 (+1.9) | first row not run | 33.5 |' in runs.report(TABLES, results)


def test_work_dirs_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(RowError, match='does not exist'):
        runs.status(['atss/b.py'], [0], tmp_path / 'none')
    with pytest.raises(RowError, match='no results'):
        runs.write_report(TABLES, {}, tmp_path)
    place = runs.place_of('atss/b.py', 0, tmp_path)
    place.mkdir(parents=True)
    (place / 'result.json').write_text(json.dumps(result('atss/b.py', 1.0)[0]))
    with pytest.raises(RowError, match='atss/b.py.*another --work-dir'):
        runs.run_all(['atss/c.py'], [0], tmp_path, Mini(epochs=4))


def test_rows_are_trained_once():
    assert rows.configs_of(TABLES) == ['fcos/a.py', 'atss/b.py', 'atss/c.py', 'gfl/d.py', 'gfl/e.py']


def test_selection():
    chosen = rows.select(TABLES, ['1a'], ['atss/*', 'd'])
    assert [row.label for table in chosen for row in table.rows] == ['ATSS, none', 'ATSS, branch', 'ATSS, joint']
    with pytest.raises(RowError, match='--tables 4.*1a, 3'):
        rows.select(TABLES, ['4'], None)
    with pytest.raises(RowError, match='--rows nothing'):
        rows.select(TABLES, None, ['nothing'])
    with pytest.raises(RowError, match='did you mean gfl/gfl_r50_fpn_1x_coco.py'):
        rows.check_config('gfl/gfl_r50_fpn_1x_cocoo')


@pytest.mark.slow
def test_a_row_end_to_end(tmp_path, capsys):
    mini = Mini(size=64, train=8, val=4, epochs=1, batch_size=4, channels=32, stacked_convs=1)
    config = 'gfl/gfl_r50_fpn_1x_coco.py'
    assert runs.run_all([config], [0], tmp_path, mini) == 0
    place = runs.place_of(config, 0, tmp_path)
    kept = json.loads((place / 'result.json').read_text())
    assert kept['config'] == config and set(kept['scores']) == set(runs.COLUMNS)
    assert kept['scores'] == dict.fromkeys(runs.COLUMNS, 0.0)  # two steps detect nothing
    assert 'mmdet_gfl.GFLHead' in kept['resolved']
    assert kept['versions']['torch'] and kept['mini']['size'] == 64

    # Again: nothing is trained. Without the result: the run goes on from its checkpoint, which is its end.
    capsys.readouterr()
    assert runs.run_all([config], [0], tmp_path, mini) == 0
    assert '1 of them done' in capsys.readouterr().out
    (place / 'result.json').unlink()
    assert 'begun' in runs.status([config], [0], tmp_path)
    assert runs.run_all([config], [0], tmp_path, mini) == 0
    assert 'resumed epoch: 1' in (place / 'train.log').read_text()

    # A row that fails is named, and does not stop the others.
    damaged = runs.place_of('atss/atss_r50_fpn_1x_coco.py', 0, tmp_path)
    damaged.mkdir(parents=True)
    (damaged / 'last_checkpoint').write_text(str(damaged / 'epoch_1.pth'))
    (damaged / 'epoch_1.pth').write_bytes(b'no checkpoint')
    (place / 'result.json').unlink()
    assert runs.run_all(['atss/atss_r50_fpn_1x_coco.py', config], [0], tmp_path, mini) == 1
    said = capsys.readouterr().out
    assert 'These runs failed' in said and str(damaged / 'train.log') in said and (place / 'result.json').is_file()

    results = runs.read_results(tmp_path)
    text = runs.write_report(rows.select(rows.read_tables(), ['3'], None), results, tmp_path)
    assert (tmp_path / 'report.md').read_text() == text + '\n' and 'QFL + DFL (GFL)' in text
    assert json.loads((tmp_path / 'report.json').read_text())[0][0]['config'] == config


def test_scores_are_those_of_the_last_evaluation(tmp_path):
    for name, ap in (('20240101_000000', 0.1), ('20240102_000000', 0.25)):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        entry = {f'coco/bbox_{column}': ap for column in runs.COLUMNS.values()}
        (folder / 'scalars.json').write_text(json.dumps(dict(loss=1.0)) + '\n' + json.dumps(entry))
    assert runs.read_scores(tmp_path) == dict.fromkeys(runs.COLUMNS, 25.0)
    assert runs.read_scores(tmp_path / 'nothing') is None


def test_a_row_that_another_process_trains_is_left_alone(tmp_path):
    place = runs.place_of('gfl/x.py', 0, tmp_path)
    place.mkdir(parents=True)
    with runs._held(place) as first, runs._held(place) as second:
        assert first and not second
