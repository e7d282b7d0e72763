"""A quick look at a user's training: fewer epochs with the schedule scaled to them, or a share of the images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_gfl.engine.type_checks import nodes

#: Arguments of parameter schedulers that are points in time or spans of it.
SCHEDULE_KEYS = ('begin', 'end', 'milestones', 'T_max', 'total_iters', 'total_steps')


def shorten(cfg: Config, epochs: int | None, fraction: float | None) -> Config:
    """A config for a quick look; the given one stays as it is.

    Args:
        cfg: With an epoch-based training.
        epochs: Of the training; milestones, warm-ups and switches keep their share of it. None: as in the config.
        fraction: Share of the training images, above 0 and at most 1, the same images for every row and seed. Spans in
            iterations shrink with it. None: all.
    """
    cfg = copy.deepcopy(cfg)
    share = 1.0 if epochs is None else epochs / cfg.train_cfg.max_epochs
    if epochs is not None:
        _scale_epochs(cfg, epochs, share)
    for _, scheduler in nodes(cfg.get('param_scheduler'), ''):  # one, a list, or lists per optimizer
        by_epoch = scheduler.get('by_epoch', True)
        scale_span(scheduler, share if by_epoch else share * (fraction or 1.0))
    if fraction is not None:
        for node in innermost(cfg.train_dataloader.dataset):
            node['indices'] = share_of(node, fraction)
    return cfg


def _scale_epochs(cfg: Config, epochs: int, share: float) -> None:
    loop = cfg.train_cfg
    for point in loop.get('dynamic_intervals') or ():
        point[0] = max(1, round(point[0] * share))
    loop.max_epochs = epochs
    loop.val_interval = min(loop.get('val_interval', 1), epochs)
    for hook in cfg.get('custom_hooks') or ():
        if 'switch_epoch' in hook:
            hook['switch_epoch'] = max(1, round(hook['switch_epoch'] * share))


def scale_span(scheduler: dict[str, Any], share: float) -> None:
    """Scale the points in time of a scheduler in place; what was a span stays one of at least one step."""
    if share == 1.0:
        return
    for key in SCHEDULE_KEYS:
        value = scheduler.get(key)
        if isinstance(value, (list, tuple)):
            scheduler[key] = [max(1, round(point * share)) for point in value]
        elif isinstance(value, int) and value > 0:
            scheduler[key] = max(1, round(value * share))
    if 'end' in scheduler:
        scheduler['end'] = max(scheduler['end'], scheduler.get('begin', 0) + 1)


def innermost(dataset: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Data sets that read files, inside wrappers and concatenations."""
    if 'dataset' in dataset:
        yield from innermost(dataset['dataset'])
    elif 'datasets' in dataset:
        for part in dataset['datasets']:
            yield from innermost(part)
    else:
        yield dataset


def share_of(dataset: dict[str, Any], fraction: float) -> list[int]:
    """Indices of a random share of a data set, after its filter; the same at every call."""
    unlimited = copy.deepcopy(dict(dataset))
    given = unlimited.pop('indices', None)
    whole = range(len(DATASETS.build(dict(unlimited, pipeline=[]))))
    if isinstance(given, int):  # the first images, or with a negative number the last
        given = whole[:given] if given >= 0 else whole[given:]
    given = whole if given is None else given
    kept = max(1, round(len(given) * fraction))
    return [int(given[index]) for index in sorted(np.random.default_rng(0).permutation(len(given))[:kept])]
