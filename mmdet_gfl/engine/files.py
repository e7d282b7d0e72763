"""Files that tools write: their places, looked at before the work, and contents that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mmdet_gfl.engine.errors import UserError

PICTURE_SUFFIXES = ('.png', '.svg', '.pdf', '.jpg')


def write(path: Path, content: str | bytes | memoryview, cached: bool = False) -> None:
    """Write a file beside its place, bring it to the disk and move it there: a kill leaves what was there before.

    Args:
        path: The file.
        content: All of it.
        cached: It can be computed again, perhaps by several processes at once: it is not waited for the disk, and each
            process has an unfinished file of its own.
    """
    part = path.with_name(f'.{path.name}.{os.getpid()}.part' if cached else f'.{path.name}.part')
    try:
        with part.open('wb') as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if not cached:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def make_folder(option: str, folder: Path) -> None:
    """Make a folder that results will be written into, if it is not there.

    Args:
        option: The option that names it, for the message.
        folder: The folder.

    Raises:
        UserError: It cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'{option}: folder {folder} cannot be written to ({error.strerror}); name another') from error


def make_folder_of(option: str, file: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Make the folder of a file that a result will be written to.

    Args:
        option: The option that names it, for the message.
        file: The file.
        suffixes: Those it may have; none: any.

    Raises:
        UserError: The name is a folder's, its suffix is another one, or its folder cannot be written to.
    """
    if file.is_dir():
        raise UserError(f'{option} {file} is a folder; name a file')
    if suffixes and file.suffix.lower() not in suffixes:
        raise UserError(f'{option} {file}: the file must end in {", ".join(suffixes[:-1])} or {suffixes[-1]}')
    make_folder(option, file.parent)
