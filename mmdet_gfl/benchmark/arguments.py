"""Parts of the command lines of ``reproduce.py`` and ``ablate.py`` that need neither torch nor a config."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from mmdet_gfl.engine.options import check_options

from .rows import RowError

#: Options that are whole numbers, and the least of them.
LEAST = dict(seeds=0, jobs=1, gpus=1, batch_size=1, train_images=1, epochs=1)


def check(args: argparse.Namespace) -> None:
    """Raise for numbers out of range, and options that are not ``KEY=VALUE``; a command need not have all of them.

    Raises:
        RowError: Names the option, its value and what is accepted.
        UserError: As :func:`~mmdet_gfl.engine.options.check_options`.
    """
    for name, least in LEAST.items():
        given = getattr(args, name, None)
        for number in given if isinstance(given, list) else [given]:
            if number is not None and number < least:
                raise RowError(f'--{name.replace("_", "-")} {number}: give an integer from {least} up')
    for name in ('mini', 'cfg_options'):
        check_options(f'--{name.replace("_", "-")}', getattr(args, name, None) or [])


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a tool and exit with its status; 0 where its reader, as ``head``, has closed the pipe."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at its end
        status = 0
    sys.exit(status)
