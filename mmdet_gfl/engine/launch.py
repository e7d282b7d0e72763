"""What ``tools/train.py`` and ``tools/test.py`` do before MMEngine's Runner takes over.

Everything that can be wrong with the user's files is looked for before anything is built, and answered in one sentence
(:class:`UserError`) that names it and the way out.
"""

from __future__ import annotations

import argparse
import difflib
import os
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmdet_gfl.compat import checkpoint as checkpoints
from mmdet_gfl.registry import HOOKS, MODELS

CFG_OPTIONS_HELP = (
    'override settings of the config, as xxx=yyy; a list as key="[a,b]" or key=a,b, nested lists and tuples as '
    'key="[(a,b),(c,d)]" (the quotation marks are needed, and no white space)'
)


class UserError(SystemExit):
    """Something the user can mend: ends the tool with one sentence on stderr and exit status 1."""


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that training and testing share, MMDetection's names."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help=CFG_OPTIONS_HELP)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='given by torch.distributed.launch')
    parser.add_argument(
        '--allow-unsafe-checkpoint',
        action='store_true',
        help='load a checkpoint in full, which lets it run code; only for files whose origin you trust',
    )


def load_config(args: argparse.Namespace) -> Config:
    """The config of a tool's arguments, checked: its options merged, its folder and launcher set.

    Raises:
        UserError: The file is missing or no config, an option is no ``key=value``, or a ``mmdet_gfl.`` type in it is
            unknown.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.allow_unsafe_checkpoint:
        checkpoints.allow_unsafe_checkpoints()
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    check_types(cfg)
    use_backend_of_device(cfg)
    return cfg


def read_config(path: str) -> Config:
    """Reads a config file; see :func:`load_config`."""
    if not Path(path).is_file():
        folder = Path(path).parent
        names = [file.name for file in folder.glob('*.py')] if folder.is_dir() else []
        close = difflib.get_close_matches(Path(path).name, names, n=1)
        hint = (
            f'did you mean {folder / close[0]}?' if close else '`python -m mmdet_gfl configs` lists the shipped ones.'
        )
        raise UserError(f'config {path} does not exist; {hint}')
    try:
        return Config.fromfile(path)
    except (FileNotFoundError, SyntaxError, ImportError, KeyError, TypeError) as error:
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error


def check_types(cfg: Config) -> None:
    """Refuses ``type='mmdet_gfl.Name'`` where there is no such part.

    Raises:
        UserError: Names the key, the value and the nearest part.
    """
    known: dict[str, Any] = {}
    for registry in (MODELS, HOOKS):
        registry.import_from_location()
        known.update(registry.module_dict)
    for key, node in _nodes(cfg._cfg_dict, ''):
        name = node.get('type')
        if isinstance(name, str) and name.startswith('mmdet_gfl.') and name.split('.', 1)[1] not in known:
            close = difflib.get_close_matches(name.split('.', 1)[1], known, n=1)
            hint = f'did you mean mmdet_gfl.{close[0]}?' if close else f'known: {", ".join(sorted(known))}'
            raise UserError(f'{key}type={name!r} is unknown; {hint}')


def _nodes(value: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All dicts inside ``value``, each with the dotted key that leads to it."""
    if isinstance(value, dict):
        yield key, value
        for name, child in value.items():
            yield from _nodes(child, f'{key}{name}.')
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _nodes(child, f'{key}{index}.')


def use_backend_of_device(cfg: Config) -> None:
    """Lets processes on CPUs talk through gloo, since NCCL, the usual setting, needs GPUs."""
    import torch

    dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg')
    if dist_cfg is not None and dist_cfg.get('backend') == 'nccl' and not torch.cuda.is_available():
        dist_cfg.backend = 'gloo'


def check_data(cfg: Config, *splits: str) -> None:
    """Refuses missing annotation files and image folders of the splits that will run.

    Args:
        cfg: The config.
        *splits: ``'train'``, ``'val'`` or ``'test'``; a split without a data loader is skipped.

    Raises:
        UserError: Names the key, the path and what to set.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, dataset in _nodes(loader.get('dataset'), f'{split}_dataloader.dataset.'):
            if 'ann_file' in dataset:
                _check_dataset(key, dataset)
        evaluators = cfg.get(f'{split}_evaluator')
        for key, evaluator in _nodes(evaluators if loader else None, f'{split}_evaluator.'):
            if evaluator.get('ann_file'):
                _check_path(f'{key}ann_file', evaluator['ann_file'], f'--cfg-options {key}ann_file=/path/to/file.json')


def _check_dataset(key: str, dataset: dict[str, Any]) -> None:
    root = dataset.get('data_root') or ''
    mend = f'--cfg-options {key}data_root=/path/to/data'
    if dataset['ann_file']:
        _check_path(f'{key}ann_file', _join(root, dataset['ann_file']), mend)
    for name, folder in (dataset.get('data_prefix') or {}).items():
        if isinstance(folder, str):
            _check_path(f'{key}data_prefix.{name}', _join(root, folder), mend)


def _join(root: str, path: str) -> str:
    return path if '://' in path or os.path.isabs(path) else os.path.join(root, path)


def _check_path(key: str, path: str, mend: str) -> None:
    if '://' not in path and not os.path.exists(path):
        raise UserError(
            f'{key}: {os.path.abspath(path)} does not exist; put or link the data there, or point the config to it '
            f'({mend})'
        )


def check_checkpoint(path: str) -> None:
    """Refuses a checkpoint file that is missing, damaged, or wants to run code.

    Raises:
        UserError: Names the file and what to do.
    """
    if '://' in path:
        return
    try:
        checkpoints.check_checkpoint(path)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise UserError(str(error)) from error


def start_of(cfg: Config) -> str | None:
    """The checkpoint that a training starts from, or goes on from; None where it starts from scratch."""
    if cfg.get('resume') and not cfg.get('load_from'):
        pointer = Path(cfg.work_dir) / 'last_checkpoint'
        return pointer.read_text().strip() if pointer.is_file() else None
    return cfg.get('load_from')


def effective_batch(cfg: Config) -> tuple[int, float]:
    """Images a step of the optimizer sees, and the learning rate after scaling, as the Runner will set it."""
    world = world_size(cfg.launcher)
    batch = cfg.train_dataloader.batch_size * world
    lr = cfg.optim_wrapper.optimizer.lr
    scale = cfg.get('auto_scale_lr') or {}
    if scale.get('enable'):
        lr *= batch / scale['base_batch_size']
    return batch * cfg.optim_wrapper.get('accumulative_counts', 1), lr


def world_size(launcher: str) -> int:
    """Number of processes that the launcher starts."""
    name = {'none': None, 'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}[launcher]
    return int(os.environ.get(name, 1)) if name else 1


def announce(cfg: Config, task: str) -> None:
    """Prints, once and on the first rank, what is about to happen and where its results go."""
    import torch

    if int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))):
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    lines = [f'{task} on {world_size(cfg.launcher)} x {device}; results go to {os.path.abspath(cfg.work_dir)}']
    if task == 'training':
        batch, lr = effective_batch(cfg)
        scale = cfg.get('auto_scale_lr') or {}
        base = cfg.optim_wrapper.optimizer.lr
        how = f'{base:g} scaled for a batch of {scale["base_batch_size"]}' if scale.get('enable') else 'not scaled'
        lines.append(f'effective batch size {batch}, lr {lr:g} ({how})')
    print('\n'.join(lines), flush=True)


def build_runner(cfg: Config) -> Runner:
    """MMEngine's Runner, or the one that the config names."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def run(action: Callable[[], Any]) -> None:
    """Runs the training or the test; a pretrained weight that cannot be downloaded becomes one sentence.

    Raises:
        UserError: Names the key that holds the address.
    """
    try:
        action()
    except urllib.error.URLError as error:
        raise UserError(
            f'pretrained weights cannot be downloaded ({error.reason}); give a local file '
            f'(--cfg-options model.backbone.init_cfg.checkpoint=/path/to/weights.pth), or train from scratch '
            f'(--cfg-options model.backbone.init_cfg=None)'
        ) from error


def use_tta(cfg: Config) -> None:
    """Turns the test into one with test-time augmentation; a config without ``tta_model`` gets horizontal flips."""
    if 'tta_model' not in cfg:
        nms = dict(type='nms', iou_threshold=0.6)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    if 'tta_pipeline' not in cfg:
        dataset = cfg.test_dataloader.dataset
        while 'dataset' in dataset:
            dataset = dataset['dataset']
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        augment = dict(type='TestTimeAug', transforms=[flips, [dict(type='PackDetInputs', meta_keys=keys)]])
        cfg.tta_pipeline = [*dataset.pipeline[:-1], augment]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
