"""Let MMDetection 3.x run on a stack of today: a stand-in for ``mmcv._ext``, and safe loading of checkpoints.

Importing this module imports neither torch nor mmcv.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Literal

__all__ = ['activate', 'mmcv_flavour']

EXTENSION = 'mmcv._ext'
CHECKPOINT = 'mmengine.runner.checkpoint'
#: Module of the class that a training checkpoint holds beside tensors: after it, where torch was imported before it,
#: ``torch.load`` itself reads such a file.
HISTORY = 'mmengine.logging'

_STAND_IN = Path(__file__).with_name('mmcv_ext.py')


def activate() -> None:
    """Put the stand-in for ``mmcv._ext`` where Python looks last, and the safe loading of checkpoints into MMEngine.

    The compiled extension is found first wherever it is installed, so the stand-in steps aside by its place alone.
    MMEngine gets the loading of checkpoints now if it is imported already, and else as soon as it is. Calling this
    again changes nothing.
    """
    if not any(isinstance(finder, _StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(_StandInFinder())
    for name in (HISTORY, CHECKPOINT):
        if name in sys.modules:
            _install_checkpoint_support(name)
    if CHECKPOINT not in sys.modules and not any(isinstance(finder, _CheckpointFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _CheckpointFinder())


def mmcv_flavour() -> Literal['compiled', 'stand-in', 'missing']:
    """Say where ``import mmcv._ext`` gets its operators from, without importing anything.

    'missing' stands for no mmcv at all, and for ``mmcv-lite`` before :func:`activate`.
    """
    package = find_spec('mmcv')
    if package is None:
        return 'missing'
    if PathFinder.find_spec(EXTENSION, package.submodule_search_locations) is not None:
        return 'compiled'
    active = any(isinstance(finder, _StandInFinder) for finder in sys.meta_path)
    return 'stand-in' if active else 'missing'


class _StandInFinder(MetaPathFinder):
    """Finder of ``mmcv._ext`` and of nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        return spec_from_file_location(fullname, _STAND_IN)


class _CheckpointFinder(MetaPathFinder):
    """Finder of MMEngine's modules for checkpoints, which are then loaded by :class:`_CheckpointLoader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in (HISTORY, CHECKPOINT) else None
        if spec is None or spec.origin is None:
            return None
        folders, loader = spec.submodule_search_locations, _CheckpointLoader(fullname, spec.origin)
        return spec_from_file_location(fullname, spec.origin, loader=loader, submodule_search_locations=folders)


class _CheckpointLoader(SourceFileLoader):
    """Run a module of MMEngine's for checkpoints, then make it load them safely."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _install_checkpoint_support(module.__name__)


def _install_checkpoint_support(name: str) -> None:
    if name == HISTORY and ('torch' not in sys.modules or f'{__name__}.checkpoint' in sys.modules):
        return  # MMEngine's loader will import it; or this is an import by that module
    from mmdet_gfl.compat import checkpoint

    (checkpoint.install_checkpoint_support if name == CHECKPOINT else checkpoint.add_safe_globals)()
