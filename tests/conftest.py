"""What all tests share. Importing the package first puts the stand-in for mmcv's operators in place where needed."""

import os
from pathlib import Path

import mmdet_gfl  # noqa: F401  # isort: skip  before mmdet

import pytest
import torch
from mmdet.utils import register_all_modules

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _seeded():
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)


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
