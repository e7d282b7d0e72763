"""``tools/reproduce.py`` end to end: run, kill, go on, status, report; launchers; what it refuses."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmdet_gfl.benchmark import locks, running
from mmdet_gfl.benchmark.commands import Launcher, exit_with
from mmdet_gfl.benchmark.presets import choose
from mmdet_gfl.benchmark.results import COLUMNS, read, run_dir_of
from mmdet_gfl.compat.checkpoint import HAS_SAFE_MODE

BASE, GFL = 'atss/atss_r50_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py'
SIZES = dict(size=64, train=8, val=4, epochs=6, batch_size=4, channels=32, stacked_convs=1)
#: As the command line has it.
MINI = ['--mini', *(f'{key}={value}' for key, value in SIZES.items())]
ROWS = ['--tables', '3', '--rows', BASE, GFL]


@pytest.fixture
def reproduce(root, monkeypatch, capsys):
    """The tool in this process: takes its arguments, returns its exit status and what it said on stdout and stderr."""
    spec = importlib.util.spec_from_file_location('reproduce', root / 'tools' / 'reproduce.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['reproduce.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            exit_with(tool.main)
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch, warm_children):
    """The number of threads decides in which order sums are formed."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


def run(work_dir, seed=0, configs=(GFL,), gpus=1, **sizes):
    preset = choose('mini', gpus, None, dict(SIZES, **sizes), None, -1)
    return running.run_all(configs, [seed], work_dir, preset, Launcher('pytorch' if gpus > 1 else 'none', gpus), jobs=2)


def weights(run_dir):
    (file,) = run_dir.glob('epoch_*.pth')
    return torch.load(file, weights_only=False)['state_dict']


def until(condition):
    while not condition():
        time.sleep(0.02)


def test_stopped_before_anything_is_trained(reproduce, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, 'run_all', stop)
    status, _, said = reproduce('run', *ROWS, *MINI, '--work-dir', tmp_path)
    assert (status, said) == (130, 'stopped; the same command resumes\n')


@pytest.mark.slow
def test_two_killed_rows_resume(root, reproduce, tmp_path):
    work = tmp_path / 'work'
    run_dirs = [run_dir_of(config, 0, work) for config in (BASE, GFL)]
    command = [
        sys.executable,
        str(root / 'tools' / 'reproduce.py'),
        'run',
        *ROWS,
        *MINI,
        '--work-dir',
        str(work),
        '--jobs',
        '2',
    ]
    with (tmp_path / 'out').open('w') as out:
        process = subprocess.Popen(command, cwd=root, stdout=out, stderr=subprocess.STDOUT)
        until(lambda: all((run_dir / 'train.log').is_file() for run_dir in run_dirs) or process.poll() is not None)

        # A second invocation meanwhile leaves both alone.
        status, said, _ = reproduce('run', *ROWS, *MINI, '--work-dir', work)
        assert status == 0 and said.count('another process is training it') == 2 and 'left to another process' in said
        _, said, _ = reproduce('status', *ROWS, '--work-dir', work)
        assert said.count('running   ') == 2 and '2 running' in said

        until(
            lambda: any((run_dir / 'last_checkpoint').is_file() for run_dir in run_dirs) or process.poll() is not None
        )
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / 'out').read_text()
    until(lambda: not any(locks.is_held(run_dir / '.lock') for run_dir in run_dirs))  # the trainings go with it
    _, said, _ = reproduce('status', *ROWS, '--work-dir', work)
    assert 'begun' in said and 'running' not in said
    (run_dirs[0] / '.result.json.part').write_text('{"config"')  # killed while it wrote a result

    status, said, _ = reproduce('run', *ROWS, *MINI, '--work-dir', work, '--jobs', '2')
    assert status == 0 and '2 runs, 0 of them done' in said and said.count(': AP ') == 2
    assert 'resumed epoch: ' in ''.join((run_dir / 'train.log').read_text() for run_dir in run_dirs)
    kept = [read(run_dir / 'result.json') for run_dir in run_dirs]
    assert [result['config'] for result in kept] == [BASE, GFL]
    assert all(set(result['scores']) == set(COLUMNS) and result['mini']['size'] == 64 for result in kept)
    assert all(result['versions']['torch'] == torch.__version__ and result['device'] != 'unknown' for result in kept)
    assert all(result['seconds'] > 0 and "type='mmdet_gfl" in result['resolved'] for result in kept)
    _, said, _ = reproduce('status', *ROWS, '--work-dir', work)
    assert said.endswith('2 done\n')
    status, said, _ = reproduce('report', *ROWS, '--work-dir', work)
    assert status == 0 and 'QFL + DFL (GFL)' in said and (work / 'table_3.png').is_file()

    # The same seed without a kill gives the same weights and scores.
    whole = tmp_path / 'whole'
    assert run(whole) == 0
    same, resumed = weights(run_dir_of(GFL, 0, whole)), weights(run_dirs[1])
    assert all(torch.equal(resumed[key], value) for key, value in same.items())
    assert read(run_dir_of(GFL, 0, whole) / 'result.json')['scores'] == kept[1]['scores']

    # What is finished is not trained again.
    before = (run_dirs[1] / 'train.log').stat().st_mtime_ns
    status, said, _ = reproduce('run', *ROWS, *MINI, '--work-dir', work)
    assert status == 0 and '2 runs, 2 of them done' in said
    assert (run_dirs[1] / 'train.log').stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='on CPUs')
def test_a_row_in_two_processes_and_one_that_fails(tmp_path, capsys):
    """Two processes that gloo connects; a damaged checkpoint stops its own row alone."""
    broken = run_dir_of(BASE, 0, tmp_path)
    broken.mkdir(parents=True)
    (broken / 'last_checkpoint').write_text(str(broken / 'epoch_1.pth'))
    (broken / 'epoch_1.pth').write_bytes(b'no checkpoint')
    assert run(tmp_path, configs=(BASE, GFL), gpus=2, epochs=1) == 1
    result = read(run_dir_of(GFL, 0, tmp_path) / 'result.json')
    assert result['gpus'] == 2 and result['images_per_step'] == 4
    where = read(run_dir_of(GFL, 0, tmp_path) / 'where.json')
    assert where['processes'] == 2 and re.fullmatch(r'CPU, \d+ cores?, [A-Z0-9 ]+', where['device'])
    said = capsys.readouterr().out
    assert 'These runs failed' in said and f'see {broken / "train.log"}' in said
    assert 'epoch_1.pth' in said or not HAS_SAFE_MODE  # torch's own error before 2.6
    assert torch.load(run_dir_of(GFL, 0, tmp_path) / 'epoch_1.pth', weights_only=False)['meta']['iter'] == 2


@pytest.mark.slow
def test_a_row_as_in_the_paper_on_real_images(coco128, reproduce, tmp_path):
    """GFL as it is shipped but for a smaller network and images; its end was not evaluated, so it is tested."""
    annotations, images = 'annotations/instances_train2017.json', dict(img='train2017/')
    options = ['model.backbone.depth=18', 'model.backbone.base_channels=8', 'model.backbone.init_cfg=None']
    options += ['model.neck.in_channels=[8,16,32,64]', 'model.neck.out_channels=64', 'model.bbox_head.stacked_convs=1']
    options += ['model.bbox_head.in_channels=64', 'model.bbox_head.feat_channels=64']
    for split in ('train', 'val'):
        data = f'{split}_dataloader.dataset'
        options += [f'{data}.data_root={coco128}', f'{data}.ann_file={annotations}', f'{data}.indices=4']
        options += [f'{data}.data_prefix.img={images["img"]}', f'{split}_dataloader.num_workers=1']
    options += [
        'train_dataloader.dataset.pipeline.2.scale=(128,128)',
        'val_dataloader.dataset.pipeline.1.scale=(128,128)',
    ]
    options += [f'val_evaluator.ann_file={coco128 / annotations}', 'val_dataloader.persistent_workers=False']
    options += ['train_cfg.max_epochs=1', 'train_cfg.val_begin=9', 'model.test_cfg.score_thr=0']
    arguments = ['--tables', '3', '--rows', GFL, '--work-dir', tmp_path]
    status, said, _ = reproduce('run', *arguments, '--preset', 'paper', '--gpus', '1', '--cfg-options', *options)
    assert status == 0, said
    assert 'lr 0.01 is for 16 images per step; with 1 x 2 it is scaled to 0.00125' in said
    run_dir = run_dir_of(GFL, 0, tmp_path)
    result = read(run_dir / 'result.json')
    assert result['preset'] == 'paper' and result['mini'] is None and result['images_per_step'] == 2
    assert result['scores']['AP'] is not None and (run_dir / 'test.log').is_file()
    assert 'effective batch size 2, lr 0.00125' in (run_dir / 'train.log').read_text()
    assert torch.load(run_dir / 'epoch_1.pth', weights_only=False)['meta']['iter'] == 2
    _, said, _ = reproduce('report', *arguments)
    assert 'Preset paper' in said and '1 of 1 configs' in said


@pytest.mark.slow
def test_dry_run(reproduce, tmp_path):
    work = tmp_path / 'work'
    status, said, _ = reproduce('run', *ROWS, *MINI, '--work-dir', work, '--seeds', '0', '1', '--dry-run', '--quick')
    assert status == 0 and '4 runs, 0 of them done' in said
    assert f'{BASE}, 2 x: 8 images x 6 epochs, 0.0' in said and f'{GFL}, 2 x: 8 images' in said
    assert 'in all about 0.0' in said and not work.exists() and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_small_preset(reproduce, coco128, tmp_path, monkeypatch):
    """On 128 images in COCO's place, of which a tenth trains: one epoch of small images."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / 'data' / 'coco'
    (place / 'annotations').mkdir(parents=True)
    content = json.loads((coco128 / 'annotations' / 'instances_train2017.json').read_text())
    for split, images in (('train', content['images']), ('val', content['images'][:8])):
        (place / f'{split}2017').symlink_to(coco128 / 'train2017')
        ids = {image['id'] for image in images}
        boxes = [one for one in content['annotations'] if one['image_id'] in ids]
        chosen = dict(content, images=images, annotations=boxes)
        (place / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(chosen))
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'model.backbone.init_cfg=None']
    options += [f'{split}_dataloader.dataset.pipeline.{i}.scale=(160,160)' for split, i in (('train', 2), ('val', 1))]
    for split in ('train', 'val'):
        options += [f'{split}_dataloader.num_workers=0', f'{split}_dataloader.persistent_workers=False']
    arguments = [
        'run',
        *ROWS,
        '--preset',
        'small',
        '--batch-size',
        '4',
        '--work-dir',
        'work',
        '--cfg-options',
        *options,
    ]
    status, said, _ = reproduce(*arguments, '--dry-run', '--quick')
    tenth = {one['image_id'] for one in content['annotations'] if one['image_id'] % 10 == 0}
    assert status == 0 and f'{BASE}, 1 x: {len(tenth)} images x 1 epochs' in said
    status, said, _ = reproduce(*arguments)
    assert status == 0 and said.count(': AP ') == 2
    kept = read(tmp_path / 'work' / GFL.removesuffix('.py') / 'seed-0' / 'result.json')
    assert kept['preset'] == 'small' and kept['scores']['AP'] is not None


def test_rows_without_their_data_are_said(reproduce, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ['run', *ROWS, '--preset', 'paper', '--gpus', '1', '--work-dir', 'work']
    status, said, _ = reproduce(*arguments, '--dry-run')
    assert status == 1 and said.count('cannot run: ') == 2 and f'{tmp_path}/data/coco/annotations' in said
    status, said, _ = reproduce(*arguments)
    assert status == 1 and said.count('failed: train_dataloader.dataset.ann_file: ') == 2
    assert 'These runs failed' in said and said.count('nothing was started') == 4
    _, said, _ = reproduce('status', *ROWS, '--work-dir', 'work')
    assert said.count('failed    ') == 2 and 'does not exist' in said


@pytest.mark.skipif(torch.cuda.is_available(), reason='where GPUs are missing')
def test_gpus_and_data_that_are_missing_are_named_at_once(reproduce, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = reproduce('run', *ROWS, '--preset', 'paper', '--work-dir', 'work')
    assert status == 2 and error.count('\n') == 1 and list(tmp_path.iterdir()) == []
    assert 'takes 8 GPUs by default, and this machine has none; give --gpus 1: the lr is scaled' in error
    assert f'. Its data is missing too: train_dataloader.dataset.ann_file: {tmp_path}/data/coco/annotations/' in error


@pytest.mark.parametrize(
    'arguments, status, words',
    [
        (['--help'], 0, 'list, run, status, report'),
        (['run', '--help'], 0, '--cfg-options KEY=VALUE'),
        (['run', '--sedes', '1'], 2, 'unrecognized arguments: --sedes 1'),
        (['run', '--seeds', '-1'], 2, '--seeds -1: give an integer from 0 up'),
        (['run', '--mini', 'size'], 1, '--mini size: write KEY=VALUE'),
        (['run', '--tables', '4'], 2, '--tables 4: there is no such table'),
        (['run', '--configs', 'gfl/x'], 2, '--configs gfl/x: no such config'),
        (['list', '--tables', '3'], 0, GFL),
    ],
)
def test_commands_without_torch_do_not_wait_for_it(root, arguments, status, words):
    command = [sys.executable, '-X', 'importtime', str(root / 'tools' / 'reproduce.py'), *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == status and words in done.stdout + done.stderr
    imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines() if line.startswith('import time')}
    assert 'mmdet_gfl' in imported and not imported & {'torch', 'numpy', 'mmengine', 'mmdet'}


def test_slurm_gets_this_command(reproduce, root, tmp_path, monkeypatch):
    srun = tmp_path / 'bin' / 'srun'
    srun.parent.mkdir()
    srun.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/seen\nenv >> {tmp_path}/env\necho no such partition\nexit 1\n'
    )
    srun.chmod(0o755)
    monkeypatch.setenv('PATH', f'{srun.parent}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('SRUN_ARGS', '-p gpu --time 24:00:00')
    work = tmp_path / 'work'
    arguments = ['run', '--tables', '3', '--rows', GFL, '--preset', 'paper', '--launcher', 'slurm', '--work-dir', work]
    status, said, _ = reproduce(*arguments)
    assert status == 1 and 'failed: exit status 1: no such partition' in said
    run_dir = run_dir_of(GFL, 0, work)
    seen = (tmp_path / 'seen').read_text().splitlines()
    head = [
        '--job-name=gfl_r50_fpn_1x_coco-0',
        '--ntasks=8',
        '--ntasks-per-node=8',
        '--gres=gpu:8',
        '--cpus-per-task=5',
    ]
    assert seen[:5] == head
    assert seen[5:10] == ['--kill-on-bad-exit=1', '-p', 'gpu', '--time', '24:00:00']
    assert seen[10:12] == [sys.executable, '-u'] and seen[12].endswith('/tools/train.py')
    rest = [str(run_dir / 'config.py'), '--resume', '--work-dir', str(run_dir), '--launcher', 'slurm']
    assert seen[13:] == rest
    assert 'MASTER_PORT=2' in (tmp_path / 'env').read_text()


def test_misfits_are_one_sentence(reproduce, tmp_path):
    (tmp_path / 'settings.json').write_text(json.dumps(choose('mini', 1, None, dict(SIZES, epochs=9), None, 0).sizes()))
    status, _, error = reproduce('run', *ROWS, *MINI, '--work-dir', tmp_path)
    assert status == 2 and 'holds runs of other settings (epochs is 9 there, 6 here); name another --work-dir' in error
    status, _, error = reproduce('run', *ROWS, '--preset', 'paper', '--gpus', '1', '--work-dir', tmp_path, '--dry-run')
    assert status == 2 and "preset is 'mini' there, 'paper' here" in error

    for arguments, message in (
        (['run', '--tables', '4'], '--tables 4: there is no such table'),
        (['run', '--tables', '3', '--jobs', '0'], '--jobs 0: give an integer from 1 up'),
        (['run', '--tables', '3', '--seeds', '0', '-1'], '--seeds -1: give an integer from 0 up'),
        (['status', '--seeds', '-1'], '--seeds -1: give an integer from 0 up'),
        (
            ['run', '--tables', '3', '--launcher', 'none', '--preset', 'paper', '--gpus', '2'],
            '--launcher none starts one',
        ),
        (['run', '--configs', 'gfl/x'], '--configs gfl/x: no such config'),
        (['status', '--work-dir', tmp_path / 'none'], 'does not exist'),
        (['report', '--work-dir', Path(__file__).parent], 'has no runs'),
        (['run', '--work-dir', __file__], 'cannot be written to (File exists); name another folder'),
        (['run', *ROWS, '--work-dir', __file__, '--dry-run'], 'cannot be written to (Not a directory); name another'),
        (['run', *ROWS, '--mini', 'lr=nan'], '--mini lr=nan: give a number above 0, finite'),
        (['run', *ROWS, '--cfg-options', 'a.max_norm=inf'], '--cfg-options a.max_norm=inf: the config file'),
    ):
        status, _, error = reproduce(*arguments)
        assert status == 2 and error.startswith('error: ') and message in error and error.count('\n') == 1


def test_results_put_together_by_hand_are_resumed(tmp_path):
    """Results without settings.json, as copies have them, count as what they are."""
    from mmdet_gfl.benchmark.rows import RowError
    from mmdet_gfl.benchmark.work_dir import check_settings

    mini = choose('mini', 1, None, SIZES, None, 0)
    run_dir = run_dir_of(GFL, 0, tmp_path)
    run_dir.mkdir(parents=True)
    result = dict(config=GFL, seed=0, scores=dict(AP=1.0), mini=mini.sizes()['mini'])
    (run_dir / 'result.json').write_text(json.dumps(result))
    check_settings(tmp_path, mini)
    with pytest.raises(RowError, match='epochs is 6 there, 9 here'):
        check_settings(tmp_path, choose('mini', 1, None, dict(SIZES, epochs=9), None, 0))
    with pytest.raises(RowError, match="preset is 'mini' there, 'paper' here"):
        check_settings(tmp_path, choose('paper', 8, None, {}, None, 8))


def test_a_reader_that_has_seen_enough(root):
    done = subprocess.run(
        ['bash', '-c', f'{sys.executable} {root}/tools/reproduce.py list | head -1; echo ${{PIPESTATUS[0]}}'],
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[1:] == ['0'] and 'BrokenPipe' not in done.stderr
