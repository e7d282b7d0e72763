"""Output of ``reproduce.py status`` for a work dir."""

import pytest

from mmdet_gfl.benchmark.progress import status
from mmdet_gfl.benchmark.results import run_dir_of
from mmdet_gfl.benchmark.rows import RowError

ONE, OTHER = 'atss/atss_r50_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py'


def test_the_seeds_that_are_there(tmp_path):
    for config, seed in ((ONE, 0), (ONE, 3)):
        run_dir_of(config, seed, tmp_path).mkdir(parents=True)
    run_dir_of(ONE, 0, tmp_path).with_name('seed-3-copy').mkdir()  # a user's own
    lines = status([ONE, OTHER], None, tmp_path).splitlines()
    assert [line.partition('seed ')[2] for line in lines[:-1]] == ['0', '3'] * 2
    assert len(status([OTHER], None, tmp_path).splitlines()) == 2  # where none is there, what would be the first
    assert [', seed 7' in line for line in status([ONE], [7], tmp_path).splitlines()] == [True, False]


def test_no_work_dir(tmp_path):
    with pytest.raises(RowError, match='--work-dir .*none does not exist; name the one of'):
        status([ONE], None, tmp_path / 'none')
