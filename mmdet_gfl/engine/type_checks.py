"""Types that no registry knows and arguments that no class takes: what a typo in a config comes to, in one sentence.

A type is looked for in the registry that MMEngine will build it from, and only where that is certain: in the places of
:data:`PLACES`. What else a config may hold under ``type`` (a kind of NMS, a layer, an augmentation of another package)
is none of ours.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import mmengine.registry as roots
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string
from torch.utils.data import DataLoader

from mmdet_gfl import registry as registries
from mmdet_gfl.engine.data_checks import nodes

_DATASET = r'(train|val|test)_dataloader\.dataset\.((dataset|datasets\.\d+)\.)*'
#: Keys of the dicts (a pattern) and the registry of MMEngine that each is built from.
PLACES: tuple[tuple[str, Registry], ...] = (
    (r'model\.((detector|module)\.)*', roots.MODELS),
    (r'model\.(.+\.)?(backbone|neck|\w+_head|data_preprocessor|loss_\w+)\.(\d+\.)?', roots.MODELS),
    (r'model\.(.+\.)?(anchor_generator|prior_generator|bbox_coder|assigner|sampler)\.(\d+\.)?', roots.TASK_UTILS),
    (_DATASET, roots.DATASETS),
    (_DATASET + r'pipeline\.\d+\.', roots.TRANSFORMS),
    (r'(train|val|test)_dataloader\.(batch_)?sampler\.', roots.DATA_SAMPLERS),
    (r'(custom_hooks\.\d+|default_hooks\.\w+)\.', roots.HOOKS),
    (r'(val|test)_evaluator\.((metrics\.)?\d+\.)?', roots.METRICS),
    (r'optim_wrapper\.', roots.OPTIM_WRAPPERS),
    (r'optim_wrapper\.optimizer\.', roots.OPTIMIZERS),
    (r'param_scheduler\.(\d+\.)?', roots.PARAM_SCHEDULERS),
    (r'(train|val|test)_cfg\.', roots.LOOPS),
    (r'visualizer\.', roots.VISUALIZERS),
    (r'visualizer\.vis_backends\.\d+\.', roots.VISBACKENDS),
)


def unknown_type(cfg: Config) -> str | None:
    """A sentence on the first type of the config that is not registered; None where all are, or may be.

    A config's ``custom_imports`` must have been followed, as ``Config.fromfile`` does.
    """
    for key, node in _nodes_of_this_scope(cfg._cfg_dict):
        name = node.get('type')
        if not isinstance(name, str):
            continue
        if name.startswith('mmdet_gfl.'):
            sentence = None if get_object_from_string(name) is not None else _unknown_part(name)
        elif '.' not in name and not _is_built_elsewhere(key, node, cfg):
            sentence = _unknown_class(name, key, cfg.get('default_scope', 'mmengine'))
        else:
            continue
        if sentence:
            return f'{key}type={name!r} is unknown; {sentence}'
    return None


def _nodes_of_this_scope(value: Any, key: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """All dicts inside ``value`` with their dotted keys, but for those that are another package's by ``_scope_``."""
    if isinstance(value, dict) and '_scope_' not in value:
        yield key, value
        for name, child in value.items():
            yield from _nodes_of_this_scope(child, f'{key}{name}.')
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _nodes_of_this_scope(child, f'{key}{index}.')


def _is_built_elsewhere(key: str, node: dict[str, Any], cfg: Config) -> bool:
    """Whether the dict at this key is an evaluator that holds metrics, or an optimizer whose constructor is named."""
    return 'metrics' in node or (key == 'optim_wrapper.optimizer.' and 'constructor' in cfg.optim_wrapper)


def _unknown_part(name: str) -> str | None:
    """The way out where no part of this package has this name, given with its prefix."""
    known = {part: f'mmdet_gfl.{part}' for part in _ours()}
    bare = name.rpartition('.')[2]
    if name == known.get(bare):
        return None
    return _nearest(bare, known) or f'known: {", ".join(sorted(known.values()))}'


def _unknown_class(name: str, key: str, scope: str | None) -> str | None:
    """The way out where the registry from which this key is built, if that is certain, has no such name."""
    registry = next((registry for pattern, registry in PLACES if re.fullmatch(pattern, key)), None)
    if registry is None:
        return None
    with registry.switch_scope_and_registry(scope) as scoped:
        if _knows(scoped, name):
            return None
        known = {part: f'mmdet_gfl.{part}' for part in _ours()} | {part: part for part in _names(scoped)}
    if scope == 'mmengine' and _is_mmdetections(registry, name):
        return "MMDetection has it, and default_scope is not set: write default_scope = 'mmdet' in the config"
    nearest, own = _nearest(name, known), 'a class of your own must be registered, and its module be in custom_imports'
    return f'{nearest} ({own})' if nearest else own


def _ours() -> set[str]:
    """Names of all registered parts of this package."""
    found: set[str] = set()
    for registry in vars(registries).values():
        if isinstance(registry, Registry) and registry.scope == 'mmdet_gfl':
            registry.import_from_location()
            found.update(registry.module_dict)
    return found


def _knows(registry: Registry, name: str) -> bool:
    try:
        return registry.get(name) is not None
    except RuntimeError:  # MMEngine's answer where it has also tried the name as an import path
        return False


def _is_mmdetections(registry: Registry, name: str) -> bool:
    with registry.switch_scope_and_registry('mmdet') as scoped:
        return _knows(scoped, name)


def _names(registry: Registry | None) -> Iterator[str]:
    """Names of a registry and of those above it."""
    while registry is not None:
        yield from registry.module_dict
        registry = registry.parent


def _nearest(name: str, known: dict[str, str]) -> str:
    """``did you mean X?``, with what stands for the name next to this one; empty where none is near."""
    by_lower = {other.lower(): meant for other, meant in known.items()}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f'did you mean {by_lower[close[0]]}?' if close else ''


def misplaced_loss(cfg: Config) -> str | None:
    """A sentence on a Quality Focal Loss in a head that knows one-hot labels only; None where there is none."""
    hosts = _hosts_of_hard_labels()
    for key, node in nodes(cfg.get('model'), 'model.'):
        loss = node.get('loss_cls')
        kind = loss.get('type') if isinstance(loss, dict) else None
        host = hosts.get(_model_class(node.get('type'))) if kind is not None else None
        if host is not None and getattr(_model_class(kind), '__name__', '') == 'QualityFocalLoss':
            return (
                f'{key}loss_cls.type={kind!r} learns the IoU of the boxes, which '
                f"{host.stock_head.__name__} does not supply; use {key}type='mmdet_gfl.{host.__name__}'"
            )
    return None


def _model_class(kind: Any) -> Any:
    """The class that MMDetection builds a part of a model from: of a name, an import path, or itself."""
    if not isinstance(kind, str):
        return kind
    with roots.MODELS.switch_scope_and_registry('mmdet') as registry:
        try:
            return registry.get(kind)
        except RuntimeError:  # MMEngine's answer where it has also tried the name as an import path
            return None


def _hosts_of_hard_labels() -> dict[type, Any]:
    """Heads of MMDetection whose class loss learns one-hot labels, and our hosts that stand for them."""
    hosts = registries.hosts_of_stock_heads().items()
    return {stock: host for stock, host in hosts if not registries.MODELS.get(host.baseline_quality).soft_labels}


# Arguments ----------------------------------------------------------------------------------------------------------

#: What Python says of an argument that a class does not take; the second, of a class that takes none at all.
UNEXPECTED = re.compile(r"(?:^|[.\s])(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
NO_ARGUMENTS = re.compile(r'(?:^|\s)(\w+)\(\) takes no arguments')


def unknown_argument(cfg: Config, error: TypeError) -> str | None:
    """A sentence on the argument that the building of a part has failed on; None where it is none of the config's.

    Args:
        cfg: The config.
        error: What was raised.
    """
    said = UNEXPECTED.search(str(error)) or NO_ARGUMENTS.search(str(error))
    if said is None:
        return None
    owner, *arguments = said.groups()
    for key, node in nodes(cfg._cfg_dict, ''):
        given = [name for name in arguments or node if name in node and name != 'type']
        for cls in _classes(node, key) if given else ():
            if owner in (base.__name__ for base in cls.__mro__):
                return f'{key}{given[0]}={node[given[0]]!r}: {cls.__name__} takes {_takes(cls, given[0], key)}'
    return None


def _takes(cls: type, argument: str, key: str) -> str:
    """What the class takes instead of this argument, given at this key."""
    known = arguments_of(cls)
    close = difflib.get_close_matches(argument, known, n=1)
    if close:
        return f'no {argument}; did you mean {key}{close[0]}?'
    return f'no {argument}; it takes {", ".join(known)}' if known else 'no arguments'


def _classes(node: dict[str, Any], key: str) -> list[type]:
    """The classes that ``type`` of this dict may stand for: that name in any registry; torch's for a data loader."""
    name = node.get('type')
    if name is None and re.fullmatch(r'(train|val|test)_dataloader\.', key):
        return [DataLoader]
    if isinstance(name, type):
        return [name]
    every = [registry for registry in vars(roots).values() if isinstance(registry, Registry)]
    found = [cls for root in every for cls in _registered(root, str(name).rpartition('.')[2])]
    return [cls for cls in found if isinstance(cls, type)]


def _registered(registry: Registry, name: str) -> Iterator[Any]:
    """What the registry and those below it hold under this name."""
    if name in registry.module_dict:
        yield registry.module_dict[name]
    for child in registry.children.values():
        yield from _registered(child, name)


def arguments_of(cls: type) -> list[str]:
    """Names of the arguments of a class, including those that it passes on to its bases by ``**kwargs``."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if '__init__' not in vars(base) or base is object:
            continue
        parameters = inspect.signature(vars(base)['__init__']).parameters.values()
        names.update((p.name, None) for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    names.pop('self', None)
    return list(names)
