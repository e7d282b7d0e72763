"""Finished and missing runs of a work dir."""

import json
from collections import deque

import pytest

from mmdet_gfl.benchmark import running, work_dir
from mmdet_gfl.benchmark.commands import Launcher
from mmdet_gfl.benchmark.presets import Preset
from mmdet_gfl.benchmark.results import run_dir_of
from mmdet_gfl.benchmark.work_dir import Run

GFL = 'gfl/gfl_r50_fpn_1x_coco.py'


def keep(seed, folder, text):
    run_dir = run_dir_of(GFL, seed, folder)
    run_dir.mkdir(parents=True)
    (run_dir / 'result.json').write_text(text)


@pytest.mark.parametrize('damaged', ['', '{"config"', '[]', '{"config": "a.py"}'])
def test_a_damaged_result_is_trained_again(tmp_path, monkeypatch, damaged):
    keep(0, tmp_path, damaged)
    keep(1, tmp_path, json.dumps(dict(config=GFL, scores=dict(AP=None))))
    assert work_dir.open_runs([GFL], [0, 1, 2], tmp_path) == ([Run(GFL, 0, 2), Run(GFL, 2, 3)], 1)

    monkeypatch.setattr(running, 'missing', lambda cfg: 'no data')  # as far as a start
    said: list[str] = []
    queue = running.Queue(tmp_path, Preset('paper', 1), Launcher('none', 1), 1, 3, deque(), said.append)
    for seed in (0, 1):
        queue.begin(Run(GFL, seed, seed + 1))
    assert said == [
        f'[1/3] {GFL}, seed 0: failed: no data (nothing was started)',
        f'[2/3] {GFL}, seed 1: another process has trained it',
    ]
