"""A row as the paper trains it, or shrunk; what may stand in one work dir."""

import pytest
from mmengine.config import Config

from mmdet_gfl.benchmark import presets
from mmdet_gfl.benchmark.mini import Mini
from mmdet_gfl.benchmark.presets import Preset
from mmdet_gfl.benchmark.rows import RowError
from mmdet_gfl.shipped_configs import CONFIG_DIR

GFL, SSD, FOVEA = 'gfl/gfl_r50_fpn_1x_coco.py', 'ssd/ssd512_coco.py', 'foveabox/fovea_r50_fpn_4xb4-1x_coco.py'


def paper(name, **arguments):
    return Preset('paper', **arguments).config(name, 3)


def test_the_paper_trains_8_gpus_and_the_batch_of_the_lr():
    for name, images in ((GFL, 2), (SSD, 8), (FOVEA, 2)):
        cfg, row = paper(name, gpus=8), Config.fromfile(CONFIG_DIR / name)
        assert cfg.train_dataloader.batch_size == images
        assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=8 * images)
        assert cfg.model == row.model and cfg.train_cfg == row.train_cfg
        assert cfg.optim_wrapper == row.optim_wrapper and cfg.param_scheduler == row.param_scheduler
        assert cfg.val_dataloader == row.val_dataloader and cfg.test_dataloader == cfg.val_dataloader
        assert presets.lr_notes([cfg], 8) == []


def test_another_batch_scales_the_lr_and_is_reported():
    assert presets.lr_notes([paper(GFL, gpus=1), paper(GFL, gpus=1), paper(SSD, gpus=1)], 1) == [
        'lr 0.01 is for 16 images per step; with 1 x 2 it is scaled to 0.00125 (2 rows)',
        'lr 0.002 is for 64 images per step; with 1 x 8 it is scaled to 0.00025 (1 row)',
    ]
    assert presets.lr_notes([paper(SSD, gpus=4, batch_size=4)], 4) == [
        'lr 0.002 is for 64 images per step; with 4 x 4 it is scaled to 0.0005 (1 row)'
    ]
    assert presets.lr_notes([paper(GFL, gpus=4, batch_size=4)], 4) == []


def test_trainings_are_seeded_watched_and_tested_as_they_are_validated():
    for preset in (Preset('paper', 8), Preset('mini', 1, mini=Mini())):
        cfg = preset.config(GFL, 3)
        assert cfg.randomness == dict(seed=3)
        assert cfg.test_cfg == dict(type='TestLoop')
        assert cfg.custom_imports.imports == ['mmdet_gfl', 'mmdet_gfl.benchmark.hooks']
        assert [hook.type for hook in cfg.custom_hooks[-4:]] == [
            f'mmdet_gfl.{n}Hook' for n in ('EpochSeed', 'Finite', 'Where', 'Progress')
        ]
        assert cfg.custom_hooks[-4].seed == 3
        assert cfg.train_dataloader.worker_init_fn == dict(type='mmdet_gfl_seed_worker')
        assert not cfg.train_dataloader.persistent_workers
        assert cfg.default_hooks.checkpoint == dict(type='mmdet_gfl.SafeCheckpointHook', interval=1, max_keep_ckpts=1)


def test_a_config_that_is_never_tested_is_tested_as_it_is_validated():
    cfg = Config.fromfile(CONFIG_DIR / GFL)
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg.pop(key)
    watched = presets.instrument(cfg, 0)
    assert watched.test_cfg.type == 'TestLoop' and watched.test_evaluator == watched.val_evaluator


def test_options_win_in_every_row():
    options = {'val_dataloader.dataset.data_root': '/mine/', 'train_cfg.max_epochs': 2}
    for preset in (Preset('paper', 1, options=options), Preset('mini', 1, mini=Mini(), options=options)):
        cfg = preset.config(GFL, 0)
        assert cfg.train_cfg.max_epochs == 2
        assert cfg.val_dataloader.dataset.data_root == cfg.test_dataloader.dataset.data_root == '/mine/'
    with pytest.raises(RowError, match='--cfg-options model.backbone.depth.x=1 does not fit'):
        Preset('paper', 1, options={'model.backbone.depth.x': 1}).config(GFL, 0)


def test_the_mini_batch_is_shared_out():
    mini = Mini(batch_size=16)
    two, one = (Preset('mini', gpus, mini=mini).config(GFL, 0) for gpus in (2, 1))
    assert two.train_dataloader.batch_size == 8 and one.train_dataloader.batch_size == 16
    assert two.param_scheduler == one.param_scheduler and two.optim_wrapper == one.optim_wrapper
    with pytest.raises(RowError, match='--gpus 3 does not divide the batch of 16'):
        Preset('mini', 3, mini=mini).config(GFL, 0)


def test_choosing():
    assert presets.choose('paper', None, None, {}, None, devices=8) == Preset('paper', 8)
    assert presets.choose('paper', None, None, {}, None, devices=-1) == Preset('paper', 8)  # under Slurm
    assert presets.choose('paper', 2, None, {}, None, devices=0) == Preset('paper', 2)  # asked for, on CPUs
    assert presets.choose('mini', None, None, dict(size=64), {'a': [1e9, 10**400]}, devices=0) == Preset(
        'mini', 1, mini=Mini(size=64), options={'a': [1e9, 10**400]}
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('paper', None, None, {}, None, 0), 'takes 8 GPUs by default, and this machine has none; give --gpus 1'),
        (('paper', None, None, {}, None, 2), 'takes 8 GPUs by default, and this machine has 2; give --gpus 2'),
        (('mini', 4, None, {}, None, 2), 'takes 4 GPUs, and this machine has 2'),
        (('mini', None, 4, {}, None, 0), '--batch-size belongs to --preset paper'),
        (('paper', 1, None, dict(size=64), None, 1), 'size: sizes of the mini preset'),
        (
            ('mini', None, None, dict(width=64), None, 0),
            '--mini width=64: there is no such size; there are size, train',
        ),
        (('mini', None, None, dict(size=0), None, 0), '--mini size=0: give a number above 0, an integer'),
        (('mini', None, None, dict(size=1.5), None, 0), '--mini size=1.5: give a number above 0, an integer'),
        (('mini', None, None, dict(lr=float('nan')), None, 0), '--mini lr=nan: give a number above 0, finite'),
        (('mini', None, None, dict(ema=1.0), None, 0), '--mini ema=1.0: give a momentum below 1'),
        (('mini', None, None, dict(ema=-0.1), None, 0), '--mini ema=-0.1: give 0 or a number above 0, finite'),
        (('mini', None, None, dict(rare=3), None, 0), 'give some of the classes'),
        (('mini', None, None, dict(lr=float('inf')), None, 0), '--mini lr=inf: give a number above 0, finite'),
        (('mini', None, None, {}, {'a.max_norm': float('inf')}, 0), r'--cfg-options a\.max_norm=inf: .* 1e9 where'),
        (('paper', 8, None, {}, {'a': [1, ({'b': float('nan')},)]}, 8), r"--cfg-options a=\[1, \(\{'b': nan\},\)\]: "),
        (('mini', None, None, dict(size=16), None, 0), '--mini: width=16 is invalid; give an integer from 32'),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(RowError, match=message):
        presets.choose(*arguments)


def test_gpus_and_data_that_are_missing_are_named_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RowError, match=r'has 2; give --gpus 2: .*batch\. Its data is missing too: train_dataloader\.'):
        presets.choose('paper', None, None, {}, None, 2, [GFL])
    assert presets.choose('paper', None, None, {}, None, 8, [GFL]) == Preset('paper', 8)  # said for each row later
    with pytest.raises(RowError, match='batch$'):  # the shapes are drawn
        presets.choose('mini', 4, None, {}, None, 2, [GFL])
    monkeypatch.setattr(presets, 'missing', lambda cfg: None)
    with pytest.raises(RowError, match='batch$'):
        presets.choose('paper', None, None, {}, None, 2, [GFL])


def test_a_config_without_a_batch_for_its_lr():
    cfg = Config.fromfile(CONFIG_DIR / GFL)
    cfg.auto_scale_lr = None
    with pytest.raises(RowError, match='mine.py has no auto_scale_lr.base_batch_size'):
        presets.as_in_paper(cfg, 'mine.py')


def test_settings_that_results_must_share():
    assert Preset('paper', 8).sizes() != Preset('paper', 4).sizes()
    assert Preset('paper', 8, batch_size=2).sizes() == Preset('paper', 4, batch_size=4).sizes()
    assert Preset('mini', 1, mini=Mini()).sizes() == Preset('mini', 2, mini=Mini()).sizes()
    assert Preset('mini', 1, mini=Mini()).sizes() != Preset('mini', 1, mini=Mini(), options={'a': 1}).sizes()
