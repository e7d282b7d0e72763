"""Base classes: a representation of a box side, and a host's own coder of a box in four numbers."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from mmdet_gfl.models.task_modules import Locations, Targets


class HostBoxCoder:
    """A host's coding of a box in four numbers: a pair of inverse functions, and the inputs of its box loss."""

    #: Whether :meth:`loss_inputs` are boxes, or distances to their sides, and not numbers that have no IoU.
    on_boxes: bool = True

    def decode(self, bbox_pred: Tensor, locations: Locations) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, not clipped to the image, from the four outputs (M, 4)."""
        raise NotImplementedError

    def encode(self, boxes: Tensor, locations: Locations) -> Tensor:
        """The four numbers (M, 4) that :meth:`decode` turns into ``boxes`` (M, 4), as far as they can be reached."""
        raise NotImplementedError

    def loss_inputs(self, bbox_pred: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Prediction and target (P, 4) of the host's box loss: boxes in pixels if :attr:`on_boxes`, else the numbers.

        ``bbox_pred`` (P, 4) are the outputs of the positives, ``boxes`` (P, 4) the same decoded, with their graph.
        """
        if self.on_boxes:
            return boxes, targets.gt_bboxes
        return bbox_pred, self.encode(targets.gt_bboxes, targets.locations)


class BoxHead(Protocol):
    """The parts of a head that a box representation may use."""

    loss_bbox: Any
    loss_dfl: Any
    integral: Any

    @property
    def host_coder(self) -> HostBoxCoder:
        """The host's own coding of a box in four numbers."""


class SideStatistics(NamedTuple):
    """The predicted distribution of each side's distance l, t, r, b, in strides."""

    mean: Tensor  #: (M, 4)
    std: Tensor  #: standard deviation, (M, 4)
    distribution: Tensor | None = None  #: probabilities (M, 4, n+1) of 0, Δ, …, nΔ; None if it is continuous
    step: float | None = None  #: Δ, the distance between neighbours; None likewise


class BoxRepresentation:
    """A representation of a box side: the outputs that predict it, and the losses that train them.

    The object is stateless: it holds hyper-parameters, no parameters, no buffers and no losses (those are attributes of
    the head, see :meth:`build_modules`). A subclass is one file in this folder.
    """

    #: What ``test_cfg.with_distribution`` may ask of this representation.
    statistics: ClassVar[tuple[str, ...]] = ()
    #: Whether the outputs are the host's own four numbers, see :class:`HostBoxCoder`; else that coder is not used.
    uses_host_coder: ClassVar[bool] = False

    @property
    def channels(self) -> int:
        """Outputs per side."""
        return 1

    @property
    def max_distance(self) -> float:
        """The largest distance that can be predicted, in strides."""
        return float('inf')

    def build_modules(self, head: BoxHead) -> dict[str, nn.Module]:
        """Layers and losses that the head registers under MMDetection's names; called once, at construction.

        ``head.loss_bbox`` is that of its config, or the host's default.
        """
        return {}

    def init_weights(self, conv: nn.Conv2d, prior_distances: Tensor) -> None:
        """Initialize the A · 4 · channels outputs, after the host has initialized them.

        ``prior_distances`` are a suitable start: l, t, r, b of each of the A priors of a cell, (A, 4), in strides.
        """

    def init_at_priors(self, conv: nn.Conv2d, prior_distances: Tensor) -> None:
        """:meth:`init_weights` of hosts whose assigner compares predicted boxes: the boxes start at the priors."""
        self.init_weights(conv, prior_distances)

    def decode(self, bbox_pred: Tensor, locations: Locations, head: BoxHead) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, not clipped to the image, from the outputs (M, 4 · channels)."""
        raise NotImplementedError

    def losses(
        self, bbox_pred: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, avg_factor: Tensor, head: BoxHead
    ) -> dict[str, Tensor]:
        """Box losses of the positives, scalars by their key; keys without ``loss`` are logged, not summed.

        Args:
            bbox_pred: Outputs of the positives, (P, 4 · channels).
            boxes: The same decoded, (P, 4), with their graph.
            targets: The objects and the locations of the positives.
            weights: (P,).
            avg_factor: Divides the weighted sums.
            head: Holds the losses.
        """
        raise NotImplementedError

    def side_statistics(self, bbox_pred: Tensor, head: BoxHead) -> SideStatistics:
        """Mean and spread of each side, of outputs (M, 4 · channels); see :attr:`statistics`."""
        raise NotImplementedError
