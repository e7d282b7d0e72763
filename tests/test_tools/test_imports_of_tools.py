"""Programs import this package before MMDetection's, which with ``mmcv-lite`` cannot be imported otherwise.

Running them here does not tell: the Python that runs the tests has imported the package before.
"""

import ast
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
PROGRAMS = sorted(TOOLS.rglob('*.py'))
OTHERS = {'mmcv', 'mmdet', 'mmengine'}


def faults(code: str) -> list[str]:
    """Lines of a program that import MMDetection's packages too early, or whose place ruff would change."""
    found, ready = [], False
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in sorted(nodes, key=lambda node: node.lineno):
        names = [node.module or ''] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        line, early = code.splitlines()[node.lineno - 1], False
        for name in names:
            ready |= name.partition('.')[0] == 'mmdet_gfl'
            early |= name.partition('.')[0] in OTHERS and not ready
        if early or (names == ['mmdet_gfl'] and '# isort: skip' not in line):
            found.append(line.strip())
    return found


@pytest.mark.parametrize('program', PROGRAMS, ids=lambda program: str(program.relative_to(TOOLS)))
def test_programs_import_the_package_first(program):
    assert not faults(program.read_text())


def test_faults():
    assert {program.name for program in PROGRAMS} >= {'train.py', 'test.py', 'benchmark_head.py', 'make_shapes.py'}
    first, late = 'import mmdet_gfl  # noqa: F401  # isort: skip\n', 'from mmdet.utils import x\n'
    assert not faults(f'import torch\n{first}{late}') and not faults('from mmdet_gfl.engine import launch\n' + late)
    assert faults(late + first) == ['from mmdet.utils import x']
    assert faults('import mmdet_gfl\n') == ['import mmdet_gfl']  # ruff would put it behind mmdet
    assert faults('import mmengine.config, mmdet_gfl\n') == ['import mmengine.config, mmdet_gfl']
    assert not faults('import mmdet_gfl, mmengine.config\n')
    assert faults(f'def main():\n    import mmcv\n{first}') == ['import mmcv']
