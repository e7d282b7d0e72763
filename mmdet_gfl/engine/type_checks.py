"""Errors of building the parts of a config, in one sentence each: a type, an argument or a loss that does not fit.

All that a training uses is built before its first step, so nothing is validated beforehand: MMEngine's own error is
explained where it arises. What builds is never refused.
"""

from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.registry as roots
from mmdet.models.losses import QualityFocalLoss
from mmengine.config import Config
from mmengine.registry import Registry
from torch import nn
from torch.utils.data import DataLoader

from mmdet_gfl import registry as registries
from mmdet_gfl.engine.errors import UserError

#: MMEngine's words for a type that no registry has, and Python's for an argument that a class does not take; the last
#: is of a class that takes none at all.
UNKNOWN = re.compile(r'^(\S+) is not in the (?:(\w+)::)?([\w ]+) registry|^Failed to get (\S+)$')
UNEXPECTED = re.compile(r"(?:^|[.\s])(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
NO_ARGUMENTS = re.compile(r'(?:^|\s)(\w+)\(\) takes no arguments')


def nodes(value: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All dicts inside ``value``, each with the dotted key that leads to it."""
    if isinstance(value, dict):
        yield key, value
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for name, child in children:
        yield from nodes(child, f'{key}{name}.')


@contextmanager
def friendly_errors(cfg: Config) -> Iterator[None]:
    """Explain what building a model, a data set or a hook fails on, where it is an entry of the config.

    Raises:
        UserError: No registry has a type of the config, a class does not take an argument of it, or a part of this
            package refuses one.
    """
    try:
        yield
    except (KeyError, RuntimeError, TypeError) as error:
        sentence = unknown_type(cfg, error) or unknown_argument(cfg, error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    except ValueError as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not Path(frames[-1].filename).is_relative_to(Path(__file__).parents[1]):
            raise
        raise UserError(str(error)) from error


def unknown_type(cfg: Config, error: Exception) -> str | None:
    """A sentence on the type that the building of a part has failed on; None where it is not the config's.

    Args:
        cfg: The config.
        error: MMEngine's error.
    """
    said = UNKNOWN.search(str(error.args[0])) if error.args else None
    if said is None:
        return None
    name, scope = said[1] or said[4], said[2]
    key = next((key for key, node in nodes(cfg._cfg_dict, '') if node.get('type') == name), None)
    if key is None:
        return None
    own = 'a class of your own must be registered, and its module be in custom_imports'
    places = (registry for registry in _registries() if said[3] in (None, registry.name))
    parts = sorted(_parts(places), key=lambda part: part[0] != 'mmdet_gfl')  # others of one name go before ours
    prefixed = name.startswith('mmdet_gfl.')
    known = {
        part: f'mmdet_gfl.{part}' if owner == 'mmdet_gfl' else part
        for owner, part, _ in parts
        if owner == 'mmdet_gfl' or not prefixed
    }
    close = _nearest(name.rpartition('.')[2], known)
    if scope == 'mmengine' and 'default_scope' not in cfg and close == name:
        own = "MMDetection has it, and default_scope is not set: write default_scope = 'mmdet' in the config"
    elif close:
        own = f'did you mean {known[close]}? ({own})'
    elif prefixed:
        own = f'known: {", ".join(sorted(known.values()))}'
    return f'{key}type={name!r} is unknown; {own}'


def _registries() -> list[Registry]:
    return [registry for registry in vars(roots).values() if isinstance(registry, Registry)]


def _parts(places: Iterable[Registry]) -> Iterator[tuple[str | None, str, Any]]:
    """The scope, name and class of all that registries and those below them hold."""
    for registry in places:
        registry.import_from_location()
        yield from ((registry.scope, name, cls) for name, cls in registry.module_dict.items())
        yield from _parts(registry.children.values())


def _nearest(name: str, known: Iterable[str]) -> str | None:
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def unknown_argument(cfg: Config, error: Exception) -> str | None:
    """A sentence on the argument that the building of a part has failed on; None where it is not the config's.

    Args:
        cfg: The config.
        error: Python's error.
    """
    said = UNEXPECTED.search(str(error)) or NO_ARGUMENTS.search(str(error))
    if said is None or not isinstance(error, TypeError):
        return None
    owner, *arguments = said.groups()
    for key, node in nodes(cfg._cfg_dict, ''):
        given = [name for name in arguments or node if name in node and name != 'type']
        for cls in _classes(node, key) if given else ():
            if owner in (base.__name__ for base in cls.__mro__):
                return f'{key}{given[0]}={node[given[0]]!r}: {cls.__name__} takes {_takes(cls, given[0], key)}'
    return None


def _takes(cls: type, argument: str, key: str) -> str:
    """The arguments that the class takes instead of this one, given at this key."""
    known = arguments_of(cls)
    close = _nearest(argument, known)
    if close:
        return f'no {argument}; did you mean {key}{close}?'
    return f'no {argument}; it takes {", ".join(known)}' if known else 'no arguments'


def _classes(node: dict[str, Any], key: str) -> list[type]:
    """The classes that ``type`` of this dict may stand for: that name in any registry; torch's for a data loader."""
    name = node.get('type')
    if name is None and re.fullmatch(r'(train|val|test)_dataloader\.', key):
        return [DataLoader]
    if isinstance(name, type):
        return [name]
    bare = str(name).rpartition('.')[2]
    return [cls for _, other, cls in _parts(_registries()) if other == bare and isinstance(cls, type)]


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


def check_losses(model: nn.Module) -> None:
    """Raise for a Quality Focal Loss in a head that knows one-hot labels only, which would train towards nonsense."""
    hosts = registries.hosts_of_stock_heads()
    for name, module in model.named_modules():
        host, loss = hosts.get(type(module)), getattr(module, 'loss_cls', None)
        if host is None or registries.MODELS.get(host.baseline_quality).soft_labels:
            continue
        if isinstance(loss, QualityFocalLoss):
            raise UserError(
                f'model.{name}.loss_cls is a {type(loss).__name__} and learns the IoU of the boxes, which '
                f"{type(module).__name__} does not supply; use model.{name}.type='mmdet_gfl.{host.__name__}'"
            )
