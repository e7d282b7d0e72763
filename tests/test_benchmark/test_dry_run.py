"""Output of a dry run that times nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from mmdet_gfl.benchmark import dry_run, locks
from mmdet_gfl.benchmark.commands import Launcher
from mmdet_gfl.benchmark.dry_run import Timing
from mmdet_gfl.benchmark.mini import Mini
from mmdet_gfl.benchmark.presets import Preset
from mmdet_gfl.benchmark.rows import RowError

BASE, GFL, SSD = 'atss/atss_r50_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py', 'ssd/ssd512_coco.py'
FCOS, RETINA = 'fcos/fcos_r50-caffe_fpn_1x_coco.py', 'retinanet/retinanet_r50_fpn_1x_coco.py'
#: A row takes 12 epochs x (100 iterations x 0.25 s + 250 images x 0.02 s) = 360 s.
TIMING = Timing(iteration=0.25, iterations=100, images=200, val_image=0.02, val_images=250)


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Runs it where each config of the first argument can be timed and the others cannot; returns its lines."""

    def call(timed, configs, launcher=Launcher('none', 1), work_dir=tmp_path):  # noqa: B008  frozen
        def measure(cfg, folder, *_):
            return (TIMING, None) if folder.name in {Path(config).stem for config in timed} else (None, 'no')

        monkeypatch.setattr(dry_run, 'measure', measure)
        lines: list[str] = []
        status = dry_run.dry_run(configs, [0], work_dir, Preset('paper', 1), launcher, 1, False, lines.append)
        assert status == (set(timed) != set(configs))
        return lines

    return call


@pytest.mark.parametrize(
    'timed, configs, last',
    [
        ([BASE, GFL], [BASE, GFL], 'in all about 0.20 h (12 min)'),
        ([BASE, GFL], [BASE, GFL, SSD], 'in all about 0.20 h (12 min), without the row that cannot run'),
        ([BASE], [BASE, GFL, SSD], 'in all about 0.10 h (6 min), without the 2 rows that cannot run'),
        ([], [BASE, GFL], 'in all unknown: no row could be timed'),
        ([], [], 'in all about 0.00 h (0 s)'),
    ],
)
def test_the_time_of_all_is_that_of_the_rows_that_can_run(said, monkeypatch, timed, configs, last):
    monkeypatch.setattr(dry_run, 'missing', lambda cfg: None)
    assert said(timed, configs)[-1] == last


def test_a_quick_dry_run_times_two_rows_that_fail_alike(monkeypatch, tmp_path):
    measured, lines = [], []
    reasons = {
        BASE: 'no torch',
        GFL: 'no torch',
        SSD: 'no data',
        FCOS: 'killed by SIGKILL',
        RETINA: 'killed by SIGKILL',
    }
    monkeypatch.setattr(dry_run, 'missing', lambda cfg: None)

    def measure(cfg, folder, *_):
        measured.append(folder.name)
        return None, next(reason for name, reason in reasons.items() if Path(name).stem == folder.name)

    monkeypatch.setattr(dry_run, 'measure', measure)
    for configs, timed in (([BASE, GFL, SSD], 2), ([BASE, SSD, GFL], 3), ([FCOS, RETINA, SSD], 3)):
        measured.clear()
        preset = Preset('paper', 1)
        assert dry_run.dry_run(configs, [0], tmp_path, preset, Launcher('none', 1), 1, True, lines.append) == 1
        assert len(measured) == timed
    assert lines.count(f'  cannot run: {SSD}: not tried, since two rows failed alike (no torch)') == 1
    assert lines.count(f'  cannot run: {SSD}: no data') == 2


def test_folders_of_killed_dry_runs_are_removed(said, monkeypatch, tmp_path):
    monkeypatch.setattr(dry_run, 'missing', lambda cfg: None)
    killed, running = (tmp_path / f'{dry_run.TIMING}{name}' for name in ('killed', 'running'))
    for folder in (killed, running):
        folder.mkdir()
        (folder / dry_run.LOCK).touch()
    with locks.acquire(running / dry_run.LOCK):
        said([GFL], [GFL])
        assert [*tmp_path.glob(f'{dry_run.TIMING}*')] == [running]


def test_a_run_keeps_a_checkpoint_and_writes_the_next_beside_it(said, monkeypatch):
    monkeypatch.setattr(dry_run, 'missing', lambda cfg: None)
    assert not any('disk' in line for line in said([BASE, GFL], [BASE, GFL]))  # its size is unknown
    monkeypatch.setitem(globals(), 'TIMING', replace(TIMING, checkpoint=600_000_000))
    assert said([BASE, GFL], [BASE, GFL])[-2] == 'disk: about 1.8 GB for the checkpoints of 2 runs'


def test_features_of_a_frozen_backbone_are_counted_once(tmp_path, monkeypatch):
    """The first timing computes them, the second reads them; rows share them where their outputs are the same."""
    seen, lines = [], []

    def measure(cfg, folder, *_):
        seen.append(folder.name)
        return replace(TIMING, iteration=0.25 + 0.8 * (len(seen) == 1)), None

    monkeypatch.setattr(dry_run, 'measure', measure)
    preset = Preset('mini', 1, mini=Mini(train=800, val=400, epochs=12, batch_size=8, pretrained=1))
    dry_run.dry_run([BASE, GFL], [0], tmp_path, preset, Launcher('none', 1), 1, False, lines.append)
    assert seen == [Path(BASE).stem, Path(BASE).stem, Path(GFL).stem]
    # 0.8 s for a step of 8 images, (2 x 800 + 400) images: 200 s. A row takes 12 x 100 x 0.25 s + 400 x 0.02 s = 308 s.
    words = 'features of the frozen backbone: 0.06 h (3 min) of the total, once; none if they are kept from before'
    assert lines[-2] == words
    assert lines[-1] == 'in all about 0.23 h (14 min)'
    assert lines[-3] == f'  {GFL}, 1 x: 800 images x 12 epochs, 0.09 h (5 min) each'


def test_the_memory_of_a_gpu_is_that_of_the_largest_row(said, monkeypatch):
    monkeypatch.setattr(dry_run, 'missing', lambda cfg: None)
    assert not any(line.startswith('memory') for line in said([GFL], [GFL]))  # on a CPU
    monkeypatch.setitem(globals(), 'TIMING', replace(TIMING, memory=7_340_000_000))
    assert 'memory: up to 7.3 GB on a GPU for a run' in said([BASE, GFL], [BASE, GFL])


def test_under_slurm_the_data_of_this_machine_is_not_asked_for(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without COCO
    assert said([GFL], [GFL], Launcher('slurm', 1))[-1] == 'in all about 0.10 h (6 min)'
    monkeypatch.setattr(dry_run, 'missing', lambda cfg: 'no data')
    assert f'  cannot run: {GFL}: no data' in said([], [GFL])


def test_a_work_dir_that_cannot_be_written_to_is_one_sentence(said, tmp_path):
    (tmp_path / 'file').touch()
    for work_dir in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(
            RowError, match=r'^--work-dir .*/file.* cannot be written to \(Not a directory\); name another'
        ):
            said([GFL], [GFL], work_dir=work_dir)
