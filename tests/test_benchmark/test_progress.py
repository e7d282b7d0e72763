"""What a log tells of a training's progress and end."""

import pytest

from mmdet_gfl.benchmark.progress import Progress, line_of, progress_of, reason_of, span, time_left

LINE = (
    '11/20 15:13:07 - mmengine - INFO - Epoch(train)  [{}][{}]  lr: 1.0000e-03  eta: {}  time: 1.1755  loss: 1.2901\n'
)
VAL = '11/20 15:13:11 - mmengine - INFO - Epoch(val) [{}][2/2]    coco/bbox_mAP: {}  coco/bbox_mAP_50: 0.1280\n'


def test_progress():
    assert progress_of('loading annotations ...') is None
    log = LINE.format(1, ' 50/100', '0:01:02') + VAL.format(1, '0.0380') + LINE.format(2, '100/100', '1 day, 2:00:05')
    assert progress_of(log) == Progress(2, 100, 100, 93605, 3.8)
    assert progress_of(LINE.format(3, '10/12', '0:00:02')) == Progress(3, 10, 12, 2, None)
    assert line_of(Progress(2, 10, 12, 130, 3.8), 10) == 'epoch 2/10 [10/12], AP 3.8 so far, 2 min left'
    assert line_of(None, 10) == 'starting'


TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 59, in <module>
    main()
{}
"""
ELASTIC = """E1120 15:12:00.000 139 torch/distributed/elastic/api.py:1012] failed (exitcode: {}) local_rank: 0
Traceback (most recent call last):
  File "run.py", line 1, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
"""


@pytest.mark.parametrize(
    'log, code, reason',
    [
        (TRACEBACK.format('FloatingPointError: the loss is nan in epoch 1, iteration 10'), 1,
         'FloatingPointError: the loss is nan in epoch 1, iteration 10'),
        (TRACEBACK.format('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB.'), 1,
         'out of memory: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB'),
        (TRACEBACK.format('AssertionError'), 1, 'AssertionError: see the log'),
        ('starting\ntrain_dataloader.dataset.ann_file: x.json does not exist\n', 1,
         'exit status 1: train_dataloader.dataset.ann_file: x.json does not exist'),
        ('Epoch(train) ...\n', -9, 'killed by SIGKILL; most often for want of memory'),
        ('', -11, 'killed by SIGSEGV'),
        ('', 3, 'exit status 3'),
        (TRACEBACK.format('[rank0]: ValueError: no') + ELASTIC.format(1), 1, 'ValueError: no'),
        ('x.json does not exist\n' + ELASTIC.format(1), 1, 'exit status 1: x.json does not exist'),
        ('Epoch(train) ...\n' + ELASTIC.format(-9), 1, 'killed by SIGKILL; most often for want of memory'),
        ('no such partition\nsrun: error: Unable to allocate resources\n', 1, 'exit status 1: no such partition'),
        ('srun: error: Invalid partition name specified\n', 1,
         'exit status 1: srun: error: Invalid partition name specified'),
    ],
)  # fmt: skip
def test_reasons(log, code, reason):
    assert reason_of(log, code) == reason


def test_time_left():
    assert time_left([], [(5.0, None)], 3, 1) is None
    # One row took 100 s; one is at 40 of 100 s; two wait: 60 + 2 * 100.
    assert time_left([100.0], [(40.0, 60.0)], 2, 1) == 260
    assert time_left([100.0], [(40.0, 60.0), (10.0, 90.0)], 1, 2) == 125
    # A row was gone on with: 900 s before, 60 s since, 30 s to its end; one that waits takes 990 s.
    assert time_left([], [(960.0, 30.0)], 1, 1) == 30 + 990
    for late in ((100.0, 0.0), (150.0, None), (99.6, None)):  # the last evaluation, or longer than the others
        assert time_left([100.0], [late], 0, 1) is None
        assert time_left([100.0], [late, (40.0, 60.0)], 0, 2) == 60
    assert time_left([100.0], [(40.0, None)], 0, 2) == 60  # not less than the longest that is in training
    assert [span(s) for s in (3.4, 89, 90, 3540, 11_100)] == ['3 s', '89 s', '2 min', '59 min', '3 h 05 min']
