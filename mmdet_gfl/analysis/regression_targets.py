"""Which distances a config teaches on a data set: what ``reg_max`` has to reach (Fig. 5c of GFL, arXiv:2006.04388).

The data set goes through the config's own training pipeline and the head's own target assignment; no network runs, the
sizes of the feature maps follow from the image and the strides.

Dimension letters: L levels, A priors a cell, P positives of a level; each has four targets, l, t, r, b.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models import dense_heads
from mmdet.registry import DATASETS
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.models.boxes.general import TARGET_MARGIN, GeneralBox
from mmdet_gfl.models.dense_heads.dense_gfl_mixin import DenseGFLMixin
from mmdet_gfl.models.dense_heads.predict_mixin import square
from mmdet_gfl.models.task_modules import check_ground_truth

#: Distances are kept in bins of one RESOLUTION-th of a stride, so that a data set of any size fits into memory.
RESOLUTION = 64
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
#: Areas that COCO calls small (below the first) and medium (below the second), in square pixels.
COCO_AREAS = (32**2, 96**2)
#: MMDetection's heads, by the head of ours and the quality at which it assigns the same targets.
STOCK_HEADS = {
    dense_heads.ATSSHead: ('ATSSGFLHead', 'CenternessBranch'),
    dense_heads.FCOSHead: ('FCOSGFLHead', 'CenternessBranch'),
    dense_heads.RetinaHead: ('RetinaGFLHead', 'NoQuality'),
    dense_heads.FoveaHead: ('FoveaGFLHead', 'NoQuality'),
    dense_heads.SSDHead: ('SSDGFLHead', 'NoQuality'),
    dense_heads.GFLHead: ('GFLHead', None),
}


# Counting -----------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts of distance targets, in strides; those below 0 (the centre lies outside the object) count as 0.

    Attributes:
        box: The representation that shall learn them: its ``reg_max`` (n) and ``delta`` (Δ).
        positives: P.
        targets: 4P, or as many as were added.
        bins: Bin k counts the targets in (k-1, k] / :data:`RESOLUTION`.
        needs: Entry n counts the targets that DFL learns unchanged from ``reg_max=n`` on.
        clipped: Targets above n · Δ, as ``clipped_share`` of the training log counts them.
        outside: Targets below 0.
        largest: The largest target.
    """

    box: GeneralBox
    positives: int = 0
    targets: int = 0
    bins: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(1, np.int64))
    needs: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(2, np.int64))
    clipped: int = 0
    outside: int = 0
    largest: float = 0.0

    def add(self, distances: Tensor) -> None:
        """Counts the targets of positives, (P, 4) in strides; or some of each, (P, less)."""
        if not len(distances):
            return
        self.positives += len(distances)
        self.targets += distances.numel()
        self.outside += int((distances < 0).sum())
        self.clipped += int((distances / self.box.delta > self.box.reg_max).sum())
        values = distances.clamp(min=0).double().flatten()
        self.largest = max(self.largest, float(values.max()))
        self.bins = _sum(self.bins, _counts((values * RESOLUTION).ceil()))
        # As in float32, so that n - TARGET_MARGIN itself needs no more than n.
        least = (values / self.box.delta + (TARGET_MARGIN - 1e-6)).ceil().clamp(min=1)
        self.needs = _sum(self.needs, _counts(least))

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.box,
            self.positives + other.positives,
            self.targets + other.targets,
            _sum(self.bins, other.bins),
            _sum(self.needs, other.needs),
            self.clipped + other.clipped,
            self.outside + other.outside,
            max(self.largest, other.largest),
        )

    @property
    def clipped_share(self) -> float:
        """Share of the targets above n · Δ; 0 without targets."""
        return self.clipped / max(self.targets, 1)

    def percentile(self, percent: float) -> float:
        """Distance, in strides, that ``percent`` of the targets do not exceed; at most 1/64 above the exact one."""
        if not self.targets:
            return float('nan')
        rank = np.ceil(percent / 100 * self.targets)
        return min(float(np.searchsorted(self.bins.cumsum(), rank)) / RESOLUTION, self.largest)

    def smallest_reg_max(self, share: float) -> int | None:
        """The smallest n that cuts at most ``share`` of the targets short; None without targets.

        DFL learns targets up to (n - 0.1) · Δ unchanged, so a target d asks for n ≥ d / Δ + 0.1.
        """
        if not self.targets:
            return None
        cut = self.targets - self.needs.cumsum()  # entry n: targets that ask for more than n
        return max(1, int(np.argmax(cut <= share * self.targets)))

    def beyond(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Share of the targets above k / :data:`RESOLUTION` strides, by k."""
        return 1 - self.bins.cumsum() / max(self.targets, 1)


def _counts(values: Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
    return torch.bincount(values.long()).numpy()


def _sum(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Sum of two counts, of which one may be longer."""
    short, long = sorted((a, b), key=len)
    result = long.copy()
    result[: len(short)] += short
    return result


@dataclass
class Report:
    """What was found.

    Attributes:
        levels: Counts by level.
        longest: Counts, over all levels, of each positive's longest side only.
        strides: Of the levels, in pixels.
        assumed: Whether the config's head has no ``reg_max``, so that the default one stands in.
        available: Images that the data set offers.
        images: Images that were read.
        empty_images: Of these, those without an object.
        objects: Objects that count, by COCO's areas in the network's input: small, medium, large.
        unassigned: Objects that no location learns, by the same areas.
        ignored: Crowd and other ignored regions.
    """

    levels: list[Tally]
    longest: Tally
    strides: list[int]
    assumed: bool
    available: int
    images: int = 0
    empty_images: int = 0
    objects: list[int] = field(default_factory=lambda: [0, 0, 0])
    unassigned: list[int] = field(default_factory=lambda: [0, 0, 0])
    ignored: int = 0

    @property
    def all(self) -> Tally:
        """Counts of all levels together."""
        total = Tally(self.box)
        for level in self.levels:
            total = total + level
        return total

    @property
    def box(self) -> GeneralBox:
        """The representation that the targets are judged by."""
        return self.levels[0].box


# Targets ------------------------------------------------------------------------------------------------------------


def gfl_head(model: ConfigDict) -> DenseGFLMixin:
    """The head of a detector's config, or for one of MMDetection's the head of ours that assigns the same targets.

    Args:
        model: The config's ``model``.

    Raises:
        UserError: There is no ``bbox_head``, or none with targets as distances, or it cannot be built.
    """
    cfg = copy.deepcopy(model.get('bbox_head'))
    accepted = ', '.join(f'{name} or mmdet_gfl.{ours}' for name, ours in _accepted().items())
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise UserError(
            f'model.bbox_head is not one head of a single-stage detector (model.type={model.get("type")!r}), so there '
            f'are no distances to measure; accepted: {accepted}'
        )
    kind = MMDET_MODELS.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
    if kind in STOCK_HEADS:
        name, quality = STOCK_HEADS[kind]
        cfg['type'] = f'mmdet_gfl.{name}'
        if quality:
            cfg.update(quality=dict(type=f'mmdet_gfl.{quality}'), box=dict(type='mmdet_gfl.DiracBox'))
    elif not (isinstance(kind, type) and issubclass(kind, DenseGFLMixin)):
        raise UserError(
            f'model.bbox_head.type={cfg["type"]!r} has no targets that this tool knows; accepted: {accepted}, or a '
            f'head of your own that derives from DenseGFLMixin'
        )
    cfg.update(train_cfg=model.get('train_cfg'), test_cfg=model.get('test_cfg'))
    try:
        return MMDET_MODELS.build(cfg)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f'model.bbox_head cannot be built: {error}') from error


def _accepted() -> dict[str, str]:
    return {kind.__name__: ours for kind, (ours, _) in STOCK_HEADS.items()}


def distance_targets(
    head: DenseGFLMixin, size: tuple[int, int], objects: InstanceData, meta: dict[str, Any], ignored: InstanceData
) -> tuple[list[Tensor], Tensor]:
    """Targets of one image.

    Args:
        head: The head that assigns them.
        size: Height and width of the network's input, padding included, in pixels.
        objects: ``bboxes`` (G, 4), xyxy in pixels, and ``labels``.
        meta: The image's meta information.
        ignored: Ignored regions, likewise.

    Returns:
        Distances l, t, r, b of each level's positives, (P, 4), in strides; and the boxes of the objects that the
        positives of all levels learn, xyxy in pixels, one for each positive.
    """
    generator = head.prior_generator
    strides = [square(stride) for stride in generator.strides]
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
    targets = head.targets(sizes, [objects], [meta], [ignored])
    priors = torch.tensor([high * wide * count for (high, wide), count in zip(sizes, generator.num_base_priors)])
    level = torch.bucketize(targets.pos, priors.cumsum(0), right=True)
    distances = targets.at.distances(targets.gt)
    return [distances[level == index] for index in range(len(sizes))], targets.gt


# The data set -------------------------------------------------------------------------------------------------------


class _Failure(str):
    """Why an item could not be made; what a worker raises would come with its traceback inside."""


class _Seeded(Dataset[Any]):
    """Items of a data set, their augmentation seeded one by one: the same whatever the number of workers."""

    def __init__(self, dataset: Any, indices: list[int], seed: int) -> None:
        self.dataset = dataset
        self.indices = indices
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Any:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(self.seed + number)
        try:
            return self.dataset[self.indices[number]]
        except Exception as error:  # a pipeline is anybody's code
            return _Failure(f'{type(error).__name__}: {error}')


def _as_it_is(item: Any) -> Any:
    return item


def training_dataset(cfg: Config, split: str) -> Any:
    """The data set of a split, with the pipeline of the training.

    Args:
        cfg: The config.
        split: ``'train'``, ``'val'`` or ``'test'``; the latter two in training mode, since a test pipeline leaves the
            boxes in the pixels of the file.

    Raises:
        UserError: The config has no such split or no training pipeline, or the data set cannot be built or is empty.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise UserError(f'the config has no {split}_dataloader, so --split {split} has no data; take another split')
    dataset = copy.deepcopy(loader['dataset'])
    if split != 'train':
        training = _data_sets((cfg.get('train_dataloader') or {}).get('dataset'))
        pipeline = next((node['pipeline'] for node in training), None)
        if pipeline is None:
            raise UserError(f'--split {split} takes the pipeline of train_dataloader.dataset, and the config has none')
        for node in _data_sets(dataset):
            node.update(pipeline=copy.deepcopy(pipeline), test_mode=False)
    try:
        built = DATASETS.build(dataset)
        empty = not len(built)
    except Exception as error:  # a data set is anybody's code
        empty = 'at least one array' in str(error)  # MMEngine, of an empty list
        if not empty:
            raise UserError(
                f'{split}_dataloader.dataset cannot be built: {type(error).__name__}: {error}. Mend it, or point it '
                f'elsewhere with --cfg-options {split}_dataloader.dataset.data_root=/path/to/data'
            ) from error
    if empty:
        raise UserError(
            f'{split}_dataloader.dataset has no images: all were left out by its filter_cfg, or its annotation file '
            f'lists none'
        )
    return built


def _data_sets(node: Any) -> Iterator[dict[str, Any]]:
    """The innermost data sets of a config, those with a pipeline and no data set inside."""
    if isinstance(node, dict):
        inner = [node[key] for key in ('dataset', 'datasets') if key in node]
        if not inner and 'pipeline' in node:
            yield node
        for child in inner:
            yield from _data_sets(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _data_sets(child)


def samples(dataset: Any, indices: list[int], workers: int, seed: int) -> Iterator[dict[str, Any]]:
    """What the pipeline makes of the images, one by one: a dict with ``inputs`` and ``data_samples``.

    Raises:
        UserError: An image cannot be made, or the pipeline does not end in ``PackDetInputs``.
    """
    loader = DataLoader(_Seeded(dataset, indices, seed), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    for index, item in zip(indices, loader):
        if isinstance(item, _Failure):
            raise UserError(
                f'image {index} of the data set cannot be read: {item}. Mend it, or remove it and its entry in the '
                f'annotation file'
            )
        if not (isinstance(item, dict) and 'data_samples' in item):
            raise UserError('the training pipeline does not end in PackDetInputs, so it gives no boxes to measure')
        yield item


# Measuring ----------------------------------------------------------------------------------------------------------


def measure(
    cfg: Config,
    split: str = 'train',
    images: int = 0,
    workers: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Reads a data set through a config.

    Args:
        cfg: The config.
        split: Whose images.
        images: How many of them, drawn at random; 0 takes all.
        workers: Processes that read them.
        seed: Of the draw and of the augmentation.
        progress: Called after each image with the number of images so far and in all.

    Raises:
        UserError: The config has no head or no data set that this can measure, or an image or a box is broken.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    head = gfl_head(cfg.model)
    dataset = training_dataset(cfg, split)
    indices = list(range(len(dataset)))
    if 0 < images < len(indices):
        indices = sorted(random.Random(seed).sample(indices, images))
    report = new_report(head, len(dataset))
    preprocess = MMDET_MODELS.build(cfg.model.get('data_preprocessor') or dict(type='DetDataPreprocessor'))
    for number, item in enumerate(samples(dataset, indices, workers, seed), start=1):
        batch = preprocess(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), training=True)
        sample = batch['data_samples'][0]
        size = tuple(batch['inputs'].shape[-2:])
        add_image(report, head, size, sample.gt_instances, sample.metainfo, sample.ignored_instances)
        if progress is not None:
            progress(number, len(indices))
    return report


def new_report(head: DenseGFLMixin, available: int) -> Report:
    """A report of no images yet, for a data set with ``available`` images."""
    box = head.box if isinstance(head.box, GeneralBox) else GeneralBox()
    strides = [square(stride) for stride in head.prior_generator.strides]
    return Report([Tally(box) for _ in strides], Tally(box), strides, box is not head.box, available)


def add_image(
    report: Report,
    head: DenseGFLMixin,
    size: tuple[int, int],
    objects: InstanceData,
    meta: dict[str, Any],
    ignored: InstanceData,
) -> None:
    """Counts one image; the arguments are those of :func:`distance_targets`.

    Raises:
        UserError: A box is not finite or a label is not the model's.
    """
    try:
        check_ground_truth([objects], [meta], head.num_classes)
    except ValueError as error:
        raise UserError(str(error)) from error
    distances, learned = distance_targets(head, size, objects, meta, ignored)
    for level, of_level in zip(report.levels, distances):
        level.add(of_level)
        report.longest.add(of_level.amax(dim=1, keepdim=True) if len(of_level) else of_level)
    boxes = get_box_tensor(objects.bboxes)
    report.images += 1
    report.empty_images += not len(boxes)
    report.ignored += len(ignored.bboxes)
    nobody = ~(boxes[:, None] == learned.unique(dim=0)[None]).all(dim=2).any(dim=1)  # (G,)
    for counts, chosen in ((report.objects, boxes), (report.unassigned, boxes[nobody])):
        for index, number in enumerate(by_area(chosen)):
            counts[index] += number


def by_area(boxes: Tensor) -> list[int]:
    """Number of boxes (G, 4), xyxy in pixels, that are small, medium and large by COCO's areas."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    size = torch.bucketize(areas, areas.new_tensor(COCO_AREAS), right=True)
    return torch.bincount(size, minlength=3).tolist()


# Telling ------------------------------------------------------------------------------------------------------------


def as_text(report: Report, share: float) -> str:
    """The report as a table and what follows from it; ``share`` of the targets may be cut short."""
    head = ['level', 'stride', 'positives', *(f'{percent:g}%' for percent in PERCENTILES), 'max', 'clipped', 'reg_max']
    names = [(str(index), str(stride)) for index, stride in enumerate(report.strides)]
    rows = [[*name, *_cells(level, share)] for name, level in zip(names, report.levels)]
    lines = [head, *rows, ['all', '', *_cells(report.all, share)], ['longest', '', *_cells(report.longest, share)]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    table = ['  '.join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
    return '\n'.join([_what_was_read(report), '', *table, '', _verdict(report, share)])


def _cells(tally: Tally, share: float) -> list[str]:
    if not tally.targets:
        return ['0', *('-' for _ in PERCENTILES), '-', '-', '-']
    values = [*(tally.percentile(percent) for percent in PERCENTILES), tally.largest]
    return [
        str(tally.positives),
        *(f'{value:.1f}' for value in values),
        f'{tally.clipped_share:.2%}',
        str(tally.smallest_reg_max(share)),
    ]


def _what_was_read(report: Report) -> str:
    total = sum(report.objects)
    lines = [
        f'{report.images} of {report.available} images, {report.empty_images} of them without objects; '
        f'{total} objects, {report.ignored} ignored regions'
    ]
    sizes = ', '.join(
        f'{count / max(total, 1):.1%} {name}' for name, count in zip(('small', 'medium', 'large'), report.objects)
    )
    lines.append(f"of the objects {sizes} (COCO's areas, in the network's input)")
    alone = sum(report.unassigned)
    if alone:
        lines.append(f'{alone} objects, {report.unassigned[0]} of them small, are learned by no location')
    outside = report.all.outside
    if outside:
        lines.append(f'{outside / report.all.targets:.2%} of the targets are below 0 and count as 0')
    lines.append('distances in strides of the level; reg_max: the smallest that is safe for the line alone')
    lines.append("longest: of each positive's four sides the longest only")
    return '\n'.join(lines)


def _verdict(report: Report, share: float) -> str:
    box, total = report.box, report.all
    safe = total.smallest_reg_max(share)
    if safe is None:
        return 'no location learns an object: check the classes, the boxes and the image size'
    now = f'reg_max={box.reg_max}, delta={box.delta:g}'
    origin = "the head has no reg_max; with GeneralBox's default" if report.assumed else 'now'
    reach = f'{box.reach:g} strides, {box.reach * report.strides[0]:g} to {box.reach * report.strides[-1]:g} px'
    return (
        f'{origin} {now} reaches {reach}: {total.clipped_share:.3%} of the targets are clipped\n'
        f'smallest safe reg_max with delta={box.delta:g}: {safe}, which cuts at most {share:.2%} of the targets short'
    )


def as_dict(report: Report, share: float) -> dict[str, Any]:
    """The report for a JSON file; see the attributes of :class:`Report` and :class:`Tally`."""
    sizes = ('small', 'medium', 'large')
    return dict(
        reg_max=report.box.reg_max,
        delta=report.box.delta,
        reg_max_is_assumed=report.assumed,
        smallest_safe_reg_max=report.all.smallest_reg_max(share),
        safe_share=share,
        images=report.images,
        images_available=report.available,
        images_without_objects=report.empty_images,
        objects=dict(zip(sizes, report.objects)),
        objects_without_location=dict(zip(sizes, report.unassigned)),
        ignored_regions=report.ignored,
        all=_level_dict(report.all, share),
        longest_sides=_level_dict(report.longest, share),
        levels=[
            dict(stride=stride, **_level_dict(level, share)) for stride, level in zip(report.strides, report.levels)
        ],
    )


def _level_dict(tally: Tally, share: float) -> dict[str, Any]:
    return dict(
        positives=tally.positives,
        percentiles={f'{percent:g}': tally.percentile(percent) if tally.targets else None for percent in PERCENTILES},
        max=tally.largest if tally.targets else None,
        clipped_share=tally.clipped_share,
        below_zero=tally.outside,
        smallest_safe_reg_max=tally.smallest_reg_max(share),
        histogram=dict(width=1 / RESOLUTION, counts=tally.bins.tolist()),
    )


def density(tally: Tally, width: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Left edges of bins of ``width`` strides, a multiple of 1 / :data:`RESOLUTION`, and the density in each."""
    step = round(width * RESOLUTION)
    inside = tally.bins[1:].copy()  # bin 0 is the target 0 itself
    if len(inside):
        inside[0] += tally.bins[0]
    padded = np.pad(inside, (0, -len(inside) % step)).reshape(-1, step).sum(axis=1)
    return np.arange(len(padded)) * width, padded / max(tally.targets, 1) / width


def draw(report: Report, share: float, path: Path, title: str) -> None:
    """Writes the picture: the histogram of the targets (Fig. 5c), and the share that lies beyond a distance."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout='constrained')
    figure.suptitle(f'Distance targets: {title}, {report.images} images')
    _draw_densities(report, left)
    _draw_tails(report, share, right)
    for axes in (left, right):
        axes.set_xlabel('distance from the location to a side, in strides')
        axes.set_xlim(0, max(report.box.reach, report.all.percentile(99.99) if report.all.targets else 0) * 1.1)
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _filled(report: Report) -> list[tuple[str, Tally]]:
    """The levels with targets, by their label."""
    return [(f'stride {stride}', level) for stride, level in zip(report.strides, report.levels) if level.targets]


def _draw_densities(report: Report, axes: Any) -> None:
    width = 0.25
    edges, heights = density(report.all, width)
    axes.bar(edges, heights, width, align='edge', color='0.85', label='all levels')
    for label, level in _filled(report):
        edges, heights = density(level, 2 * width)
        axes.plot(edges + width, heights, linewidth=1.3, label=label)
    _mark_reach(report, axes)
    axes.set(ylabel='density of the targets, per stride', title='Histogram')
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[-1:] + handles[:-1], labels[-1:] + labels[:-1], frameon=False)


def _draw_tails(report: Report, share: float, axes: Any) -> None:
    lines = [('all levels', report.all, dict(color='black', linewidth=2))]
    lines += [(label, level, dict(linewidth=1.3)) for label, level in _filled(report)]
    axes.set_prop_cycle(None)
    for label, tally, style in lines:
        beyond = tally.beyond()
        axes.plot(np.arange(len(beyond)) / RESOLUTION, np.maximum(beyond, 1e-9), label=label, **style)
    axes.axhline(share, color='0.5', linestyle='--', linewidth=1)
    axes.annotate(f'{share:.2%}', (0.01, share), xycoords=('axes fraction', 'data'), va='bottom', color='0.4')
    _mark_reach(report, axes)
    axes.set(yscale='log', ylim=(1e-5, 1), ylabel='share of the targets beyond', title='What a reach would clip')
    axes.legend(frameon=False, loc='lower left')


def _mark_reach(report: Report, axes: Any) -> None:
    box = report.box
    axes.axvline(box.reach, color='black', linestyle=':', linewidth=1)
    name = f'reg_max={box.reg_max}' + (f', delta={box.delta:g}' if box.delta != 1 else '')
    axes.annotate(
        name + (' (default)' if report.assumed else ''),
        (box.reach, 1),
        xytext=(-3, 0),
        xycoords=('data', 'axes fraction'),
        textcoords='offset points',
        ha='right',
        va='top',
        rotation=90,
    )


class Progress:
    """Says how far it is, every few seconds and at the end.

    Args:
        say: Takes a line.
        every: Seconds between lines.
    """

    def __init__(self, say: Callable[[str], None] = print, every: float = 5.0) -> None:
        self.say = say
        self.every = every
        self.start = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` images have been read."""
        now = time.monotonic()
        if done < total and now - self.last < self.every:
            return
        self.last = now
        left = (now - self.start) / done * (total - done)
        self.say(
            f'{done} of {total} images' + (f', {left:.0f} s left' if done < total else f' in {now - self.start:.0f} s')
        )
