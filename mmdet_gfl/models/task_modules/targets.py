"""The input and the result of a target assignment, and measures of the positives.

Dimension letters: N images, K locations per image, R = N · K locations of the batch (in the order of
:class:`~mmdet_gfl.ops.LocationIndex`), P positives, M any number of locations, G objects of the batch, C classes, k
outputs per side. Boxes are (x1, y1, x2, y2) in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.ops import LevelPredictions, LocationCoords, LocationIndex, paired_iou

from .ground_truth import is_usable


@dataclass(frozen=True)
class AssignmentBatch:
    """The input of a target assignment; class logits and box outputs may be None where assignments are static."""

    index: LocationIndex  #: holds the sizes of the feature maps
    batch_gt_instances: Sequence[InstanceData]  #: ``bboxes`` and ``labels`` of each image
    batch_img_metas: Sequence[dict[str, Any]]
    batch_gt_instances_ignore: Sequence[InstanceData] | None = None  #: ignored regions of each image
    cls_scores: LevelPredictions | None = None
    bbox_preds: LevelPredictions | None = None

    @property
    def featmap_sizes(self) -> list[tuple[int, int]]:
        """Height and width of each level."""
        return self.index.featmap_sizes

    @property
    def device(self) -> torch.device:
        """Device of the objects."""
        return self.batch_gt_instances[0].labels.device

    @property
    def usable_gt_instances(self) -> list[InstanceData]:
        """Objects without those that :func:`is_usable` excludes, for assigners that would match them."""
        masks = [is_usable(boxes) for boxes in self.gt_bboxes]
        return [gt if mask.all() else gt[mask] for gt, mask in zip(self.batch_gt_instances, masks)]

    @property
    def gt_bboxes(self) -> list[Tensor]:
        """Objects of each image as tensors, (objects, 4)."""
        return [get_box_tensor(gt.bboxes) for gt in self.batch_gt_instances]

    def predictions(self) -> tuple[Tensor, Tensor]:
        """Class logits (N, K, C) and box outputs (N, K, 4k), detached, at least float32; ``ValueError`` without any."""
        if self.cls_scores is None or self.bbox_preds is None:
            raise ValueError(
                'this assignment depends on predictions, and the batch has none; give cls_scores and bbox_preds to '
                'DenseGFLMixin.assignment_batch'
            )
        cls, bbox = (self.index.image_major(kind.flatten().detach()) for kind in (self.cls_scores, self.bbox_preds))
        return cls, bbox


class Locations(NamedTuple):
    """Priors, centres and strides of locations: all that decoding needs."""

    priors: Tensor  #: start of the host's coder: anchors (M, 4), xyxy in pixels, or points (M, 2), xy in pixels
    centers: Tensor  #: (M, 2), xy in pixels; distances to the sides start here
    strides: Tensor  #: (M,), pixels per unit of distance: the stride of the location's level

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
    """Result of a target assignment."""

    pos: LocationCoords  #: coordinates of the P positives
    labels: Tensor  #: their classes, (P,) int64 in [0, C)
    gt_bboxes: Tensor  #: the objects they are matched to, (P, 4), xyxy in pixels
    locations: Locations  #: of the positives
    label_weights: Tensor | None  #: weight of each location in the class loss, (R,); None: all 1
    #: Number of positives as the host counts it for its normaliser, before any mean over ranks; a scalar tensor where
    #: only the device knows it.
    avg_factor: float | Tensor
    num_images: int
    quality: Tensor | None = None  #: measured of the positives by the assigner, (P,) in [0, 1]; None: nothing is

    def dense_labels(self, num_classes: int) -> Tensor:
        """Labels of all locations, (R,) int64, with C at the background."""
        labels = self.labels.new_full((self.pos.index.total,), num_classes)
        return labels.index_copy_(0, self.pos.flat_inds, self.labels)


def build_targets(
    index: LocationIndex,
    matched_gt_inds: Tensor,
    batch_gt_instances: Sequence[InstanceData],
    priors_at: Callable[[LocationCoords], Tensor],
    strides: Sequence[float],
) -> Targets:
    """Targets in which every location weighs 1 and every positive is counted.

    Args:
        index: The index of the locations.
        matched_gt_inds: Object that each location is matched to, (R,), counted through the batch from 0; G at the
            background.
        batch_gt_instances: Objects of the images.
        priors_at: Gives anchors (P, 4) or points (P, 2) at coordinates, in pixels.
        strides: Stride of each level, in pixels.
    """
    labels = torch.cat([gt.labels for gt in batch_gt_instances])
    pos = index.coords((matched_gt_inds < len(labels)).nonzero().squeeze(1))
    chosen = matched_gt_inds[pos.flat_inds]
    boxes = torch.cat([get_box_tensor(gt.bboxes) for gt in batch_gt_instances])[chosen]
    priors = priors_at(pos)
    locations = Locations.of_priors(priors, pos.of_levels(strides, priors.dtype))
    return Targets(
        pos, labels[chosen].long(), boxes, locations, None, avg_factor=float(len(pos)), num_images=index.num_images
    )


def targets_from_levels(
    batch: AssignmentBatch,
    labels: Sequence[Tensor],
    gt_bboxes: Sequence[Tensor],
    label_weights: Sequence[Tensor],
    locations: Locations,
    num_classes: int,
    quality: Sequence[Tensor] | None = None,
) -> Targets:
    """Targets from the result of a ``get_targets`` of MMDetection, in which every positive is counted.

    Args:
        batch: The batch.
        labels: Labels of each level, (N, K_level), with C at the background.
        gt_bboxes: Boxes of the matched objects, (N, K_level, 4) each.
        label_weights: Weights in the class loss, (N, K_level) each.
        locations: The K locations of an image.
        num_classes: C.
        quality: Measures of the assigner, (N, K_level) each.
    """
    flat_labels = _flatten(labels)
    pos = batch.index.coords((flat_labels < num_classes).nonzero().squeeze(1))
    return Targets(
        pos=pos,
        labels=flat_labels[pos.flat_inds].long(),
        gt_bboxes=_flatten(gt_bboxes)[pos.flat_inds],
        locations=Locations(*(values[pos.prior_inds] for values in locations)),
        label_weights=_flatten(label_weights),
        avg_factor=float(len(pos)),
        num_images=batch.index.num_images,
        quality=None if quality is None else _flatten(quality)[pos.flat_inds],
    )


def _flatten(levels: Sequence[Tensor]) -> Tensor:
    """Levels (N, K_level, ...) to (R, ...)."""
    return torch.cat([level.flatten(0, 1) for level in levels])


class Positives:
    """The positives' predictions beside their objects; each measure is computed once, and only when asked for.

    Everything here is detached: it serves as target and as weight, never as a path for gradients. Logits are (P, C),
    decoded boxes (P, 4), xyxy in pixels, not clipped to the image; ``to_scores`` turns logits (P, C) into scores in
    [0, 1], one per class.
    """

    def __init__(
        self, logits: Tensor, boxes: Tensor, targets: Targets, to_scores: Callable[[Tensor], Tensor] = torch.sigmoid
    ) -> None:
        self.logits, self.boxes = logits.detach(), boxes.detach()
        self.labels, self.gt_bboxes, self.locations = targets.labels, targets.gt_bboxes, targets.locations
        #: What the assigner measured, (P,); None where it measures nothing.
        self.assigned_quality = targets.quality
        self.to_scores = to_scores

    @cached_property
    def iou(self) -> Tensor:
        """IoU of the decoded boxes and their objects, (P,)."""
        return paired_iou(self.boxes, self.gt_bboxes)

    @cached_property
    def centerness(self) -> Tensor:
        """FCOS's centerness of the locations in their objects, (P,); 0 where the centre lies outside the object.

        ``sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))``, arXiv:1904.01355, eq. (3).
        """
        sides = self.locations.distances(self.gt_bboxes).clamp(min=0)  # (P, 4)
        horizontal, vertical = sides[:, 0::2], sides[:, 1::2]
        smallest = horizontal.amin(1) * vertical.amin(1)
        largest = horizontal.amax(1) * vertical.amax(1)
        return (smallest / largest.clamp(min=torch.finfo(sides.dtype).tiny)).sqrt()

    @cached_property
    def score(self) -> Tensor:
        """Largest class score of the location, (P,)."""
        return self.to_scores(self.logits).amax(dim=1)
