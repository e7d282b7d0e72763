"""From the object that each location belongs to, to targets.

Dimension letters: N images, L levels, R locations of the batch, P positives, G objects of the batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from .layout import Layout, Places
from .targets import Locations, Targets


def targets_of(
    layout: Layout,
    owners: Tensor,
    gts: Sequence[InstanceData],
    num_classes: int,
    priors: Callable[[Places], Tensor],
    strides: Tensor,
) -> Targets:
    """Targets in which every location counts 1 and every positive is counted.

    Args:
        layout: How the locations are numbered.
        owners: The object that each location belongs to, (R,), counted through the batch from 0; G at the background.
        gts: Objects of the images.
        num_classes: C.
        priors: Gives anchors (P, 4) or points (P, 2) of places, in pixels.
        strides: (L,), in pixels.
    """
    labels = torch.cat([gt.labels for gt in gts])
    pos = (owners < len(labels)).nonzero().squeeze(1)
    chosen = owners[pos]
    at = layout.places(pos)
    return Targets(
        labels=torch.full_like(owners, num_classes).index_copy_(0, pos, labels[chosen]),
        label_weights=strides.new_ones(len(owners)),
        pos=pos,
        gt=torch.cat([get_box_tensor(gt.bboxes) for gt in gts])[chosen],
        at=Locations.of_priors(priors(at), strides[at.level]),
        avg_factor=float(len(pos)),
        num_images=layout.num_images,
        all_count=True,
    )


def count_by_image(layout: Layout, pos: Tensor) -> Tensor:
    """Positives of each image, (N,) in float32, of positives (P,)."""
    ones = torch.ones(len(pos), device=pos.device)
    return torch.zeros(layout.num_images, device=pos.device).index_add_(0, layout.places(pos).image, ones)
