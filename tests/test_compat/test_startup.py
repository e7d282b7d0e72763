"""The stand-in is in place when Python starts, silently, and only where it was asked for."""

import os
import subprocess
import sys

import pytest

from mmdet_gfl.__main__ import main
from mmdet_gfl.compat import startup


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package folder of a Python of our own making."""
    monkeypatch.setattr(startup.sysconfig, 'get_path', lambda name: str(tmp_path))
    return tmp_path


def test_a_conversion_needs_no_stand_in_at_the_start(root, tmp_path):
    """In an environment of one's own, where nothing was put in place."""
    packages = [path for path in sys.path if path.endswith('-packages')]
    command = [sys.executable, '-S', '-m', 'mmdet_gfl', 'convert', 'retinanet_r50_fpn_1x_coco']
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(root), *packages]))  # of which -S reads no .pth file
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'mmdet_gfl.RetinaGFLHead' in (tmp_path / 'retinanet_r50_fpn_1x_coco_gfl.py').read_text()


def started(folder, code):
    """Output of a Python that reads the .pth files of ``folder``, and no others, before ``code``."""
    packages = [path for path in sys.path if path.endswith('-packages')]
    script = f'import site, sys; sys.path += {packages!r}; site.addsitedir({str(folder)!r}); {code}'
    return subprocess.run([sys.executable, '-S', '-c', script], capture_output=True, text=True)


FINDERS = "print([type(finder).__name__ for finder in sys.meta_path if 'StandIn' in type(finder).__name__])"


def test_install_and_remove(folder, capsys):
    assert not startup.installed()
    assert main(['stand-in', 'install']) == 0 and startup.installed()
    assert str(folder) in capsys.readouterr().out
    assert main(['stand-in', 'remove']) == 0 and not startup.installed()
    assert main(['stand-in', 'remove']) == 0  # nothing there is fine


def test_python_starts_with_the_stand_in(folder, root):
    startup.install()
    line = (folder / 'mmdet_gfl_stand_in.pth').read_text()
    (folder / 'mmdet_gfl_stand_in.pth').write_text(f'{root}\n{line}')  # as an installed package is on the path
    result = started(folder, FINDERS)
    assert result.returncode == 0 and result.stderr == ''
    assert 'StandInFinder' in result.stdout


def test_python_starts_where_the_package_is_absent_or_broken(folder, tmp_path):
    startup.install()
    line = (folder / 'mmdet_gfl_stand_in.pth').read_text()
    broken = tmp_path / 'broken'
    (broken / 'mmdet_gfl').mkdir(parents=True)
    (broken / 'mmdet_gfl' / '__init__.py').write_text(
        "import warnings; warnings.warn('loud'); raise ImportError('old')"
    )
    (folder / 'mmdet_gfl_stand_in.pth').write_text(f'{broken}\n{line}')
    result = started(folder, "print('starts')")
    assert (result.stdout, result.stderr, result.returncode) == ('starts\n', '', 0)
