"""Load checkpoints safely on torch 2.6 or later, and say what is wrong with those it cannot load.

From 2.6 on, ``torch.load`` unpickles only what is on a list of safe globals. MMEngine's training checkpoints are not:
their ``HistoryBuffer`` objects hold numpy arrays and, by way of ``builtins.getattr``, their own methods. Putting those
names on the list as they are would open what the list closes. ``getattr`` reaches everything; ``numpy.ndarray(shape,
'O', buffer)`` makes Python objects of the file's bytes; and the state of a pickled dtype may claim that numbers are
objects. So the names are answered by functions here that do what a checkpoint needs and refuse the rest.

Before 2.6 a name on the list cannot stand for another function, so nothing can be loaded safely that MMEngine writes:
files are loaded in full, with a warning.
"""

import errno
import logging
import os
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log

from mmdet_gfl.compat.torchvision_weights import load_from_torchvision_address

_ALLOW_UNSAFE = 'MMDET_GFL_ALLOW_UNSAFE_CHECKPOINT'
_WAY_OUT = f'if you trust its origin, pass --allow-unsafe-checkpoint (tools of mmdet_gfl) or set {_ALLOW_UNSAFE}=1'

_STATISTICS = ('min', 'max', 'current', 'mean')
_DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16')

_ZIP_HEAD = b'PK\x03\x04'
_LEGACY_MAGIC = b'l\xfc\x9cF\xf9 j\xa8P\x19'  # 0x1950a86a20f9469cfc6c, as pickled by torch before 1.6
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, names of the weights; the weights follow
_MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, struct.error)
# RuntimeErrors of torch.load that are about the machine; all others are about the file.
_MACHINE = re.compile('CUDA|NVIDIA|backend|device|location|memory')

#: Whether ``torch.load`` can read MMEngine's checkpoints without running their code: torch 2.6 made the safe mode the
#: default, and lets a name on its list stand for another function.
HAS_SAFE_MODE = tuple(int(part) for part in torch.__version__.split('.')[:2]) >= (2, 6)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be loaded; the message names the file, the reason and the way out."""


class DamagedCheckpointError(CheckpointError):
    """The file is empty, cut short, or was not written by ``torch.save``."""


class UnsafeCheckpointError(CheckpointError):
    """The file asks for more than a checkpoint needs, which may be code that runs."""


def install_checkpoint_support() -> None:
    """Make MMEngine load local checkpoints by :func:`load_from_local`, and its own training checkpoints safely.

    torchvision's weights are loaded by :func:`load_from_torchvision_address`. The list of safe globals belongs to the
    process, so MMEngine's loaders for URLs profit too. Calling this again changes nothing.
    """
    from mmengine.runner.checkpoint import CheckpointLoader  # not above: its import calls this, see `activate`

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    addresses = ('modelzoo://', 'torchvision://')
    CheckpointLoader.register_scheme(prefixes=addresses, loader=load_from_torchvision_address, force=True)
    add_safe_globals()


def add_safe_globals() -> None:
    """Let ``torch.load`` read MMEngine's training checkpoints in the safe mode, where there is one."""
    if HAS_SAFE_MODE:
        torch.serialization.add_safe_globals(_safe_globals())


def allow_unsafe_checkpoints() -> None:
    """Load what the safe mode refuses in full, in this process and in those it starts."""
    os.environ[_ALLOW_UNSAFE] = '1'


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a local checkpoint, safely if possible.

    What the safe mode refuses is loaded in full only if ``MMDET_GFL_ALLOW_UNSAFE_CHECKPOINT=1`` is set. MMEngine logs
    the part of this function's name behind ``load_from_``. Before torch 2.6 no safe mode can read MMEngine's
    checkpoints: the file is loaded in full, and a process says so once, unless the variable is set.

    Args:
        filename: Path of the file; ``~`` stands for the home directory.
        map_location: As in ``torch.load``.

    Returns:
        What was saved: a dict, as a rule.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedCheckpointError: The file is not a complete checkpoint.
        UnsafeCheckpointError: The safe mode refuses the file.
    """
    path = _existing_file(filename)
    if HAS_SAFE_MODE:
        try:
            return _load_safely(path, map_location)
        except UnsafeCheckpointError as refusal:
            if not _unsafe_allowed():
                raise
            print_log(f'Loading in full, as allowed: {refusal.args[0]}', logger='current', level=logging.WARNING)
    elif not _unsafe_allowed():
        _warn_of_full_loading()
    with _damage_named(path):
        return torch.load(path, map_location=map_location, weights_only=False)


def check_checkpoint(filename: str) -> None:
    """Raise now what :func:`load_from_local` would raise later, without reading the weights.

    Addresses such as ``https://…`` or ``torchvision://…`` are not checked. Arguments and errors are those of
    :func:`load_from_local`; a file of torch before 1.6, whose weights cannot be passed over, and files before torch 2.6
    are looked at for damage alone.
    """
    if '://' in filename:
        return
    path = _existing_file(filename)
    if not HAS_SAFE_MODE or not _is_archive(path):
        if not _has_torch_format(path):
            raise DamagedCheckpointError(_damage(path))
        return
    try:
        _load_safely(path, 'cpu', mmap=True)
    except UnsafeCheckpointError:
        if not _unsafe_allowed():
            raise


def _existing_file(filename: str) -> str:
    path = os.path.expanduser(filename)
    if os.path.isdir(path):
        raise FileNotFoundError(f'{path} is a directory; a checkpoint is a file, as a rule *.pth')
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no checkpoint at {path}')
    return path


def _unsafe_allowed() -> bool:
    return os.environ.get(_ALLOW_UNSAFE, '').lower() in ('1', 'true', 'yes', 'on')


@cache
def _warn_of_full_loading() -> None:
    print_log(
        f'torch {torch.__version__} loads checkpoints in full, which runs any code that a file holds: load files of '
        f'trusted origin only, or install torch 2.6 or later; {_ALLOW_UNSAFE}=1 silences this',
        logger='current',
        level=logging.WARNING,
    )


def _load_safely(path: str, map_location: Any, mmap: bool = False) -> Any:
    """Load without running code of the file; with ``mmap`` the weights are read when they are used."""
    with _damage_named(path):
        try:
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            if not _has_torch_format(path):
                raise
            raise UnsafeCheckpointError(f'{path} is refused, for {_refusal(str(error))}; {_WAY_OUT}') from None
        except RuntimeError as error:
            if 'TorchScript' not in str(error):
                raise
            raise UnsafeCheckpointError(f'{path} is refused, for it holds a TorchScript program; {_WAY_OUT}') from None
        except _MISFITS as error:
            # The safe mode only builds plain data: this is its answer to data that does not fit together.
            raise DamagedCheckpointError(_damage(path, error)) from error


def _refusal(message: str) -> str:
    """Say in a clause what the message of torch complains about."""
    name = re.search(r'GLOBAL (\S+)', message)
    if name is not None:
        return f"it asks for '{name[1]}', which no checkpoint needs and which may run code"
    reason = message.rpartition('WeightsUnpickler error:')[2].strip().partition('\n')[0]
    return f'the safe mode of torch.load cannot read it ({reason})'


@contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Turn the many errors that torch answers a damaged file with into one; others pass."""
    try:
        yield
    except (EOFError, pickle.UnpicklingError) as error:
        raise DamagedCheckpointError(_damage(path, error)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # which torch gives a file of a few thousand bytes without its end
            raise
        raise DamagedCheckpointError(_damage(path, error)) from error
    except RuntimeError as error:
        if isinstance(error, CheckpointError) or _MACHINE.search(str(error)):
            raise
        raise DamagedCheckpointError(_damage(path, error)) from error


def _damage(path: str, error: Exception | None = None) -> str:
    size = os.path.getsize(path)
    if size == 0:
        what = 'is an empty file'
    elif _has_torch_format(path):
        reason = str(error).partition('\n')[0] or type(error).__name__
        what = f'is damaged ({size} bytes; torch: {reason:.100})'
    else:
        what = f'was cut short or is not a checkpoint of torch.save ({size} bytes)'
    return f'{path} {what}; copy or download it again, or resume from an earlier checkpoint of the same run'


def _is_archive(path: str) -> bool:
    """True if the file begins as torch writes it since 1.6; before, it wrote pickles with the weights behind them."""
    with open(path, 'rb') as file:
        return file.read(len(_ZIP_HEAD)) == _ZIP_HEAD


def _has_torch_format(path: str) -> bool:
    """True if the file begins as ``torch.save`` writes it and its structure is whole; what it holds is not read."""
    if _is_archive(path):
        try:
            return zipfile.is_zipfile(path)
        except zipfile.BadZipFile:  # from Python 3.13
            return False
    with open(path, 'rb') as file:
        is_legacy = _LEGACY_MAGIC in file.read(32)
        file.seek(0)
        return is_legacy and _starts_with_pickles(file, _LEGACY_PICKLES)


def _starts_with_pickles(file: BinaryIO, count: int) -> bool:
    """True if ``count`` whole pickles come next in the file; they are parsed, not executed."""
    try:
        for _ in range(count):
            for _ in pickletools.genops(file):
                pass
    except ValueError:
        return False
    return True


def _safe_globals() -> list[Any]:
    """Return what the safe mode may use beyond its own list, each with the name that a file calls it by.

    Two kinds of classes have to be on the list because the safe mode sets the state of listed types only, but must not
    be called by a file. They get names without a dot, which no file can ask for: it asks for 'module.name'.
    """
    stateful: list[type] = [np.ndarray, *(type(np.dtype(code)) for code in _DTYPES)]
    scalar = np.float64(0).__reduce__()[0]
    by_name: list[Any] = [
        HistoryBuffer,
        (_getattr, 'builtins.getattr'),
        (_ndarray, 'numpy.ndarray'),
        (_dtype, 'numpy.dtype'),
        (_bytes, 'builtins.bytes'),
    ]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # numpy 1, numpy 2
        by_name += [(_reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    return by_name + [(cls, cls.__name__) for cls in stateful]


def _refuse(name: str, arguments: tuple[Any, ...]) -> NoReturn:
    raise pickle.UnpicklingError(f'GLOBAL {name} with arguments that MMEngine never gives: {arguments!r:.200}')


def _bytes(*arguments: Any) -> bytes:
    """Stand for ``bytes`` in a checkpoint: Python pickles no bytes at all, as an empty array has, as ``bytes()``."""
    if arguments:
        _refuse('builtins.bytes', arguments)
    return b''


def _is_one_of(names: tuple[str, ...], argument: Any) -> bool:
    """True if ``argument`` is one of the names; objects that compare as they like are not asked."""
    return type(argument) is str and argument in names


def _getattr(*arguments: Any) -> Any:
    """Stand for ``getattr`` in a checkpoint: the statistics of MMEngine's ``HistoryBuffer`` and nothing else."""
    if len(arguments) == 2 and arguments[0] is HistoryBuffer and _is_one_of(_STATISTICS, arguments[1]):
        return getattr(HistoryBuffer, arguments[1])
    _refuse('builtins.getattr', arguments)


def _ndarray(*arguments: Any) -> NoReturn:
    """Stand for ``numpy.ndarray`` in a checkpoint, where it is an argument of ``_reconstruct`` and never called."""
    _refuse('numpy.ndarray', arguments)


def _reconstruct(*arguments: Any) -> np.ndarray:
    """Stand for numpy's ``_reconstruct``: make the empty array whose state is set next."""
    if len(arguments) == 3 and (arguments[0] is _ndarray or arguments[0] is np.ndarray):
        return np.empty(0)
    _refuse('numpy._reconstruct', arguments)


def _dtype(*arguments: Any) -> np.dtype:
    """Stand for ``numpy.dtype``: return one of numpy's own number types.

    numpy ignores a state set on those; it would accept any state on a copy, which the file asks for. The byte order is
    part of that state, so files are read as little-endian, which all platforms of torch are.
    """
    if len(arguments) == 3 and _is_one_of(_DTYPES, arguments[0]):
        return np.dtype(arguments[0])
    _refuse('numpy.dtype', arguments)
