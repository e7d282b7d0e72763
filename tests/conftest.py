"""What all tests share. Importing the package first puts the stand-in for mmcv's operators in place where needed."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mmdet_gfl  # noqa: F401  # isort: skip  before mmdet

import pytest
import torch
from mmdet.utils import register_all_modules
from warm_python import WarmPython, leave_configs_unformatted

from mmdet_gfl.versions import parse_release

leave_configs_unformatted()
torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))
ROOT = Path(__file__).parents[1]
#: Answers of torch before 2.3 to float16 on a CPU, and to one_hot on the device of the fake GPU.
LACKING = re.compile("not implemented for 'Half'|AutocastCPU only support Bfloat16|number of classes from meta tensor")


def pytest_collection_modifyitems(items):
    """Put files with slow tests first: a process that takes one last would keep the others waiting."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip tests that need what an old torch lacks."""
    try:
        return (yield)
    except RuntimeError as error:
        if parse_release(torch.__version__) < (2, 3) and LACKING.search(str(error)):
            pytest.skip(f'torch {torch.__version__} lacks it: {error}')
        raise


@pytest.fixture(autouse=True)
def _seeded():
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def warm_python() -> Iterator[str]:
    """Stands for ``sys.executable``: runs a script in seconds less, see ``warm_python.py``; of Linux alone."""
    if sys.platform != 'linux':
        yield sys.executable
        return
    with tempfile.TemporaryDirectory() as folder:
        server = WarmPython(Path(folder))
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
