"""Shared parts of the stand-in's operators: torchvision where it loads, and the error of a missing operator."""

from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

#: The type of an operator of ``mmcv._ext``.
Operator = Callable[..., Any]

_WAY_OUT = (
    'Install compiled mmcv: `MMCV=full bash tools/setup_env.sh` in a checkout of mmdet_gfl, or see '
    'https://mmcv.readthedocs.io/en/latest/get_started/build.html'
)


@cache
def torchvision_ops() -> Any | None:
    """Return ``torchvision.ops``, or None where torchvision is missing or does not fit the installed torch.

    A torchvision built for another torch fails with whatever its first use of torch raises.
    """
    try:
        from torchvision import ops
    except Exception:
        return None
    return ops


class MissingOperatorError(NotImplementedError):
    """mmcv has no such operator here."""


def missing_operator(name: str, why: str = 'is not in the stand-in of mmdet_gfl') -> Operator:
    """Make the operator that only raises: ``MissingOperatorError`` with its name, the reason and the way out."""

    def operator(*args: Any, **kwargs: Any) -> NoReturn:
        raise MissingOperatorError(
            f"mmcv is installed here without compiled operators, and '{name}' {why}. {_WAY_OUT}."
        )

    operator.__name__ = operator.__qualname__ = name
    return operator
