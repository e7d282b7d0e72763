"""What every representation of a box side answers, and what a host's own coding of a side answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor, nn

from mmdet_gfl.models.task_modules import Locations, Targets

if TYPE_CHECKING:
    from mmdet_gfl.models.dense_heads.dense_gfl_mixin import DenseGFLMixin


class SideCoding:
    """How a host codes four sides in four numbers: a pair of inverse functions, and the frame of its box loss."""

    #: Whether :meth:`pair` gives boxes, or distances to their sides, and not numbers that IoU has no meaning for.
    in_pixels: bool = True

    def decode(self, raw: Tensor, at: Locations) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, not clipped to the image, from the four outputs (M, 4)."""
        raise NotImplementedError

    def encode(self, boxes: Tensor, at: Locations) -> Tensor:
        """The four numbers (M, 4) that :meth:`decode` turns into ``boxes`` (M, 4), as far as they can be reached."""
        raise NotImplementedError

    def pair(self, raw: Tensor, boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Prediction and target (P, 4) in the frame of the host's box loss; here boxes in pixels.

        Args:
            raw: Outputs of the positives, (P, 4).
            boxes: What :meth:`decode` made of them, (P, 4), with its graph.
            targets: The objects and the locations of the positives.
        """
        return boxes, targets.gt


class SideStatistics(NamedTuple):
    """The predicted distribution of each side's distance l, t, r, b, in strides.

    Attributes:
        mean: (M, 4).
        std: Standard deviation, (M, 4).
        distribution: Probabilities (M, 4, n+1) of the distances 0, Δ, …, nΔ; None where there is none to list.
        step: Δ, the distance between neighbours; None likewise.
    """

    mean: Tensor
    std: Tensor
    distribution: Tensor | None = None
    step: float | None = None


class BoxRepresentation:
    """How a box side is represented: what is predicted of it, and how it is supervised.

    The object is stateless: it holds hyper-parameters, no parameters, no buffers and no losses (those hang on the
    head, see :meth:`modules`). A subclass is one file in this folder.
    """

    #: What ``test_cfg.with_distribution`` may ask of this representation.
    statistics: ClassVar[tuple[str, ...]] = ()
    #: Whether the outputs are the host's own four numbers, see :class:`SideCoding`; else it knows nothing of them.
    in_host_coding: ClassVar[bool] = False

    @property
    def channels(self) -> int:
        """Outputs a side."""
        return 1

    @property
    def reach(self) -> float:
        """The largest distance that can be predicted, in strides."""
        return float('inf')

    def modules(self, loss_bbox: nn.Module) -> dict[str, nn.Module]:
        """Layers and losses that the head registers under MMDetection's names.

        Args:
            loss_bbox: The box loss of the head's config, or the host's default.
        """
        return dict(loss_bbox=loss_bbox)

    def start(self, conv: nn.Conv2d, distances: Tensor) -> None:
        """Sets where the outputs start, after the host has initialised them.

        Args:
            conv: The output layer, A · 4 · channels wide.
            distances: What suits the host's priors: l, t, r, b of each of the A priors of a cell, (A, 4), in strides.
        """

    def decode(self, raw: Tensor, at: Locations, head: DenseGFLMixin) -> Tensor:
        """Boxes (M, 4), xyxy in pixels, not clipped to the image, from the outputs (M, 4 · channels)."""
        raise NotImplementedError

    def losses(
        self, raw: Tensor, boxes: Tensor, targets: Targets, weights: Tensor, norm: Tensor, head: DenseGFLMixin
    ) -> dict[str, Tensor]:
        """Box losses of the positives, scalars by their key; keys without ``loss`` are logged, not summed.

        Args:
            raw: Outputs of the positives, (P, 4 · channels).
            boxes: What :meth:`decode` made of them, (P, 4), with its graph.
            targets: The objects and the locations of the positives.
            weights: (P,).
            norm: What the weighted sums are divided by.
            head: Holds the losses.
        """
        raise NotImplementedError

    def side_statistics(self, raw: Tensor, head: DenseGFLMixin) -> SideStatistics:
        """Mean and spread of each side, of outputs (M, 4 · channels); see :attr:`statistics`."""
        raise NotImplementedError
