"""Presets of a training: as in the paper on COCO, or shrunk on a tenth of it or on the built-in shapes."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mmengine.config import Config

from mmdet_gfl.engine import launch
from mmdet_gfl.shipped_configs import CONFIG_DIR

from . import small
from .mini import Mini, shrink
from .plan import Plan
from .results import Scores, scores_of
from .rows import RowError

#: GPUs of the paper's trainings; a row's batch is meant for them.
PAPER_GPUS = 8


@dataclass(frozen=True)
class Preset(Plan):
    """Settings by which the paper's rows are trained.

    Attributes:
        batch_size: Images per GPU; None: an eighth of the row's batch, or the small preset's batch shared out.
    """

    batch_size: int | None = None

    def sizes(self) -> dict[str, Any]:
        """Settings that results must share to stand in one table."""
        if self.mini is not None:
            return dict(preset=self.name, mini=asdict(self.mini), options=self.options)
        if self.name == 'small':
            return dict(preset=self.name, images=self.batch or small.BATCH, options=self.options)
        # Any number of GPUs will do as long as a step sees as many images.
        batch = dict(share=self.gpus / PAPER_GPUS) if self.batch_size is None else dict(images=self.batch)
        return dict(preset=self.name, **batch, options=self.options)

    @property
    def batch(self) -> int:
        """Images per step that are the same for every row; 0 where each has its own."""
        return self.gpus * (self.batch_size or 0)

    def config(self, name: str, seed: int) -> Config:
        """A row's config, resolved.

        Args:
            name: Relative to ``configs/``.
            seed: Of initialisation, order and augmentation.

        Raises:
            RowError: The batch does not fit the number of GPUs, or an option the config.
        """
        row = Config.fromfile(CONFIG_DIR / name)
        if self.mini is not None:
            cfg = shrink(row, self.mini, seed)
            cfg.train_dataloader.batch_size = _share(self.mini.batch_size, self.gpus, self.name)
        elif self.name == 'small':
            cfg = small.shrink(row, seed)
            cfg.train_dataloader.batch_size = self.batch_size or _share(small.BATCH, self.gpus, self.name)
        else:
            cfg = as_in_paper(row, name, self.batch_size)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # its notes come once per row, and again in the row's log
                launch.merge_options(cfg, copy.deepcopy(self.options))
        except launch.UserError as error:
            raise RowError(str(error)) from error
        return instrument(cfg, seed)

    def scores_of(self, entry: dict[str, Any]) -> Scores:
        """The paper's columns from the values that an evaluation has logged."""
        return scores_of(entry)


def choose(
    name: str,
    gpus: int | None,
    batch_size: int | None,
    mini: dict[str, Any],
    options: dict[str, Any] | None,
    devices: int,
    configs: Sequence[str] = (),
) -> Preset:
    """The preset of a command line.

    Args:
        name: ``'paper'``, ``'small'`` or ``'mini'``.
        gpus: As asked for, 1 or more; None: 8 for the paper's, else 1.
        batch_size: Images per GPU, as asked for, 1 or more.
        mini: Fields of :class:`Mini` that differ from its defaults.
        options: ``--cfg-options``.
        devices: GPUs of this machine; -1 where the rows train elsewhere.
        configs: Rows whose COCO data is asked for where GPUs are missing, to name both at once.

    Raises:
        RowError: The machine has not as many GPUs, a size is invalid, or an option belongs to the other preset, or is
            not a finite number.
    """
    default = PAPER_GPUS if name == 'paper' else 1
    count = default if gpus is None else gpus
    if name != 'mini' and mini:
        raise RowError(f'{", ".join(mini)}: sizes of the mini preset; --preset {name} takes --cfg-options')
    if name == 'mini' and batch_size is not None:
        raise RowError(
            '--batch-size belongs to --preset paper and small; here it is --mini batch_size=..., for all GPUs together'
        )
    check_finite(options or {})
    preset = Preset(name, count, resized(mini) if name == 'mini' else None, options or {}, batch_size)
    if 0 <= devices < count and (devices or gpus is None) and (name == 'paper' or count > 1):
        raise RowError(
            f'a row of --preset {name} takes {count} GPUs{" by default" if gpus is None else ""}, and this machine has '
            f'{devices or "none"}; give --gpus {max(devices, 1)}: the lr is scaled to the smaller batch'
            + _and_its_data(preset, configs)
        )
    return preset


def check_finite(options: dict[str, Any]) -> None:
    """Reject ``--cfg-options`` that the config file of a row cannot hold.

    Raises:
        RowError: A number in one of them is infinite or not a number.
    """
    for key, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError as error:
            raise RowError(
                f'--cfg-options {key}={value}: the config file of a row cannot hold inf or nan; give a finite number, '
                'as 1e9 where there is to be no limit'
            ) from error


def _and_its_data(preset: Preset, configs: Sequence[str]) -> str:
    """Data that the paper preset lacks, as the end of a sentence; the shapes of the mini preset are drawn."""
    found = (missing(preset.config(config, 0)) for config in configs if preset.mini is None)
    problem = next(filter(None, found), None)
    return f'. Its data is missing too: {problem}' if problem else ''


def missing(cfg: Config) -> str | None:
    """Data that a training of this config lacks, as a sentence; None if it is complete."""
    try:
        launch.check_data(cfg, 'train', 'val')
    except launch.UserError as error:
        return str(error)
    return None


def resized(values: dict[str, Any]) -> Mini:
    """The mini preset with other sizes.

    Raises:
        RowError: There is no such size, or its value is not one.
    """
    known = asdict(Mini())
    for key, value in values.items():
        if key not in known:
            raise RowError(f'--mini {key}={value}: there is no such size; there are {", ".join(known)}')
        kind, optional = type(known[key]), known[key] == 0
        number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not number or not (0 < value < math.inf or optional and value == 0):
            least = '0 or a number' if optional else 'a number'
            raise RowError(f'--mini {key}={value}: give {least} above 0, {"an integer" if kind is int else "finite"}')
    if values.get('ema', 0) >= 1:
        raise RowError(f'--mini ema={values["ema"]}: give a momentum below 1')
    if values.get('pretrained', 0) not in (0, 1):
        raise RowError(f'--mini pretrained={values["pretrained"]}: give 0 or 1')
    mini = replace(Mini(), **values)
    if mini.pretrained:
        from . import frozen  # imports MMDetection's layers, which takes seconds

        frozen.check_installed()
    try:
        _ = mini.shapes
    except ValueError as error:
        raise RowError(f'--mini: {error}') from error
    return mini


def _share(batch: int, gpus: int, preset: str) -> int:
    """A GPU's part of the batch: a step of a shrunk row sees the same images on one GPU or on many."""
    if batch % gpus:
        raise RowError(f'--gpus {gpus} does not divide the batch of {batch} images of the {preset} preset')
    return batch // gpus


def as_in_paper(cfg: Config, name: str, batch_size: int | None = None) -> Config:
    """Change a shipped config so that a GPU has its share of a step's images; return it.

    Its lr belongs to ``auto_scale_lr.base_batch_size`` images, 8 GPUs' together, and MMEngine scales it to what the
    GPUs really see.

    Raises:
        RowError: The config does not say which batch its lr is for.
    """
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not base:
        raise RowError(f'{name} has no auto_scale_lr.base_batch_size, the batch that its lr is for')
    cfg.train_dataloader.batch_size = batch_size or max(1, base // PAPER_GPUS)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    return cfg


def instrument(cfg: Config, seed: int) -> Config:
    """Change a config so that its training is seeded, recorded, and tested as it is validated; return it."""
    cfg.randomness = dict(seed=seed)
    loader = cfg.train_dataloader
    loader.worker_init_fn = dict(type='mmdet_gfl_seed_worker')
    loader.persistent_workers = False  # each epoch starts workers of its own seed
    cfg.test_dataloader, cfg.test_evaluator = copy.deepcopy(cfg.val_dataloader), copy.deepcopy(cfg.val_evaluator)
    cfg.test_cfg = cfg.get('test_cfg') or dict(type='TestLoop')
    imports = cfg.get('custom_imports') or dict(imports=[])
    names = imports['imports'] if isinstance(imports['imports'], (list, tuple)) else [imports['imports']]
    cfg.custom_imports = dict(imports=[*names, 'mmdet_gfl.benchmark.hooks'], allow_failed_imports=False)
    hooks = [
        dict(type='mmdet_gfl.EpochSeedHook', seed=seed),
        *({'type': f'mmdet_gfl.{n}Hook'} for n in ('Finite', 'Where', 'Progress')),
    ]
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
    return Config(cfg._cfg_dict)


def lr_notes(configs: Sequence[Config], gpus: int) -> list[str]:
    """A sentence for each kind of row whose lr is scaled, since its batch is not the one that its lr is for."""
    notes: Counter[str] = Counter()
    for cfg in configs:
        scale: Any = cfg.get('auto_scale_lr') or {}
        per_gpu = cfg.train_dataloader.get('batch_size')
        if scale.get('enable') and gpus * per_gpu != scale.base_batch_size:
            lr = cfg.optim_wrapper.optimizer.lr
            scaled = lr * gpus * per_gpu / scale.base_batch_size
            batches = f'{scale.base_batch_size} images per step; with {gpus} x {per_gpu}'
            notes[f'lr {lr:g} is for {batches} it is scaled to {scaled:g}'] += 1
    return [f'{note} ({count} row{"s" * (count > 1)})' for note, count in notes.items()]
