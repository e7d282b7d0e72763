"""The first command, in the smallest size: what it leaves, that it reuses it, that it names what is wrong."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest

from mmdet_gfl.benchmark import frozen
from mmdet_gfl.versions import REQUIREMENTS, installed

SMALL = dict(EPOCHS='1', MINI='size=64 train=8 val=4 stacked_convs=1')


def has_pinned_versions():
    """Whether the quickstart, which runs in the project's own environment, would run what is tested here."""
    return all(found.version.partition('+')[0] == one.tested for one in REQUIREMENTS for found in installed(one))


def quickstart(root, *arguments, **env):
    return subprocess.run(
        ['bash', str(root / 'tools' / 'quickstart.sh'), *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def environment(warm_python, root, tmp_path):
    """The environment of this process, complete as it is, with a Python that starts sooner."""
    installed = json.loads(distribution('mmdet_gfl').read_text('direct_url.json') or '{}')
    if installed.get('url') != root.as_uri():
        pytest.skip('the environment holds the package of another checkout, which the quickstart would replace')
    stamp = Path(sys.prefix) / '.set-up'
    if not stamp.is_file():
        return {}
    (tmp_path / 'venv' / 'bin').mkdir(parents=True)
    (tmp_path / 'venv' / 'bin' / 'python').write_text(f'#!/bin/sh\nexec {shlex.quote(warm_python)} "$@"\n')
    (tmp_path / 'venv' / 'bin' / 'python').chmod(0o755)
    shutil.copy(stamp, tmp_path / 'venv' / '.set-up')
    return dict(VENV=str(tmp_path / 'venv'), OMP_NUM_THREADS='1')


@pytest.mark.slow
@pytest.mark.skipif(find_spec(frozen.PACKAGE) is None, reason=f'{frozen.PACKAGE} is not installed')
@pytest.mark.skipif(not has_pinned_versions(), reason='it would set up the pinned versions, which are not those here')
def test_table_3_in_small_twice(root, environment, tmp_path):
    ran = quickstart(root, WORK_DIR=str(tmp_path / 'quick start'), **environment, **SMALL)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    folder = tmp_path / 'quick start'
    assert (folder / 'report.md').is_file() and (folder / 'table_3.png').is_file()
    assert len(list(folder.glob('*/*/seed-0/result.json'))) == 4
    assert len(list((folder / 'pictures').glob('*.png'))) == 12
    assert cv2.imread(str(folder / 'images' / 'val' / '000001.bmp')).shape == (64, 64, 3)  # as trained
    assert list((folder / 'cache' / 'features').iterdir())  # and nothing in the home folder
    for words in ('Table 3', '39.2', '40.2', 'smoke run', 'What to do next', str(folder / 'pictures')):
        assert words in ran.stdout
    before = {file: file.stat().st_mtime_ns for file in [*folder.glob('*/*/seed-0/*.pth'), *folder.glob('pictures/*')]}
    again = quickstart(root, WORK_DIR=str(folder), **environment, **SMALL)
    assert again.returncode == 0 and 'Table 3' in again.stdout
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_help_and_arguments(root):
    told = quickstart(root, '--help')
    assert told.returncode == 0 and 'WORK_DIR=DIR' in told.stdout and 'set -euo' not in told.stdout
    wrong = quickstart(root, '--fast')
    assert wrong.returncode == 2 and 'takes no arguments (got: --fast)' in wrong.stderr
