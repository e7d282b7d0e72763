"""What target assignment gives to the loss steps, and what is measured of the positives.

Dimension letters: R locations of the batch (every prior of every level of every image), P positives, M any number of
locations, G objects of an image, C classes. The R locations run level by level, inside a level image by image, inside
an image as the prediction's (H, W, priors) flattens. Boxes are (x1, y1, x2, y2) in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.ops.iou import paired_iou

#: Coordinates from here on, in pixels, are no coordinates: the area of such a box is beyond float32's precision.
FARTHEST = 1e8


class Locations(NamedTuple):
    """Where boxes are decoded.

    Attributes:
        priors: What the host's coding starts from: anchors (M, 4), xyxy in pixels, or points (M, 2), xy in pixels.
        centers: (M, 2), xy in pixels; distances to the sides start here.
        strides: (M,), pixels per unit of distance: the stride of the location's level.
    """

    priors: Tensor
    centers: Tensor
    strides: Tensor

    @classmethod
    def of_priors(cls, priors: Tensor, strides: Tensor) -> Locations:
        """Locations at the centres of anchors (M, 4), or at points (M, 2); ``strides`` (M,) in pixels."""
        centers = priors if priors.size(-1) == 2 else (priors[:, :2] + priors[:, 2:]) / 2
        return cls(priors, centers, strides)

    def distances(self, boxes: Tensor) -> Tensor:
        """Distances l, t, r, b from the centres to the sides of ``boxes`` (M, 4), in strides: (M, 4).

        Negative where the centre lies outside the box.
        """
        sides = torch.cat((self.centers - boxes[:, :2], boxes[:, 2:] - self.centers), dim=1)
        return sides / self.strides[:, None]

    def boxes(self, distances: Tensor) -> Tensor:
        """Inverse of :meth:`distances`: boxes (M, 4), xyxy in pixels, from distances (M, 4) in strides."""
        pixels = distances * self.strides[:, None]
        return torch.cat((self.centers - pixels[:, :2], self.centers + pixels[:, 2:]), dim=1)


class Targets(NamedTuple):
    """What each location shall learn.

    Attributes:
        labels: (R,) int64; a class in [0, C) at positives, C at the background.
        label_weights: (R,), weight of a location in the class loss: 0 for priors that don't count.
        pos: (P,) int64, the positives among the R locations.
        gt: (P, 4), the objects the positives belong to, xyxy in pixels.
        at: The positives' :class:`Locations`.
        avg_factor: Number of positives as the host counts it for its normaliser, before any mean over ranks; a scalar
            tensor where it is known to the device only.
        num_images: Images of the batch.
        all_count: All ``label_weights`` are 1, known without a look at them.
    """

    labels: Tensor
    label_weights: Tensor
    pos: Tensor
    gt: Tensor
    at: Locations
    avg_factor: float | Tensor
    num_images: int
    all_count: bool = False


class Positives:
    """The positives' predictions beside their objects; each measure is computed once, and only when asked for.

    Everything here is detached: it serves as target and as weight, never as a path for gradients.

    Args:
        logits: Class logits (P, C).
        boxes: Decoded boxes (P, 4), xyxy in pixels, not clipped to the image.
        targets: Where the positives stand, and their objects.
        to_scores: Turns logits (P, C) into scores in [0, 1], one a class.
    """

    def __init__(
        self,
        logits: Tensor,
        boxes: Tensor,
        targets: Targets,
        to_scores: Callable[[Tensor], Tensor] = torch.sigmoid,
    ) -> None:
        self.logits = logits.detach()
        self.boxes = boxes.detach()
        self.labels = targets.labels[targets.pos]
        self.gt = targets.gt
        self.at = targets.at
        self.to_scores = to_scores

    @cached_property
    def iou(self) -> Tensor:
        """IoU of the decoded boxes and their objects, (P,)."""
        return paired_iou(self.boxes, self.gt)

    @cached_property
    def centerness(self) -> Tensor:
        """FCOS's centerness of the locations in their objects, (P,); 0 where the centre lies outside the object.

        ``sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))``, arXiv:1904.01355, eq. (3).
        """
        sides = self.at.distances(self.gt).clamp(min=0)  # (P, 4)
        horizontal, vertical = sides[:, 0::2], sides[:, 1::2]
        smallest = horizontal.amin(1) * vertical.amin(1)
        largest = horizontal.amax(1) * vertical.amax(1)
        return (smallest / largest.clamp(min=torch.finfo(sides.dtype).tiny)).sqrt()

    @cached_property
    def score(self) -> Tensor:
        """Largest class score of the location, (P,)."""
        return self.to_scores(self.logits).amax(dim=1)


def check_ground_truth(gts: Sequence[InstanceData], metas: Sequence[dict[str, Any]], num_classes: int) -> None:
    """Refuses objects that no loss can use, before they become a NaN somewhere else.

    Looks only at tensors on the CPU: on a GPU the answer would make the host wait at every step. (The hook
    ``mmdet_gfl.CheckGroundTruthHook`` looks before the batch is copied to the device.)

    Args:
        gts: An image's ``bboxes`` (G, 4), xyxy in pixels, and ``labels`` (G,) in [0, C).
        metas: The images' meta information; ``img_path`` names the image in the message.
        num_classes: C.

    Raises:
        ValueError: A box is not finite or beyond :data:`FARTHEST`, or a label is outside [0, C).
    """
    for index, (gt, meta) in enumerate(zip(gts, metas)):
        boxes = get_box_tensor(gt.bboxes)
        if boxes.device.type != 'cpu' or not len(boxes):
            continue
        image = meta.get('img_path') or f'number {index} of the batch'
        broken = (~(boxes.abs() < FARTHEST)).any(dim=1)
        if broken.any():
            first = int(broken.nonzero()[0])
            raise ValueError(
                f'image {image}: box {first} of {len(boxes)} is {boxes[first].tolist()}; x1, y1, x2, y2 in '
                f'pixels are needed, finite and below {FARTHEST:g}. Mend the annotation file, or the transform that '
                f'made the box.'
            )
        wrong = (gt.labels < 0) | (gt.labels >= num_classes)
        if wrong.any():
            raise ValueError(
                f'image {image}: label {int(gt.labels[wrong][0])} is outside [0, num_classes) with num_classes='
                f"{num_classes}. Set bbox_head.num_classes to the number of the data set's classes, or the data "
                f"set's metainfo=dict(classes=...) to the model's."
            )
