"""A fixed part of a COCO data set, by image id."""

from __future__ import annotations

from typing import Any

from mmdet.datasets import CocoDataset

from mmdet_gfl.registry import DATASETS


@DATASETS.register_module()
class CocoSubset(CocoDataset):
    """COCO's images whose id is a multiple of a number, the same ones on every machine.

    Args:
        *args: As of MMDetection's ``CocoDataset``.
        every: The number; 1 for all images.
        **kwargs: As of MMDetection's ``CocoDataset``.

    Raises:
        ValueError: ``every`` is not an integer from 1 up.
    """

    def __init__(self, *args: Any, every: int, **kwargs: Any) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f'every={every!r}: give an integer from 1 up')
        self.every = every
        super().__init__(*args, **kwargs)

    def filter_data(self) -> list[dict[str, Any]]:
        """The images that are left, after MMDetection's own filters."""
        return [image for image in super().filter_data() if image['img_id'] % self.every == 0]
