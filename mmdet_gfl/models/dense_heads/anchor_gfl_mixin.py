"""What hosts with anchors share: targets, coding, and where their boxes start.

Dimension letters: N images, A anchors a cell, R anchors of the batch, P positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.assigners import BboxOverlaps2D
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.models.boxes import SideCoding
from mmdet_gfl.models.task_modules import AnchorGrid, Layout, Locations, Targets, count_by_image, targets_of
from mmdet_gfl.models.task_modules.layout import divide

from .dense_gfl_mixin import DenseGFLMixin
from .predict_mixin import square

#: Methods of MMDetection's heads that assign targets.
OF_THE_ASSIGNMENT = ('get_anchors', 'get_targets', '_get_targets_single')


class AnchorCoding(SideCoding):
    """Four numbers by MMDetection's ``bbox_coder``, relative to the anchor.

    Args:
        coder: The head's ``bbox_coder``.
        decoded: Whether the box loss looks at boxes in pixels, as an IoU loss must; else at the four numbers.
    """

    def __init__(self, coder: BaseBBoxCoder, decoded: bool) -> None:
        self.coder = coder
        self.in_pixels = decoded

    def decode(self, raw: Tensor, at: Locations) -> Tensor:
        """Boxes (M, 4), xyxy in pixels."""
        return get_box_tensor(self.coder.decode(at.priors, raw))

    def encode(self, boxes: Tensor, at: Locations) -> Tensor:
        """The coder's four numbers (M, 4)."""
        return self.coder.encode(at.priors, boxes)

    def pair(self, raw: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Boxes in pixels if the loss looks at boxes, else the four numbers."""
        return (boxes, targets.gt) if self.in_pixels else (raw, self.encode(targets.gt, targets.at))


class AnchorGFLMixin(DenseGFLMixin):
    """A :class:`DenseGFLMixin` for hosts with anchors and a ``bbox_coder``.

    Args:
        *args: :class:`DenseGFLMixin`'s.
        **kwargs: Likewise. ``reg_decoded_bbox`` says where the loss of a Dirac box looks; targets are always boxes.
    """

    reg_decoded_bbox: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_on_boxes = self.reg_decoded_bbox
        self.reg_decoded_bbox = True  # `get_targets` then gives the objects, which the coding encodes where needed
        self.check_box_loss()

    @property
    def coding(self) -> AnchorCoding:
        """The ``bbox_coder``'s."""
        return AnchorCoding(self.bbox_coder, self.loss_on_boxes)

    def start_distances(self) -> Tensor:
        """Half the anchors of a cell, (A, 4), in strides; those of the first level, since all share one layer."""
        return half_anchors(self.prior_generator, 0)

    def targets(
        self,
        sizes: list[tuple[int, int]],
        gts: Sequence[InstanceData],
        metas: Sequence[dict[str, Any]],
        ignored: Sequence[InstanceData] | None,
    ) -> Targets:
        """Assignment by MMDetection's ``get_targets``, flattened."""
        anchors, flags = self.get_anchors(sizes, metas, device=gts[0].bboxes.device)
        of_levels = [get_box_tensor(level) for level in anchors[0]]
        # ATSSHead puts the anchors before what AnchorHead returns.
        labels, label_weights, boxes, _, avg_factor = self.get_targets(
            anchors, flags, gts, metas, batch_gt_instances_ignore=ignored
        )[-5:]
        flat_labels = rows(labels)
        pos = (flat_labels < self.num_classes).nonzero().squeeze(1)
        layout = Layout(sizes, len(metas), self.prior_generator.num_base_priors)
        bounds = layout.bounds(pos)
        priors, objects, strides = [], [], []
        for level, first in enumerate(layout.starts[:-1]):
            count = len(of_levels[level])
            image, prior = divide(pos[bounds[level] : bounds[level + 1]] - first, count)
            priors.append(of_levels[level][prior])
            objects.append(boxes[level][image, prior])
            strides.append(priors[-1].new_full((len(prior),), square(self.prior_generator.strides[level])))
        return Targets(
            labels=flat_labels,
            label_weights=rows(label_weights),
            pos=pos,
            gt=torch.cat(objects),
            at=Locations.of_priors(torch.cat(priors), torch.cat(strides)),
            avg_factor=avg_factor,
            num_images=len(metas),
        )

    def assigns_like(self, stock: type, ignored: Sequence[InstanceData] | None) -> bool:
        """Whether the anchors are an :class:`AnchorGrid` and nothing but the assigner decides whose they are.

        Args:
            stock: MMDetection's head, of whose assignment nothing may be overridden.
            ignored: Ignored regions of the images.
        """
        assigner = self.assigner
        overlaps = assigner.iou_calculator
        ignores = assigner.ignore_iof_thr > 0 and any(len(regions) for regions in ignored or ())
        return (
            not ignores
            and type(overlaps) is BboxOverlaps2D
            and (overlaps.scale, overlaps.dtype) == (1.0, None)
            and type(self.sampler) is PseudoSampler
            and self.train_cfg['allowed_border'] < 0
            and AnchorGrid.fits(self.prior_generator)
            and all(getattr(type(self), name) is getattr(stock, name) for name in OF_THE_ASSIGNMENT)
        )

    def targets_on_grid(
        self, grid: AnchorGrid, owners: Tensor, weights: Tensor | None, gts: Sequence[InstanceData]
    ) -> Targets:
        """Targets from owners, as MMDetection counts and weighs them.

        Args:
            grid: The anchors.
            owners: See :func:`targets_of`.
            weights: Weight of each location, (R,); None: all 1. ``train_cfg.pos_weight``, if positive, is put in.
            gts: Objects of the images.
        """
        targets = targets_of(grid.layout, owners, gts, self.num_classes, grid.anchors, grid.strides[0])
        per_image = count_by_image(grid.layout, targets.pos)
        targets = targets._replace(avg_factor=per_image.clamp(min=1).sum())
        pos_weight = self.train_cfg['pos_weight']
        if weights is None and pos_weight <= 0:
            return targets
        weights = targets.label_weights if weights is None else weights
        if pos_weight > 0:
            weights[targets.pos] = pos_weight
        return targets._replace(label_weights=weights, all_count=False)


def half_anchors(generator: AnchorGenerator, level: int) -> Tensor:
    """Distances l, t, r, b from the centres of the anchors of a level to their sides, (A, 4), in strides."""
    anchors = generator.base_anchors[level]
    half = (anchors[:, 2:] - anchors[:, :2]) / 2 / square(generator.strides[level])
    return torch.cat((half, half), dim=1)


def rows(levels: Sequence[Tensor]) -> Tensor:
    """Levels (N, priors) to (R,)."""
    return torch.cat([level.reshape(-1) for level in levels])
