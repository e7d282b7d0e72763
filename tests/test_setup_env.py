"""``tools/setup_env.sh`` makes, completes and reuses environments; here with a Python whose pip only takes notes."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason='the pinned versions need Python 3.11')
MADE_FROM = ('constraints.txt', 'setup.cfg', 'pyproject.toml', 'tools/setup_env.sh')
#: Variables of the script that somebody who runs the tests may have set.
HEEDED = ('CONSTRAINTS', 'MMCV', 'PYTHON', 'TORCH_INDEX_URL', 'VENV')
# Stands for a Python that has nothing but torch and numpy, which are fakes: the real ones take seconds to import.
# Its pip writes down its arguments, then does what `pip_does` holds; that the stand-in is placed is written down too.
STUB = """#!/usr/bin/env bash
if [[ "$1 $2" == '-m pip' ]]; then
  echo "${{*:3}}" >>'{root}/pip_calls'
  source '{root}/pip_does'
elif [[ "$*" == '-m mmdet_gfl stand-in install' ]]; then
  echo 'stand-in' >>'{root}/pip_calls'
elif [[ "$*" == *purelib* ]]; then
  echo '{root}/site'
else
  PYTHONPATH='{root}/fakes' exec '{python}' -S "$@"
fi
"""
FAKES = {
    'torch': '__version__ = "2.13.0+cpu"\ndef from_numpy(array): pass\nclass cuda: is_available = lambda: False',
    'numpy': 'def zeros(size): pass',
}


def clean_environ() -> dict[str, str]:
    """The variables without those of the script."""
    return {name: value for name, value in os.environ.items() if name not in HEEDED}


@dataclass
class Checkout:
    """A copy of the script and of what it reads, in a folder with a blank, with a virtual environment of stubs."""

    root: Path

    def set_up(self, **env: str) -> subprocess.CompletedProcess[str]:
        command = ['bash', str(self.root / 'tools' / 'setup_env.sh')]
        return subprocess.run(command, env=clean_environ() | env, capture_output=True, text=True, cwd='/')

    def write_python(self, stub: str) -> None:
        python = self.root / '.venv' / 'bin' / 'python'
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(stub.format(root=self.root, python=sys.executable))
        python.chmod(0o755)

    def pip_calls(self) -> list[str]:
        """Arguments of pip since the last call of this."""
        file = self.root / 'pip_calls'
        calls = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return calls

    def pip_does(self, script: str) -> None:
        (self.root / 'pip_does').write_text(script)

    def leave(self, dist_info: str, record: bool = True) -> Path:
        """Leave metadata of a package in the environment."""
        folder = self.root / 'site' / f'{dist_info}.dist-info'
        folder.mkdir(parents=True)
        if record:
            (folder / 'RECORD').touch()
        return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / 'a checkout'
    (root / 'tools').mkdir(parents=True)
    for name in MADE_FROM:
        shutil.copy(ROOT / name, root / name)
    (root / 'fakes').mkdir()
    for name, code in FAKES.items():
        (root / 'fakes' / f'{name}.py').write_text(code)
    made = Checkout(root)
    made.write_python(STUB)
    made.leave('pip-23.2.1')
    made.pip_does('')
    return made


def test_prints_the_python_alone(checkout: Checkout) -> None:
    result = checkout.set_up(MMCV='lite')
    assert result.stdout == f'{checkout.root}/.venv/bin/python\n'
    assert result.returncode == 0, result.stderr


def test_installs_under_the_constraints_and_keeps_the_torch_that_is_there(checkout: Checkout) -> None:
    checkout.set_up(MMCV='lite')
    assert checkout.pip_calls() == [
        'install -c constraints.txt setuptools wheel',
        'install -c constraints.txt mmcv-lite',
        'install -c constraints.txt --no-build-isolation -e .[tests] mmdet mmengine pycocotools',
        'stand-in',
    ]


@pytest.fixture
def without_torch(checkout: Checkout, tmp_path: Path) -> tuple[dict[str, str], str]:
    """Variables that name a Python without torch, and the line of a pip that installs it."""
    if sys.platform != 'linux':
        pytest.skip('elsewhere torch has no CPU build under a version of its own')
    (checkout.root / 'fakes' / 'torch.py').rename(tmp_path / 'torch.py')
    bare = tmp_path / 'python-without-torch'
    bare.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    bare.chmod(0o755)
    install = f'cp {shlex.quote(str(tmp_path / "torch.py"))} {shlex.quote(str(checkout.root / "fakes"))}'
    return dict(PYTHON=str(bare), MMCV='lite'), install


@pytest.mark.parametrize(
    ('env', 'pin', 'said'),
    [
        ({}, 'torch==2.13.0+cpu', 'installing torch==2.13.0+cpu, 190 MB to download, minutes on a slow network'),
        ({'TORCH_INDEX_URL': 'https://mirror/cu130'}, 'torch==2.13.0', 'one for CUDA with its libraries gigabytes to'),
    ],
)
def test_a_torch_that_is_installed_is_announced(
    checkout: Checkout, without_torch: tuple[dict[str, str], str], env: dict[str, str], pin: str, said: str
) -> None:
    bare, install = without_torch
    checkout.pip_does(f'[[ "$*" != *torch==* ]] || {install}')
    result = checkout.set_up(**bare, **env)
    assert result.returncode == 0, result.stderr
    assert any(call.endswith(pin) for call in checkout.pip_calls())
    assert result.stdout == f'{checkout.root}/.venv/bin/python\n'
    (line,) = [line for line in result.stderr.splitlines() if 'installing torch' in line]
    assert said in line and f"tail -f '{checkout.root}/.venv/set-up.log'" in line


@pytest.mark.parametrize('message', ['ERROR: No matching distribution found', 'ERROR: ResolutionImpossible: for help'])
def test_torch_comes_from_its_own_index_where_the_usual_ones_lack_it(
    checkout: Checkout, without_torch: tuple[dict[str, str], str], message: str
) -> None:
    bare, install = without_torch
    checkout.pip_does(f'case "$*" in *whl/cpu) {install} ;; *torch==*) echo {shlex.quote(message)}; exit 1 ;; esac')
    result = checkout.set_up(**bare)
    assert result.returncode == 0, result.stderr
    asked = [call for call in checkout.pip_calls() if 'torch==' in call]
    assert asked == [
        'install torch==2.13.0+cpu',
        'install torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu',
    ]


def test_a_second_run_has_nothing_to_do(checkout: Checkout) -> None:
    checkout.set_up(MMCV='lite')
    checkout.pip_calls()
    result = checkout.set_up(MMCV='lite')
    assert (result.stdout, result.stderr) == (f'{checkout.root}/.venv/bin/python\n', '')
    assert checkout.pip_calls() == []


@pytest.mark.parametrize('name', [name for name in MADE_FROM if not name.startswith('tools')])
def test_a_change_of_what_it_is_made_from_sets_it_up_again(checkout: Checkout, name: str) -> None:
    checkout.set_up(MMCV='lite')
    checkout.pip_calls()
    with (checkout.root / name).open('a') as file:
        file.write('# changed\n')
    checkout.set_up(MMCV='lite')
    assert len(checkout.pip_calls()) == 4


def test_a_run_that_failed_is_not_taken_for_complete(checkout: Checkout) -> None:
    checkout.pip_does('[[ "$*" != *mmdet* ]] || { echo "ERROR: out of luck"; exit 1; }')
    result = checkout.set_up(MMCV='lite')
    assert result.returncode == 1
    assert result.stdout == ''
    assert 'ERROR: out of luck' in result.stderr
    checkout.pip_does('')
    checkout.pip_calls()
    assert checkout.set_up(MMCV='lite').returncode == 0
    assert len(checkout.pip_calls()) == 4


def test_a_change_that_failed_is_not_taken_for_the_state_before(checkout: Checkout) -> None:
    checkout.set_up(MMCV='lite')
    constraints = checkout.root / 'constraints.txt'
    before = constraints.read_text()
    constraints.write_text(before + '# changed\n')
    checkout.pip_does('exit 1')
    assert checkout.set_up(MMCV='lite').returncode == 1
    constraints.write_text(before)
    checkout.pip_does('')
    checkout.pip_calls()
    checkout.set_up(MMCV='lite')
    assert checkout.pip_calls() != []


def test_packages_that_a_stopped_run_left_in_pieces_are_installed_again(checkout: Checkout) -> None:
    checkout.pip_does('exit 1')
    checkout.set_up()
    whole, pieces = checkout.leave('whole-1.0'), checkout.leave('pieces-1.0', record=False)
    checkout.set_up()
    assert whole.exists()
    assert not pieces.exists()


def test_packages_of_an_environment_it_did_not_make_are_left_alone(checkout: Checkout) -> None:
    foreign = checkout.leave('by-another-installer-1.0', record=False)
    checkout.set_up()
    assert foreign.exists()


@pytest.mark.parametrize(
    ('output', 'way_out'),
    [
        ('OSError: [Errno 28] No space left on device', 'the disk is full'),
        ("NewConnectionError('Temporary failure in name resolution')", 'pip does not reach its index'),
        ('anything else', 'the whole log is'),
    ],
)
def test_the_error_names_the_way_out(checkout: Checkout, output: str, way_out: str) -> None:
    checkout.pip_does(f'echo {shlex.quote(output)}; exit 1')
    result = checkout.set_up()
    last = result.stderr.splitlines()[-1]
    assert last.startswith('error: setuptools could not be installed: ')
    assert way_out in last


def test_the_other_mmcv_is_removed_first(checkout: Checkout) -> None:
    checkout.leave('mmcv-2.1.0')
    checkout.set_up(MMCV='lite')
    calls = checkout.pip_calls()
    assert calls.index('uninstall -y mmcv mmcv-lite') < calls.index('install -c constraints.txt mmcv-lite')


@pytest.mark.parametrize(
    ('env', 'message'),
    [
        ({'MMCV': 'ful'}, 'MMCV=ful: it can be lite or full'),
        ({'VENV': 'tools'}, 'tools is there and is not a virtual environment'),
        ({'VENV': '.new', 'PYTHON': 'no-such-python'}, 'no Python 3.11 found (PYTHON=no-such-python does not do)'),
    ],
)
def test_wrong_input_is_named(checkout: Checkout, env: dict[str, str], message: str) -> None:
    result = checkout.set_up(**env)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stdout == ''


@pytest.mark.parametrize('missing', ['constraints.txt', 'setup.cfg', 'pyproject.toml'])
@pytest.mark.parametrize('script', ['setup_env.sh', 'quickstart.sh', 'run_tests.sh'])
def test_the_copy_in_a_wheel_makes_no_environment(tmp_path: Path, script: str, missing: str) -> None:
    installed = tmp_path / 'site-packages' / 'mmdet_gfl' / '.mim'
    shutil.copytree(ROOT / 'tools', installed / 'tools')
    for name in {'constraints.txt', 'setup.cfg', 'pyproject.toml'} - {missing}:
        shutil.copy(ROOT / name, installed)
    before = sorted(installed.iterdir())
    result = subprocess.run(
        ['bash', installed / 'tools' / script], env=clean_environ(), capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f'error: {installed} has no {missing}, so it is not a checkout of mmdet_gfl: clone it')
    assert sorted(installed.iterdir()) == before


def test_a_python_that_is_too_old_is_named(checkout: Checkout, tmp_path: Path) -> None:
    old = tmp_path / 'old-python'
    old.write_text('#!/bin/sh\necho 3.8.18\n')
    old.chmod(0o755)
    result = checkout.set_up(VENV='.new', PYTHON=str(old))
    assert f'{old} is Python 3.8.18: too old, 3.11 is needed' in result.stderr
    assert result.returncode == 1


@pytest.fixture
def without_mmcv(checkout: Checkout) -> Checkout:
    """An environment in which the script finds no compiled mmcv until pip has installed a wheel of it."""
    test = f"[[ $1 == - && $# == 1 ]]; then\n  [[ -f '{checkout.root}/installed' ]]\n"
    checkout.write_python(STUB.replace('else\n', f'elif {test}else\n'))
    return checkout


def test_a_missing_compiler_is_one_sentence(without_mmcv: Checkout, tmp_path: Path) -> None:
    result = without_mmcv.set_up(MMCV='full', CXX='no-such-compiler', MMDET_GFL_CACHE=str(tmp_path))
    assert "error: MMCV=full needs a C++ compiler, and there is no 'no-such-compiler' here" in result.stderr
    assert result.returncode == 1


def test_compiled_mmcv_is_built_once_and_then_taken_from_the_cache(without_mmcv: Checkout, tmp_path: Path) -> None:
    cache = tmp_path / 'cache'
    without_mmcv.pip_does(
        '[[ $3 != wheel ]] || touch "${@: -2:1}/mmcv-2.1.0.whl"; [[ "$*" != *install*.whl ]] || touch installed'
    )
    env = {'MMCV': 'full', 'CXX': 'sh', 'MMDET_GFL_CACHE': str(cache)}
    result = without_mmcv.set_up(**env)
    assert result.returncode == 0, result.stderr
    (wheel,) = cache.rglob('*.whl')
    assert 'torch2.13.0+cpu' in wheel.parent.name
    assert f'cp{sys.version_info[0]}{sys.version_info[1]}' in wheel.parent.name
    assert [path for path in wheel.parent.iterdir() if path != wheel] == [], 'nothing is left of the build'
    builds = [call for call in without_mmcv.pip_calls() if call.startswith('wheel')]
    assert len(builds) == 1
    assert '--no-build-isolation' in builds[0]
    assert '--no-cache-dir' in builds[0]

    (without_mmcv.root / 'installed').unlink()
    (without_mmcv.root / '.venv' / '.set-up').unlink()
    without_mmcv.set_up(**env)
    assert f'install --no-deps {wheel}' in without_mmcv.pip_calls()
    assert (without_mmcv.root / 'installed').exists()


def test_a_build_that_fails_leaves_nothing_in_the_cache(without_mmcv: Checkout, tmp_path: Path) -> None:
    cache = tmp_path / 'cache'
    without_mmcv.pip_does('[[ $3 != wheel ]] || { touch "${@: -2:1}/half.whl"; exit 1; }')
    result = without_mmcv.set_up(MMCV='full', CXX='sh', MMDET_GFL_CACHE=str(cache))
    assert 'error: mmcv==2.1.0 could not be built' in result.stderr
    assert list(cache.rglob('*.whl')) == []
