"""Errors of the tools on files and configs before anything is built."""

import argparse
import errno
import os
import urllib.error

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModule

from mmdet_gfl.compat.checkpoint import HAS_SAFE_MODE
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


@pytest.mark.parametrize(
    'here, given, meant',
    [
        ('', 'gfl_r50_fpn_1x_coco', 'configs/gfl/gfl_r50_fpn_1x_coco.py'),
        ('', 'gfl/gfl_r50_fpn_1x_coco', 'configs/gfl/gfl_r50_fpn_1x_coco.py'),
        ('', 'configs/gfl/gfl_r50_fpn_1x_coco', 'configs/gfl/gfl_r50_fpn_1x_coco.py'),
        ('configs', 'gfl_r50_fpn_1x_cooc.py', 'gfl/gfl_r50_fpn_1x_coco.py'),
        ('mmdet_gfl', 'gfl_r50_fpn_1x_coco', '{root}/configs/gfl/gfl_r50_fpn_1x_coco.py'),
    ],
)
def test_the_name_of_a_shipped_config_is_answered_with_its_path(root, monkeypatch, here, given, meant):
    monkeypatch.chdir(root / here)
    with pytest.raises(launch.UserError) as said:
        launch.read_config(given)
    assert str(said.value) == f'config {given} does not exist; did you mean {meant.format(root=root)}?'


def test_a_config_beside_goes_before_a_shipped_one_of_the_same_name_and_after_one_that_fits_better(
    root, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'gfl_r50_fpn_1x_mine.py').touch()
    with pytest.raises(launch.UserError, match=r'did you mean /.*/configs/gfl/gfl_r50_fpn_1x_coco\.py\?'):
        launch.read_config('gfl_r50_fpn_1x_coco')
    with pytest.raises(launch.UserError, match=r'did you mean gfl_r50_fpn_1x_mine\.py\?'):
        launch.read_config('gfl_r50_fpn_1x_mine')
    (tmp_path / 'gfl_r50_fpn_1x_coco.py').touch()
    with pytest.raises(launch.UserError, match=r'did you mean gfl_r50_fpn_1x_coco\.py\?'):
        launch.read_config('gfl_r50_fpn_1x_coco')
    with pytest.raises(launch.UserError, match=r'`python -m mmdet_gfl configs` lists the shipped ones'):
        launch.read_config('xyz')


def test_a_config_that_is_not_python(tmp_path):
    file = tmp_path / 'bad.py'
    file.write_text('model = dict(\n')
    with pytest.raises(launch.UserError, match='bad.py cannot be read: SyntaxError'):
        launch.load_config(args(file))


def test_work_dir_of_flag_config_or_name(shipped, tmp_path):
    assert launch.load_config(args(shipped)).work_dir == os.path.join('work_dirs', 'gfl_r50_fpn_1x_coco')
    assert launch.load_config(args(shipped, cfg_options=dict(work_dir='a'))).work_dir == 'a'
    assert launch.load_config(args(shipped, cfg_options=dict(work_dir='a'), work_dir='b')).work_dir == 'b'


@pytest.mark.parametrize(
    'batch, world, accumulate, enable, said',
    [
        (2, 8, 1, True, 'effective batch size 16, lr 0.01 (0.01 for a batch of 16, scaled to 16)'),
        (2, 1, 1, True, 'effective batch size 2, lr 0.00125 (0.01 for a batch of 16, scaled to 2)'),
        (4, 2, 4, True, 'effective batch size 32 (8 images x 4 accumulated), lr 0.005 (0.01 for a batch of 16, scaled'),
        (2, 1, 1, False, 'effective batch size 2, lr 0.01 (not scaled)'),
    ],
)
def test_effective_batch_and_lr(shipped, monkeypatch, capsys, batch, world, accumulate, enable, said):
    cfg = launch.load_config(args(shipped, launcher='pytorch'))
    monkeypatch.setenv('WORLD_SIZE', str(world))
    cfg.train_dataloader.batch_size = batch
    cfg.optim_wrapper.accumulative_counts = accumulate
    cfg.auto_scale_lr.enable = enable
    launch.log_run_summary(cfg, 'training')
    out = capsys.readouterr().out
    assert said in out and f'on {world} x' in out


@pytest.mark.parametrize(
    'odd',
    [
        dict(optim_wrapper=dict(_delete_=True, type='OptimWrapper', constructor='Mine', optimizer=dict(a=1))),
        dict(optim_wrapper=dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='LBFGS'))),
        dict(train_dataloader=dict(_delete_=True, batch_sampler=dict(batch_size=4))),
    ],
    ids=['constructor', 'no-lr', 'batch-sampler'],
)
def test_odd_configs_are_announced_too(shipped, capsys, odd):
    cfg = launch.load_config(args(shipped))
    cfg.merge_from_dict(odd)
    launch.log_run_summary(cfg, 'training')
    assert 'effective batch size and lr as the config says' in capsys.readouterr().out


def test_scaling_without_a_base_is_announced_as_it_is(shipped, capsys):
    cfg = launch.load_config(args(shipped))
    cfg.auto_scale_lr = dict(enable=True)
    launch.log_run_summary(cfg, 'training')
    assert 'effective batch size and lr as the config says' in capsys.readouterr().out  # MMEngine refuses it


@pytest.mark.parametrize('variable', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_one_rank_speaks(shipped, monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, '1')
    launch.log_run_summary(launch.load_config(args(shipped)), 'training')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    'options, words',
    [
        ({'train_pipeline.20.x': 1}, r'--cfg-options train_pipeline\.20\.x=1 does not fit'),
        ({'log_level.x': 1}, r'--cfg-options log_level\.x=1 does not fit'),
    ],
)
def test_options_that_do_not_fit_are_named(shipped, options, words):
    with pytest.raises(launch.UserError, match=words):
        launch.load_config(args(shipped, cfg_options=options))


def test_a_mistyped_option_is_noted(shipped, capsys):
    launch.load_config(args(shipped, cfg_options={'model.bbox_hed.num_classes': 3}))
    assert 'the config has no model.bbox_hed yet (did you mean model.bbox_head?)' in capsys.readouterr().out
    options = {
        'model.bbox_head.num_classes': 3,
        'train_pipeline.2.scale': (9, 9),
        'model.test_cfg.with_distribution': 'stats',
    }
    cfg = launch.load_config(args(shipped, cfg_options=options))
    assert 'note' not in capsys.readouterr().out
    assert cfg.model.bbox_head.num_classes == 3 and cfg.train_pipeline[2].scale == (9, 9)


@pytest.mark.parametrize('text', ['raise ValueError("no")', 'x = undefined', '_base_ = "nowhere.py"'])
def test_a_config_that_fails_is_named(tmp_path, text):
    (tmp_path / 'bad.py').write_text(text)
    with pytest.raises(launch.UserError, match='bad.py cannot be read'):
        launch.load_config(args(tmp_path / 'bad.py'))


@pytest.mark.parametrize(
    'option, words',
    [
        ('foo', r'^--cfg-options foo: write KEY=VALUE, without spaces around the =$'),
        ('=3', r'^--cfg-options =3: write KEY=VALUE'),
        ('a=[1,(2]', r'^--cfg-options a=\[1,\(2\]: Imbalanced brackets'),
    ],
)
def test_options_that_cannot_be_read_are_named(option, words):
    parser = argparse.ArgumentParser()
    launch.add_common_arguments(parser)
    with pytest.raises(launch.UserError, match=words):
        parser.parse_args(['--cfg-options', 'log_level=INFO', option])


def test_options_are_read_as_mmengine_reads_them():
    parser = argparse.ArgumentParser()
    launch.add_common_arguments(parser)
    read = parser.parse_args(['--cfg-options', 'a.b=1', 'c=[(1,x),2.5]', '--cfg-options', 'd=None', 'e=x=y'])
    assert read.cfg_options == {'a.b': 1, 'c': [(1, 'x'), 2.5], 'd': None, 'e': 'x=y'}


def test_slurm_world(monkeypatch):
    monkeypatch.setenv('SLURM_NTASKS', '16')
    assert launch.world_size('slurm') == 16 and launch.world_size('none') == 1


def test_announced(shipped, capsys):
    cfg = launch.load_config(args(shipped))
    launch.log_run_summary(cfg, 'training')
    said = capsys.readouterr().out
    assert 'starting from the config alone; effective batch size 2, lr 0.00125' in said
    assert os.path.join(os.getcwd(), 'work_dirs', 'gfl_r50_fpn_1x_coco') in said


def test_gloo_without_gpus(shipped):
    backend = launch.load_config(args(shipped)).env_cfg.dist_cfg.backend
    assert backend == ('nccl' if torch.cuda.is_available() else 'gloo')


def test_slurm_off_a_cluster_is_named(shipped, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip('MMEngine looks for itself where there are GPUs')
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    with pytest.raises(launch.UserError, match=r'Slurm has not started this process; use tools/slurm_train\.sh'):
        launch.load_config(args(shipped, launcher='slurm'))


def test_the_start_of_a_training(shipped, tmp_path, capsys):
    cfg = Config.fromfile(shipped)
    cfg.work_dir, cfg.launcher = str(tmp_path), 'none'
    assert launch.find_checkpoint(cfg) is None
    cfg.resume = True
    assert launch.find_checkpoint(cfg) is None and cfg.resume is False
    cfg.resume = True
    torch.save({}, tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_text(f'{tmp_path}/epoch_2.pth\n')
    assert launch.find_checkpoint(cfg) == str(tmp_path / 'epoch_2.pth') and cfg.load_from is None
    launch.log_run_summary(cfg, 'training', launch.find_checkpoint(cfg))
    said = capsys.readouterr().out  # MMEngine scales the lr, and then loads the checkpoint's
    assert f'resuming from {tmp_path}/epoch_2.pth; effective batch size 2, lr as in the checkpoint' in said
    cfg.load_from = '/b.pth'
    assert launch.find_checkpoint(cfg) == '/b.pth'


@pytest.mark.parametrize('pointer', ['/moved/epoch_3.pth', ''], ids=['moved', 'cut-short'])
def test_the_newest_whole_checkpoint_counts_where_the_pointer_fails(shipped, tmp_path, pointer):
    cfg = Config.fromfile(shipped)
    cfg.work_dir, cfg.launcher, cfg.resume = str(tmp_path), 'none', True
    (tmp_path / 'last_checkpoint').write_text(pointer)
    for epoch in (2, 10):
        torch.save({}, tmp_path / f'epoch_{epoch}.pth')
        os.utime(tmp_path / f'epoch_{epoch}.pth', (epoch, epoch))
    (tmp_path / 'epoch_11.pth').write_bytes(b'PK cut short')
    assert launch.find_checkpoint(cfg) == cfg.load_from == str(tmp_path / 'epoch_10.pth') and cfg.resume


def test_a_copied_work_dir_resumes_from_its_own_checkpoint(shipped, tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    for folder in (old, new):  # new is a copy of old, which has gone on
        folder.mkdir()
        torch.save({}, folder / 'epoch_2.pth')
        (folder / 'last_checkpoint').write_text(str(old / 'epoch_2.pth'))
    torch.save({}, new / 'epoch_1.pth')  # written later by the copy

    def start(folder):
        cfg = Config.fromfile(shipped)
        cfg.work_dir, cfg.launcher, cfg.resume = str(folder), 'none', True
        return launch.find_checkpoint(cfg), cfg.load_from, cfg.resume

    assert start(old) == (str(old / 'epoch_2.pth'), None, True)
    assert start(new) == (str(new / 'epoch_2.pth'), str(new / 'epoch_2.pth'), True)
    (new / 'epoch_2.pth').write_bytes(b'PK cut short')
    assert start(new) == (str(new / 'epoch_1.pth'), str(new / 'epoch_1.pth'), True)
    (new / 'epoch_2.pth').unlink()  # checkpoints are kept elsewhere
    assert start(new) == (str(old / 'epoch_2.pth'), None, True)
    (new / 'last_checkpoint').write_text('https://somewhere/epoch_2.pth')
    assert start(new) == ('https://somewhere/epoch_2.pth', None, True)


def test_local_pretrained_weights_that_are_missing_or_damaged_are_one_sentence(tmp_path):
    file = tmp_path / 'r50.pth'
    model = Linear(init_cfg=dict(type='Pretrained', checkpoint=str(file)))
    with pytest.raises(launch.UserError, match=r'^there is no checkpoint at .*r50\.pth$'):
        launch.run(model.init_weights, Config())
    file.write_bytes(b'PK\x03\x04 cut short')
    with pytest.raises(launch.UserError, match=r'r50\.pth was cut short .*; copy or download it again'):
        launch.run(model.init_weights, Config())
    torch.save(dict(state_dict=dict(weight=torch.full((3, 2), 7.0))), file)
    launch.run(model.init_weights, Config())
    assert (model.weight == 7).all()


class Linear(BaseModule, torch.nn.Linear):
    def __init__(self, init_cfg):
        super(BaseModule, self).__init__(2, 3)
        self.init_cfg, self._is_init = init_cfg, False


def test_weights_that_cannot_be_downloaded():
    def offline():
        raise urllib.error.URLError('no route to host')

    with pytest.raises(launch.UserError, match=r'no route to host.*init_cfg=None'):
        launch.run(offline, Config())


def test_a_full_disk_is_the_systems_error():
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match='No space left on device'):
        launch.run(full, Config())


def test_processes_part_after_their_work(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/met', rank=0, world_size=1)
    with pytest.raises(ZeroDivisionError):
        launch.run(lambda: 1 / 0, Config())
    assert torch.distributed.is_initialized()  # the launcher ends the others
    launch.run(lambda: None, Config())
    assert not torch.distributed.is_initialized()


def test_tta_reaches_the_inner_data_set(shipped):
    cfg = Config.fromfile(shipped)
    inner = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=1, dataset=inner)
    launch.use_tta(cfg)
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module.type == 'GFL'
    assert cfg.test_dataloader.dataset.dataset.pipeline[-1].type == 'TestTimeAug'
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner])
    with pytest.raises(launch.UserError, match='--tta.*ConcatDataset'):
        launch.use_tta(cfg)


def test_a_checkpoint_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(launch.UserError, match='nothing.pth'):
        launch.check_checkpoint(str(tmp_path / 'nothing.pth'))
    (tmp_path / 'half.pth').write_bytes(b'PK\x03\x04 cut short')
    with pytest.raises(launch.UserError, match='half.pth'):
        launch.check_checkpoint(str(tmp_path / 'half.pth'))


@pytest.mark.skipif(not HAS_SAFE_MODE, reason='torch < 2.6 loads checkpoints in full and says so')
def test_an_unsafe_checkpoint_is_named_with_the_way_out(tmp_path):
    torch.save(dict(state_dict=Wants()), tmp_path / 'evil.pth')
    with pytest.raises(launch.UserError, match=r'evil\.pth.*system.*--allow-unsafe-checkpoint'):
        launch.check_checkpoint(str(tmp_path / 'evil.pth'))


class Wants:
    def __reduce__(self):
        return os.system, ('true',)


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    model = torch.nn.ModuleDict(dict(neck=torch.nn.Linear(2, 3), head=torch.nn.Linear(3, 4)))
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(dict(state_dict={f'module.{key}': value for key, value in model.state_dict().items()}), path)
    launch.check_fit(model, path)
    wrapped = torch.nn.Module()
    wrapped.module = torch.nn.Module()  # test-time augmentation in several processes
    wrapped.module.module = model
    launch.check_fit(wrapped, path)
    model['head'] = torch.nn.Linear(3, 5)
    with pytest.raises(
        launch.UserError,
        match=r'size mismatch for head\.weight: .*\[4, 3\]\) from checkpoint, .*\[5, 3\]\); use its own config',
    ):
        launch.check_fit(model, path)
    model['other'] = model['head']
    del model['head']
    with pytest.raises(launch.UserError, match=r'other\.weight of the model is not in the file'):
        launch.check_fit(model, path)
    del model['other']
    launch.check_fit(model, path)  # a whole part more, as of a loss for training alone
    model['head'] = torch.nn.Module()
    with pytest.raises(launch.UserError, match=r'the file has head\.bias, and the model no such layer'):
        launch.check_fit(model, path)


@pytest.mark.parametrize(
    'held, words',
    [
        ([1, 2], 'a list'),
        (torch.zeros(3), 'a Tensor'),
        ({}, 'nothing'),
        (dict(state_dict={}), 'state_dict'),
        (dict(state_dict=5), 'state_dict'),
        (dict(model=dict(weight=torch.zeros(3))), 'model'),
        (dict(state={}, param_groups=[]), 'state, param_groups'),
    ],
)
def test_a_file_without_weights(tmp_path, held, words):
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(held, path)
    launch.check_checkpoint(path)
    with pytest.raises(
        launch.UserError,
        match=rf'epoch_1\.pth does not fit .*: no layer of the model is in the file, which has {words};',
    ):
        launch.check_fit(torch.nn.Linear(2, 3), path)
    for use in ('start', 'resume', 'test'):
        with pytest.raises(launch.UserError, match=rf'no layer of the model is in the file, which has {words};'):
            loading(torch.nn.Linear(2, 3), path, use)


def loading(model, path, use, hook=None):
    """The error on a checkpoint that a Runner has just loaded."""
    runner = object.__new__(launch.Runner)
    runner.model, runner._hooks = model, [hook or CheckpointHook()]
    runner.register_hook(launch.CheckCheckpointHook(path, use))
    runner.call_hook('after_load_checkpoint', checkpoint=torch.load(path, weights_only=False))


def test_resuming_from_another_model_or_from_weights_alone(tmp_path):
    model = torch.nn.Linear(2, 3)
    path = str(tmp_path / 'epoch_1.pth')
    whole = dict(meta={}, message_hub={}, optimizer={}, state_dict=model.state_dict())
    torch.save(whole, path)
    loading(model, path, 'resume')
    torch.save(whole | dict(state_dict=torch.nn.Linear(2, 4).state_dict()), path)
    for use in ('resume', 'test'):
        with pytest.raises(
            launch.UserError, match=r'size mismatch for weight: .*\[4, 2\]\) from checkpoint, .*\[3, 2\]\); use'
        ):
            loading(model, path, use)
    loading(model, path, 'start')  # as for other classes
    more = torch.nn.ModuleDict(dict(backbone=model, neck=torch.nn.Linear(3, 1)))
    with pytest.raises(
        launch.UserError, match=r'no layer of the model is in the file, which has weight, bias; .*\.backbone\.init_cfg='
    ):
        loading(more, path, 'start')
    torch.save(whole | dict(state_dict={'backbone.bias': model.bias}), path)
    loading(more, path, 'start')
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)  # as a released one
    with pytest.raises(launch.UserError, match=r'lacks message_hub, optimizer\).*load_from=.*epoch_1\.pth'):
        loading(model, path, 'resume')
    loading(model, path, 'test')
    del whole['optimizer']
    torch.save(whole, path)
    with pytest.raises(launch.UserError, match=r'lacks optimizer\)'):
        loading(model, path, 'resume')
    loading(model, path, 'resume', CheckpointHook(save_optimizer=False))  # MMEngine goes on with a new one


def test_processes_that_do_not_know_of_each_other_are_refused(shipped, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(launch.UserError, match='2 processes.*--launcher pytorch'):
        launch.load_config(args(shipped))
