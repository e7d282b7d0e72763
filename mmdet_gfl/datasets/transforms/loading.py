"""Loading images, with an error that names the file."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile
from numpy.typing import NDArray

from mmdet_gfl.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(MMCVLoadImageFromFile):
    """mmcv's ``LoadImageFromFile``; an image that cannot be decoded is named, whatever the decoder says of it.

    OpenCV's error for an empty file, for one, is about its own buffers.

    Args:
        cache: Keep every decoded image in memory, where the data set fits: H · W · 3 bytes an image, in each
            process that loads (each worker of a data loader).
        **kwargs: mmcv's.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no image, or cut short before its header ends.
    """

    def __init__(self, cache: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cache = cache
        self._kept: dict[str, NDArray[Any]] = {}

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Adds ``img`` (H, W, 3), BGR uint8, and its shapes to ``results``; None where errors are to be ignored."""
        kept = self._kept.get(results['img_path'])
        if kept is None:
            loaded = self._load(results)
            if self.cache and loaded is not None:
                self._kept[results['img_path']] = loaded['img'].copy()  # what follows may write into it
            return loaded
        results['img'] = kept.copy()
        results['img_shape'] = results['ori_shape'] = kept.shape[:2]
        return results

    def _load(self, results: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return super().transform(results)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f'image {results["img_path"]} cannot be read: the file is empty, damaged or no image; mend or remove '
                f'it, and its entry in the annotation file'
            ) from error
