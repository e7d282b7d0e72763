"""Validation of checkpoints: they are there, whole, and of the model that is to be trained or tested with them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch.distributed.fsdp import FullyShardedDataParallel

from mmdet_gfl.compat import checkpoint as checkpoints
from mmdet_gfl.engine.errors import UserError, some


def check_fit(model: Any, path: str, loaded: Any = None, in_part: bool = False) -> None:
    """Raise for a checkpoint of another model; MMEngine would test with random weights where it does not fit.

    The model's own loading decides: it may translate names and shapes of other versions. What fits is loaded.

    Args:
        model: The model that the config makes.
        path: The checkpoint.
        loaded: What it holds, where it has been loaded.
        in_part: A single weight of the model is enough.

    Raises:
        UserError: Names the first layer that is missing, has another shape, or is in the file alone (deeper backbone);
            or the file holds no weights.
    """
    while hasattr(model, 'module'):  # wrapped for several processes, for test-time augmentation, or both
        model = model.module
    if loaded is None:
        loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    state = loaded.get('state_dict', loaded) if isinstance(loaded, dict) else None
    state = {str(key): value for key, value in state.items()} if isinstance(state, dict) else {}
    weights = {key.removeprefix('module.'): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    names, problem = dict(model.named_parameters()), ''
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
        missing = [key for key in missing if key in names]
        if len(missing) == len(names):
            has = some(weights or loaded) if isinstance(loaded, dict) else f'a {type(loaded).__name__}'
            problem = f'no layer of the model is in the file, which has {has or "nothing"}'
        elif missing and not in_part:
            problem = f'{missing[0]} of the model is not in the file'
        elif unexpected and not in_part and (unexpected := [key for key in unexpected if _is_part(key, model)]):
            problem = f'the file has {min(unexpected)}, and the model no such layer'
    except RuntimeError as error:
        problem = '' if in_part else str(error).partition('\n\t')[2].partition('\n')[0].strip('.')
        if not (problem or in_part):
            raise
    if problem:
        raise UserError(
            f'checkpoint {path} does not fit the config: {problem}; use its own config (weights of '
            f"a backbone alone are for model.backbone.init_cfg=dict(type='Pretrained', checkpoint={path!r}))"
        )


def _is_part(key: str, model: Any) -> bool:
    """True for a weight below a part that the model has too: of a deeper backbone, not of a part for training alone."""
    first, _, rest = key.partition('.')
    return not rest or first in dict(model.named_children())


class CheckCheckpointHook(Hook):
    """Hook that examines a checkpoint between its loading by the Runner and its use; nothing is read for this.

    Args:
        path: The checkpoint.
        use: ``'start'``: a training may start from one that fits in part; ``'resume'``: it needs its own; ``'test'``:
            all weights are needed.
    """

    priority = 'VERY_LOW'

    def __init__(self, path: str, use: str) -> None:
        self.path = path
        self.use = use

    def after_load_checkpoint(self, runner: Any, checkpoint: Any) -> None:
        """Look at what the Runner has loaded; models whose parts are spread over processes are not compared.

        Raises:
            UserError: It holds no weights of the model, or not all; or it lacks the state of the training.
        """
        if not isinstance(runner, Runner) or isinstance(runner.model, FullyShardedDataParallel):
            return
        check_fit(runner.model, self.path, checkpoint, in_part=self.use == 'start')
        needed = {'meta', 'message_hub', 'optimizer'} if self.use == 'resume' else set()
        if any(getattr(hook, 'save_optimizer', True) is False for hook in runner.hooks):  # as the config wants it
            needed.discard('optimizer')
        if missing := sorted(needed - checkpoint.keys()):
            raise UserError(
                f'checkpoint {self.path} holds the weights of a model and not the state of a training (it lacks '
                f'{", ".join(missing)}), so no training can resume from it; to start from it leave out --resume and '
                f'give --cfg-options load_from={self.path}'
            )


def check_checkpoint(path: str) -> None:
    """Raise for a checkpoint file that is missing, damaged, or wants to run code."""
    try:
        checkpoints.check_checkpoint(path)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise UserError(str(error)) from error


def find_checkpoint(cfg: Config) -> str | None:
    """The checkpoint that a training starts from, or resumes from; None where it starts from scratch.

    To resume without a name, ``last_checkpoint`` of the work dir names the file. Where the work dir was moved or copied
    since, its own file of this name counts, though the named one may still be there; where there is none, or it is cut
    short, the work dir's newest whole checkpoint. The config is pointed to it.
    """
    if not cfg.get('resume') or cfg.get('load_from'):
        return cfg.get('load_from')
    folder = Path(cfg.work_dir)
    pointer = folder / 'last_checkpoint'
    path = pointer.read_text().strip() if pointer.is_file() else ''
    own = folder / Path(path).name
    if '://' in path or (path and Path(path).exists() and (not own.exists() or own.samefile(path))):
        return path
    newest = sorted(folder.glob('*_[0-9]*.pth'), key=lambda file: file.stat().st_mtime, reverse=True)
    cfg.load_from = next((str(file) for file in (own, *newest) if file.is_file() and _is_whole(str(file))), None)
    cfg.resume = cfg.load_from is not None
    return cfg.load_from


def _is_whole(path: str) -> bool:
    with suppress(UserError):
        check_checkpoint(path)
        return True
    return False
