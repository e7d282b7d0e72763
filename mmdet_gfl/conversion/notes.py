"""Notes on a conversion: what changes, a sentence each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from mmdet_gfl.registry import MODELS, hosts_of_stock_heads

from .heads import HeadConfig, bare_name, weight_of

#: Arguments of transforms that say how large an image is after them.
SIZE_KEYS = ('scale', 'scales', 'crop_size', 'img_scale', 'size')


def notes(found: HeadConfig, name: str, head: Any, cfg: Config) -> Iterator[str]:
    """The notes.

    Args:
        found: The head before.
        name: The ``type`` of the head after.
        head: The same, built.
        cfg: The whole config.
    """
    if found.kind is not found.stock:
        yield (
            f'warning: {found.kind.__name__} derives from {found.stock.__name__}, and what it overrides is not in '
            f'{bare_name(name)}; derive your class from the latter to have it'
        )
    yield f'{found.key}: {found.kind.__name__} becomes {name}: {axes_of(head)}'
    yield from _loss_notes(found, head)
    if head.quality.soft_labels and not _learns_iou(found):
        yield (
            'a score now means class x IoU, so score thresholds do not carry over: choose yours again with '
            'tools/analysis_tools/select_thresholds.py; score_thr of test_cfg can stay'
        )
    if math.isfinite(head.box.max_distance):
        yield _largest_distance(head, cfg)
    yield _loadable(found, head)


def _learns_iou(found: HeadConfig) -> bool:
    """True if the class score of the head before learns the IoU already."""
    if found.is_gfl:
        return bool(found.build(found.node).quality.soft_labels)
    return bool(MODELS.get(hosts_of_stock_heads()[found.stock].baseline_quality).soft_labels)


def axes_of(head: Any) -> str:
    """Quality and box of a head in words, with the quality's box weights where these are not 'auto'."""
    weight = '' if head.quality.box_weight == 'auto' else f' with {head.quality.box_weight} box weights'
    return f'{type(head.quality).__name__}{weight} and {type(head.box).__name__}'


def _loss_notes(found: HeadConfig, head: Any) -> Iterator[str]:
    for name in ('loss_cls', 'loss_bbox', 'loss_centerness'):
        before = found.node.get(name)
        unused = name == 'loss_centerness' and not head.quality.branch
        now = None if unused else getattr(head, name, None)
        if before is None or (now is not None and type(now).__name__ == bare_name(before['type'])):
            continue
        after = 'is gone' if now is None else f'is replaced by {type(now).__name__}, weight {weight_of(now):g}'
        yield f'{name}={bare_name(before["type"])} {after}'
    if 'loss_dfl' not in found.node and getattr(head, 'loss_dfl', None) is not None:
        yield f'loss_dfl={type(head.loss_dfl).__name__} is new, weight {weight_of(head.loss_dfl):g}'


def _largest_distance(head: Any, cfg: Config) -> str:
    """Compare the largest distance of a box side with the largest image of the training."""
    strides, n = head.level_strides, head.box.max_distance
    text = (
        f'a box side reaches {n:g} strides: {n * min(strides):g} pixels at stride {min(strides)}, '
        f'{n * max(strides):g} at stride {max(strides)}'
    )
    size = max(_last_sizes((cfg.get('train_dataloader') or {}).get('dataset')), default=0)
    if size:
        needed = math.ceil(size / max(strides))
        fits = (
            'reach all' if needed <= n else f"take box=dict(type='mmdet_gfl.GeneralBox', reg_max={needed}) to reach all"
        )
        text += f'; images have up to {size} pixels: {fits}'
    return f'{text}; tools/analysis_tools/regression_targets.py measures the share beyond it on your data'


def _last_sizes(dataset: Any) -> Iterator[int]:
    """Sides of the images that the last step with a size in a data set's pipeline gives, of all its parts."""
    if isinstance(dataset, (list, tuple)):
        for part in dataset:
            yield from _last_sizes(part)
    elif isinstance(dataset, dict):
        sizes: list[list[int]] = []
        for step in dataset.get('pipeline') or ():
            values = [step.get(key) for key in SIZE_KEYS] if isinstance(step, dict) else []
            sizes.append(list(_numbers(values)))
        last = next((found for found in reversed(sizes) if found), None)
        if last is not None:
            yield max(last)
        else:
            yield from _last_sizes([dataset.get('dataset'), dataset.get('datasets')])


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _numbers(part)


def _loadable(found: HeadConfig, head: Any) -> str:
    """Name the layers that a checkpoint of the stock head does not fill."""
    built = found.build(dict(found.node, type=found.stock))
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    names = {new: old for old, new in getattr(head, 'aliases', {}).items()}
    lacking = set()
    for name, tensor in head.state_dict().items():
        layer, _, rest = name.partition('.')
        if tensor.shape not in (shapes.get(name), shapes.get(f'{names.get(layer)}.{rest}')) and rest != 'project':
            lacking.add(name.rpartition('.')[0])
    layers = f' but {", ".join(sorted(lacking))}' if lacking else ''
    return f'load_from=CHECKPOINT of the stock head fills all layers{layers}'
