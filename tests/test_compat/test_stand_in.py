"""Origin of ``mmcv._ext``. Imports are tested in processes of their own."""

import logging
import subprocess
import sys
from importlib.util import module_from_spec
from pathlib import Path

import pytest
from mmcv.utils import ext_loader

from mmdet_gfl import compat
from mmdet_gfl.compat import mmcv_ext
from mmdet_gfl.engine.errors import RANK_VARIABLES

ROOT = Path(__file__).parents[2]
LINE = 'mmcv has no compiled operators here'
without_compiled = pytest.mark.skipif(compat.mmcv_flavour() == 'compiled', reason='mmcv has compiled operators')


def python(code, first_on_path=None, **variables):
    """Run ``code`` and return what it printed, and what it said on stderr."""
    path = [str(first_on_path)] if first_on_path else []
    result = subprocess.run(
        [sys.executable, '-c', code],
        env={'PYTHONPATH': ':'.join([*path, str(ROOT)]), 'PATH': '/usr/bin:/bin', **variables},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip(), result.stderr


@pytest.fixture
def fake_mmcv(tmp_path):
    """A folder with an mmcv without operators; a test may add the extension."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    return package


def test_activating_imports_nothing_heavy():
    code = """
        import sys
        from mmdet_gfl import compat
        compat.activate()
        compat.mmcv_flavour()
        print(sorted({'torch', 'mmcv', 'mmdet', 'mmengine', 'numpy', 'cv2'} & set(sys.modules)))
    """
    assert python(dedent(code))[0] == '[]'


def dedent(code):
    return '\n'.join(line[8:] for line in code.splitlines())


def test_activating_again_changes_nothing():
    compat.activate()
    before = list(sys.meta_path)
    compat.activate()
    assert sys.meta_path == before
    for kind in (compat._StandInFinder, compat._CheckpointFinder):
        assert sum(isinstance(finder, kind) for finder in before) == 1


@pytest.mark.parametrize('name', ['mmcv', 'mmcv.ops', 'mmcv._extra', '_ext', 'mmcv._ext.sub', 'torchvision'])
def test_the_finder_answers_for_the_extension_only(name):
    assert compat._StandInFinder().find_spec(name, None) is None
    assert compat._CheckpointFinder().find_spec(name, None) is None


def test_the_extension_on_disk_wins(fake_mmcv):
    (fake_mmcv / '_ext.py').write_text("origin = 'disk'")
    code = 'import mmdet_gfl, mmcv._ext; print(mmcv._ext.origin, mmdet_gfl.compat.mmcv_flavour())'
    printed, said = python(code, fake_mmcv.parent)
    assert printed == 'disk compiled'
    assert LINE not in said


def test_without_the_extension_the_stand_in_comes_with_one_note(fake_mmcv):
    code = 'import mmdet_gfl, mmcv._ext; print(mmcv._ext.__name__, mmdet_gfl.compat.mmcv_flavour()); import mmcv._ext'
    printed, said = python(code, fake_mmcv.parent)
    assert printed == 'mmcv._ext stand-in'
    assert said.count('\n') == said.count(LINE) == 1


@pytest.mark.parametrize('variable', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
@pytest.mark.parametrize('rank', ['0', '3'])
def test_only_the_first_rank_reports(monkeypatch, caplog, variable, rank):
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, rank)
    log = logging.getLogger('mmdet_gfl')  # tests before may have run programs that set up logging
    for name, value in dict(disabled=False, propagate=True, level=logging.NOTSET).items():
        monkeypatch.setattr(log, name, value)
    monkeypatch.setattr(log.manager, 'disable', 0)
    log._cache.clear()
    caplog.set_level(logging.WARNING)
    spec = compat._StandInFinder().find_spec('mmcv._ext', None)
    spec.loader.exec_module(module_from_spec(spec))
    assert [record.message.startswith(LINE) for record in caplog.records] == [True] * (rank == '0')


def test_workers_do_not_warn(fake_mmcv, tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(
        'import multiprocessing, mmdet_gfl, mmcv._ext\n'
        'def work(): print(mmcv._ext.__name__)\n'
        "if __name__ == '__main__':\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=work)\n"
        '    worker.start(), worker.join()\n'
    )
    code = f'import runpy; runpy.run_path({str(script)!r}, run_name="__main__")'
    printed, said = python(code, fake_mmcv.parent)
    assert printed == 'mmcv._ext'
    assert said.count(LINE) == 1


def test_flavour_without_mmcv(monkeypatch):
    monkeypatch.setattr(sys, 'meta_path', [f for f in sys.meta_path if not isinstance(f, compat._StandInFinder)])
    assert compat.mmcv_flavour() in ('compiled', 'missing')
    monkeypatch.setattr(compat, 'find_spec', lambda name: None)
    assert compat.mmcv_flavour() == 'missing'


def test_missing_operators_raise_when_they_are_called():
    extension = ext_loader.load_ext('_ext', ['roi_align_forward', 'nms'])
    assert callable(extension.roi_align_forward)
    with pytest.raises(NotImplementedError, match="'roi_align_forward' is not in the stand-in.* Install compiled mmcv"):
        mmcv_ext.roi_align_forward(1, keyword=2)


def test_names_of_python_are_not_operators():
    with pytest.raises(AttributeError, match='__wrapped__'):
        mmcv_ext.__wrapped__  # noqa: B018
    assert not hasattr(mmcv_ext, '__path__')


@without_compiled
def test_mmdetection_works_on_the_stand_in():
    code = """
        import mmdet_gfl
        import mmdet.models
        from mmdet.apis import init_detector
        from mmdet.utils import collect_env
        from mmcv.utils import collect_env as collect_mmcv
        collect_env()
        print(collect_mmcv()['MMCV Compiler'], '|', collect_mmcv()['MMCV CUDA Compiler'])
    """
    printed, said = python(dedent(code))
    assert printed == ' | '.join(['none (mmcv-lite with the mmdet_gfl stand-in)'] * 2)
    assert said.count(LINE) == 1
