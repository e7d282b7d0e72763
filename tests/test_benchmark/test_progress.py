"""Progress as a training notes it, and the reason for its end from its log."""

import pytest

from mmdet_gfl.benchmark.progress import Progress, line_of, progress_of, reason_of, span, time_left


def test_progress(tmp_path):
    file = tmp_path / 'progress.json'
    assert progress_of(tmp_path) is None
    file.write_text('{"epoch": 2, "iteration"')
    assert progress_of(tmp_path) is None
    file.write_text('{"epoch": 2, "iteration": 10, "iterations": 12, "eta": 93605.5, "ap": 3.8}')
    assert progress_of(tmp_path) == Progress(2, 10, 12, 93605.5, 3.8)
    file.write_text('{"epoch": 3, "iteration": 10, "iterations": 12, "eta": 2}')
    assert progress_of(tmp_path) == Progress(3, 10, 12, 2, None)
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


LEAKS = """nanobind: leaked 2 instances!
 - leaked instance 0x7f of type "onnx.Type"
 - ... skipped remainder
nanobind: this is likely caused by a reference counting issue in the binding code.
See https://nanobind.readthedocs.io/en/latest/refleaks.html
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
        ('Epoch(train) ...\n', -9, 'killed by SIGKILL; most often because memory ran out'),
        ('', -11, 'killed by SIGSEGV'),
        ('', 3, 'exit status 3'),
        (TRACEBACK.format('[rank0]: ValueError: no') + ELASTIC.format(1), 1, 'ValueError: no'),
        ('x.json does not exist\n' + ELASTIC.format(1), 1, 'exit status 1: x.json does not exist'),
        ('Epoch(train) ...\n' + ELASTIC.format(-9), 1, 'killed by SIGKILL; most often because memory ran out'),
        ('no such partition\nsrun: error: Unable to allocate resources\n', 1, 'exit status 1: no such partition'),
        (f'no such file\n{LEAKS}', 1, 'exit status 1: no such file'),
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
