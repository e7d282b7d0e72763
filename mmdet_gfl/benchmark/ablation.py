"""Rows of the paper's table 3 on a user's own config: which heads they have, and how each is trained."""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import METRICS as MMDET_METRICS
from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.registry import init_default_scope

from mmdet_gfl import conversion
from mmdet_gfl.conversion.notes import axes_of
from mmdet_gfl.engine import launch
from mmdet_gfl.engine.files import write
from mmdet_gfl.registry import hosts_of_stock_heads

from . import locks
from .plan import Plan
from .presets import check_finite, instrument
from .results import Scores, read
from .rows import RowError
from .shorten import shorten

#: Entries of a log beside what an evaluator gives.
NO_SCORES = frozenset({'data_time', 'time', 'step', 'epoch', 'iter', 'memory', 'lr', 'base_lr'})
BASELINE = 'baseline'


@dataclass(frozen=True)
class AblationRow:
    """A row of an ablation.

    Attributes:
        name: Of its folder.
        quality: Name of a registered quality; ``'baseline'``: the host's own; None: the host's default.
        box: Name of a registered box representation; None for the user's config as it is.
        box_weight: Argument of the quality; None: its default.
    """

    name: str
    quality: str | None = None
    box: str | None = None
    box_weight: str | None = None


#: The rows of table 3, and GFLv2.
ROWS = {
    row.name: row
    for row in (
        AblationRow(BASELINE),
        AblationRow('qfl', None, 'DiracBox'),
        AblationRow('dfl', 'baseline', 'GeneralBox'),
        AblationRow('gfl', None, 'GeneralBox'),
        AblationRow('gflv2', 'DistributionGuidedQuality', 'GeneralBox'),
    )
}


def choose_rows(names: Sequence[str] | None, own: Sequence[str]) -> list[AblationRow]:
    """The rows of a command line.

    Args:
        names: Of :data:`ROWS`; None: all of them.
        own: Texts of ``--row``, as ``NAME:quality=...,box=...,box_weight=...``.

    Raises:
        RowError: There is no such row, one is given twice, or a text is not a row.
    """
    for name in names or ():
        if name not in ROWS:
            close = difflib.get_close_matches(name.lower(), ROWS, n=1, cutoff=0.3)
            hint = f'did you mean {close[0]}? ' if close else ''
            raise RowError(f'--rows {name}: no such row; {hint}accepted: {", ".join(ROWS)}, any other by --row')
    rows = [ROWS[name] for name in (ROWS if names is None else names)] + [read_row(text) for text in own]
    given: set[str] = set()
    for row in rows:
        if row.name in given or (row.name in ROWS and row is not ROWS[row.name]):
            raise RowError(f'row {row.name} is given twice, or named as one of {", ".join(ROWS)}; rename or remove it')
        given.add(row.name)
    return rows


def read_row(text: str) -> AblationRow:
    """A row from ``NAME:quality=QUALITY,box=BOX,box_weight=WEIGHT``, any key optional, at least one given.

    Raises:
        RowError: The text is not of that form.
    """
    name, _, rest = text.partition(':')
    pairs = [pair.partition('=') for pair in rest.split(',')] if rest else []
    given = {key: value for key, _, value in pairs if value}
    known = given.keys() <= {'quality', 'box', 'box_weight'}
    if not re.fullmatch(r'[\w-]+', name) or len(given) != max(len(pairs), 1) or not known:
        raise RowError(
            f'--row {text}: write NAME:quality=QUALITY,box=BOX,box_weight=WEIGHT, one or more of the three, with a '
            'NAME of letters, digits, _ and -'
        )
    return AblationRow(name, **{'box': 'GeneralBox', **given})


@dataclass(frozen=True, kw_only=True)
class Ablation(Plan):
    """A user's config and what its rows share.

    Attributes:
        stem: Name of the config, and of the rows' folder.
        cfg: The config with ``--cfg-options``.
        rows: By name.
        epochs: Of a quick look; None: the config's.
        fraction: Share of the training images; None: all.
    """

    name: str = 'ablation'
    stem: str
    cfg: Config
    rows: dict[str, AblationRow]
    epochs: int | None = None
    fraction: float | None = None

    def sizes(self) -> dict[str, Any]:
        """Settings that results must share to stand in one table: the config as a whole, and the size of a step."""
        resolved = json.loads(json.dumps(self.cfg.to_dict(), default=str))
        batch = self.gpus * self.cfg.train_dataloader.get('batch_size', 1)
        return dict(
            preset=self.name,
            config=self.stem,
            images_per_step=batch,
            epochs=self.epochs or self.cfg.train_cfg.max_epochs,
            fraction=self.fraction or 1.0,
            resolved=resolved,
        )

    def config(self, name: str, seed: int) -> Config:
        """The resolved config of a row.

        Args:
            name: As :meth:`path_of` gives it.
            seed: Of initialisation, order and augmentation.
        """
        cfg = copy.deepcopy(self.short)
        conversions = self.converted(self.rows[Path(name).name])
        if conversions is not None:
            cfg = conversion.apply(cfg, conversions)
        cfg.default_hooks = cfg.get('default_hooks') or {}
        cfg.default_hooks['checkpoint'] = dict(type='mmdet_gfl.SafeCheckpointHook', interval=1, max_keep_ckpts=1)
        cfg.load_from, cfg.resume = cfg.get('load_from'), False
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmdet_gfl.StockSSDHook')]
        return instrument(cfg, seed)

    def scores_of(self, entry: dict[str, Any]) -> Scores:
        """The evaluator's numbers as it gives them, by their full names.

        COCO's -1, for a score that is not defined, becomes None; COCO and LVIS give nothing where no image has a
        detection, which is 0.

        Raises:
            ValueError: Another evaluator gives no number.
        """
        evaluator, kind = first_evaluator(self.cfg)
        coco = isinstance(kind, type) and issubclass(kind, CocoMetric)
        scores = {
            key: None if coco and value < 0 else float(value)
            for key, value in entry.items()
            if key not in NO_SCORES and isinstance(value, (int, float))
        }
        if scores:
            return scores
        if not coco:
            raise ValueError('val_evaluator gives no number')
        metric = evaluator.get('metric', 'bbox')
        first = metric if isinstance(metric, str) else metric[0]
        prefix = evaluator.get('prefix') or kind.default_prefix
        return {f'{prefix}/{first}_{"AP" if issubclass(kind, LVISMetric) else "mAP"}': 0.0}

    def path_of(self, row: str) -> str:
        """Folder of a row below the work dir."""
        return f'{self.stem}/{row}'

    @cached_property
    def short(self) -> Config:
        """The config with the epochs and the images of this ablation."""
        return shorten(self.cfg, self.epochs, self.fraction)

    @cached_property
    def host(self) -> Any:
        """The GFL head that stands for the config's own."""
        return type(self.convert(None, None)[0].head)

    def converted(self, row: AblationRow) -> list[conversion.Conversion] | None:
        """The conversion of a row; None for the user's config as it is.

        Raises:
            RowError: The row does not fit the host.
        """
        if row.box is None:
            return None
        free = conversion.free_host(self.host)  # of GFL the ATSS head
        quality = {None: free.default_quality, 'baseline': free.baseline_quality}.get(row.quality, row.quality)
        try:
            return self.convert(quality, row.box, row.box_weight)
        except launch.UserError as error:
            raise RowError(f'row {row.name} does not fit this config: {error}') from error

    @cached_property
    def convert(self) -> Callable[..., list[conversion.Conversion]]:
        """The config's conversion to a quality, a box and a box weight; each is made once."""
        convert = partial(conversion.convert_config, self.cfg, own=True)
        return cache(convert)

    @cached_property
    def stock(self) -> list[conversion.Conversion]:
        """The conversion to the point of the plane that the config's head stands on."""
        found = self.convert(None, None)[0]
        if found.own:
            axes = (_type_name(found.stock.get(axis)) for axis in ('quality', 'box'))
            return self.convert(*axes)
        return self.convert('baseline', 'DiracBox') if self.host.free_axes else [found]

    def repeated(self) -> dict[str, str]:
        """Rows whose head is that of an earlier one, by name: the earlier row's name."""
        heads = {name: self.identity(row) for name, row in self.rows.items()}
        first = {name: next(other for other, head in heads.items() if head == own) for name, own in heads.items()}
        return {name: other for name, other in first.items() if name != other}

    def identity(self, row: AblationRow) -> dict[str, Any]:
        """A head config that is equal for rows with equal heads.

        The stock head is the host's own point as long as its losses are the same there and it is MMDetection's class,
        since what a class of the user's overrides is nowhere else. A GFL head of the config's is a point itself.
        """
        conversions = self.converted(row)
        if conversions is not None:
            return _point(conversions[0])
        stock, point = self.stock[0].stock, _point(self.stock[0])
        if self.stock[0].own:
            return point
        kept = all(point.get(key) == value for key, value in stock.items() if key.startswith('loss_'))
        return point if kept and conversion.class_of(stock['type']) in hosts_of_stock_heads() else stock

    def describe(self, row: AblationRow) -> str:
        """The head of a row in words."""
        conversions = self.converted(row)
        if conversions is None:
            name, own = _type_name(self.stock[0].stock), self.stock[0].own
            gfl = '' if self.host.free_axes or own else ', which is GFL: the other rows are its ablations'
            return f'{name} as in the config{": " + axes_of(self.stock[0].head) if own else gfl}'
        return f'{conversions[0].converted["type"]}: {axes_of(conversions[0].head)}'


def _point(found: conversion.Conversion) -> dict[str, Any]:
    """Config of a head with its quality by name, and the box weights that this comes to."""
    quality = dict(type=conversion.PREFIX + type(found.head.quality).__name__) | found.converted.get('quality', {})
    return dict(found.converted, quality=dict(quality, box_weight=found.head.box_weight))


def _type_name(part: Any) -> str | None:
    """Class name of a part's config; None without a part."""
    return str(part['type']).rpartition('.')[2] if part else None


def read_ablation(
    config: str,
    rows: Sequence[AblationRow],
    gpus: int | None = None,
    options: dict[str, Any] | None = None,
    epochs: int | None = None,
    fraction: float | None = None,
    devices: int = -1,
) -> Ablation:
    """The ablation of a command line.

    Args:
        config: A path, or the name of a config that MMDetection ships.
        rows: See :func:`choose_rows`.
        gpus: Per row; None: 1.
        options: ``--cfg-options``.
        epochs: Of a quick look.
        fraction: Share of the training images, above 0 and at most 1.
        devices: GPUs of this machine; -1 where the rows train elsewhere.

    Raises:
        RowError: The config cannot be ablated, or a number does not fit; one sentence says why.
        UserError: It cannot be read, or has no head that can be converted.
    """
    if fraction is not None and not 0 < fraction <= 1:
        raise RowError(f'--fraction {fraction:g}: give a share of the training images above 0 and at most 1')
    if 0 < devices < (gpus or 1):
        raise RowError(f'--gpus {gpus}: this machine has {devices}')
    check_finite(options or {})
    read_cfg, path, _ = conversion.read(config)
    cfg = Config(read_cfg.to_dict(), filename=str(path))  # names in place of the classes of a pure-Python config
    launch.merge_options(cfg, copy.deepcopy(options or {}))
    ablation = Ablation(
        stem=path.stem,
        cfg=cfg,
        rows={row.name: row for row in rows},
        gpus=gpus or 1,
        options=options or {},
        epochs=epochs,
        fraction=fraction,
    )
    check_config(cfg, config)
    conversions = ablation.convert(None, None)
    if len(conversions) > 1:
        keys = ', '.join(found.key for found in conversions)
        raise RowError(f'{config} has {len(conversions)} heads that could change ({keys}); an ablation is of one head')
    return ablation


def check_config(cfg: Config, config: str) -> None:
    """Refuse a config whose training cannot be recorded and compared.

    Raises:
        RowError: It has no epochs, no validation set, or no evaluator that gives numbers.
    """
    for key in ('train_dataloader', 'val_dataloader', 'val_cfg', 'val_evaluator'):
        if not cfg.get(key):
            raise RowError(f'{config} has no {key}: an ablation compares what val_evaluator measures after training')
    loop = cfg.get('train_cfg') or {}
    if not loop.get('max_epochs'):
        raise RowError(f'{config}: train_cfg={dict(loop)} has no max_epochs; an ablation takes a training in epochs')
    _, kind = first_evaluator(cfg)
    if kind is None:
        raise RowError(
            f'{config}: val_evaluator gives no number to compare, only files; give an evaluator with a metric, '
            'as CocoMetric or VOCMetric'
        )


def first_evaluator(cfg: Config) -> tuple[dict[str, Any], Any]:
    """The config and class of the first evaluator that gives numbers; ``({}, None)`` where none does."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    given = cfg.val_evaluator
    for node in given if isinstance(given, (list, tuple)) else [given]:
        kind = MMDET_METRICS.get(node['type'])
        writes_only = node.get('format_only') or (isinstance(kind, type) and issubclass(kind, DumpResults))
        if not writes_only:
            return dict(node), kind or node['type']
    return {}, None


def write_rows(ablation: Ablation, work_dir: Path) -> None:
    """Add the rows of an ablation to those that the work dir knows, for its status and report."""
    with locks.waiting(work_dir / '.prepare.lock', lambda: None):
        known, repeated = read(work_dir / 'rows.json'), ablation.repeated()
        for name, row in ablation.rows.items():
            known[name] = dict(path=ablation.path_of(name), head=ablation.describe(row), same_as=repeated.get(name))
        write(work_dir / 'rows.json', json.dumps(known, indent=1))


def read_rows(work_dir: Path) -> dict[str, dict[str, Any]]:
    """The rows of a work dir by name: ``path``, ``head`` in words, and ``same_as``, the row that stands for it or None.

    Raises:
        RowError: It is not the work dir of an ablation.
    """
    rows = read(work_dir / 'rows.json')
    if not rows:
        reason = 'is not the work dir of an ablation' if work_dir.is_dir() else 'does not exist'
        raise RowError(f'--work-dir {work_dir} {reason}; name the one of an `ablate.py run`')
    return rows


def listing(ablation: Ablation, seeds: Sequence[int], work_dir: Path) -> str:
    """Rows, heads and folders of an ablation, in lines."""
    repeated, width = ablation.repeated(), max(map(len, ablation.rows))
    heads = {name: ablation.describe(row) for name, row in ablation.rows.items()}
    wide = max(map(len, heads.values()))
    lines = [f'{ablation.cfg.filename}, seeds {", ".join(map(str, seeds))}:']
    for name, head in heads.items():
        where = f'is {repeated[name]} on this host: not run' if name in repeated else work_dir / ablation.path_of(name)
        lines.append(f'  {name:{width}}  {head:{wide}}  {where}')
    return '\n'.join(lines)
