"""The detector as the exporter traces it: images in, tensors out, nothing of samples and meta information.

Dimension letters: N images, H and W of the input, K locations per image, C classes, D detections per image.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_gfl.ops import upcast

from .decoding import Predictions, decode_outputs
from .selection import Detections, Thresholds, detect

OUTPUTS = ('nms', 'decoded', 'raw')


class ExportedDetector(nn.Module):
    """A detector whose ``forward`` is one of three graphs.

    Args:
        model: The detector, with a head of ours, in eval mode.
        output: ``'raw'``: what the head gives per level. ``'decoded'``: boxes and scores of all locations. ``'nms'``:
            detections.
        thresholds: Needed by ``'nms'``.
        with_std: Give the sides' standard deviations too.
        preprocess: Take images as they are decoded (BGR, 0 to 255), and normalise them.
        half: Compute the layers in half precision; all that follows stays in float32.
    """

    def __init__(
        self,
        model: Any,
        output: str,
        thresholds: Thresholds | None = None,
        with_std: bool = False,
        preprocess: bool = False,
        half: bool = False,
    ) -> None:
        super().__init__()
        self.model = _halved(model) if half else model
        self.output = output
        self.thresholds = thresholds
        self.with_std = with_std
        self.preprocess = preprocess
        self.half_precision = half

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        if self.output == 'raw':
            kinds = ('cls', 'reg', 'branch')[: 2 + self.model.bbox_head.quality.branch]
            return [
                f'{kind}_{level}'
                for kind in kinds
                for level in range(len(self.model.bbox_head.prior_generator.strides))
            ]
        return [*(('boxes', 'scores') if self.output == 'decoded' else ('dets', 'labels')), *['std'] * self.with_std]

    def forward(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Outputs by :attr:`output_names`.

        Args:
            images: (N, 3, H, W).
            image_sizes: Height and width of each image in the batch without what it was padded by, (N, 2) or (1, 2);
                boxes are clipped to it, and to the input. Not used by ``'raw'``.
        """
        outs = self.head_outputs(images)
        if image_sizes is None or self.output == 'raw':
            return tuple(upcast(level) for kind in outs for level in kind)
        predictions = self.decode(outs, images, image_sizes)
        if self.output == 'decoded':
            return _given(predictions.boxes, predictions.scores, predictions.std)
        return _given(*self.detect(predictions))

    def head_outputs(self, images: Tensor) -> Any:
        """The result of the head's ``forward`` for a batch."""
        if self.preprocess:
            images = self.normalize(images)
        return self.model.bbox_head(self.model.extract_feat(images.half() if self.half_precision else images))

    def normalize(self, images: Tensor) -> Tensor:
        """Images as the detector's ``data_preprocessor`` normalises them, in float32."""
        preprocessor = self.model.data_preprocessor
        images = images[:, [2, 1, 0]] if preprocessor._channel_conversion else images
        return (
            (images - preprocessor.mean.float()) / preprocessor.std.float()
            if preprocessor._enable_normalize
            else images
        )

    def decode(self, outs: Any, images: Tensor, image_sizes: Tensor) -> Predictions:
        """Predictions of all locations from outputs of the head."""
        size = torch.stack([torch.full((), images.size(side), dtype=torch.float32) for side in (2, 3)])
        sizes = image_sizes.minimum(size).expand(images.size(0), -1)
        return decode_outputs(self.model.bbox_head, outs, sizes, self.with_std)

    def detect(self, predictions: Predictions) -> Detections:
        """Detections from predictions."""
        assert self.thresholds is not None
        return detect(predictions, self.thresholds)


def _halved(model: Any) -> Any:
    """A copy of the detector with its layers in half precision; what normalises images stays."""
    model = copy.deepcopy(model)
    for name in ('backbone', 'neck', 'bbox_head'):
        if hasattr(model, name):
            getattr(model, name).half()
    return model


def _given(*outputs: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(output for output in outputs if output is not None)
