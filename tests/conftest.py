"""Parts that all tests share. Importing the package first puts the stand-in for mmcv's operators in place."""

import copy
import gc
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path

import mmdet_gfl  # noqa: F401  # isort: skip  before mmdet

import pytest
from warm_python import WarmPython, leave_configs_unformatted

from mmdet_gfl.versions import parse_release

# What takes seconds to import stands in functions: the process that hands out tests to others needs none of it.

ROOT = Path(__file__).parents[1]
#: Answers of torch before 2.3 to float16 on a CPU, and to one_hot on the device of the fake GPU.
LACKING = re.compile("not implemented for 'Half'|AutocastCPU only support Bfloat16|number of classes from meta tensor")
WARM_PYTHON = pytest.StashKey[WarmPython]()
MEMORY = '/dev/shm'


def pytest_configure(config):
    """Choose the place of temporary files, and start the Python that the tests share while these are collected."""
    if (folder := folder_in_memory()) is not None:
        os.environ['TMPDIR'] = tempfile.tempdir = folder
        # After multiprocessing has removed what it keeps there, with priority -100.
        Finalize(None, shutil.rmtree, (folder,), dict(ignore_errors=True), exitpriority=-200)
    if sys.platform == 'linux' and config.getoption('numprocesses', None) and not hasattr(config, 'workerinput'):
        config.stash[WARM_PYTHON] = WarmPython()


def folder_in_memory():
    """A new folder for temporary files, of which reading a config writes six; None where there is no place for it.

    It is removed at the end; with ``TMPDIR`` set, that is the place, and pytest keeps what it holds.
    """
    if 'TMPDIR' in os.environ or not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return None
    return tempfile.mkdtemp(dir=MEMORY) if shutil.disk_usage(MEMORY).free > 4 * 2**30 else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tell a process where it is."""
    if WARM_PYTHON in node.config.stash:
        node.workerinput['warm_python'] = str(node.config.stash[WARM_PYTHON].command)


def pytest_unconfigure(config):
    """End what :func:`pytest_configure` has begun."""
    if WARM_PYTHON in config.stash:
        config.stash[WARM_PYTHON].close()


def pytest_collection_modifyitems(items):
    """Put files with slow tests first: a process that takes one last would keep the others waiting."""
    import torch
    from mmengine.config import utils

    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))
    leave_configs_unformatted()
    read_configs_once()
    utils.load = cache(utils.load)  # MMDetection's hundred metafiles, for each base config named mmdet::NAME
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)
    # MMEngine collects garbage for each data set: it need not look at all that has been imported.
    gc.collect()
    gc.freeze()


def read_configs_once():
    """Parse each config file of this package and of MMDetection once for an environment; each reader gets a copy."""
    import mmdet
    from mmengine.config import Config

    read, folders = (
        Config._file2dict,
        tuple(f'{Path(module.__file__).parent / ".mim"}/' for module in (mmdet_gfl, mmdet)),
    )

    @cache
    def parsed(environ, *args, **options):
        return read(*args, **options)

    def parse(filename, *args, **options):
        if not str(filename).startswith((*folders, f'{ROOT / "configs"}/')):
            return read(filename, *args, **options)
        environ = frozenset((key, value) for key, value in os.environ.items() if key != 'PYTEST_CURRENT_TEST')
        return copy.deepcopy(parsed(environ, filename, *args, **options))

    Config._file2dict = staticmethod(parse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip tests that need what an old torch lacks."""
    import torch

    try:
        return (yield)
    except RuntimeError as error:
        if parse_release(torch.__version__) < (2, 3) and LACKING.search(str(error)):
            pytest.skip(f'torch {torch.__version__} lacks it: {error}')
        raise


@pytest.fixture(autouse=True)
def _seeded():
    import torch
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def warm_python(request) -> Iterator[str]:
    """Stands for ``sys.executable``: runs a script in seconds less, see ``warm_python.py``; of Linux alone."""
    shared = getattr(request.config, 'workerinput', {}).get('warm_python')
    if shared or sys.platform != 'linux':
        yield shared or sys.executable
        return
    server = WarmPython()
    yield str(server.command)
    server.close()


@pytest.fixture
def warm_children(warm_python, monkeypatch):
    """Processes that the package starts are forks of a process that has imported all."""
    monkeypatch.setattr(sys, 'executable', warm_python)


@pytest.fixture(scope='session')
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope='session')
def coco128() -> Path:
    """128 real COCO images with annotations: ``COCO128_ROOT``, or beside the checkout; else the test is skipped."""
    place = Path(os.environ.get('COCO128_ROOT', ROOT.parent / 'shared' / 'data' / 'coco128'))
    if not (place / 'annotations' / 'instances_train2017.json').is_file():
        pytest.skip(f'no COCO images: {place} is absent; set COCO128_ROOT to a folder with annotations/ and train2017/')
    return place
