"""Imports inside ``mmdet_gfl.models`` and ``mmdet_gfl.ops`` go one way, annotations included, and have no cycle."""

import ast
import graphlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmdet_gfl

ROOT = Path(mmdet_gfl.__file__).parent
#: For each folder the others that it may import from.
ALLOWED = {
    'ops': set(),
    'models.losses': {'ops'},
    'models.layers': {'ops', 'models.losses'},
    'models.task_modules': {'ops'},
    'models.boxes': {'ops', 'models.losses', 'models.layers', 'models.task_modules'},
    'models.quality': {'ops', 'models.losses', 'models.layers', 'models.task_modules', 'models.boxes'},
    'models.dense_heads': {
        'ops', 'models.losses', 'models.layers', 'models.task_modules', 'models.boxes', 'models.quality',
    },
}  # fmt: skip


def module_of(path: Path) -> str:
    """``mmdet_gfl.ops.iou`` for its file, ``mmdet_gfl.ops`` for that of the package."""
    parts = path.relative_to(ROOT.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {module_of(path): path for path in sorted(ROOT.rglob('*.py'))}
PARTS = [name for name in FILES if name.split('.')[1:2] in (['models'], ['ops'])]


def absolute(node: ast.ImportFrom, module: str) -> str:
    """Name of the module that ``from … import`` names, relative or not."""
    if not node.level:
        return node.module or ''
    package = module.split('.') if FILES[module].stem == '__init__' else module.split('.')[:-1]
    base = package[: len(package) - node.level + 1]
    return '.'.join([*base, *([node.module] if node.module else [])])


def imports_of(module: str) -> Iterator[str]:
    """Modules of this package that a module imports anywhere: at the top, in a function, under ``TYPE_CHECKING``."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, module)
            for alias in node.names:
                submodule = f'{source}.{alias.name}'
                yield from [name for name in (submodule if submodule in FILES else source,) if name in FILES]
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'import_submodules':
            yield from (name for name in FILES if name.rpartition('.')[0] == module)


def folder_of(module: str) -> str | None:
    """The key of :data:`ALLOWED`."""
    inside = module.removeprefix('mmdet_gfl.')
    return next((folder for folder in ALLOWED if f'{inside}.'.startswith(f'{folder}.')), None)


def test_all_parts_belong_to_a_folder_and_import():
    assert len(PARTS) > 50
    for module in PARTS:
        assert folder_of(module) or module == 'mmdet_gfl.models', module
        importlib.import_module(module)


@pytest.mark.parametrize('module', PARTS)
def test_imports_go_one_way(module):
    folder = folder_of(module)
    if folder is None:  # the package of all parts
        return
    for imported in imports_of(module):
        other = folder_of(imported)
        assert other in (None, folder) or other in ALLOWED[folder], f'{module} imports {imported}'
        assert imported != 'mmdet_gfl.models', f'{module} imports the package of all parts'


def test_no_cycle():
    graph = {module: set(imports_of(module)) for module in FILES}
    assert {'mmdet_gfl.ops.tensors', 'mmdet_gfl.models.losses.utils'} <= {
        imported for module in PARTS for imported in graph[module]
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_the_reading_of_imports(tmp_path, monkeypatch):
    code = (
        'from typing import TYPE_CHECKING\n'
        'from . import iou\n'
        'from .tensors import upcast\n'
        'from ..models.losses import utils\n'
        'if TYPE_CHECKING:\n    from mmdet_gfl.models.quality.base import Quality\n'
        'def late():\n    import mmdet_gfl.models.boxes\n'
    )
    (tmp_path / 'part.py').write_text(code)
    monkeypatch.setitem(FILES, 'mmdet_gfl.ops.part', tmp_path / 'part.py')
    assert sorted(imports_of('mmdet_gfl.ops.part')) == [
        'mmdet_gfl.models.boxes',
        'mmdet_gfl.models.losses.utils',
        'mmdet_gfl.models.quality.base',
        'mmdet_gfl.ops.iou',
        'mmdet_gfl.ops.tensors',
    ]
