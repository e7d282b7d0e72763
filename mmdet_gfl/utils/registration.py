"""Finding and building the parts of the package."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any, TypeVar

from mmdet.registry import MODELS as MMDET_MODELS

from mmdet_gfl.registry import MODELS

Part = TypeVar('Part')


def import_submodules(package: str) -> None:
    """Import every module of ``package``, so that what they register is known without a list of files."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f'{package}.{module.name}')


def build_part(key: str, value: Any, kind: type[Part]) -> Part:
    """Build one axis of a head from the config ``dict(type='mmdet_gfl.Name', ...)``, also without the prefix.

    A finished object of ``kind`` is given back; ``key`` names the config key in the message.

    Raises:
        ValueError: The type is unknown, is no ``kind``, or does not take the arguments given.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, dict) or 'type' not in value:
        raise ValueError(f"{key} needs dict(type='mmdet_gfl.…', ...), got {value!r}; {accepted(kind)}")
    args = dict(value)
    name = args.pop('type')
    cls = name if isinstance(name, type) else _find(str(name))
    if cls is None or not (isinstance(cls, type) and issubclass(cls, kind)):
        raise ValueError(f'{key}.type={name!r} is unknown; {accepted(kind, str(name))}')
    try:
        return cls(**args)
    except TypeError as error:
        raise ValueError(
            f'{key}={value!r}: {error}. Arguments of a base config are merged in; _delete_=True in {key}=dict(...) '
            f'drops them'
        ) from error


def _find(name: str) -> type | None:
    """The class of that name: ours with or without the prefix, else whatever MMEngine finds (users' own parts)."""
    try:
        return MODELS.get(name.removeprefix('mmdet_gfl.')) or MMDET_MODELS.get(name)
    except (ImportError, KeyError):
        return None


def accepted(kind: type, near: str = '') -> str:
    """``accepted: mmdet_gfl.A, mmdet_gfl.B``, with the names close to ``near`` first as a suggestion."""
    names = sorted(name for name, cls in MODELS.module_dict.items() if isinstance(cls, type) and issubclass(cls, kind))
    close = difflib.get_close_matches(near.rpartition('.')[2], names, n=1)
    hint = f'did you mean mmdet_gfl.{close[0]}? ' if close else ''
    return f'{hint}accepted: ' + ', '.join(f'mmdet_gfl.{name}' for name in names)
