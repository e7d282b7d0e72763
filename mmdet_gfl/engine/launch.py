"""Start of ``tools/train.py`` and ``tools/test.py``, before MMEngine's Runner takes over.

A fault of the user's is answered in one sentence (:class:`UserError`) that names it and the way out, before anything
is built or where MMEngine meets it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import distributed, nn

from mmdet_gfl import shipped_configs
from mmdet_gfl.compat.checkpoint import allow_unsafe_checkpoints
from mmdet_gfl.engine.checkpoint_checks import CheckCheckpointHook, check_checkpoint, check_fit, find_checkpoint
from mmdet_gfl.engine.data_checks import build_dataset, check_data, observe
from mmdet_gfl.engine.errors import UserError, is_first_rank, note
from mmdet_gfl.engine.options import CFG_OPTIONS_HELP, OptionsAction
from mmdet_gfl.engine.processes import end_with_parent
from mmdet_gfl.engine.type_checks import check_losses, friendly_errors

#: What tools use of the other modules, beside the functions of this one.
__all__ = ['CFG_OPTIONS_HELP', 'CheckCheckpointHook', 'OptionsAction', 'UserError', 'build_dataset', 'check_checkpoint']
__all__ += ['check_data', 'check_fit', 'find_checkpoint', 'friendly_errors', 'is_first_rank', 'observe']


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that training and testing share, MMDetection's names."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results')
    add_config_arguments(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='given by torch.distributed.launch')


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that concern config and checkpoint, which the tools for a trained detector have too."""
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, help=CFG_OPTIONS_HELP)
    parser.add_argument(
        '--allow-unsafe-checkpoint',
        action='store_true',
        help='load a checkpoint in full, which lets it run code; only for files whose origin you trust',
    )


def load_config(args: argparse.Namespace) -> Config:
    """The config of a tool's arguments: its options merged, its folder and launcher set.

    Raises:
        UserError: The file is missing or no config, an option does not fit it, or processes do not know of each other.
    """
    if 'TORCHELASTIC_RUN_ID' in os.environ:  # a torchrun that is killed ends nobody, and these would train on
        end_with_parent(os.getppid())
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.allow_unsafe_checkpoint:
        allow_unsafe_checkpoints()
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    merge_options(cfg, args.cfg_options or {})
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    check_launcher(cfg)
    use_backend_of_device(cfg)
    return cfg


def read_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """Read a config file and merge ``--cfg-options``; see :func:`load_config`."""
    if not Path(path).is_file():
        meant = _config_meant(Path(path))
        hint = f'did you mean {meant}?' if meant else '`python -m mmdet_gfl configs` lists the shipped ones.'
        raise UserError(f'config {path} does not exist; {hint}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is Python: anything can go wrong in it
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    merge_options(cfg, options or {})
    return cfg


def _config_meant(path: Path) -> Path | None:
    """The config of this name or closest to it, with or without ``.py``: of the same folder, or a shipped one."""
    here = Path.cwd().resolve()
    shipped = [(shipped_configs.CONFIG_DIR / f'{name}.py').resolve() for name in shipped_configs.names()]
    files = [file.relative_to(here) if file.is_relative_to(here) else file for file in shipped]
    by_name = {file.name.removesuffix('.py'): file for file in (*files, *path.parent.glob('*.py'))}
    close = difflib.get_close_matches(path.name.removesuffix('.py'), by_name, n=1)
    return by_name[close[0]] if close else None


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merge ``--cfg-options`` into the config; note a key below a node that is not there yet, which may be a typo.

    Raises:
        UserError: An option leads through something that has no keys, or to an entry that a list has not.
    """
    for key, value in options.items():
        node, known = cfg._cfg_dict, ''
        for name in key.split('.')[:-1]:
            if not isinstance(node, dict):  # a list: merging knows its entries
                break
            if name not in node:
                close = difflib.get_close_matches(name, map(str, node), n=1)
                hint = f' (did you mean {known}{close[0]}?)' if close else ''
                note(f'--cfg-options {key}: the config has no {known}{name} yet{hint}')
                break
            node, known = node[name], f'{known}{name}.'
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise UserError(f'--cfg-options {key}={value!r} does not fit the config: {error}') from error


def check_launcher(cfg: Config) -> None:
    """Raise for several processes that do not know of each other, which would write into one work dir."""
    count = os.environ.get('WORLD_SIZE', '1')
    if cfg.launcher == 'none' and count.isdigit() and int(count) > 1:
        raise UserError(f'torchrun has started {count} processes (WORLD_SIZE={count}): add --launcher pytorch')
    if cfg.launcher == 'slurm' and 'SLURM_PROCID' not in os.environ:
        raise UserError('--launcher slurm: Slurm has not started this process; use tools/slurm_train.sh, or srun')


def use_backend_of_device(cfg: Config) -> None:
    """Let processes on CPUs talk through gloo, since NCCL, the usual setting, needs GPUs.

    MMEngine selects a GPU before it connects the processes of torchrun or Slurm, and gives one to the wrapper of the
    model; so without GPUs they are connected here, with torchrun's variables, and the wrapper gets none.
    """
    if torch.cuda.is_available():
        return
    dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg')
    if dist_cfg is not None and dist_cfg.get('backend') == 'nccl':
        dist_cfg.backend = 'gloo'
    env = os.environ
    if cfg.launcher == 'slurm':
        env.update(RANK=env['SLURM_PROCID'], WORLD_SIZE=env['SLURM_NTASKS'], LOCAL_RANK=env['SLURM_LOCALID'])
        env.setdefault('MASTER_PORT', '29500')
        if 'MASTER_ADDR' not in env:
            hosts = ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']]
            env['MASTER_ADDR'] = subprocess.run(hosts, check=True, capture_output=True, text=True).stdout.split()[0]
    if cfg.launcher in ('pytorch', 'slurm') and 'RANK' in env:
        cfg.setdefault('model_wrapper_cfg', dict(type='MMDistributedDataParallel', broadcast_buffers=False))
        cfg.model_wrapper_cfg.setdefault('device_ids', None)
        if not distributed.is_initialized():
            distributed.init_process_group('gloo')


def images_per_step(cfg: Config) -> tuple[int, int]:
    """Images that all processes read for a forward pass, and forward passes for a step of the optimizer.

    Raises:
        AttributeError: The config keeps its batch size elsewhere.
    """
    return cfg.train_dataloader.batch_size * world_size(cfg.launcher), cfg.optim_wrapper.get('accumulative_counts', 1)


def scaled_lr(cfg: Config) -> tuple[float, str]:
    """The learning rate as the Runner will set it, and how it is computed.

    Raises:
        AttributeError: The config keeps its learning rate elsewhere.
    """
    lr, scale = cfg.optim_wrapper.optimizer.lr, cfg.get('auto_scale_lr') or {}
    if not scale.get('enable'):
        return lr, 'not scaled'
    (batch, _), base = images_per_step(cfg), scale['base_batch_size']
    return lr * batch / base, f'{lr:g} for a batch of {base}, scaled to {batch}'


def world_size(launcher: str) -> int:
    """Number of processes that the launcher starts."""
    name = {'none': None, 'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}[launcher]
    count = os.environ.get(name, '') if name else ''
    return int(count) if count.isdigit() else 1


def log_run_summary(cfg: Config, task: str, checkpoint: str | None = None) -> None:
    """Print, on the first rank, what is about to happen, where its results go, and the batch and lr of a training."""
    if not is_first_rank():
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    print(f'{task} on {world_size(cfg.launcher)} x {device}; results go to {os.path.abspath(cfg.work_dir)}', flush=True)
    if task != 'training':
        return
    start = f'{"resuming" if cfg.get("resume") else "starting"} from {checkpoint or "the config alone"}'
    try:
        (batch, steps), (lr, how) = images_per_step(cfg), scaled_lr(cfg)
    except (AttributeError, KeyError, TypeError):  # a batch sampler of its own, several optimizers, ...
        print(f'{start}; effective batch size and lr as the config says', flush=True)
        return
    accumulated = f' ({batch} images x {steps} accumulated)' if steps != 1 else ''
    rate = 'lr as in the checkpoint' if cfg.get('resume') else f'lr {lr:g} ({how})'
    print(f'{start}; effective batch size {batch * steps}{accumulated}, {rate}', flush=True)


def build_runner(cfg: Config) -> Runner:
    """MMEngine's Runner, or the one that the config names.

    Raises:
        UserError: As :func:`friendly_errors` and :func:`check_losses`.
    """
    with friendly_errors(cfg):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if isinstance(runner.model, nn.Module):  # a FlexibleRunner builds it when it runs, and ``observe`` sees to it
        check_losses(runner.model)
    return runner


def run(action: Callable[[], Any], cfg: Config) -> None:
    """Run the training or the test and leave the process group.

    A thread of gloo's drops the tensors of the last exchange a moment after it, and needs Python for that; where Python
    is at its end by then, the process aborts, and torchrun calls a training failed that was done. A barrier has no
    tensors and hands Python to that thread while it waits. After an error the group is left to the launcher, which ends
    the other processes.

    Args:
        action: What is run; it builds the data sets.
        cfg: Its config.

    Raises:
        UserError: Names the keys that may hold the address; or as :func:`friendly_errors`.
    """
    try:
        with friendly_errors(cfg):
            action()
            if distributed.is_available() and distributed.is_initialized():
                distributed.barrier()
                distributed.destroy_process_group()
    except urllib.error.URLError as error:
        raise UserError(
            f'weights named in the config (model.backbone.init_cfg.checkpoint, or load_from) cannot be downloaded: '
            f'{error.reason}. Give a local file (--cfg-options model.backbone.init_cfg.checkpoint=/path/weights.pth) '
            f'or train from scratch (--cfg-options model.backbone.init_cfg=None)'
        ) from error


def use_tta(cfg: Config) -> None:
    """Turn the test into one with test-time augmentation; a config without ``tta_model`` gets horizontal flips.

    Raises:
        UserError: The test data set is made of several.
    """
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if 'pipeline' not in dataset:
        raise UserError(f'--tta needs a test data set with a pipeline; test_dataloader has a {dataset.get("type")}')
    if 'tta_model' not in cfg:
        nms = dict(type='nms', iou_threshold=0.6)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    if 'tta_pipeline' not in cfg:
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        augment = dict(type='TestTimeAug', transforms=[flips, [dict(type='PackDetInputs', meta_keys=keys)]])
        cfg.tta_pipeline = [*dataset['pipeline'][:-1], augment]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset['pipeline'] = cfg.tta_pipeline
