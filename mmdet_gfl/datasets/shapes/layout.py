"""What determines a set, and the files it consists of."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from .outlines import CLASSES

MANIFEST = 'shapes.json'
#: To be raised when the same parameters give other pictures or annotations than before.
VERSION = 2
SPLITS = ('train', 'val')
#: Every path a set can hold. Folders with anything else in them are never replaced.
LAYOUT = re.compile(
    r'shapes\.json|(annotations|train|val)|annotations/instances_(train|val)\.json|(train|val)/\d{6,}\.jpg'
)
MIN_LENGTH, MAX_LENGTH = 32, 8192


@dataclass(frozen=True)
class Parameters:
    """What determines a set, byte by byte as long as NumPy and OpenCV stay the same.

    Attributes:
        train: Number of training images.
        val: Number of validation images.
        width: Width of each image in pixels.
        height: Height of each image in pixels.
        seed: Picture i of a split depends on all that stands here but on how many there are.
        clutter: Textures, distractors, shadows, things that hide and faint colours: from 1, as many as there are, to 0,
            none. Ambiguous sides stay: what is to be located is as hard, what is to be recognized easier.
        classes: Classes that are drawn; the ids and ``categories`` of all ten stay.

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

    def __post_init__(self) -> None:
        size = (MIN_LENGTH, MAX_LENGTH)
        ranges = dict(train=(1, 999_999), val=(1, 999_999), width=size, height=size, seed=(0, 2**63 - 1))
        for key, (low, high) in ranges.items():
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f'{key}={value!r} is not possible; give an integer from {low} to {high}')
        if isinstance(self.clutter, bool) or not isinstance(self.clutter, (int, float)) or not 0 <= self.clutter <= 1:
            raise ValueError(f'clutter={self.clutter!r} is not possible; give a number from 0 to 1')
        for name in self.classes:
            if name not in CLASSES:
                raise ValueError(f'classes: there is no {name!r}; there are {", ".join(CLASSES)}')
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f'classes={self.classes!r} is not possible; give each once, and one at least')

    def as_json(self) -> dict[str, Any]:
        """The values as JSON gives them back."""
        return {**asdict(self), 'clutter': float(self.clutter), 'classes': list(self.classes)}

    def jobs(self) -> list[tuple[str, int]]:
        """Split and number, from 0, of every picture."""
        return [(split, index) for split in SPLITS for index in range(getattr(self, split))]

    def files(self) -> list[str]:
        """Paths of all files of the set but ``shapes.json``."""
        images = [f'{split}/{image_name(index)}' for split, index in self.jobs()]
        return [annotation_path(split) for split in SPLITS] + images


def image_name(index: int) -> str:
    """File name of the picture with this number, from 0; image ids are one more."""
    return f'{index + 1:06d}.jpg'


def annotation_path(split: str) -> str:
    """Path of a split's annotations inside the set."""
    return f'annotations/instances_{split}.json'
