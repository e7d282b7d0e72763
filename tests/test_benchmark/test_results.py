"""Results read from a training, and kept."""

import json
import math
from pathlib import Path

import pytest

from mmdet_gfl.benchmark import locks, results
from mmdet_gfl.benchmark.mini import Mini
from mmdet_gfl.benchmark.presets import Preset
from mmdet_gfl.benchmark.progress import state_of, status
from mmdet_gfl.benchmark.rows import RowError
from mmdet_gfl.engine import checkout, files

GFL = 'gfl/gfl_r50_fpn_1x_coco.py'


def metrics(ap, **others):
    return {f'coco/bbox_{name}': others.get(column, ap) for column, name in results.COLUMNS.items()}


def training(run_dir, *attempts):
    """A work dir with these lines of scalars an attempt."""
    for number, lines in enumerate(attempts):
        folder = run_dir / f'2024010{number}_000000' / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text(
            '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        )


def test_the_last_evaluation_counts(tmp_path):
    assert results.last_evaluation(tmp_path) is None
    training(
        tmp_path,
        [dict(loss=1.0, step=10), dict(metrics(0.1), step=1)],
        [
            dict(loss=math.nan, step=20),
            dict(metrics(0.25), step=2),
            dict(loss=0.7, step=25),
            '{"loss": 0.5, "st',
        ],  # cut by a kill
    )
    assert results.last_evaluation(tmp_path) == dict(metrics(0.25), step=2)


def test_no_detection_is_ap_0_and_what_coco_leaves_undefined_is_none(tmp_path):
    assert results.scores_of(dict(time=1.0, step=2)) == dict.fromkeys(results.COLUMNS, 0.0)
    scores = results.scores_of(metrics(0.3, APL=-1.0, APM=math.nan))
    assert scores == dict.fromkeys(results.COLUMNS, 30.0) | dict(APL=None, APM=None)
    training(tmp_path, [dict(metrics(0.1), step=1), dict(time=1.0, data_time=0.25, step=2)])
    assert results.last_evaluation(tmp_path) == dict(time=1.0, data_time=0.25, step=2)


def test_ap_by_class_where_the_evaluator_gives_it():
    entry = dict(metrics(0.3), **{'coco/star_precision': 0.123, 'coco/a b_precision': math.nan}, step=3)
    assert results.class_scores_of(entry) == {'star': 12.3, 'a b': None}
    assert results.class_scores_of(metrics(0.3)) == {}


def test_the_last_test_counts(tmp_path):
    assert results.last_test(tmp_path) is None
    for time, ap in (('20240101_1', 0.1), ('20240102_1', 0.2)):
        (tmp_path / 'test' / time).mkdir(parents=True)
        (tmp_path / 'test' / time / f'{time}.json').write_text(json.dumps(dict(metrics(ap), time=ap, data_time=0.1)))
    assert results.last_test(tmp_path) == dict(metrics(0.2), time=0.2, data_time=0.1)


def test_a_result_holds_all_that_is_to_be_known(tmp_path):
    preset = Preset('mini', 1, mini=Mini(size=64), options={'a.b': 1})
    cfg, run_dir = preset.config(GFL, 3), results.run_dir_of(GFL, 3, tmp_path)
    run_dir.mkdir(parents=True)
    (run_dir / 'where.json').write_text(json.dumps(dict(device='a GPU', threads=4, versions=dict(torch='2.13'))))
    scores = dict.fromkeys(results.COLUMNS, 25.0)
    cfg.val_dataloader.batch_size = 4
    evaluation = dict(metrics(0.25), **{'coco/star_precision': 0.5}, time=0.75, data_time=0.25)
    kept = results.result_of(GFL, 3, evaluation, 61.4, preset, cfg, run_dir)
    assert kept['image_seconds'] == 0.125 and kept['class_scores'] == dict(star=50)
    unknown = results.result_of(GFL, 3, metrics(0.25), 61.4, preset, cfg, run_dir)
    assert unknown['image_seconds'] is None
    nothing = results.result_of(GFL, 3, dict(time=0.75, data_time=0.25, step=2), 61.4, preset, cfg, run_dir)
    assert nothing['scores'] == dict.fromkeys(results.COLUMNS, 0.0) and nothing['image_seconds'] == 0.125
    assert json.loads(json.dumps(kept)) == kept
    assert (kept['config'], kept['seed'], kept['scores'], kept['seconds']) == (GFL, 3, scores, 61)
    assert kept['preset'] == 'mini' and kept['mini']['size'] == 64 and kept['options'] == {'a.b': 1}
    assert kept['device'] == 'a GPU' and kept['threads'] == 4
    assert kept['versions']['torch'] == '2.13' and kept['versions']['mmdet_gfl']
    assert 'mmdet_gfl.GFLHead' in kept['resolved'] and 'seed=3' in kept['resolved']
    assert 'shapes://' in kept['resolved'] and str(tmp_path) not in kept['resolved']
    assert kept['classes'] == cfg.model.bbox_head.num_classes
    assert kept['images_per_step'] == Mini.batch_size and kept['epochs'] == Mini.epochs


def test_the_commit_and_whether_files_differ(tmp_path, monkeypatch):
    found = checkout.commit()
    assert found is None or len(found.removesuffix('-dirty')) == 40
    monkeypatch.setattr(checkout.subprocess, 'run', lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError('git')))
    assert checkout.commit() is None


def test_files_are_written_whole(tmp_path, monkeypatch):
    file = tmp_path / 'result.json'
    files.write(file, 'old')
    monkeypatch.setattr(files.os, 'replace', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write(file, 'new')
    assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]
    assert results.read_results(tmp_path) == {}


def result(run_dir: Path, **entries):
    run_dir.mkdir(parents=True)
    (run_dir / 'result.json').write_text(json.dumps(entries))


def test_reading_bears_with_old_and_broken_files(tmp_path):
    result(results.run_dir_of('gfl/a.py', 1, tmp_path), config='gfl/a.py', seed=1, scores=dict(AP=math.nan, AP50=2.0))
    result(results.run_dir_of('gfl/a.py', 0, tmp_path), config='gfl/a.py', seed=0, scores=dict(AP=1.0, AP50=2.0))
    result(results.run_dir_of('gfl/b.py', 0, tmp_path), seed=0)
    (results.run_dir_of('gfl/b.py', 0, tmp_path) / 'result.json').write_text('{"config": ')
    found = results.read_results(tmp_path)
    assert results.found_configs(tmp_path) == ['gfl/a.py', 'gfl/b.py']
    assert list(found) == ['gfl/a.py'] and [run['seed'] for run in found['gfl/a.py']] == [0, 1]
    assert found['gfl/a.py'][1]['scores'] == dict.fromkeys(results.COLUMNS) | dict(AP50=2.0)


def test_states(tmp_path):
    names = ['done', 'nan', 'running', 'failed', 'missing', 'begun', 'not-begun']
    run_dirs = {name: results.run_dir_of(f'gfl/{name}.py', 0, tmp_path) for name in names}
    result(run_dirs['done'], config='gfl/done.py', scores=dict(AP=31.25))
    result(run_dirs['nan'], config='gfl/nan.py', scores=dict(AP=math.nan))
    for name in ('running', 'failed', 'begun'):
        run_dirs[name].mkdir(parents=True)
        (run_dirs[name] / 'train.log').touch()
        noted = dict(epoch=2, iteration=5, iterations=10, eta=60.4)
        (run_dirs[name] / 'progress.json').write_text(json.dumps(noted))
        results.write_state(run_dirs[name], 12.0, 3, 'out of memory: it' if name == 'failed' else None)
    run_dirs['missing'].mkdir(parents=True)
    results.write_state(run_dirs['missing'], 0.0, 3, 'no data')
    log = run_dirs['failed'] / 'train.log'
    with locks.acquire(run_dirs['running'] / '.lock'):
        assert {name: state_of(run_dir) for name, run_dir in run_dirs.items()} == {
            'done': ('done', 'AP 31.2'),
            'nan': ('done', 'AP not defined'),
            'running': ('running', 'epoch 2/3 [5/10], 60 s left'),
            'failed': ('failed', f'out of memory: it, see {log}'),
            'missing': ('failed', 'no data'),
            'begun': ('begun', 'in epoch 2/3'),
            'not-begun': ('not begun', ''),
        }
    assert state_of(run_dirs['running'])[0] == 'begun'
    text = status([f'gfl/{name}.py' for name in names], None, tmp_path)
    assert text.splitlines()[0] == 'done      gfl/done.py, seed 0: AP 31.2'
    assert text.splitlines()[-1] == '2 done, 2 begun, 2 failed, 1 not begun'
    with pytest.raises(RowError, match='does not exist'):
        status(['gfl/a.py'], None, tmp_path / 'none')


def test_locks(tmp_path):
    file = tmp_path / '.lock'
    assert not locks.is_held(file)
    with locks.acquire(file):
        assert locks.is_held(file) and locks.acquire(file) is None
    assert not locks.is_held(file)
    said = []
    with locks.waiting(file, lambda: said.append(1)):
        assert locks.is_held(file)
    assert not said and not locks.is_held(file)
