"""The files of a set, drawn when asked for: images as BMP, which is decoded faster than JPEG, and COCO annotations."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray

from .coco_format import annotation, categories
from .parameters import SPLITS, Parameters
from .scene import random_scene

#: Memory of a process for the images that it drew last, 3 bytes per pixel: 1,747 of 320 x 320 px.
CACHED_BYTES = 2**29

Annotations = list[dict[str, Any]]


def draw(split: str, index: int, parameters: Parameters) -> tuple[NDArray[np.uint8], Annotations]:
    """One picture (H, W, 3), B, G, R, and its annotations without ids; the same for the same arguments."""
    size = (parameters.width, parameters.height)
    rng = np.random.default_rng([parameters.seed, SPLITS.index(split), index])
    picture, items = random_scene(size, index, rng, parameters.clutter, parameters.classes, parameters.rare)
    return picture, [annotation(item, size, rng) for item in items]


@functools.lru_cache(maxsize=4)
def drawer(parameters: Parameters) -> Callable[[str, int], tuple[bytes, Annotations]]:
    """A function that draws a picture of the set as BMP, and keeps the last ones in memory."""

    @functools.lru_cache(maxsize=CACHED_BYTES // (3 * parameters.width * parameters.height))
    def drawn(split: str, index: int) -> tuple[bytes, Annotations]:
        picture, annotations = draw(split, index, parameters)
        return cv2.imencode('.bmp', picture)[1].tobytes(), annotations

    return drawn


@functools.lru_cache(maxsize=8)
def annotation_file(split: str, parameters: Parameters) -> bytes:
    """The annotations of a split, in COCO format.

    What is visible of an object is known when the picture is finished, so this draws every picture of the split.
    """
    count, width, height = getattr(parameters, split), parameters.width, parameters.height
    print_log(f'drawing {count} images of {width} x {height} px: {parameters.address}{split}', logger='current')
    images: Annotations = []
    annotations: Annotations = []
    for index in range(count):
        images.append(dict(id=index + 1, file_name=image_name(index), width=width, height=height))
        for fields in drawer(parameters)(split, index)[1]:  # ids start at 1: pycocotools takes annotation 0 for none
            annotations.append(dict(id=len(annotations) + 1, image_id=index + 1, **fields))
    info = dict(description='shapes of mmdet_gfl', url=parameters.address)
    content = dict(info=info, licenses=[], categories=categories(), images=images, annotations=annotations)
    return json.dumps(content, separators=(',', ':')).encode()


@functools.lru_cache(maxsize=8)
def files(parameters: Parameters) -> dict[str, Callable[[], bytes]]:
    """Path of each file inside the set → function that returns its content."""
    found: dict[str, Callable[[], bytes]] = {}
    for split in SPLITS:
        found[f'annotations/instances_{split}.json'] = functools.partial(annotation_file, split, parameters)
        for index in range(getattr(parameters, split)):
            found[f'{split}/{image_name(index)}'] = functools.partial(image_file, split, index, parameters)
    return found


def image_file(split: str, index: int, parameters: Parameters) -> bytes:
    """One picture as BMP."""
    return drawer(parameters)(split, index)[0]


def image_name(index: int) -> str:
    """File name of the picture with this number, from 0; image ids are one more."""
    return f'{index + 1:06d}.bmp'
