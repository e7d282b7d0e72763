"""A head of ours beside MMDetection's on the same inputs: what ``tools/analysis_tools/benchmark_head.py`` compares.

Only what a head does beside its convolutions is measured: the heads get the same random predictions and objects, are
checked to give the same results, and are then measured in turn.

Dimension letters: N images, L levels, G objects of an image. Heads are modules of MMDetection, which is untyped: Any.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_gfl.analysis import fake_gpu
from mmdet_gfl.analysis.counterparts import Heads
from mmdet_gfl.analysis.ideal_predictions import grid_sizes
from mmdet_gfl.analysis.measuring import Allocation, allocation, bytes_kept_for_backward, times_in_turn
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.quality.base import Quality
from mmdet_gfl.models.task_modules import Locations

#: Mean and standard deviation of the class logits: 0.5% of the scores pass a threshold of 0.05, as in a trained model.
LOGITS = (-6.0, 1.2)
#: The same with 5%, as early in a training, or where logits are random around a prior of 0.01.
MORE_LOGITS = (-4.9, 1.2)
#: Of the largest difference that counts as the same, relative: losses to their value, gradients to their maximum. Under
#: AMP gradients are in half precision.
TOLERANCES = {False: (1e-5, 1e-4), True: (2e-2, 5e-2)}

PARTS = {
    'class_logits': "the quality's class logits in forward + backward",
    'assignment': 'assignment',
    'step': 'targets + losses + backward',
    'decode': 'decode before NMS, 0.5% of the scores pass',
    'decode_more': 'decode before NMS, 5% of the scores pass',
    'detect': 'decode + NMS',
}
#: The parts in which host synchronizations with a GPU are counted; NMS is not the head's.
SYNCHRONIZING = ('assignment', 'step', 'decode')
OURS, THEIRS, TYPE_CHANGED, FLOOR = 'ours', 'MMDetection', 'type changed', 'floor'
#: The heads that take part in a part, where these are not ours and MMDetection's.
HEADS = {'class_logits': (OURS,), 'step': (THEIRS, OURS, TYPE_CHANGED)}


class Case(NamedTuple):
    """Inputs of the heads.

    Attributes:
        size: Height and width of the images in pixels.
        batch: N.
        boxes: Objects per image.
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
        """Data type of convolutions under autocast."""
        return torch.float16 if self.device.type == 'cuda' else torch.bfloat16


class Result(NamedTuple):
    """Measurements of one case; a part's times are samples in milliseconds.

    Attributes:
        times: By part, then by head, see :data:`HEADS`, and beside the step by :data:`FLOOR`.
        kept: Bytes kept for backward by the losses, by head.
        losses: Allocations of the losses, by head.
        assignment: Allocations of the assignment, by head.
        logits: Bytes of the class logits.
        predictions: Bytes of all predictions.
        host_syncs: Host synchronizations with a GPU, by part, then by head.
        kept_in_forward: Bytes that our quality's class logits keep for backward; None where they are the outputs.
    """

    times: dict[str, dict[str, list[float]]]
    kept: dict[str, int]
    losses: dict[str, Allocation]
    assignment: dict[str, Allocation]
    logits: int
    predictions: int
    host_syncs: dict[str, dict[str, int]]
    kept_in_forward: int | None = None


# Inputs -------------------------------------------------------------------------------------------------------------


def random_objects(case: Case, num_classes: int) -> list[InstanceData]:
    """Objects of each image, labels uniform, boxes inside the image.

    The square roots of their areas spread evenly in logarithm from 8 px, or half the shorter side of a smaller image,
    to 0.8 of that side.
    """
    generator = torch.Generator().manual_seed(0)
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


def random_predictions(head: DenseGFLMixin, case: Case, logits: tuple[float, float] = LOGITS) -> list[list[Tensor]]:
    """Class logits, box outputs and with a branch its logits: a list of levels (N, channels, H, W) each.

    Class logits have the mean and standard deviation ``logits`` (under a softmax the background's are that much higher
    instead), all else is standard normal; box outputs that are distances are 4 strides times its absolute value.
    """
    generator = torch.Generator().manual_seed(1)
    units = distance_units(head)
    kinds = []
    for kind, widths in enumerate(output_widths(head)):
        levels = [
            torch.randn(case.batch, width, *grid, generator=generator)
            for width, grid in zip(widths, grid_sizes(head, case.size))
        ]
        if kind == 0:
            levels = [_like_trained(level, head, *logits) for level in levels]
        elif kind == 1 and units is not None:
            levels = [
                level.abs() * (4 * stride / unit) for level, stride, unit in zip(levels, head.level_strides, units)
            ]
        narrow = case.amp and kind != 1  # heads turn their box outputs to float32
        kinds.append([level.to(case.device, case.half if narrow else torch.float32) for level in levels])
    return kinds


def _like_trained(logits: Tensor, head: Any, mean: float, std: float) -> Tensor:
    logits = logits * std + mean
    if not head.use_sigmoid_cls:
        logits.unflatten(1, (-1, head.cls_out_channels))[:, :, -1] -= mean
    return logits


def distance_units(head: DenseGFLMixin) -> list[float] | None:
    """Pixels per unit of each level's box outputs, where these are distances to the sides; None for another coding.

    The unit may depend on the head's mode, as on FCOS, whose distances are in strides in training and in pixels after.
    Distances are distinguished from the other codings by boxes that negative outputs turn inside out.
    """
    if not head.box.uses_host_coder:
        return None
    strides = head.level_strides
    device = next(head.parameters()).device
    priors = torch.cat([p[:1] for p in head.prior_generator.grid_priors([(1, 1)] * len(strides), device=device)])
    locations = Locations.of_priors(priors, priors.new_tensor(strides))
    ones = priors.new_ones(len(strides), 4)
    boxes, inverted = (head.host_coder.decode(outputs, locations) for outputs in (ones, -ones))
    if (inverted[:, 2] >= inverted[:, 0]).any():
        return None
    return ((boxes[:, 2] - boxes[:, 0]) / 2).tolist()


def output_widths(head: DenseGFLMixin) -> list[list[int]]:
    """Channels of each kind of output, level by level, by a forward pass of one cell per level."""
    num_levels = len(head.prior_generator.strides)
    given = head.in_channels
    widths = list(given) if isinstance(given, (list, tuple)) else [given] * num_levels
    device = next(head.parameters()).device
    was_training = head.training
    with torch.no_grad():
        outs = head.eval()([torch.zeros(1, width, 1, 1, device=device) for width in widths])
    head.train(was_training)
    return [[level.size(1) for level in levels] for levels in outs]


# Work ---------------------------------------------------------------------------------------------------------------


class Work:
    """One head with its inputs: what is timed.

    Args:
        head: Ours or MMDetection's.
        case: What it works on.
        compiled: Whether losses and decoding go through ``torch.compile``.
        like: A head of ours whose predictions have the same meaning; default ``head``.
    """

    def __init__(self, head: Any, case: Case, compiled: bool = False, like: DenseGFLMixin | None = None) -> None:
        self.head = head
        self.case = case
        self.like: DenseGFLMixin = like or head
        self.sizes = grid_sizes(self.like, case.size)
        self.gts = random_objects(case, head.num_classes)
        self.metas = [dict(img_shape=case.size, pad_shape=case.size, scale_factor=(1.0, 1.0))] * case.batch
        self.predictions = random_predictions(self.like.train(), case)
        for leaf in self.leaves:
            leaf.requires_grad_()
        self.loss_by_feat = torch.compile(head.loss_by_feat) if compiled else head.loss_by_feat
        self.predict_by_feat = torch.compile(head.predict_by_feat) if compiled else head.predict_by_feat

    @property
    def leaves(self) -> list[Tensor]:
        """All levels of all predictions."""
        return [level for levels in self.predictions for level in levels]

    @cached_property
    def test_predictions(self) -> list[list[Tensor]]:
        """The predictions in the units of test time."""
        units, test_units = (distance_units(self.like.train(mode)) for mode in (True, False))
        if units == test_units or units is None or test_units is None:
            return self.predictions
        scaled = [level.detach() * (a / b) for level, a, b in zip(self.predictions[1], units, test_units)]
        return [self.predictions[0], scaled, *self.predictions[2:]]

    @cached_property
    def more_predictions(self) -> list[list[Tensor]]:
        """The same with ten times as many scores above the threshold."""
        more = random_predictions(self.like.eval(), self.case, logits=MORE_LOGITS)[0]
        return [more, *self.test_predictions[1:]]

    def in_float32(self, device: torch.device) -> Work:
        """The same values on a device, without AMP and compilation."""
        there = copy.copy(self)
        there.case = self.case._replace(amp=False, device=device)
        there.head = copy.deepcopy(self.head).to(device)
        there.gts = [objects.to(device) for objects in self.gts]
        there.loss_by_feat, there.predict_by_feat = there.head.loss_by_feat, there.head.predict_by_feat
        there.predictions, there.test_predictions, there.more_predictions = (
            [[level.detach().to(device, torch.float32).requires_grad_() for level in levels] for levels in kinds]
            for kinds in (self.predictions, self.test_predictions, self.more_predictions)
        )
        return there

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
        self.head.train()
        if isinstance(self.head, DenseGFLMixin):
            outs = self.predictions[:2]
            return self.head.targets(self.head.assignment_batch(self.sizes, self.gts, self.metas, None, *outs))
        with self.case.autocast():
            return stock_assignment(self.head, *self.predictions, self.gts, self.metas)

    @property
    def learns_class_logits(self) -> bool:
        """True if the class logits of our quality differ from the outputs of the class layer."""
        quality = getattr(self.head, 'quality', None)
        return quality is not None and type(quality).class_logits is not Quality.class_logits

    def class_logits(self) -> list[Tensor]:
        """Class logits of all levels by our quality."""
        with self.case.autocast():
            return [self.head.quality.class_logits(*level, self.head) for level in zip(*self.predictions[:2])]

    def class_logits_step(self) -> tuple[Tensor | None, ...]:
        """The same, and the gradients of their sum to the outputs and to the layers of the quality."""
        logits = self.class_logits()
        inputs = [*(level for levels in self.predictions[:2] for level in levels), *self.head.parameters()]
        ones = [torch.ones_like(level) for level in logits]
        return torch.autograd.grad(logits, inputs, ones, allow_unused=True)

    @torch.no_grad()
    def predict(self, with_nms: bool, more: bool = False) -> list[InstanceData]:
        """Detections of each image, or all candidates before NMS; of ten times as many scores with ``more``."""
        self.head.eval()
        outs = self.more_predictions if more else self.test_predictions
        return self.predict_by_feat(*outs, batch_img_metas=self.metas, rescale=False, with_nms=with_nms)

    def part(self, name: str) -> Callable[[], object]:
        """The function to time for a key of :data:`PARTS`."""
        if name in ('decode', 'decode_more', 'detect'):
            return lambda: self.predict(with_nms=name == 'detect', more=name == 'decode_more')
        return dict(class_logits=self.class_logits_step, assignment=self.assignment, step=self.step)[name]

    def host_syncs(self, parts: Sequence[str]) -> dict[str, int]:
        """Host synchronizations with a GPU in each part, counted without one, when tables have been made.

        In float32 always: no autocast reaches the fake GPU.
        """
        counts = {}
        with fake_gpu.FakeGPU() as gpu:
            there = self.in_float32(fake_gpu.DEVICE)
            for part in parts:
                there.part(part)()
                before = len(gpu.host_syncs)
                there.part(part)()
                counts[part] = len(gpu.host_syncs) - before
        return counts


class _Assigned(Exception):
    """Carry the result of a ``get_targets`` out of a ``loss_by_feat``."""


def stock_assignment(head: Any, *arguments: Any) -> Any:
    """Priors and targets of a head of MMDetection: its ``loss_by_feat`` until ``get_targets`` has returned.

    Args:
        head: The head.
        *arguments: ``loss_by_feat``'s.
    """
    get_targets = head.get_targets

    def stop(*args: Any, **kwargs: Any) -> NoReturn:
        raise _Assigned(get_targets(*args, **kwargs))

    try:
        with patch.object(head, 'get_targets', stop):
            head.loss_by_feat(*arguments)
    except _Assigned as assigned:
        return assigned.args[0]
    raise TypeError(f'{type(head).__name__}.loss_by_feat does not call get_targets')


def _total(loss: Tensor | Sequence[Tensor]) -> Tensor:
    levels = [loss] if isinstance(loss, Tensor) else loss
    return torch.stack([level.sum() for level in levels]).sum()


# The same results ---------------------------------------------------------------------------------------------------


def check_equal(ours: Work, theirs: Work, name: str = 'here') -> None:
    """Raise for heads that do not give the same results.

    Under AMP ours is compared with MMDetection's in float32, since some of MMDetection's gradients are 10% off in half
    precision. Detections are not compared then, as scores in half precision tie.

    Args:
        ours: Ours.
        theirs: MMDetection's.
        name: What messages call ours.

    Raises:
        UserError: Names the first loss, gradient or image that differs, and both values.
    """
    exact = theirs.in_float32(ours.case.device) if ours.case.amp else theirs
    _check_step(name, ours.step(), exact.step(), *TOLERANCES[ours.case.amp])
    if not ours.case.amp:
        for more in (False, True):
            for image, pair in enumerate(zip(ours.predict(True, more), theirs.predict(True, more))):
                _check_detections(name, image, *pair)


def _check_step(name: str, ours: Any, theirs: Any, loss_limit: float, gradient_limit: float) -> None:
    (our_losses, our_gradients), (their_losses, their_gradients) = ours, theirs
    if our_losses.keys() != their_losses.keys():
        raise UserError(f'the heads have different losses: {sorted(our_losses)} and {sorted(their_losses)}')
    compared = [(key, our_losses[key], value, loss_limit) for key, value in their_losses.items()]
    for index, pair in enumerate(zip(our_gradients, their_gradients, strict=True)):
        compared.append(
            (
                f'the gradient to prediction {index} of {len(our_gradients)}, {tuple(pair[0].shape)},',
                *pair,
                gradient_limit,
            )
        )
    for what, our, their, limit in compared:
        if not (error := _relative(our, their)) <= limit:
            own = f': {float(our):.8g} {name} and {float(their):.8g} in MMDetection' if our.numel() == 1 else f' {name}'
            raise UserError(f'{what} differs{own}, by {error:.3g} of the maximum; nothing is timed')


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest entry of theirs; 0 where both are 0."""
    difference = (ours.double() - theirs.double()).abs().max()
    return float(difference / theirs.double().abs().max().clamp(min=torch.finfo(torch.float32).tiny))


def _check_detections(name: str, image: int, ours: InstanceData, theirs: InstanceData) -> None:
    """Both the same set: each detection has one in the other set of its label, score and box."""
    if len(ours) != len(theirs):
        raise UserError(
            f'image {image} has {len(ours)} detections {name} and {len(theirs)} in MMDetection; nothing is timed'
        )
    if not len(ours):
        return
    apart = (ours.bboxes[:, None] - theirs.bboxes).abs().amax(dim=2)  # (ours, theirs)
    apart[ours.labels[:, None] != theirs.labels] = torch.inf
    apart[(ours.scores[:, None] - theirs.scores).abs() > 1e-5] = torch.inf
    farthest = float(torch.maximum(apart.amin(dim=0).max(), apart.amin(dim=1).max()))
    if not farthest <= 1e-2:
        raise UserError(f'the detections of image {image} differ {name} and in MMDetection; nothing is timed')


# Measuring ----------------------------------------------------------------------------------------------------------


def measure(heads: Heads, case: Case, repeats: int, parts: Sequence[str], compiled: bool = False) -> Result:
    """Check that the heads give the same results where they should, then measure them in turn.

    Args:
        heads: The heads.
        case: What they work on.
        repeats: Samples of each time.
        parts: Keys of :data:`PARTS`; that of the class logits counts where the quality has any of its own.
        compiled: See :class:`Work`.

    Raises:
        UserError: Heads should compute the same and do not.
    """
    works = {OURS: Work(heads.ours, case, compiled)}
    works[THEIRS] = Work(heads.theirs, case, compiled, heads.type_changed or heads.ours)
    if heads.equal:
        check_equal(works[OURS], works[THEIRS])
    if heads.type_changed is not None:
        works[TYPE_CHANGED] = Work(heads.type_changed, case, compiled)
        check_equal(works[TYPE_CHANGED], works[THEIRS], 'with the type changed')
    learns = works[OURS].learns_class_logits
    times = {}
    for part in parts:
        if part == 'class_logits' and not learns:
            continue
        functions = {name: works[name].part(part) for name in HEADS.get(part, (THEIRS, OURS)) if name in works}
        if part == 'step':
            functions[FLOOR] = floor(works[OURS].leaves)
        times[part] = times_in_turn(functions, repeats, warm_up=3 if compiled else 1)
    counted = [part for part in SYNCHRONIZING if part in parts]
    counts = {name: works[name].host_syncs(counted) for name in (THEIRS, OURS)}
    return Result(
        times=times,
        kept={name: bytes_kept_for_backward(work.losses) for name, work in works.items()},
        losses={name: allocation(work.losses, case.device) for name, work in works.items()},
        assignment={name: allocation(works[name].assignment, case.device) for name in (THEIRS, OURS)},
        logits=sum(level.nbytes for level in works[OURS].predictions[0]),
        predictions=sum(leaf.nbytes for leaf in works[OURS].leaves),
        host_syncs={part: {name: of_head[part] for name, of_head in counts.items()} for part in counted},
        kept_in_forward=bytes_kept_for_backward(works[OURS].class_logits) if learns else None,
    )


def floor(leaves: Sequence[Tensor]) -> Callable[[], object]:
    """One read and one write of the predictions, into tensors that are there already."""
    sources = [leaf.detach() for leaf in leaves]
    copies = [torch.empty_like(source) for source in sources]
    return lambda: [copy.copy_(source) for copy, source in zip(copies, sources)]
