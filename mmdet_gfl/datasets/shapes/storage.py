"""The set on disk: written beside its place and moved there whole, recognised, checked, and never taken for a user's.

A finished set holds ``shapes.json``, its parameters and the SHA-256 of every other file. It is written last, into a
sibling folder ``.NAME.unfinished-…`` that is then renamed, so whenever a run is killed, NAME is a whole set or none.
The sibling stays locked while its writer lives; one that is not locked is a dead run's and is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .layout import LAYOUT, MANIFEST, SPLITS, VERSION, Parameters


class ShapesError(RuntimeError):
    """The set cannot be written where it was wanted; the message is one sentence for the user."""


def write(path: Path, content: bytes) -> str:
    """Writes a file to the disk itself and returns its SHA-256."""
    with path.open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def check(root: Path, parameters: Parameters, overwrite: bool = False) -> str | None:
    """None where the finished set stands in ``root``; else why it has to be made.

    Raises:
        ShapesError: ``root`` holds something that must not be replaced: no set, a set with further files, or, without
            ``overwrite``, a set of other parameters.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return 'there is none yet'
    if not (root / MANIFEST).is_file():
        raise ShapesError(
            f'{root} is there already and is no shapes data set (it has no {MANIFEST}); name a new folder'
        )
    manifest = _manifest(root)
    difference = _difference(manifest, parameters) if manifest is not None else ''
    if difference and not overwrite:
        raise ShapesError(
            f'{root} holds a shapes data set of other parameters ({difference}); name another folder, or replace it '
            f'with --overwrite (in Python overwrite=True)'
        )
    reason = 'its parameters differ' if difference else _damage(root, manifest, parameters)
    if reason is not None:
        _refuse_foreign_files(root, reason)
    return reason


def _manifest(root: Path) -> dict[str, Any] | None:
    """What ``shapes.json`` says; None if it is damaged."""
    try:
        manifest = json.loads((root / MANIFEST).read_bytes())
        return manifest if isinstance(manifest['parameters'], dict) and isinstance(manifest['files'], dict) else None
    except (ValueError, KeyError, TypeError):
        return None


def _difference(manifest: dict[str, Any], parameters: Parameters) -> str:
    # Sets made before there were clutter and classes say nothing of them.
    found, wanted = Parameters().as_json() | manifest['parameters'], parameters.as_json()
    return ', '.join(f'{key} is {found[key]}, wanted {wanted[key]}' for key in wanted if found[key] != wanted[key])


def _damage(root: Path, manifest: dict[str, Any] | None, parameters: Parameters) -> str | None:
    """What is wrong with a set, or None."""
    if manifest is None or set(manifest['files']) != set(parameters.files()):
        return f'{MANIFEST} is damaged'
    if manifest.get('version') != VERSION:
        return f'version {VERSION} of the generator makes other pictures than version {manifest.get("version")}'
    for name, digest in manifest['files'].items():
        path = root / name
        if not path.is_file():
            return f'{name} is missing'
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return f'{name} was changed'
    return None


def _refuse_foreign_files(root: Path, reason: str) -> None:
    foreign = _foreign_file(root)
    if foreign is not None:
        raise ShapesError(
            f'the shapes data set in {root} has to be made anew ({reason}), but {foreign} is no part of it; '
            f'move that away, or name another folder'
        )


def _foreign_file(folder: Path) -> str | None:
    """Something in a folder that no set has, links included, or None."""
    for path in sorted(folder.rglob('*')):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not LAYOUT.fullmatch(name) or path.is_dir() != (name in ('annotations', *SPLITS)):
            return name
    return None


@contextlib.contextmanager
def workshop(root: Path) -> Iterator[Path]:
    """A locked, empty sibling of ``root`` with the folders of a set, removed at the end if it is still there."""
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = _sibling(root, 'unfinished')
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: a dead run's folder stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ('annotations', *SPLITS):
            (folder / name).mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def finish(folder: Path, parameters: Parameters, files: dict[str, str]) -> None:
    """Writes ``shapes.json``, with the SHA-256 of each file, and sees that all is on the disk."""
    manifest = dict(
        about='a shapes data set of mmdet_gfl; see docs/shapes.md', version=VERSION, parameters=parameters.as_json()
    )
    write(folder / MANIFEST, json.dumps(manifest | dict(files=files), indent=1).encode())
    for name in ('annotations', *SPLITS, '.'):
        _sync_folder(folder / name)


def publish(folder: Path, root: Path) -> None:
    """Moves a finished set to its place; what :func:`check` allowed to be replaced there is removed.

    Raises:
        ShapesError: The folder cannot be moved there.
    """
    replaced = _sibling(root, 'replaced')
    try:
        if root.exists() and any(root.iterdir()):
            root.rename(replaced)
        folder.rename(root)
    except OSError as error:
        raise ShapesError(
            f'the finished set cannot be moved to {root} ({error.strerror}); if that is a mount point, name a folder '
            f'inside it, and if another run is writing there, start again when it has ended'
        ) from error
    _sync_folder(root.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(root: Path) -> list[Path]:
    """Removes what runs that were killed left beside ``root`` and returns the folders' former paths."""
    removed = []
    for folder in sorted(root.parent.glob(f'.{glob.escape(root.name)}.*-*')):
        ours = re.fullmatch(rf'\.{re.escape(root.name)}\.(unfinished|replaced)-[0-9a-f]{{8}}', folder.name)
        if ours and folder.is_dir() and not folder.is_symlink() and _foreign_file(folder) is None and _is_free(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _is_free(folder: Path) -> bool:
    """Whether no living run holds the lock of a folder."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _sibling(root: Path, purpose: str) -> Path:
    return root.parent / f'.{root.name}.{purpose}-{secrets.token_hex(4)}'


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
