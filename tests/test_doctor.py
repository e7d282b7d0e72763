"""``python -m mmdet_gfl`` says what is here and what does not fit, where nothing fits too."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_gfl import __version__, doctor
from mmdet_gfl.__main__ import main
from mmdet_gfl.versions import Problem

ROOT = Path(__file__).parents[1]
PIP = f'{sys.executable} -m pip'


def run_module(*args: str, bare: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``python -m mmdet_gfl``; a bare Python has the standard library alone."""
    command = [sys.executable, *(['-S'] if bare else []), '-m', 'mmdet_gfl', *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def cells(output: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.strip()}


@pytest.mark.slow
def test_all_fits_in_the_tested_environment() -> None:
    result = run_module()
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.endswith('Everything fits.\n')
    table = cells(result.stdout)
    assert table['Python'] == ['.'.join(map(str, sys.version_info[:3])), sys.executable]
    assert {'torch', 'mmengine', 'mmcv', 'mmdet', 'numpy', 'opencv-python', 'setuptools', 'device'} <= set(table)


def test_runs_where_nothing_is_installed() -> None:
    result = run_module(bare=True)
    assert result.returncode == 1
    for package in ('torch', 'mmengine', 'mmcv', 'mmdet'):
        assert f'{package} is not installed' in result.stdout
        assert cells(result.stdout)[package][0] in ('-', 'is')
    command = f'{PIP} install torch==2.13.0 mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0'
    assert command in result.stdout
    assert 'Traceback' not in result.stdout + result.stderr


@pytest.mark.parametrize('argv', [['-c'], ['-m', 'mmdet_gfl'], ['-m']])
def test_nothing_but_the_doctor_gets_past_the_check(argv: list[str]) -> None:
    code = f'import sys; sys.argv = {argv}; import mmdet_gfl'
    result = subprocess.run([sys.executable, '-S', '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert 'mmdet_gfl cannot work with the versions installed here' in result.stderr


@pytest.mark.parametrize('option', [['-m', 'mmdet_gfl'], ['-Bm', 'mmdet_gfl'], ['-mmmdet_gfl'], ['-Bmmmdet_gfl']])
def test_the_module_may_be_named_in_any_way(option: list[str]) -> None:
    command = [sys.executable, '-S', *option, '--version']
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.stdout == f'mmdet_gfl {__version__}\n', result.stderr


def test_exit_status_is_1_with_something_wrong(monkeypatch, capsys) -> None:
    problem = Problem('mmdet 2.28.0 does not fit (needed: >=3.2.0,<4.0.0)', ('mmdet==3.3.0',))
    monkeypatch.setattr(doctor, 'find_problems', lambda: [problem])
    assert main([]) == main(['doctor']) == 1
    assert f'WRONG: {problem.what}\n  {PIP} install mmdet==3.3.0\n' in capsys.readouterr().out


def test_an_import_that_fails_is_wrong(monkeypatch, tmp_path) -> None:
    (tmp_path / 'broken_part.py').write_text('raise OSError("libGL.so.1: cannot open\\n  shared object file")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, '_NEEDED', ('torch', 'broken_part', 'never_reached'))
    (finding,) = doctor.find_wrong()
    assert finding.what == 'broken_part does not import: OSError: libGL.so.1: cannot open shared object file'
    assert finding.fix == f'{PIP} uninstall -y opencv-python && {PIP} install opencv-python-headless'


def test_torchvision_that_does_not_import_is_wrong(monkeypatch, tmp_path) -> None:
    (tmp_path / 'torchvision.py').write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
    monkeypatch.setattr(doctor, '_NEEDED', ())
    (finding,) = doctor.find_wrong()
    assert 'operator torchvision::nms does not exist' in finding.what
    assert finding.fix == f'{PIP} uninstall -y torchvision'


@pytest.mark.parametrize(
    ('error', 'fix'),
    [
        ("ModuleNotFoundError: No module named 'cv2'", '{pip} install opencv-python'),
        ("ModuleNotFoundError: No module named 'pycocotools'", '{pip} install pycocotools'),
        ('ImportError: numpy.core.multiarray failed to import', '{pip} install "numpy<2"'),
        (
            'ImportError: /x/mmcv/_ext.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN2at',
            '{pip} uninstall -y mmcv && {pip} install mmcv-lite==2.1.0',
        ),
        ('ValueError: something else', ''),
    ],
)
def test_known_errors_have_a_command(error: str, fix: str) -> None:
    assert doctor.known_fix(error) == fix.format(pip=PIP)


@pytest.mark.parametrize(('version', 'notes'), [('81.0.0', 0), ('82.0', 1), ('', 1)])
def test_setuptools_without_pkg_resources_is_a_note(monkeypatch, version: str, notes: int) -> None:
    monkeypatch.setattr(doctor, '_version', lambda dist: version if dist == 'setuptools' else '')
    findings = doctor.find_notes()
    assert len(findings) == notes
    assert all("'setuptools<82'" in finding.fix for finding in findings)


@pytest.mark.parametrize(('version', 'notes'), [('2.5.1', 1), ('2.1.2+cpu', 1), ('2.6.0', 0), ('2.13.0+cpu', 0)])
def test_a_torch_that_cannot_load_safely_is_a_note(monkeypatch, version: str, notes: int) -> None:
    monkeypatch.setattr(doctor, '_version', {'torch': version, 'setuptools': '81.0.0'}.get)
    findings = doctor.find_notes()
    assert [finding.what.startswith(f'torch {version} loads checkpoints in full') for finding in findings] == [
        True
    ] * notes


def test_the_fork_of_mmengine_does_without_pkg_resources(monkeypatch) -> None:
    monkeypatch.setattr(doctor, '_version', {'setuptools': '84.2.1', 'onedl-mmengine': '0.10.12'}.get)
    assert doctor.find_notes() == []


def test_table_is_aligned() -> None:
    rows = [doctor.Entry('a', '1.10'), doctor.Entry('long', '', 'note'), doctor.Entry('b', '2', 'other')]
    assert doctor.format_table(rows) == 'a     1.10\nlong  -     note\nb     2     other'


def test_an_unknown_command_is_answered_with_those_there_are() -> None:
    result = run_module('confgs', bare=True)
    assert result.returncode == 2
    assert "invalid choice: 'confgs' (choose from" in result.stderr
    assert all(command in result.stderr for command in ('doctor', 'configs'))
