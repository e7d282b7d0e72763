"""Comparison of onnxruntime with torch on the same input; detections are matched, since near-equal scores may swap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmdet_gfl.engine.errors import UserError

from .graph import ExportedDetector
from .metadata import test_pipeline
from .selection import Thresholds

if TYPE_CHECKING:
    import onnx
    import onnxruntime

#: Detections further apart than this, in pixels, are not the same.
SAME_BOX = 2.0
#: IoUs this near to the threshold may fall on either side of it.
IOU_ROUNDING = 1e-3


class Limits(NamedTuple):
    """The largest differences that pass: in pixels, and in scores."""

    pixels: float
    score: float


#: Of a graph in single precision, and of one in half precision.
LIMITS = Limits(0.1, 1e-3)
HALF_LIMITS = Limits(1.0, 1e-2)


class Difference(NamedTuple):
    """Differences between two results.

    Attributes:
        compared: Boxes compared.
        pixels: Largest difference of a coordinate or a standard deviation.
        score: Largest difference of a score.
        swapped: Detections that one side alone has, because of boxes that overlap and whose scores are nearly equal the
            other side has kept another one, or because of the limit on their number.
        unmatched: Detections that one side alone has for no such reason.
    """

    compared: int
    pixels: float
    score: float
    swapped: int = 0
    unmatched: int = 0

    def within(self, limits: Limits) -> bool:
        """True if it passes; NaN does not."""
        return self.pixels <= limits.pixels and self.score <= limits.score and not self.unmatched

    def __str__(self) -> str:
        swapped = f', {self.swapped} chosen otherwise among nearly equal scores' if self.swapped else ''
        lost = f', {self.unmatched} without a counterpart' if self.unmatched else ''
        differences = f'largest differences {self.pixels:.2g} pixels and {self.score:.2g} in score'
        return f'{self.compared} boxes, {differences}{swapped}{lost}'


class ModelInput(NamedTuple):
    """An input of the graph.

    Attributes:
        name: For the report.
        images: (N, 3, H, W), as the graph takes them.
        image_sizes: Height and width without padding, (N, 2).
    """

    name: str
    images: Tensor
    image_sizes: Tensor


def open_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The model in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised; the rest is a warning about the optional input
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])


def random_input(graph: ExportedDetector, batch: int, shape: tuple[int, int], seed: int = 0) -> ModelInput:
    """Blocks of random colours, as the graph takes images; the last image has a border."""
    height, width = shape
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(batch, 3, -(-height // 8), -(-width // 8), generator=generator) * 255
    images = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, :height, :width].contiguous()
    sizes = torch.tensor([shape], dtype=torch.float32).repeat(batch, 1)
    sizes[-1] = (sizes[-1] * 0.9).floor().clamp(min=1)
    if not graph.preprocess:
        images = graph.normalize(images)
    return ModelInput(f'a random input {tuple(images.shape)}', images, sizes)


def image_input(graph: ExportedDetector, cfg: Config, path: str, shape: tuple[int, int] | None = None) -> ModelInput:
    """An image file as the test pipeline and the data preprocessor make it.

    Args:
        graph: Says what it takes.
        cfg: Holds the test pipeline.
        path: The file.
        shape: The one size that the graph takes, which the image is padded to; None: any.

    Raises:
        UserError: It cannot be read, or is larger.
    """
    steps = [step for step in test_pipeline(cfg) if 'LoadAnnotations' not in str(step['type'])]
    try:
        data = Compose(steps)(dict(img_path=path, img_id=0, instances=[]))
    except (OSError, ValueError) as error:
        raise UserError(f'--check {path}: {error}') from error
    height, width = data['data_samples'].img_shape[:2]
    preprocessor = graph.model.data_preprocessor
    images = preprocessor(pseudo_collate([data]))['inputs']
    if shape is not None:
        missing = [size - given for size, given in zip(shape, images.shape[2:])]
        if min(missing) < 0:
            raise UserError(
                f'--check {path}: the test pipeline makes it {images.size(2)} x {images.size(3)}, and the graph takes '
                f'{shape[0]} x {shape[1]}; name another image, or export with --dynamic all'
            )
        images = F.pad(images, (0, missing[1], 0, missing[0]), value=preprocessor.pad_value)
    if graph.preprocess:  # undo what the graph will do: padding is in the normalised image
        scale, shift = (preprocessor.std, preprocessor.mean) if preprocessor._enable_normalize else (1.0, 0.0)
        images = images * scale + shift
        images = images[:, [2, 1, 0]] if preprocessor._channel_conversion else images
    return ModelInput(path, images, torch.tensor([[height, width]], dtype=torch.float32))


@torch.no_grad()
def difference(
    session: onnxruntime.InferenceSession, graph: ExportedDetector, given: ModelInput, limits: Limits = LIMITS
) -> Difference:
    """Compare the outputs of onnxruntime and torch for an input.

    Args:
        session: The exported model.
        graph: The module it was exported from, in single precision.
        given: The input.
        limits: Scores that differ by no more may change places.
    """
    feed = dict(images=given.images.numpy())
    if graph.output != 'raw':
        feed['image_sizes'] = given.image_sizes.numpy()
    outputs = dict(zip(graph.output_names, map(torch.from_numpy, session.run(graph.output_names, feed))))
    outs = graph.head_outputs(given.images)
    if graph.output == 'nms':
        return _difference_of_detections(outputs, outs, graph, given, limits)
    ours = graph.decode(outs, given.images, given.image_sizes)
    if graph.output == 'raw':
        levels, count = list(outputs.values()), len(outs[0])
        kinds = [levels[start : start + count] for start in range(0, len(levels), count)]
        theirs = graph.decode(kinds, given.images, given.image_sizes)
        outputs = dict(boxes=theirs.boxes, scores=theirs.scores)
    pixels = [outputs['boxes'] - ours.boxes] + ([] if ours.std is None else [outputs['std'] - ours.std])
    return Difference(
        ours.boxes.size(0) * ours.boxes.size(1),
        max(_largest(values) for values in pixels),
        _largest(outputs['scores'] - ours.scores),
    )


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _difference_of_detections(
    outputs: dict[str, Tensor], outs: Any, graph: ExportedDetector, given: ModelInput, limits: Limits
) -> Difference:
    assert graph.thresholds is not None
    head = graph.model.bbox_head
    cfg = ConfigDict(head.test_cfg, with_distribution='stats' if graph.with_std else None)
    metas = [dict(img_shape=tuple(map(int, size))) for size in given.image_sizes]
    results = head.predict_by_feat(*outs, batch_img_metas=metas, cfg=cfg)
    found = []
    for image, result in enumerate(results):
        kept = outputs['labels'][image] >= 0
        theirs = [outputs['dets'][image][kept], outputs['labels'][image][kept]]
        ours = [torch.cat((result.bboxes, result.scores[:, None]), dim=1), result.labels]
        if graph.with_std:
            theirs.append(outputs['std'][image][kept])
            ours.append(result.bbox_std)
        found.append(match(ours, theirs, graph.thresholds, limits.score))
    compared, pixels, score, swapped, unmatched = zip(*found)
    return Difference(sum(compared), max(pixels), max(score), sum(swapped), sum(unmatched))


def match(ours: Sequence[Tensor], theirs: Sequence[Tensor], thresholds: Thresholds, tolerance: float) -> Difference:
    """The difference of an image's detections, each paired with the nearest of its class.

    Args:
        ours: Boxes with scores (M, 5), labels (M,), and optionally standard deviations (M, 4).
        theirs: The same of the other side.
        thresholds: By which both were chosen.
        tolerance: Scores this near to each other may change places.
    """
    apart = torch.cdist(ours[0][:, :4], theirs[0][:, :4], p=torch.inf)
    apart = apart + 1e6 * (ours[1][:, None] != theirs[1]) + (ours[0][:, None, 4] - theirs[0][:, 4]).abs()
    rows, columns = map(torch.as_tensor, linear_sum_assignment(apart.nan_to_num(1e9).numpy()))
    same = apart[rows, columns] < SAME_BOX
    rows, columns = rows[same], columns[same]
    pixels = [ours[0][rows, :4] - theirs[0][columns, :4]] + [a[rows] - b[columns] for a, b in zip(ours[2:], theirs[2:])]
    explained = torch.cat(
        (
            _is_explained(_without(ours, rows), theirs, thresholds, tolerance),
            _is_explained(_without(theirs, columns), ours, thresholds, tolerance),
        )
    )
    return Difference(
        len(rows),
        max(_largest(values) for values in pixels),
        _largest(ours[0][rows, 4] - theirs[0][columns, 4]),
        int(explained.sum()),
        int((~explained).sum()),
    )


def _without(side: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    keep = torch.ones(len(side[0]), dtype=torch.bool).index_fill_(0, rows, False)
    return [values[keep] for values in side]


def _is_explained(
    alone: Sequence[Tensor], others: Sequence[Tensor], thresholds: Thresholds, tolerance: float
) -> Tensor:
    """Mask of detections that the other side has suppressed by a box of no lower score, or cut off, (M,)."""
    (dets, labels), (other_dets, other_labels) = alone[:2], others[:2]
    lowest = thresholds.score_thr
    if len(other_dets) >= thresholds.max_per_img:
        lowest = max(lowest, float(other_dets[:, 4].min()))
    overlaps = bbox_overlaps(dets[:, :4], other_dets[:, :4]) > thresholds.iou_threshold - IOU_ROUNDING
    outranks = other_dets[:, 4] >= dets[:, None, 4] - tolerance
    rivals = torch.ones_like(overlaps) if thresholds.class_agnostic else labels[:, None] == other_labels
    return (overlaps & outranks & rivals).any(dim=1) | (dets[:, 4] <= lowest + tolerance)
