"""What determines a set, and the files it consists of."""

from __future__ import annotations

import re
from dataclasses import dataclass

MANIFEST = 'shapes.json'
#: To be raised when the same parameters give other pictures or annotations than before.
VERSION = 1
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
        seed: Picture i of a split depends on the seed, the split, i and the size, not on how many there are.

    Raises:
        ValueError: A value is no integer or out of range.
    """

    train: int = 1000
    val: int = 200
    width: int = 320
    height: int = 320
    seed: int = 0

    def __post_init__(self) -> None:
        size = (MIN_LENGTH, MAX_LENGTH)
        ranges = dict(train=(1, 999_999), val=(1, 999_999), width=size, height=size, seed=(0, 2**63 - 1))
        for key, (low, high) in ranges.items():
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f'{key}={value!r} is not possible; give an integer from {low} to {high}')

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
