"""Config files: found by their name, and written as a child that replaces the heads."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
from pathlib import Path
from typing import Any

from mmdet import __file__ as mmdet_file
from mmengine.config import Config

from mmdet_gfl import shipped_configs
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.engine.launch import read_config

from .convert import Conversion, imports_of

#: Length of a line of the written config.
LINE = 100


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
    try:
        path = shipped_configs.find(name.removeprefix('mmdet::'), root, 'give its path')
    except shipped_configs.ConfigNotFoundError as error:
        raise UserError(f'there is no file {name}, and in the installed MMDetection {error}') from error
    return path, path.relative_to(root).as_posix()


def read(name: str) -> tuple[Config, Path, str | None]:
    """A config with its file and name, see :func:`find_config`."""
    path, shipped = find_config(name)
    return read_config(str(path)), path, shipped


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
    imports = f'custom_imports = {_code(imports_of(cfg))}'
    if Config._is_lazy_import(str(path)):
        heads = []
        for found in conversions:
            first, *rest = found.key.split('.')
            heads.append(first + ''.join(f'[{name!r}]' for name in rest) + f' = {_code(found.converted)}')
        return '\n'.join((opening, _read_base(path, out), imports, *heads, ''))
    if not shipped:
        base = os.path.relpath(path, out.parent)
    elif importlib.util.find_spec('pkg_resources') is not None and re.match(r'\w+/', shipped):
        base = f'mmdet::{shipped}'
    else:  # MMEngine needs pkg_resources for that, and a folder without a dot
        base = str(path)
    changes = [f'{name} = {_code(value)}' for name, value in _nested(conversions).items()]
    return '\n'.join((opening, f'_base_ = {base!r}', imports, *changes, ''))


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
