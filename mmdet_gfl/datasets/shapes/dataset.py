"""The data set for MMDetection, and the MMEngine file backend that draws its files."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from mmdet.datasets import CocoDataset
from mmengine.fileio import BaseStorageBackend, register_backend

from mmdet_gfl.registry import DATASETS

from .drawing import files
from .outlines import CLASSES
from .parameters import PREFIX, parse


@register_backend('mmdet_gfl.shapes', prefixes=PREFIX.removesuffix('://'))
class ShapesBackend(BaseStorageBackend):
    """The files of addresses such as ``shapes://width=160/train/000001.bmp``, drawn when they are read.

    All that reads by MMEngine's ``fileio`` takes such addresses: ``LoadImageFromFile``, ``CocoMetric``,
    ``DetVisualizationHook``, MMDetection's tools.
    """

    def get(self, filepath: str | Path) -> bytes:
        """Draw a file.

        Raises:
            FileNotFoundError: The set has no such file.
            UserError: The address has a key or value that is not possible.
        """
        parameters, path = parse(str(filepath))
        if path not in files(parameters):
            raise FileNotFoundError(f'{filepath}: the set has no file {path!r}')
        return files(parameters)[path]()

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Draw a file of text; errors as :meth:`get`."""
        return self.get(filepath).decode(encoding)

    def exists(self, filepath: str | Path) -> bool:
        """True if the set has the file; nothing is drawn."""
        parameters, path = parse(str(filepath))
        return path in files(parameters)

    def join_path(self, filepath: str | Path, *filepaths: str | Path) -> str:
        """The address of a path inside a folder of the set."""
        return posixpath.join(str(filepath), *map(str, filepaths))

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Iterator[str]:
        """A file on disk for libraries that read nothing else, such as pycocotools; removed at the end."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(filepath).name)
            path.write_bytes(self.get(filepath))
            yield str(path)


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """The built-in shapes in COCO format; see docs/shapes.md.

    ``data_root`` is an address such as ``shapes://width=160/height=160``, or a folder that ``make_shapes`` wrote. The
    other arguments are those of MMDetection's ``CocoDataset``.
    """

    METAINFO: ClassVar[dict[str, tuple[str, ...]]] = dict(classes=CLASSES)
