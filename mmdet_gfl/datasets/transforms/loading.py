"""Loading images, with an error that names the file."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile

from mmdet_gfl.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(MMCVLoadImageFromFile):
    """mmcv's ``LoadImageFromFile``; an image that cannot be decoded is named, whatever the decoder says of it.

    OpenCV's error for an empty file, for one, is about its own buffers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no image, or cut short before its header ends.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Adds ``img`` (H, W, 3), BGR uint8, and its shapes to ``results``; None where errors are to be ignored."""
        try:
            return super().transform(results)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f'image {results["img_path"]} cannot be read: the file is empty, damaged or no image. Mend or remove '
                f'it, and its entry in the annotation file'
            ) from error
