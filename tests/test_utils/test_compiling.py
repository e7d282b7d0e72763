"""What the package takes from ``torch.compile``, by the names that each torch has."""

import ast
import importlib
from pathlib import Path

import pytest
import torch

import mmdet_gfl
from mmdet_gfl.utils import compiling


@pytest.fixture
def older_torch(monkeypatch):
    """``compiling`` as torch before 2.3 loads it, whose ``torch.compiler`` does not tell."""
    torch._dynamo.reset()
    with monkeypatch.context() as patched:
        patched.delattr(torch.compiler, 'is_compiling')
        importlib.reload(compiling)
        assert compiling.is_compiling is torch._dynamo.external_utils.is_compiling
    yield
    importlib.reload(compiling)


def traces_and_results():
    """Whether a function knows that it is traced, and whether one that is left alone does."""
    left_alone = compiling.uncompiled(lambda x: (x + 1, compiling.is_compiling()))

    def step(x):
        y = x * 2
        y = y + 1 if compiling.is_compiling() else y
        return left_alone(y)

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    (value, seen) = torch.compile(step, backend=backend)(torch.ones(2))
    return len(graphs), value.tolist(), seen, compiling.is_compiling()


def test_traced_or_not():
    torch._dynamo.reset()
    assert traces_and_results() == (1, [4.0, 4.0], False, False)


def test_an_older_torch(older_torch):
    assert traces_and_results() == (1, [4.0, 4.0], False, False)


def test_nothing_else_asks_torch():
    root = Path(mmdet_gfl.__file__).parent
    for path in sorted(root.rglob('*.py')):
        asked = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not asked & {'compiler', '_dynamo'}, path
