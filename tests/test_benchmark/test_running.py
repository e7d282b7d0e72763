"""A row that the file system refuses something is reported and does not stop the others."""

import errno
import json
import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_gfl.benchmark import locks, running
from mmdet_gfl.benchmark.commands import Launcher
from mmdet_gfl.benchmark.presets import choose
from mmdet_gfl.benchmark.results import COLUMNS, read, run_dir_of
from mmdet_gfl.benchmark.work_dir import Run

BASE, GFL = 'atss/atss_r50_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py'
SIZES = dict(size=64, train=4, val=2, epochs=2, batch_size=4, channels=32, stacked_convs=1)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write says it: it names no file
#: Stands for a training: leaves the scores of its last epoch.
TRAINING = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[1]) / '20240101_000000' / 'vis_data'
folder.mkdir(parents=True, exist_ok=True)
while sys.argv[2] and not Path(sys.argv[2]).exists():
    time.sleep(0.01)
(folder / 'scalars.json').write_text(json.dumps({'coco/bbox_mAP': 0.25, 'step': 2}))
"""


@dataclass(frozen=True)
class FastLauncher(Launcher):
    """Starts what stands for a training and ends when the file ``until`` is there, if one is given."""

    kind: str = 'none'
    gpus: int = 1
    until: str | Path = ''

    def command(self, tool, arguments, name):
        return [sys.executable, '-S', '-c', TRAINING, str(Path(arguments[0]).parent), str(self.until)]


@pytest.fixture
def run(tmp_path, capsys):
    """Trains both rows; returns the exit status and what was said."""

    def call(until=''):
        preset = choose('mini', 1, None, SIZES, None, -1)
        return running.run_all([BASE, GFL], [0], tmp_path, preset, FastLauncher(until=until)), capsys.readouterr().out

    return call


def refuse(monkeypatch, owner, name, run_dir, error):
    """Lets a function raise an error where an argument is below a folder, and counts how often it did."""
    function, calls = getattr(owner, name), []

    def refusing(*arguments, **more):
        if any(isinstance(value, Path) and run_dir in (value, *value.parents) for value in arguments):
            calls.append(name)
            raise error
        return function(*arguments, **more)

    monkeypatch.setattr(owner, name, refusing)
    return calls


def check_the_first_failed_alone(said, work_dir, words):
    assert said.count(words) == 2 and f'{BASE}, seed 0: failed: ' in said and said.count(': failed: ') == 1
    assert 'Traceback' not in said and f'{GFL}, seed 0: AP 25.0' in said
    assert not (run_dir_of(BASE, 0, work_dir) / 'result.json').exists()
    assert read(run_dir_of(GFL, 0, work_dir) / 'result.json')['scores']['AP'] == 25
    assert not any(locks.is_held(run_dir_of(config, 0, work_dir) / '.lock') for config in (BASE, GFL))


def test_a_folder_that_cannot_be_made(run, tmp_path):
    run_dir = run_dir_of(BASE, 0, tmp_path)
    run_dir.parent.mkdir(parents=True)
    run_dir.touch()
    status, said = run()
    assert status == 1
    check_the_first_failed_alone(said, tmp_path, f'File exists: {run_dir} (nothing was started)')
    run_dir.unlink()
    status, said = run()
    assert status == 0 and '2 runs, 1 of them done' in said and f'{BASE}, seed 0: AP 25.0' in said


@pytest.mark.parametrize(
    'owner, name, words',
    [
        (locks, 'acquire', 'nothing was started'),
        (Config, 'dump', 'nothing was started'),
        (running, 'result_of', 'see '),
        (running, 'write', 'see '),
    ],
)
def test_a_full_disk_on_the_way(run, tmp_path, monkeypatch, owner, name, words):
    run_dir = run_dir_of(BASE, 0, tmp_path)
    with monkeypatch.context() as patch:
        calls = refuse(patch, owner, name, run_dir, FULL)
        status, said = run()
    assert status == 1 and calls == [name]
    check_the_first_failed_alone(said, tmp_path, f'No space left on device: {run_dir} ({words}')
    if name != 'acquire':
        assert read(run_dir / 'state.json')['failed'] == f'No space left on device: {run_dir}'
    status, said = run()
    assert status == 0 and f'{BASE}, seed 0: AP 25.0' in said


def test_a_log_that_cannot_be_written(run, tmp_path):
    run_dir = run_dir_of(BASE, 0, tmp_path)
    (run_dir / 'train.log').mkdir(parents=True)
    status, said = run()
    assert status == 1
    check_the_first_failed_alone(said, tmp_path, f'Is a directory: {run_dir / "train.log"} (nothing was started)')


def test_notes_and_progress_do_not_fail(run, tmp_path, monkeypatch):
    calls, enough = [], tmp_path / 'enough'

    def write_state(*arguments):
        calls.append(arguments)
        if len(calls) > 4:
            enough.touch()
        raise FULL

    monkeypatch.setattr(running, 'NOTE_SECONDS', -1)
    monkeypatch.setattr(running, 'write_state', write_state)
    status, said = run(until=enough)  # the trainings end when four notes have failed
    assert status == 0 and said.count(': AP 25.0') == 2 and len(calls) > 4
    assert running.tail(tmp_path / 'none.log', 0) == running.tail(tmp_path, 0) == ''


@pytest.mark.parametrize(
    'scores, scalars, words',
    [
        (dict.fromkeys(COLUMNS, float('inf')), None, 'not JSON compliant'),
        (None, b'\xff', "can't decode byte 0xff"),
    ],
)
def test_measurements_that_cannot_be_read_or_kept(run, tmp_path, monkeypatch, scores, scalars, words):
    run_dir, original = run_dir_of(BASE, 0, tmp_path), running.result_of

    def result_of(config, *others):
        found = original(config, *others)
        return dict(found, scores=scores or found['scores']) if config == BASE else found

    monkeypatch.setattr(running, 'result_of', result_of)
    if scalars is not None:
        (run_dir / '20250101_000000' / 'vis_data').mkdir(parents=True)
        (run_dir / '20250101_000000' / 'vis_data' / 'scalars.json').write_bytes(scalars)
    status, said = run()
    assert status == 1 and words in said
    check_the_first_failed_alone(said, tmp_path, 'what was measured cannot be read or kept: ')
    json.loads((run_dir / 'state.json').read_text())


def test_a_process_that_lives_is_ended(tmp_path, monkeypatch):
    """Of a row that fails once its process has started, and its folder is free."""
    started = []

    def start(self, process, *_):
        process.popen = subprocess.Popen(
            [sys.executable, '-S', '-c', 'import time; time.sleep(60)'], pass_fds=[process.lock.fileno()]
        )
        started.append(process.popen)
        raise FULL

    monkeypatch.setattr(running.Queue, 'start', start)
    monkeypatch.setattr(running, 'missing', lambda _: None)
    preset, said = choose('mini', 1, None, SIZES, None, -1), []
    queue = running.Queue(tmp_path, preset, FastLauncher(), 1, 1, deque(), said.append)
    queue.begin(Run(GFL, 0, 1))
    assert started[0].poll() is not None and queue.running == [] and len(queue.failed) == 1
    assert said == [f'[1/1] {queue.failed[0].replace(": ", ": failed: ", 1)}'] and 'No space left' in said[0]
    assert not locks.is_held(run_dir_of(GFL, 0, tmp_path) / '.lock')
