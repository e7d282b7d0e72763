"""A kill in the write, and a full disk, leave the checkpoint before."""

import errno
import os
import signal
import subprocess
import time

import pytest
import torch

from mmdet_gfl.engine.hooks import safe_checkpoint_hook
from mmdet_gfl.engine.hooks.safe_checkpoint_hook import SafeLocalBackend

TRAINING = """
import mmdet_gfl, os, sys, time, torch
from mmengine.model import BaseModel
from mmengine.runner import Runner

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def forward(self, inputs, mode='loss'):
        return dict(loss=self.layer(inputs).sum() ** 2)

sync, count = os.fsync, 0
def slow(descriptor):
    global count
    count += 1
    if count == 3 and sys.argv[2] == 'stop':  # of the second checkpoint; the first syncs its file and its folder
        open(os.path.join(sys.argv[1], 'writing'), 'w').close()
        time.sleep(600)
    sync(descriptor)
os.fsync = slow

data = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=[dict(inputs=torch.ones(4))] * 4)
data['collate_fn'] = dict(type='default_collate')
Runner(
    model=Model(), work_dir=sys.argv[1], train_dataloader=data, resume=sys.argv[2] == 'resume',
    train_cfg=dict(by_epoch=True, max_epochs=3), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
    default_hooks=dict(checkpoint=dict(type='mmdet_gfl.SafeCheckpointHook', interval=1, max_keep_ckpts=1)),
).train()
"""


@pytest.fixture
def train(warm_python, tmp_path, root):
    """Starts the training, which stops in a write or resumes."""

    def call(how):
        (tmp_path / 'training.py').write_text(TRAINING)
        command = [warm_python, str(tmp_path / 'training.py'), str(tmp_path), how]
        env = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1')
        return subprocess.Popen(command, env=env, cwd=tmp_path)

    return call


def test_a_training_killed_in_the_write_resumes(tmp_path, train):
    process = train('stop')
    while not (tmp_path / 'writing').exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # MMEngine's own hook would have removed epoch_1 by now, and have begun epoch_2 in its place.
    assert (tmp_path / '.epoch_2.pth.part').exists() and not (tmp_path / 'epoch_2.pth').exists()
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['meta']['epoch'] == 1

    assert train('resume').wait() == 0
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_3.pth']
    assert list(tmp_path.glob('.*.part')) == []
    assert torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['meta']['iter'] == 6


@pytest.fixture
def backend():
    yield SafeLocalBackend()
    safe_checkpoint_hook._doomed.clear()


def test_removed_files_go_after_the_next_file(backend, tmp_path):
    backend.put(b'one', tmp_path / 'epoch_1.pth')
    backend.remove(tmp_path / 'epoch_1.pth')
    assert (tmp_path / 'epoch_1.pth').read_bytes() == b'one'
    backend.put(b'two', tmp_path / 'epoch_2.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_2.pth']


def test_a_file_that_is_rewritten_stays(backend, tmp_path):
    backend.put(b'one', tmp_path / 'best.pth')
    backend.remove(tmp_path / 'best.pth')
    backend.put(b'two', tmp_path / 'best.pth')
    assert (tmp_path / 'best.pth').read_bytes() == b'two'


def test_a_full_disk(backend, tmp_path, monkeypatch):
    backend.put(b'one', tmp_path / 'epoch_1.pth')
    backend.remove(tmp_path / 'epoch_1.pth')

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(safe_checkpoint_hook.os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        backend.put(b'two', tmp_path / 'epoch_2.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']


def test_other_places_keep_their_backend():
    hook = safe_checkpoint_hook.SafeCheckpointHook(interval=1, out_dir='s3://bucket/run')
    assert hook.backend_args is None
    assert safe_checkpoint_hook.SafeCheckpointHook(interval=1).backend_args == dict(
        backend=safe_checkpoint_hook.BACKEND
    )
    own = dict(backend='petrel')
    assert safe_checkpoint_hook.SafeCheckpointHook(backend_args=own).backend_args == own
