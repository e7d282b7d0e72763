"""A head of ours beside MMDetection's on the same inputs: what ``tools/analysis_tools/benchmark_head.py`` compares.

Only what a head does beside its convolutions is looked at: both get the same random predictions and objects, are
checked to give the same results, and are then measured in turn.

Dimension letters: N images, G objects of an image. Heads are modules of MMDetection, which is untyped: Any.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import AnchorHead, FCOSHead
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.analysis.counterparts import Pair
from mmdet_gfl.analysis.measuring import Allocation, allocation, bytes_kept_for_backward, times_in_turn
from mmdet_gfl.analysis.pretended_gpu import PretendedGPU, move_module, moved
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.dense_heads.dense_gfl_mixin import square

#: Mean and standard deviation of the class logits: 0.5% of the scores pass a threshold of 0.05, as in a trained model.
LOGITS = (-6.0, 1.2)
#: The same with 5%, as early in a training, or where logits are random around a prior of 0.01.
MORE_LOGITS = (-4.9, 1.2)
#: Of the largest difference that counts as the same, relative: losses to their value, gradients to their maximum.
#: MMDetection computes some steps of a loss in half precision where ours has float32.
TOLERANCES = {False: (1e-5, 1e-4), True: (2e-2, 5e-2)}

PARTS = {
    'assignment': 'assignment',
    'step': 'targets + losses + backward',
    'decode': 'decode before NMS, 0.5% of the scores pass',
    'decode_more': 'decode before NMS, 5% of the scores pass',
    'detect': 'decode + NMS',
}
#: Those of them in which it is counted how often a GPU's host waits; NMS is not the head's.
WAITING = ('assignment', 'step', 'decode')
OURS, THEIRS, FLOOR = 'ours', 'MMDetection', 'floor'


class Case(NamedTuple):
    """What the heads work on.

    Attributes:
        size: Height and width of the images in pixels.
        batch: N.
        boxes: Objects an image.
        device: Where.
        amp: Class logits (and branch logits) in half precision, losses under autocast.
    """

    size: tuple[int, int]
    batch: int
    boxes: int
    device: torch.device
    amp: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """The autocast of mixed-precision training, or nothing."""
        return torch.autocast(self.device.type, self.half) if self.amp else nullcontext()

    @property
    def half(self) -> torch.dtype:
        """What autocast computes convolutions in."""
        return torch.float16 if self.device.type == 'cuda' else torch.bfloat16


class Result(NamedTuple):
    """Measurements of one case; a part's times are samples in milliseconds.

    Attributes:
        times: By part, then by :data:`OURS`, :data:`THEIRS` and, beside the step, :data:`FLOOR`.
        kept: Bytes kept for backward, by head.
        losses: What the losses allocate, by head.
        assignment: What the assignment allocates, by head.
        logits: Bytes of the class logits.
        predictions: Bytes of all predictions.
        waits: How often a GPU's host waits in a part, by part, then by head.
    """

    times: dict[str, dict[str, list[float]]]
    kept: dict[str, int]
    losses: dict[str, Allocation]
    assignment: dict[str, Allocation]
    logits: int
    predictions: int
    waits: dict[str, dict[str, int]]


# Inputs -------------------------------------------------------------------------------------------------------------


def random_objects(case: Case, num_classes: int, seed: int = 0) -> list[InstanceData]:
    """Objects of each image, labels uniform, boxes inside the image.

    The square roots of their areas spread evenly in logarithm from 8 px, or half the shorter side of a smaller image,
    to 0.8 of that side.
    """
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([float(case.size[1]), float(case.size[0])])  # x, y
    smallest, largest = min(8.0, float(min(extent)) / 2), 0.8 * float(min(extent))
    objects = []
    for _ in range(case.batch):
        root = smallest * (largest / smallest) ** torch.rand(case.boxes, 1, generator=generator)
        aspect = (0.3 * torch.randn(case.boxes, 1, generator=generator)).exp()
        sides = torch.minimum(torch.cat((root * aspect, root / aspect), dim=1), extent)  # (G, 2)
        corner = torch.rand(case.boxes, 2, generator=generator) * (extent - sides)
        objects.append(
            InstanceData(
                bboxes=torch.cat((corner, corner + sides), dim=1).to(case.device),
                labels=torch.randint(num_classes, (case.boxes,), generator=generator).to(case.device),
            )
        )
    return objects


def random_predictions(
    head: Any, case: Case, seed: int = 1, logits: tuple[float, float] = LOGITS
) -> list[list[Tensor]]:
    """Class logits, box outputs and with a branch its logits: a list of levels (N, channels, H, W) each.

    Class logits have the mean and standard deviation ``logits`` (under a softmax the background's are that much higher
    instead), all else is standard normal, but for the distances of FCOS, which are never negative.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = []
    for kind, widths in enumerate(output_widths(head)):
        levels = [
            torch.randn(case.batch, width, *grid, generator=generator)
            for width, grid in zip(widths, grid_sizes(head, case.size))
        ]
        if kind == 0:
            levels = [_like_trained(level, head, *logits) for level in levels]
        elif kind == 1 and isinstance(head, FCOSHead) and predicts_numbers(head):
            levels = [level.abs() * 4 for level in levels]
        narrow = case.amp and kind != 1  # heads turn their box outputs to float32
        kinds.append([level.to(case.device, case.half if narrow else torch.float32) for level in levels])
    return kinds


def _like_trained(logits: Tensor, head: Any, mean: float, std: float) -> Tensor:
    logits = logits * std + mean
    if not head.use_sigmoid_cls:
        logits.unflatten(1, (-1, head.cls_out_channels))[:, :, -1] -= mean
    return logits


def predicts_numbers(head: Any) -> bool:
    """Whether a box is four numbers in the host's coding."""
    return not isinstance(head, DenseGFLMixin) or head.box.in_host_coding


def grid_sizes(head: Any, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width of each level's predictions."""
    strides = [square(stride) for stride in head.prior_generator.strides]
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]


def output_widths(head: Any) -> list[list[int]]:
    """Channels of each kind of output, level by level, found by a forward pass of one cell a level."""
    num_levels = len(head.prior_generator.strides)
    given = head.in_channels
    widths = list(given) if isinstance(given, (list, tuple)) else [given] * num_levels
    device = next(head.parameters()).device
    with torch.no_grad():
        outs = head.eval()([torch.zeros(1, width, 1, 1, device=device) for width in widths])
    return [[level.size(1) for level in levels] for levels in outs]


# Work ---------------------------------------------------------------------------------------------------------------


class Work:
    """One head with its inputs: what is timed.

    Args:
        head: Ours or MMDetection's.
        case: What it works on.
        compiled: Whether losses and decoding go through ``torch.compile``.
    """

    def __init__(self, head: Any, case: Case, compiled: bool = False) -> None:
        self.head = head
        self.case = case
        self.sizes = grid_sizes(head, case.size)
        self.gts = random_objects(case, head.num_classes)
        self.metas = [dict(img_shape=case.size, pad_shape=case.size, scale_factor=(1.0, 1.0))] * case.batch
        self.predictions = random_predictions(head, case)
        self.more = [random_predictions(head, case, logits=MORE_LOGITS)[0], *self.predictions[1:]]
        self.leaves = [level.requires_grad_() for levels in self.predictions for level in levels]
        self.loss_by_feat = torch.compile(head.loss_by_feat) if compiled else head.loss_by_feat
        self.predict_by_feat = torch.compile(head.predict_by_feat) if compiled else head.predict_by_feat

    def losses(self) -> dict[str, Tensor]:
        """Each loss, summed over the levels; keys without ``loss`` left out."""
        self.head.train()
        with self.case.autocast():
            losses = self.loss_by_feat(*self.predictions, self.gts, self.metas)
        return {key: _total(value) for key, value in losses.items() if 'loss' in key}

    def step(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses, and the gradients of their sum to the predictions."""
        losses = self.losses()
        gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), self.leaves, allow_unused=True)
        none = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(self.leaves, gradients)]
        return {key: value.detach() for key, value in losses.items()}, none

    @torch.no_grad()
    def assignment(self) -> Any:
        """Priors and targets alone."""
        if isinstance(self.head, DenseGFLMixin):
            return self.head.targets(self.sizes, self.gts, self.metas, None)
        return stock_assignment(self.head, self.sizes, self.gts, self.metas)

    @torch.no_grad()
    def predict(self, with_nms: bool, more: bool = False) -> list[InstanceData]:
        """Detections of each image, or all candidates before NMS; of ten times as many scores with ``more``."""
        self.head.eval()
        outs = self.more if more else self.predictions
        if isinstance(self.head, FCOSHead) and predicts_numbers(self.head):  # in pixels at test time
            scaled = [level * square(s) for level, s in zip(outs[1], self.head.prior_generator.strides)]
            outs = [outs[0], scaled, *outs[2:]]
        return self.predict_by_feat(*outs, batch_img_metas=self.metas, rescale=False, with_nms=with_nms)

    def part(self, name: str) -> Callable[[], object]:
        """The function to time for a key of :data:`PARTS`."""
        if name in ('decode', 'decode_more', 'detect'):
            return lambda: self.predict(with_nms=name == 'detect', more=name == 'decode_more')
        return self.step if name == 'step' else self.assignment

    def waits(self, parts: Sequence[str]) -> dict[str, int]:
        """How often a GPU's host waits in each part, found without one; not the first time, when tables are made."""
        there = copy.copy(self)
        there.head = copy.deepcopy(self.head).cpu()
        there.loss_by_feat, there.predict_by_feat = there.head.loss_by_feat, there.head.predict_by_feat
        counts = {}
        with PretendedGPU() as gpu:
            move_module(there.head)
            there.gts = moved([objects.cpu() for objects in self.gts])
            there.predictions, there.more = (
                moved([[level.detach().cpu().requires_grad_() for level in levels] for levels in kinds])
                for kinds in (self.predictions, self.more)
            )
            there.leaves = [level for levels in there.predictions for level in levels]
            for part in parts:
                there.part(part)()
                before = len(gpu.waits)
                there.part(part)()
                counts[part] = len(gpu.waits) - before
        return counts


def stock_assignment(
    head: Any, sizes: list[tuple[int, int]], gts: Sequence[InstanceData], metas: Sequence[dict[str, Any]]
) -> Any:
    """Priors and targets as the ``loss_by_feat`` of a head of MMDetection gets them."""
    device = gts[0].bboxes.device
    if isinstance(head, AnchorHead):
        anchors, flags = head.get_anchors(sizes, metas, device=device)
        return head.get_targets(anchors, flags, gts, metas)
    points = head.prior_generator.grid_priors(sizes, dtype=torch.float32, device=device)
    return head.get_targets(points, gts) if isinstance(head, FCOSHead) else head.get_targets(gts, sizes, points)


def _total(loss: Tensor | Sequence[Tensor]) -> Tensor:
    levels = [loss] if isinstance(loss, Tensor) else loss
    return torch.stack([level.sum() for level in levels]).sum()


# The same results ---------------------------------------------------------------------------------------------------


def check_equal(ours: Work, theirs: Work) -> dict[str, float]:
    """Refuses heads that do not give the same results.

    Returns:
        The largest differences: of the losses, relative; of the gradients, relative to the largest of their tensor;
        of the detections' boxes in pixels (absent under AMP, where scores in half precision tie).

    Raises:
        UserError: Names the first loss, gradient or image that differs, and both values.
    """
    largest = dict(zip(('losses', 'gradients'), _check_step(ours.step(), theirs.step(), *TOLERANCES[ours.case.amp])))
    if not ours.case.amp:
        pairs = [pair for more in (False, True) for pair in zip(ours.predict(True, more), theirs.predict(True, more))]
        largest['detections_px'] = max(_check_detections(n % ours.case.batch, *pair) for n, pair in enumerate(pairs))
    return largest


def _check_step(ours: Any, theirs: Any, loss_limit: float, gradient_limit: float) -> tuple[float, float]:
    (our_losses, our_gradients), (their_losses, their_gradients) = ours, theirs
    if our_losses.keys() != their_losses.keys():
        raise UserError(f'the heads have different losses: {sorted(our_losses)} and {sorted(their_losses)}')
    loss_error = gradient_error = 0.0
    for key, value in their_losses.items():
        error = _relative(our_losses[key], value)
        if not error <= loss_limit:
            raise UserError(
                f'{key} differs: {float(our_losses[key]):.8g} here and {float(value):.8g} in MMDetection; nothing is '
                f'timed'
            )
        loss_error = max(loss_error, error)
    for index, (our, their) in enumerate(zip(our_gradients, their_gradients, strict=True)):
        error = _relative(our, their)
        if not error <= gradient_limit:
            raise UserError(
                f'the gradient to prediction {index} of {len(our_gradients)}, {tuple(our.shape)}, differs by '
                f'{error:.3g} of its maximum; nothing is timed'
            )
        gradient_error = max(gradient_error, error)
    return loss_error, gradient_error


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest entry of theirs; 0 where both are 0."""
    difference = (ours.double() - theirs.double()).abs().max()
    return float(difference / theirs.double().abs().max().clamp(min=torch.finfo(torch.float32).tiny))


def _check_detections(image: int, ours: InstanceData, theirs: InstanceData) -> float:
    """Both the same set: each detection has one in the other set of its label, score and box."""
    if len(ours) != len(theirs):
        raise UserError(
            f'image {image} has {len(ours)} detections here and {len(theirs)} in MMDetection; nothing is timed'
        )
    if not len(ours):
        return 0.0
    apart = (ours.bboxes[:, None] - theirs.bboxes).abs().amax(dim=2)  # (ours, theirs)
    apart[ours.labels[:, None] != theirs.labels] = torch.inf
    apart[(ours.scores[:, None] - theirs.scores).abs() > 1e-5] = torch.inf
    farthest = float(torch.maximum(apart.amin(dim=0).max(), apart.amin(dim=1).max()))
    if not farthest <= 1e-2:
        raise UserError(f'the detections of image {image} differ; nothing is timed')
    return farthest


# Measuring ----------------------------------------------------------------------------------------------------------


def measure(pair: Pair, case: Case, repeats: int, parts: Sequence[str], compiled: bool = False) -> Result:
    """Checks that both heads give the same, then measures them in turn.

    Args:
        pair: The heads.
        case: What they work on.
        repeats: Samples of each time.
        parts: Keys of :data:`PARTS`.
        compiled: See :class:`Work`.

    Raises:
        UserError: The heads should compute the same and do not.
    """
    works = {OURS: Work(pair.ours, case, compiled), THEIRS: Work(pair.theirs, case, compiled)}
    if pair.equal:
        check_equal(works[OURS], works[THEIRS])
    times = {}
    for part in parts:
        functions = {name: work.part(part) for name, work in works.items()}
        if part == 'step':
            functions[FLOOR] = floor(works[OURS].leaves)
        times[part] = times_in_turn(functions, repeats, case.device, warm_up=3 if compiled else 1)
    logits = sum(level.nbytes for level in works[OURS].predictions[0])
    counts = {name: work.waits([part for part in WAITING if part in parts]) for name, work in works.items()}
    return Result(
        times=times,
        kept={name: bytes_kept_for_backward(work.losses) for name, work in works.items()},
        losses={name: allocation(work.losses, case.device) for name, work in works.items()},
        assignment={name: allocation(work.assignment, case.device) for name, work in works.items()},
        logits=logits,
        predictions=sum(leaf.nbytes for leaf in works[OURS].leaves),
        waits={part: {name: of_head[part] for name, of_head in counts.items()} for part in counts[OURS]},
    )


def floor(leaves: Sequence[Tensor]) -> Callable[[], object]:
    """One read and one write of the predictions, into tensors that are there already."""
    sources = [leaf.detach() for leaf in leaves]
    copies = [torch.empty_like(source) for source in sources]
    return lambda: [copy.copy_(source) for copy, source in zip(copies, sources)]
