"""Turn a config with one of MMDetection's dense heads into one with the GFL head that stands for it.

Which heads these are, and what a GFL head takes, is asked of the registered hosts and of the head when it is built;
no host is named here. Heads are built on torch's ``meta`` device, which takes no memory and no time.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
import keyword
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmdet import __file__ as mmdet_file
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.engine.launch import read_config
from mmdet_gfl.engine.type_checks import arguments_of
from mmdet_gfl.models.boxes import BoxRepresentation
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.losses import takes_quality
from mmdet_gfl.models.quality import Quality
from mmdet_gfl.registry import MODELS, hosts_of_stock_heads, registered_hosts

PREFIX = 'mmdet_gfl.'
#: Where a detector holds the head that is converted; the parts that hold a whole detector.
HEAD_KEYS, WRAPPER_KEYS = ('bbox_head', 'rpn_head'), ('detector', 'module')
#: Arguments of stock heads that concern the host's own coding of a box, and its branch.
CODING_KEYS, BRANCH_KEYS = ('bbox_coder', 'reg_decoded_bbox', 'exp_on_reg'), ('loss_centerness',)
#: Arguments of transforms that say how large an image is after them.
SIZE_KEYS = ('scale', 'scales', 'crop_size', 'img_scale', 'size')
#: Length of a line of the written config.
LINE = 100
#: The class loss of hard labels, where the stock head's own learns qualities.
FOCAL_LOSS = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
#: The loss of boxes in their code, as RetinaNet and FoveaBox have it, where the config's compares boxes.
CODE_LOSS = dict(type='SmoothL1Loss', beta=0.11, loss_weight=1.0)
#: The coding of ATSS's boxes, for a head with anchors that was trained on boxes of another kind.
ANCHOR_CODER = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2])


@dataclass
class Conversion:
    """Conversion of one head of a config.

    Attributes:
        key: The dotted key of the head, as ``model.bbox_head``.
        stock: Config of the head before.
        converted: Config of the GFL head, complete.
        host: Class of the GFL head.
        own: The config has a GFL head already, which is moved to another quality or box.
        notes: What changes, a sentence each.
    """

    key: str
    stock: dict[str, Any]
    converted: dict[str, Any]
    host: Any
    own: bool
    notes: list[str] = field(default_factory=list)


def find_config(name: str) -> tuple[Path, str | None]:
    """The file of a config, and its name below MMDetection's ``configs`` where it is one of the installed ones.

    Args:
        name: A path, or the name of a config that the installed MMDetection ships, with or without folder and ``.py``.

    Raises:
        UserError: There is no such file and no such name, or several configs have it; names those that are close.
    """
    if Path(name).is_file():
        return Path(name), None
    root = Path(mmdet_file).parent / '.mim' / 'configs'
    paths = [path.relative_to(root).with_suffix('').as_posix() for path in root.rglob('*.py')]
    known = [path for path in paths if not path.startswith('_')]
    wanted = name.removeprefix('mmdet::').removeprefix('configs/').removesuffix('.py')
    found = sorted(path for path in known if wanted in (path, path.rpartition('/')[2]))
    if len(found) == 1:
        return root / f'{found[0]}.py', f'{found[0]}.py'
    if found:
        raise UserError(f'{name!r} names several configs of MMDetection; add the folder: {", ".join(found)}')
    by_name = {path.rpartition('/')[2]: path for path in sorted(known)}
    close = difflib.get_close_matches(wanted.rpartition('/')[2], by_name, n=3, cutoff=0.5)
    hint = f'did you mean {" or ".join(by_name[other] for other in close)}?' if close else 'give its path'
    raise UserError(f'{name!r} is no file and no config that the installed MMDetection ships; {hint}')


def read(name: str) -> tuple[Config, Path, str | None]:
    """A config with its file and name, see :func:`find_config`."""
    path, shipped = find_config(name)
    return read_config(str(path)), path, shipped


def convert_config(
    cfg: Config, quality: str | None = None, box: str | None = None, own: bool = False
) -> list[Conversion]:
    """Convert the heads of a config; the config itself is not changed.

    Args:
        cfg: The config of a detector.
        quality: Name of a registered quality, with or without ``mmdet_gfl.``; None: the host's default. ``'baseline'``:
            that of the stock head.
        box: Name of a registered box representation likewise; None: ``GeneralBox``, with DFL.
        own: Take GFL heads too, and move them to that quality and box, whose arguments stay where the type does.

    Raises:
        UserError: The config has no head that can be converted, or quality, box and host do not fit together.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    cfg = Config(cfg.to_dict(), filename=cfg.filename)  # names in place of the classes of a pure-Python config
    for key, value, kind in (('quality', quality, Quality), ('box', box, BoxRepresentation)):
        if value is not None and (key, value) != ('quality', 'baseline'):
            _check_name(key, str(value), kind)
    model = cfg.get('model')
    if not isinstance(model, dict):
        raise UserError(f'{cfg.filename}: the config has no model')
    heads = list(_heads(model, 'model.'))
    for key, node, _ in heads:
        if not own and _is_gfl(node):
            raise UserError(
                f'{key}.type={_name(node["type"])} is a GFL head already; its keys quality and box choose the rest'
            )
    found = [(key, node, owner) for key, node, owner in heads if _stock_class(node) is not None]
    if not found:
        raise UserError(_nothing_to_convert(heads, model))
    return [_convert(key, node, owner, cfg, quality, box) for key, node, owner in found]


def apply(cfg: Config, conversions: list[Conversion]) -> Config:
    """A copy of a config with its heads replaced."""
    cfg = copy.deepcopy(cfg)
    for conversion in conversions:
        *parents, name = conversion.key.split('.')
        node = cfg._cfg_dict
        for parent in parents:
            node = node[parent]
        node[name] = ConfigDict(copy.deepcopy(conversion.converted))
    cfg.custom_imports = _imports(cfg)
    return cfg


# Which head ---------------------------------------------------------------------------------------------------------


def _heads(model: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any]]]:
    """The heads of a detector and of those that it wraps: dotted key, config, and the detector's config."""
    for name in HEAD_KEYS:
        if isinstance(model.get(name), dict):
            yield f'{key}{name}', model[name], model
    for name in WRAPPER_KEYS:
        if isinstance(model.get(name), dict):
            yield from _heads(model[name], f'{key}{name}.')


def class_of(kind: Any) -> Any:
    """The class of a ``type`` in a config; None where it is unknown."""
    if isinstance(kind, str):
        try:
            return MMDET_MODELS.get(kind)
        except (ImportError, RuntimeError):
            return None
    return kind


def _is_gfl(node: Mapping[str, Any]) -> bool:
    kind = class_of(node.get('type'))
    return isinstance(kind, type) and issubclass(kind, DenseGFLMixin)


def _stock_class(node: Mapping[str, Any]) -> type | None:
    """The head that is converted: MMDetection's, or the one that a user's derives from, or a GFL head; else None."""
    kind = class_of(node.get('type'))
    if not isinstance(kind, type):
        return None
    hosts = hosts_of_stock_heads()
    if kind in hosts or _is_gfl(node):
        return kind
    own = not kind.__module__.startswith('mmdet.')
    return next((base for base in kind.__mro__ if base in hosts), None) if own else None


def _nothing_to_convert(heads: list[Any], model: Mapping[str, Any]) -> str:
    """The sentence for a config without a head that can be converted."""
    accepted = ', '.join(stock.__name__ for stock in hosts_of_stock_heads())
    if not heads:
        return (
            f'model.type={_name(model.get("type"))} has no bbox_head or rpn_head of its own, so there is nothing to '
            f'convert; accepted heads: {accepted}'
        )
    key, node, _ = heads[0]
    kind = class_of(node.get('type'))
    hosts = hosts_of_stock_heads()
    bases = [base.__name__ for base in getattr(kind, '__mro__', ()) if base in hosts]
    nearest = f'; the nearest that can is {bases[0]}' if bases else ''
    two_stage = ' of a two-stage detector' if 'roi_head' in model else ''
    return f'{key}.type={_name(node.get("type"))}{two_stage} has no GFL variant{nearest}; accepted: {accepted}'


def _name(kind: Any) -> str:
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def _check_name(key: str, name: str, kind: type) -> None:
    MODELS.import_from_location()
    known = {other: cls for other, cls in MODELS.module_dict.items() if isinstance(cls, type) and issubclass(cls, kind)}
    bare = name.removeprefix(PREFIX)
    if bare not in known:
        close = difflib.get_close_matches(bare, known, n=1)
        hint = f'did you mean {close[0]}? ' if close else ''
        raise UserError(f'--{key} {name} is unknown; {hint}accepted: {", ".join(sorted(known))}')


# What it becomes ----------------------------------------------------------------------------------------------------


def _convert(
    key: str, node: dict[str, Any], owner: Mapping[str, Any], cfg: Config, quality: str | None, box: str | None
) -> Conversion:
    stock: Any = _stock_class(node)
    own = _is_gfl(node)
    host: Any = stock if own else hosts_of_stock_heads()[stock]
    if quality == 'baseline':
        quality = None if not host.free_axes else host.baseline_quality
    quality, box = (name and name.removeprefix(PREFIX) for name in (quality, box))
    given = {name: value for name, value in node.items() if name not in ('type', 'quality', 'box')}
    given = {name: value for name, value in given.items() if value is not None or not name.startswith('loss_')}
    head_cfg = _on_host(host, given, quality, box)
    if own:
        _keep_axes(head_cfg, node, host)
    problem = None
    try:
        head = _build_own(key, head_cfg, owner) if own else _build(key, head_cfg, owner)
    except UserError as error:  # with_deform of FoveaBox, as an example
        if box is not None or own:
            raise
        problem, head_cfg = error, _on_host(host, given, quality, 'DiracBox')
        try:
            head = _build(key, head_cfg, owner)
        except UserError:
            raise problem from None
    _drop_superseded(head_cfg, head)
    _drop_unused(key, head_cfg, head, owner)
    on_boxes = head.box.uses_host_coder and head.host_coder.on_boxes
    if (own or not host.free_axes) and on_boxes and isinstance(head.bbox_coder, DeltaXYWHBBoxCoder):
        head_cfg.setdefault('bbox_coder', dict(ANCHOR_CODER))
    conversion = Conversion(key, dict(node), head_cfg, type(head), own)
    conversion.notes = list(_notes(conversion, class_of(node['type']), stock, head, owner, cfg))
    if problem is not None:
        conversion.notes.insert(1, f'DiracBox, since GeneralBox does not fit here: {problem}')
    return conversion


def _on_host(host: Any, given: dict[str, Any], quality: str | None, box: str | None) -> dict[str, Any]:
    """Config of a host's head from the arguments of its stock head."""
    if not host.free_axes and (quality not in (None, host.default_quality) or box not in (None, 'GeneralBox')):
        return _on_plane(host, given, quality, box)
    head_cfg: dict[str, Any] = dict(type=PREFIX + host.__name__, **given)
    if host.free_axes:
        if quality not in (None, host.default_quality):
            head_cfg['quality'] = dict(type=PREFIX + quality)
        if box not in (None, 'GeneralBox'):
            head_cfg['box'] = dict(type=PREFIX + box)
    soft = MODELS.get(quality or host.default_quality).soft_labels
    if not soft and given.get('loss_cls') and takes_quality(given['loss_cls']):
        head_cfg['loss_cls'] = dict(FOCAL_LOSS)
    return head_cfg


def _on_plane(host: Any, given: dict[str, Any], quality: str | None, box: str | None) -> dict[str, Any]:
    """Config for another quality or box than those of a host without free axes."""
    free = free_host(host)
    if takes_quality(given.get('loss_cls') or {}):
        given = dict(given, loss_cls=dict(given['loss_cls'], use_sigmoid=True))  # of GFocalHead, which takes False too
    if box in (None, 'GeneralBox'):
        others: list[Any] = list(registered_hosts().values())
        for other in others:  # a host of that quality keeps the names of the layers
            if issubclass(other, free) and not other.free_axes and other.default_quality == quality:
                return dict(type=PREFIX + other.__name__, **_accepted(given, other))
    rest = _accepted(given, free)
    rest.pop('init_cfg', None)  # it names the layers of the other head
    rest.pop('bbox_coder', None)
    head_cfg = _on_host(free, rest, quality, box)
    if box in (None, 'GeneralBox'):
        own = {name: given[name] for name in ('reg_max', 'loss_dfl') if name in given}
        head_cfg['box'] = dict(type=f'{PREFIX}GeneralBox', **own)
    return head_cfg


def free_host(host: Any) -> Any:
    """The host whose quality and box are free: the given one, or the one that it derives from, as GFL from ATSS."""
    return next(base for base in host.__mro__ if getattr(base, 'free_axes', False))


def _accepted(given: dict[str, Any], host: type) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in arguments_of(host)}


def _keep_axes(head_cfg: dict[str, Any], node: Mapping[str, Any], host: Any) -> None:
    """Keep a GFL head's class, and the arguments of its quality and box, where they stay what they are."""
    if head_cfg['type'] == PREFIX + host.__name__:
        head_cfg['type'] = node['type']
    for axis, default in (('quality', host.default_quality), ('box', 'GeneralBox')):
        if node.get(axis) and _name(node[axis]['type']) == _name(head_cfg.get(axis, dict(type=default))['type']):
            head_cfg[axis] = dict(node[axis])


def _build_own(key: str, head_cfg: dict[str, Any], owner: Mapping[str, Any]) -> Any:
    """The head of a GFL config at another point; a box loss that does not fit there becomes :data:`CODE_LOSS`."""
    try:
        return _build(key, head_cfg, owner)
    except UserError:
        head = _build(key, dict(head_cfg, loss_bbox=CODE_LOSS), owner)
        head_cfg['loss_bbox'] = dict(CODE_LOSS)
        return head


def _build(key: str, head_cfg: Mapping[str, Any], owner: Mapping[str, Any]) -> Any:
    """The head of a config, on the device ``meta``.

    Raises:
        UserError: It cannot be built.
    """
    parts: dict[str, Any] = {name: owner.get(name) for name in ('train_cfg', 'test_cfg')}
    if key.endswith('rpn_head'):  # as MMDetection's detectors hand them on
        parts = {name: value.get('rpn', value) if value else value for name, value in parts.items()}
        parts['num_classes'] = head_cfg.get('num_classes', 1)
    with torch.device('meta'), _quiet():
        try:
            return MMDET_MODELS.build(ConfigDict(copy.deepcopy(dict(head_cfg, **parts))))
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f'{key}: {_name(head_cfg["type"])} cannot be built from this config: {error}') from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what heads log and warn while they are built for a look."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(disabled)


def _drop_superseded(head_cfg: dict[str, Any], head: Any) -> None:
    """Replace or remove the losses that the head does not use."""
    loss_cls = head_cfg.get('loss_cls')
    if loss_cls and head.quality.soft_labels and not takes_quality(loss_cls):
        del head_cfg['loss_cls']
    given, used = head_cfg.get('loss_bbox'), head.loss_bbox
    if given is None or head.box.uses_host_coder or _name(given['type']) == type(used).__name__:
        return
    if 'loss_bbox' in vars(head.box):  # the representation's own, which needs no config here
        del head_cfg['loss_bbox']
    else:  # said in full, since without it some hosts have an IoU loss by default, which would be used
        head_cfg['loss_bbox'] = dict(type=type(used).__name__, loss_weight=_weight(used))


def _drop_unused(key: str, head_cfg: dict[str, Any], head: Any, owner: Mapping[str, Any]) -> None:
    """Remove arguments without effect: of a branch that is not there, of a coding that is not used."""
    unused = [*(() if head.quality.branch else BRANCH_KEYS), *(() if head.box.uses_host_coder else CODING_KEYS)]
    for name in [name for name in unused if name in head_cfg]:
        rest = {other: value for other, value in head_cfg.items() if other != name}
        try:
            trial = _build(key, rest, owner)
        except UserError:  # the host asks for it all the same
            continue
        if getattr(trial.bbox_coder, 'clip_border', True) == getattr(head.bbox_coder, 'clip_border', True):
            del head_cfg[name]


# What is said about it ----------------------------------------------------------------------------------------------


def _notes(
    conversion: Conversion, kind: type, stock: type, head: Any, owner: Mapping[str, Any], cfg: Config
) -> Iterator[str]:
    if kind is not stock:
        yield (
            f'warning: {kind.__name__} derives from {stock.__name__}, and what it overrides is not in '
            f'{_name(conversion.converted["type"])}; derive your class from the latter to have it'
        )
    yield (
        f'{conversion.key}: {kind.__name__} becomes {conversion.converted["type"]}: {type(head.quality).__name__} '
        f'and {type(head.box).__name__}'
    )
    yield from _loss_notes(conversion, head)
    if head.quality.soft_labels:
        yield (
            'a score now means class x IoU, so score thresholds do not carry over: choose yours again with '
            'tools/analysis_tools/select_thresholds.py; score_thr of test_cfg can stay'
        )
    if math.isfinite(head.box.max_distance):
        yield from _reach(head, cfg)
    yield _loadable(conversion, stock, head, owner)


def _loss_notes(conversion: Conversion, head: Any) -> Iterator[str]:
    for name in ('loss_cls', 'loss_bbox', 'loss_centerness'):
        before = conversion.stock.get(name)
        unused = name == 'loss_centerness' and not head.quality.branch
        now = None if unused else getattr(head, name, None)
        if before is None or (now is not None and type(now).__name__ == _name(before['type'])):
            continue
        after = 'is gone' if now is None else f'is replaced by {type(now).__name__}, weight {_weight(now):g}'
        yield f'{name}={_name(before["type"])} {after}'
    if 'loss_dfl' not in conversion.stock and getattr(head, 'loss_dfl', None) is not None:
        yield f'loss_dfl={type(head.loss_dfl).__name__} is new, weight {_weight(head.loss_dfl):g}'


def _weight(loss: nn.Module) -> float:
    return float(getattr(loss, 'loss_weight', 1.0))


def _reach(head: Any, cfg: Config) -> Iterator[str]:
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
            'reach all' if needed <= n else f"take box=dict(type='{PREFIX}GeneralBox', reg_max={needed}) to reach all"
        )
        text += f'; images have up to {size} pixels: {fits}'
    yield f'{text}; tools/analysis_tools/regression_targets.py measures the share beyond it on your data'


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


def _loadable(conversion: Conversion, stock: type, head: Any, owner: Mapping[str, Any]) -> str:
    """Name the layers that a checkpoint of the stock head does not fill."""
    built = _build(conversion.key, dict(conversion.stock, type=stock), owner)
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    names = {new: old for old, new in getattr(head, 'aliases', {}).items()}
    lacking = set()
    for name, tensor in head.state_dict().items():
        layer, _, rest = name.partition('.')
        if tensor.shape not in (shapes.get(name), shapes.get(f'{names.get(layer)}.{rest}')) and rest != 'project':
            lacking.add(name.rpartition('.')[0])
    layers = f' but {", ".join(sorted(lacking))}' if lacking else ''
    return f'load_from=CHECKPOINT of the stock head fills all layers{layers}'


# The file -----------------------------------------------------------------------------------------------------------


def child_config(path: Path, shipped: str | None, cfg: Config, conversions: list[Conversion], out: Path) -> str:
    """The text of a config that inherits from another and replaces its heads.

    Args:
        path: The config that it inherits from.
        shipped: Its name below MMDetection's ``configs``, where it is one of the installed ones.
        cfg: The same, read.
        conversions: See :func:`convert_config`.
        out: Where the text will be written.

    Raises:
        UserError: It is a pure-Python config that Python cannot import from there.
    """
    opening = f'# {path.name} with a GFL head, by `python -m mmdet_gfl convert`'
    imports = f'custom_imports = {_code(_imports(cfg))}'
    if Config._is_lazy_import(str(path)):
        heads = [f'{_subscript(found.key)} = {_code(found.converted)}' for found in conversions]
        return '\n'.join((opening, _read_base(path, out), imports, *heads, ''))
    if not shipped:
        base = os.path.relpath(path, out.parent)
    elif importlib.util.find_spec('pkg_resources') is not None and re.match(r'\w+/', shipped):
        base = f'mmdet::{shipped}'
    else:  # MMEngine needs pkg_resources for that, and a folder without a dot
        base = str(path)
    changes = [f'{name} = {_code(value)}' for name, value in _nested(conversions).items()]
    return '\n'.join((opening, f'_base_ = {base!r}', imports, *changes, ''))


def _imports(cfg: Config) -> dict[str, Any]:
    """``custom_imports`` of a config with this package, which supplies what ``mmcv-lite`` lacks."""
    given = (cfg.get('custom_imports') or {}).get('imports', [])
    others = [given] if isinstance(given, str) else [name for name in given if name != 'mmdet_gfl']
    return dict(imports=[*others, 'mmdet_gfl'], allow_failed_imports=False)


def _nested(conversions: list[Conversion]) -> dict[str, Any]:
    """The changes of a config, nested as it is."""
    tree: dict[str, Any] = {}
    for conversion in conversions:
        node = tree
        *parents, name = conversion.key.split('.')
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = _difference(conversion)
    return tree


def _difference(conversion: Conversion) -> dict[str, Any]:
    """Head in a child config: the differences, or all of it where keys are removed."""
    stock, converted = conversion.stock, conversion.converted
    if stock.keys() - converted.keys():
        return dict(_delete_=True, **converted)
    changed = {key: value for key, value in converted.items() if stock.get(key) != value}
    return {
        key: dict(_delete_=True, **value) if isinstance(value, dict) and key in stock else value
        for key, value in changed.items()
    }


def _read_base(path: Path, out: Path) -> str:
    """The lines that inherit from a pure-Python config."""
    *folders, file = Path(os.path.relpath(path.resolve(), out.resolve().parent)).parts
    up = folders.count('..')
    names = [*folders[up:], file.removesuffix('.py')]
    wrong = next((name for name in names if not name.isidentifier() or keyword.iskeyword(name)), None)
    if wrong is not None:
        raise UserError(f'{path} is a pure-Python config, and Python cannot import {wrong!r}; rename it')
    module = f'{"." * (up + 1)}{".".join(names)}'
    return f'from mmengine.config import read_base\n\nwith read_base():\n    from {module} import *\n'


def _subscript(key: str) -> str:
    first, *rest = key.split('.')
    return first + ''.join(f'[{name!r}]' for name in rest)


def _code(value: Any, indent: int = 0) -> str:
    """A value as a config writes it, on one line where it fits, in the order that it has."""
    if isinstance(value, dict):
        named = all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
        start, end = ('dict(', ')') if named else ('{', '}')
        parts = [f'{key}=' if named else f'{key!r}: ' for key in value]
        parts = [part + _code(child, indent + 4) for part, child in zip(parts, value.values())]
    elif isinstance(value, (list, tuple)):
        start, end = '[]' if isinstance(value, list) else ('(', ',)' if len(value) == 1 else ')')
        parts = [_code(child, indent + 4) for child in value]
    else:
        return repr(value)
    line = f'{start}{", ".join(parts)}{end}'
    if '\n' not in line and indent + len(line) <= LINE:
        return line
    lines = ''.join(f'{" " * (indent + 4)}{part},\n' for part in parts)
    return f'{start}\n{lines}{" " * indent}{end.lstrip(",")}'
