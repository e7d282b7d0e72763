"""What the tools say about files and configs before anything is built."""

import argparse
import json
import os

import pytest
import torch
from mmengine.config import Config

from mmdet_gfl.engine import launch


def args(config, **changes):
    base = dict(
        config=str(config),
        cfg_options=None,
        work_dir=None,
        launcher='none',
        local_rank=0,
        allow_unsafe_checkpoint=False,
    )
    return argparse.Namespace(**{**base, **changes})


@pytest.fixture
def shipped(root):
    return root / 'configs' / 'gfl' / 'gfl_r50_fpn_1x_coco.py'


def test_a_missing_config_suggests_its_neighbour(shipped):
    with pytest.raises(launch.UserError, match=r'does not exist; did you mean .*gfl_r50_fpn_1x_coco\.py'):
        launch.load_config(args(str(shipped).replace('1x', '1s')))


def test_a_config_that_is_no_python(tmp_path):
    file = tmp_path / 'bad.py'
    file.write_text('model = dict(\n')
    with pytest.raises(launch.UserError, match='bad.py cannot be read: SyntaxError'):
        launch.load_config(args(file))


def test_a_typo_in_a_type_is_named_with_its_key(shipped):
    with pytest.raises(
        launch.UserError, match=r"model\.bbox_head\.type='mmdet_gfl\.GFLHaed' .*mean mmdet_gfl\.GFLHead"
    ):
        launch.load_config(args(shipped, cfg_options={'model.bbox_head.type': 'mmdet_gfl.GFLHaed'}))


def test_work_dir_of_flag_config_or_name(shipped, tmp_path):
    assert launch.load_config(args(shipped)).work_dir == os.path.join('work_dirs', 'gfl_r50_fpn_1x_coco')
    assert launch.load_config(args(shipped, cfg_options=dict(work_dir='a'))).work_dir == 'a'
    assert launch.load_config(args(shipped, cfg_options=dict(work_dir='a'), work_dir='b')).work_dir == 'b'


@pytest.fixture
def data(tmp_path):
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        (tmp_path / f'{split}2017').mkdir()
        (tmp_path / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps({}))
    return tmp_path


def pointed(shipped, data):
    cfg = Config.fromfile(shipped)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(data)
        if split != 'train':
            cfg[f'{split}_evaluator'].ann_file = str(data / 'annotations/instances_val2017.json')
    return cfg


def test_data_that_is_there_passes(shipped, data):
    launch.check_data(pointed(shipped, data), 'train', 'val', 'test')


@pytest.mark.parametrize(
    'gone, words',
    [
        (
            'annotations/instances_train2017.json',
            r'train_dataloader\.dataset\.ann_file: .*train2017\.json does not exist',
        ),
        ('val2017', r'val_dataloader\.dataset\.data_prefix\.img: .*val2017.*--cfg-options val_dataloader.*data_root='),
    ],
)
def test_missing_data_is_named(shipped, data, gone, words):
    path = data / gone
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(launch.UserError, match=words):
        launch.check_data(pointed(shipped, data), 'train', 'val')


def test_missing_evaluator_file_is_named(shipped, data):
    cfg = pointed(shipped, data)
    cfg.test_evaluator.ann_file = '/nowhere.json'
    with pytest.raises(launch.UserError, match=r'test_evaluator\.ann_file: /nowhere\.json'):
        launch.check_data(cfg, 'test')


def test_wrapped_data_sets_and_remote_files(shipped, data):
    cfg = pointed(shipped, data)
    inner = cfg.train_dataloader.dataset
    inner.data_root = 's3://bucket/coco/'
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    launch.check_data(cfg, 'train')
    inner.data_root = '/nowhere/'
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    with pytest.raises(launch.UserError, match=r'train_dataloader\.dataset\.dataset\.ann_file: /nowhere/'):
        launch.check_data(cfg, 'train')


@pytest.mark.parametrize(
    'batch, world, accumulate, enable, expected',
    [
        (2, 8, 1, True, (16, 0.01)),
        (2, 1, 1, True, (2, 0.00125)),
        (4, 2, 4, True, (32, 0.005)),
        (2, 1, 1, False, (2, 0.01)),
    ],
)
def test_effective_batch_and_lr(shipped, monkeypatch, batch, world, accumulate, enable, expected):
    cfg = Config.fromfile(shipped)
    cfg.launcher = 'pytorch'
    monkeypatch.setenv('WORLD_SIZE', str(world))
    cfg.train_dataloader.batch_size = batch
    cfg.optim_wrapper.accumulative_counts = accumulate
    cfg.auto_scale_lr.enable = enable
    assert launch.effective_batch(cfg) == pytest.approx(expected)


def test_slurm_world(monkeypatch):
    monkeypatch.setenv('SLURM_NTASKS', '16')
    assert launch.world_size('slurm') == 16 and launch.world_size('none') == 1


def test_announced(shipped, capsys):
    cfg = launch.load_config(args(shipped))
    launch.announce(cfg, 'training')
    said = capsys.readouterr().out
    assert 'effective batch size 2, lr 0.00125 (0.01 scaled for a batch of 16)' in said
    assert os.path.join(os.getcwd(), 'work_dirs', 'gfl_r50_fpn_1x_coco') in said


def test_gloo_without_gpus(shipped):
    backend = launch.load_config(args(shipped)).env_cfg.dist_cfg.backend
    assert backend == ('nccl' if torch.cuda.is_available() else 'gloo')


def test_where_a_training_starts(shipped, tmp_path):
    cfg = Config.fromfile(shipped)
    cfg.work_dir = str(tmp_path)
    assert launch.start_of(cfg) is None
    cfg.resume = True
    assert launch.start_of(cfg) is None
    (tmp_path / 'last_checkpoint').write_text('/a/epoch_3.pth\n')
    assert launch.start_of(cfg) == '/a/epoch_3.pth'
    cfg.load_from = '/b.pth'
    assert launch.start_of(cfg) == '/b.pth'


def test_a_checkpoint_that_is_missing_damaged_or_unsafe(tmp_path):
    with pytest.raises(launch.UserError, match='nothing.pth'):
        launch.check_checkpoint(str(tmp_path / 'nothing.pth'))
    (tmp_path / 'half.pth').write_bytes(b'PK\x03\x04 cut short')
    with pytest.raises(launch.UserError, match='half.pth'):
        launch.check_checkpoint(str(tmp_path / 'half.pth'))
    torch.save(dict(state_dict=Wants()), tmp_path / 'evil.pth')
    with pytest.raises(launch.UserError, match=r'evil\.pth.*system.*--allow-unsafe-checkpoint'):
        launch.check_checkpoint(str(tmp_path / 'evil.pth'))


class Wants:
    def __reduce__(self):
        return os.system, ('true',)
