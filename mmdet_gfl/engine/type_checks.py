"""Errors of building the parts of a config, in one sentence each: a type, an argument or a loss that does not fit.

All that a training uses is built before its first step, so nothing is validated beforehand: MMEngine's own error is
explained where it arises. What builds is never refused.
"""

from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.registry as roots
from mmdet.models.losses import QualityFocalLoss
from mmengine.config import Config
from mmengine.registry import Registry
from torch import nn

from mmdet_gfl import registry as registries
from mmdet_gfl.compat.checkpoint import CheckpointError
from mmdet_gfl.compat.operators import MissingOperatorError
from mmdet_gfl.engine.errors import UserError, some

PACKAGE = Path(__file__).parents[1]
#: MMEngine's words for a type that no registry has, and Python's for an argument that a class does not take.
UNKNOWN = re.compile(r'^(\S+) is not in the (?:(\w+)::)?([\w ]+) registry|^Failed to get (\S+)$')
UNEXPECTED = re.compile(r"__init__\(\) got an unexpected keyword argument '(\w+)'")
#: Compiled mmcv's words for an operator that was not built for the device of its input.
NOT_BUILT = re.compile(r'^(\w+?)(?:_impl)?: implementation for device (\S+) not found')


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
        UserError: No registry has a type of the config, a class does not take an argument of it, a part of this package
            refuses one, or mmcv has no such operator here.
    """
    try:
        yield
    except (FileNotFoundError, KeyError, RuntimeError, TypeError, ValueError) as error:
        place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        sentence = unknown_type(cfg, error) or unknown_argument(cfg, error) or unavailable_operator(error)
        ours = (CheckpointError, FileNotFoundError, ValueError)
        if isinstance(error, ours) and place.is_relative_to(PACKAGE):
            sentence = str(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def unknown_type(cfg: Config, error: Exception) -> str | None:
    """A sentence on the type that the building of a part has failed on; None where it is not the config's.

    Args:
        cfg: The config.
        error: MMEngine's error.
    """
    said = UNKNOWN.search(str(error.args[0])) if error.args else None
    name = str(said and (said[1] or said[4]))
    key = next((key for key, node in nodes(cfg._cfg_dict, '') if node.get('type') == name), None)
    if said is None or key is None:
        return None
    places = (place for place in vars(roots).values() if isinstance(place, Registry) and said[3] in (None, place.name))
    parts = [(scope, part) for place in places for scope, part in _parts(place)]
    known = {part: f'mmdet_gfl.{part}' for scope, part in parts if scope == 'mmdet_gfl'}
    if not name.startswith('mmdet_gfl.'):
        known |= {part: part for scope, part in parts if scope != 'mmdet_gfl'}
    lower = {part.lower(): part for part in known}
    close = [lower[part] for part in difflib.get_close_matches(name.rpartition('.')[2].lower(), lower, n=1)]
    hint = 'a class of your own must be registered, and its module be in custom_imports'
    if close == [name] and said[2] == 'mmengine' and 'default_scope' not in cfg:
        hint = "MMDetection has it, and default_scope is not set: write default_scope = 'mmdet' in the config"
    elif close:
        hint = f'did you mean {known[close[0]]}? ({hint})'
    return f'{key}type={name!r} is unknown; {hint}'


def _parts(registry: Registry) -> Iterator[tuple[str | None, str]]:
    """The scope and name of all that a registry and those below it hold."""
    registry.import_from_location()
    yield from ((registry.scope, name) for name in registry.module_dict)
    for child in registry.children.values():
        yield from _parts(child)


def unknown_argument(cfg: Config, error: Exception) -> str | None:
    """Python's error on an argument that a class does not take, and the keys where it stands; None if nowhere."""
    said = UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    keys = [f'{key}{said[1]}' for key, node in nodes(cfg._cfg_dict, '') if said and said[1] in node]
    return f'{error}; the config sets it in {some(keys)}' if keys else None


def unavailable_operator(error: Exception) -> str | None:
    """A sentence on an operator that mmcv lacks here, and the layer that needs it; None for other errors."""
    if said := NOT_BUILT.search(str(error)):
        lite = '`pip uninstall -y mmcv && pip install "mmcv-lite<2.2"`, for which mmdet_gfl has NMS, soft-NMS, sigmoid '
        way = f'{lite}focal loss and deformable convolution, or an mmcv built for {said[2].partition(":")[0]}'
        sentence = f'the installed mmcv has no {said[1]} for {said[2]}; use {way}'
    elif isinstance(error, MissingOperatorError):
        sentence = str(error)
    else:
        return None
    called = [frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__)]
    layers = [one for one in called if isinstance(one, nn.Module)]
    if not layers:  # a backward pass
        return sentence
    model = getattr(layers[0], 'module', layers[0])  # wrapped for several processes
    names = {layer: f'model.{name}' for name, layer in model.named_modules() if name}
    return f'{names.get(layers[-1], "model")} ({type(layers[-1]).__name__}): {sentence}'


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
