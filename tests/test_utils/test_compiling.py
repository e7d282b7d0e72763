"""Exclusion of code from ``torch.compile``, by the names of each version of torch."""

import ast
import importlib
from pathlib import Path

import pytest
import torch

import mmdet_gfl
from mmdet_gfl.utils import compiling


@pytest.fixture
def older_torch(monkeypatch):
    """``compiling`` as loaded with torch before 2.3, whose ``torch.compiler`` has no ``is_compiling``."""
    torch._dynamo.reset()
    if not hasattr(torch.compiler, 'is_compiling'):
        pytest.skip('this torch is an older one itself')
    with monkeypatch.context() as patched:
        patched.delattr(torch.compiler, 'is_compiling')
        importlib.reload(compiling)
        assert compiling.is_compiling is torch._dynamo.external_utils.is_compiling
    yield
    importlib.reload(compiling)


def traces_and_results():
    """Number of graphs, the result, and ``is_compiling`` in an excluded function and outside."""
    excluded = compiling.uncompiled(lambda x: (x + 1, compiling.is_compiling()))

    def step(x):
        y = x * 2
        y = y + 1 if compiling.is_compiling() else y
        return excluded(y)

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    (value, compiling_inside) = torch.compile(step, backend=backend)(torch.ones(2))
    return len(graphs), value.tolist(), compiling_inside, compiling.is_compiling()


def test_an_excluded_function_is_not_traced():
    torch._dynamo.reset()
    assert traces_and_results() == (1, [4.0, 4.0], False, False)


def test_an_excluded_function_is_not_traced_by_an_older_torch(older_torch):
    assert traces_and_results() == (1, [4.0, 4.0], False, False)


def test_no_other_module_uses_torch_compiler():
    root = Path(mmdet_gfl.__file__).parent
    for path in sorted(root.rglob('*.py')):
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not used & {'compiler', '_dynamo'}, path
