"""Training, a kill, resuming and testing on real COCO images, through our tools and MMDetection's own."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmdet
import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.agreement]

STOCK = Path(mmdet.__file__).parent / '.mim' / 'tools'
CONFIG = 'configs/gfl/gfl_r18-narrow_fpn_coco128-320.py'
SMALL = [
    'train_dataloader.dataset.indices=16',
    'val_dataloader.dataset.indices=10',
    'test_dataloader.dataset.indices=10',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(64,64)',
    'test_dataloader.dataset.pipeline.1.scale=(64,64)',
    'model.test_cfg.score_thr=0.001',  # after a dozen steps no score is above 0.05
    'train_cfg.max_epochs=3',
    'train_cfg.val_interval=3',
    'default_hooks.checkpoint.interval=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
]


def start(tool, *arguments, coco128, root, log, python):
    env = dict(
        os.environ,
        COCO128_ROOT=str(coco128),
        PYTHONPATH=str(root),
        OMP_NUM_THREADS='1',
    )
    command = [python, str(tool), *map(str, arguments), '--cfg-options', *SMALL]
    return subprocess.Popen(command, cwd=root, env=env, stdout=open(log, 'w'), stderr=subprocess.STDOUT)


def run(tool, *arguments, log, **more):
    code = start(tool, *arguments, log=log, **more).wait()
    assert code == 0, Path(log).read_text()[-3000:]
    return Path(log).read_text()


@pytest.fixture(scope='module')
def places(coco128, root):
    return dict(coco128=coco128, root=root)


@pytest.fixture(scope='module')
def trained(places, warm_python, tmp_path_factory):
    """A work dir whose training was killed with SIGKILL after its first checkpoint and resumed to the end.

    The killed one is the process itself, as a user starts it, and not what ``warm_python`` stands for.
    """
    place = tmp_path_factory.mktemp('training')
    work = place / 'work'
    process = start('tools/train.py', CONFIG, '--work-dir', work, **places, log=place / 'killed', python=sys.executable)
    while not (work / 'last_checkpoint').is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (work / 'last_checkpoint').is_file(), (place / 'killed').read_text()[-3000:]
    log = run(
        'tools/train.py', CONFIG, '--work-dir', work, '--resume', **places, log=place / 'resumed', python=warm_python
    )
    return work, (place / 'killed').read_text(), log


def test_lines_at_the_start(trained):
    work, killed, _ = trained
    assert 'effective batch size 8, lr 0.001 (not scaled)' in killed and str(work) in killed


def test_the_killed_training_resumes(trained):
    work, _, resumed = trained
    assert 'resumed epoch: ' in resumed and 'Epoch(train) [1]' not in resumed.replace('  ', ' ')
    last = torch.load(work / 'epoch_3.pth', weights_only=False)
    assert last['meta']['epoch'] == 3 and last['meta']['iter'] == 6  # 16 images in batches of 8, three times
    scalars = [json.loads(line) for line in next(work.glob('2*/vis_data/scalars.json')).read_text().splitlines()]
    assert {'loss_cls', 'loss_bbox', 'loss_dfl', 'pos_iou', 'clipped_share', 'grad_norm'} <= set(scalars[0])


def test_tools_agree(trained, places, warm_python, tmp_path):
    work, _, _ = trained
    found = {}  # a fresh process has not imported this package before MMDetection's tool reads the config
    for name, tool, python in (('ours', 'tools/test.py', warm_python), ('stock', STOCK / 'test.py', sys.executable)):
        out = tmp_path / f'{name}.pkl'
        arguments = (CONFIG, work / 'epoch_3.pth', '--work-dir', tmp_path / name, '--out', out)
        log = run(tool, *arguments, **places, log=tmp_path / f'{name}.log', python=python)
        assert 'coco/bbox_mAP' in log
        with open(out, 'rb') as file:
            found[name] = pickle.load(file)
    assert len(found['ours']) == 10
    assert sum(len(image['pred_instances']['scores']) for image in found['ours']) > 100
    for ours, stock in zip(found['ours'], found['stock']):
        for key in ('bboxes', 'scores', 'labels'):
            assert torch.equal(ours['pred_instances'][key], stock['pred_instances'][key])


def test_stock_training_resumes_from_ours(trained, places, warm_python, tmp_path):
    work, _, _ = trained
    arguments = (CONFIG, '--work-dir', tmp_path / 'work', '--resume', work / 'epoch_2.pth')
    log = run(STOCK / 'train.py', *arguments, **places, log=tmp_path / 'log', python=warm_python)
    assert (tmp_path / 'work' / 'epoch_3.pth').is_file() and 'resumed epoch: 2' in log
