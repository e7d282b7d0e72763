"""Checkpoints that a kill at any moment, or a full disk, cannot cost.

MMEngine's hook removes the checkpoint that is one too many before it writes the new one, and writes that in place: a
run killed in between has lost both. Here the order is write beside, sync, rename, then prune. The hook leaves the work
to MMEngine's, and only gives it a storage backend that keeps to this order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook

from mmdet_gfl.engine import files
from mmdet_gfl.registry import HOOKS

#: Name of the backend in ``backend_args``.
BACKEND = 'mmdet_gfl.safe_local'

#: What shall go once the next file is whole. MMEngine makes a backend for each access, so it is kept here.
_doomed: list[Path] = []


class SafeLocalBackend(LocalBackend):
    """Local files; what is written is there whole or not at all, and what is removed goes when the next file is there.

    Its errors are the system's, such as ``OSError: No space left on device``; the files that were there stay.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write ``obj`` beside ``filepath``, sync it to the disk, and rename it."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        for fragment in path.parent.glob('.*.pth.part'):  # of a run that was killed
            fragment.unlink()
        files.write(path, obj)
        _sync_folder(path.parent)
        while _doomed:
            if (doomed := _doomed.pop()) != path:
                doomed.unlink(missing_ok=True)

    def remove(self, filepath: str | Path) -> None:
        """Mark the file; it goes after the next :meth:`put`."""
        _doomed.append(Path(filepath))


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk; a system that opens no folders does without."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


register_backend(BACKEND, SafeLocalBackend, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` whose last checkpoint is always loadable.

    Args:
        *args: ``CheckpointHook``'s.
        backend_args: Where checkpoints are stored; default: local files, written as above. Any other backend writes as
            it does.
        **kwargs: ``CheckpointHook``'s.
    """

    def __init__(self, *args: Any, backend_args: dict[str, Any] | None = None, **kwargs: Any) -> None:
        remote = '://' in str(kwargs.get('out_dir') or '')
        if backend_args is None and not remote:
            backend_args = dict(backend=BACKEND)
        super().__init__(*args, backend_args=backend_args, **kwargs)
