"""Parameters of a set of shapes, and their form as an address: ``shapes://width=160/height=160``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mmdet_gfl.engine.errors import UserError

from .outlines import CLASSES

PREFIX = 'shapes://'
SPLITS = ('train', 'val')
MIN_LENGTH, MAX_LENGTH = 32, 8192


@dataclass(frozen=True)
class Parameters:
    """Parameters of a set, which determine it byte by byte as long as NumPy and OpenCV stay the same.

    Attributes:
        train: Number of training images.
        val: Number of validation images.
        width: Width of each image in pixels.
        height: Height of each image in pixels.
        seed: Picture i of a split depends on all fields except ``train`` and ``val``.
        clutter: Textures, distractors, shadows, things that hide and faint colours: from 1, as many as there are, to 0,
            none. Ambiguous sides stay: what is to be located is as hard, what is to be recognized easier.
        classes: Classes that are drawn; the ids and ``categories`` of all ten stay.
        rare: Those of the classes that are rare and always small, for data whose classes are not balanced: a seventh of
            the small objects, see :data:`~mmdet_gfl.datasets.shapes.scene.RARE_SHARE`.

    Raises:
        ValueError: A value is of another kind or out of range.
    """

    train: int = 1000
    val: int = 200
    width: int = 320
    height: int = 320
    seed: int = 0
    clutter: float = 1.0
    classes: tuple[str, ...] = CLASSES
    rare: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = (MIN_LENGTH, MAX_LENGTH)
        ranges = dict(train=(1, 999_999), val=(1, 999_999), width=size, height=size, seed=(0, 2**63 - 1))
        for key, (low, high) in ranges.items():
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f'{key}={value!r} is invalid; give an integer from {low} to {high}')
        if isinstance(self.clutter, bool) or not isinstance(self.clutter, (int, float)) or not 0 <= self.clutter <= 1:
            raise ValueError(f'clutter={self.clutter!r} is invalid; give a number from 0 to 1')
        for name in self.classes:
            if name not in CLASSES:
                raise ValueError(f'classes: there is no {name!r}; there are {", ".join(CLASSES)}')
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f'classes={self.classes!r} is invalid; give each once, and one at least')
        if not set(self.rare) < set(self.classes):
            raise ValueError(f'rare={self.rare!r} is invalid; give some of the classes {self.classes!r}, not all')

    @property
    def address(self) -> str:
        """The set as ``data_root`` of a config: ``shapes://``, then ``KEY=VALUE/`` for each field with another value.

        Names of classes are joined by ``+``.
        """
        values = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        changed = ((key, value) for key, value, default in values if value != default)
        return PREFIX + ''.join(
            f'{key}={"+".join(value) if isinstance(value, tuple) else value}/' for key, value in changed
        )


def parse(address: str) -> tuple[Parameters, str]:
    """Split an address into the set's parameters and a path inside the set, such as ``train/000001.bmp`` or ``''``.

    Raises:
        UserError: A key or a value is not possible.
    """
    parts = [part for part in address.removeprefix(PREFIX).split('/') if part]
    values = dict(part.split('=', 1) for part in parts if '=' in part)
    known = {field.name: field.default for field in fields(Parameters)}
    try:
        for key in values:
            if key not in known:
                raise ValueError(f'there is no {key!r}; there are {", ".join(known)}')
        parameters = Parameters(**{key: _value(key, text, known[key]) for key, text in values.items()})
    except ValueError as error:
        raise UserError(f'{address}: {error}') from error
    return parameters, '/'.join(part for part in parts if '=' not in part)


def _value(key: str, text: str, default: Any) -> Any:
    """The value that a text in an address stands for; the kind is that of the default."""
    if isinstance(default, tuple):
        return tuple(text.split('+'))
    try:
        return type(default)(text)
    except ValueError:
        raise ValueError(f'{key}={text} is invalid; give a number, such as {key}={default}') from None
