"""``KEY=VALUE`` options of a command line, as MMEngine reads them; it is imported once there is something to read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmdet_gfl.engine.errors import UserError

CFG_OPTIONS_HELP = (
    'override settings of the config, as xxx=yyy; a list as key="[a,b]" or key=a,b, nested lists and tuples as '
    'key="[(a,b),(c,d)]" (the quotation marks are needed, and no white space)'
)


def check_options(flag: str, texts: Sequence[str]) -> None:
    """Raise for an option that is not ``KEY=VALUE``.

    Raises:
        UserError: Names the flag and the text.
    """
    for text in texts:
        if not text.partition('=')[0] or '=' not in text:
            raise UserError(f'{flag} {text}: write KEY=VALUE, without spaces around the =')


def read_options(flag: str, texts: Sequence[str]) -> dict[str, Any]:
    """The options by key, with numbers, lists and tuples distinguished from text.

    Raises:
        UserError: One has no ``=``, or its brackets are not in pairs; names the flag and the text.
    """
    check_options(flag, texts)
    from mmengine.config import DictAction

    namespace, action = argparse.Namespace(options={}), DictAction([flag], dest='options')
    for text in texts:
        try:
            action(None, namespace, [text], flag)
        except (AssertionError, ValueError) as error:
            raise UserError(f'{flag} {text}: {error}') from error
    options: dict[str, Any] = namespace.options
    return options


class OptionsAction(argparse.Action):
    """Action of ``argparse`` that stores the result of :func:`read_options`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Read the options, beside those of an earlier use of the flag.

        Raises:
            UserError: One cannot be read.
        """
        former = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**former, **read_options(str(option_string), values)})
