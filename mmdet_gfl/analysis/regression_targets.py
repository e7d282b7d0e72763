"""Distance targets of a config on a data set, for choosing ``reg_max`` (Fig. 5c of GFL, arXiv:2006.04388).

The data set goes through the config's own training pipeline and the head's own target assignment; no network runs, the
sizes of the feature maps follow from the image and the strides. The augmentation is seeded image by image, so that what
is read does not depend on the number of workers.

Dimension letters: P positives of a level, each with four targets, l, t, r, b; G objects of an image.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from mmdet_gfl.analysis.counterparts import build_head, head_config
from mmdet_gfl.analysis.detector import dataset_of
from mmdet_gfl.analysis.ideal_predictions import grid_sizes, ideal_predictions, with_dirac_box
from mmdet_gfl.analysis.target_counts import Report, TargetHistogram, by_area
from mmdet_gfl.benchmark.shorten import innermost
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.engine.type_checks import friendly_errors
from mmdet_gfl.models.boxes.general import GeneralBox
from mmdet_gfl.models.dense_heads.dense_gfl_mixin import DenseGFLMixin
from mmdet_gfl.models.task_modules import validate_ground_truth

# Images -----------------------------------------------------------------------------------------------------------


class _Failure(str):
    """Why an item could not be made; what a worker raises would come with its traceback inside."""


def _read(dataset: Any, seed: int, numbered: tuple[int, int]) -> Any:
    """An item, its augmentation seeded by its number: the same whatever the number of workers."""
    number, index = numbered
    for seed_generator in (random.seed, np.random.seed, torch.manual_seed):
        seed_generator(seed + number)
    try:
        return dataset[index]
    except Exception as error:  # a pipeline is anybody's code
        return _Failure(f'{type(error).__name__}: {error}')


def training_dataset(cfg: Config, split: str) -> Any:
    """The data set of a split, with the pipeline of the training.

    Args:
        cfg: The config.
        split: ``'train'``, ``'val'`` or ``'test'``; the latter two in training mode, since a test pipeline leaves the
            boxes in the pixels of the file.

    Raises:
        UserError: The config has no training pipeline; or as :func:`.detector.dataset_of`.
    """
    cfg = copy.deepcopy(cfg)
    if split != 'train' and cfg.get(f'{split}_dataloader'):
        training = innermost((cfg.get('train_dataloader') or {}).get('dataset') or {})
        pipeline = next((node['pipeline'] for node in training if 'pipeline' in node), None)
        if pipeline is None:
            raise UserError(f'--split {split} takes the pipeline of train_dataloader.dataset, and the config has none')
        for node in innermost(cfg[f'{split}_dataloader'].dataset):
            node.update(pipeline=copy.deepcopy(pipeline), test_mode=False)
    return dataset_of(cfg, split)


def samples(dataset: Any, indices: list[int], workers: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the pipeline's output of each image: a dict with ``inputs`` and ``data_samples``.

    Raises:
        UserError: An image cannot be made, or the pipeline does not end in ``PackDetInputs``.
    """
    numbered: Any = list(enumerate(indices))
    loader = DataLoader(numbered, batch_size=None, num_workers=workers, collate_fn=partial(_read, dataset, seed))
    for index, item in zip(indices, loader):
        if isinstance(item, _Failure):
            raise UserError(
                f'image {index} of the data set cannot be read: {item}. Fix it, or remove it and its entry in the '
                f'annotation file'
            )
        if not (isinstance(item, dict) and 'data_samples' in item):
            raise UserError('the training pipeline does not end in PackDetInputs, so it gives no boxes to measure')
        yield item


# Targets ------------------------------------------------------------------------------------------------------------


def distance_targets(
    head: DenseGFLMixin, size: tuple[int, int], objects: InstanceData, meta: dict[str, Any], ignored: InstanceData
) -> tuple[list[Tensor], Tensor]:
    """Targets of one image; those of an assigner that depends on predictions are given :func:`ideal_predictions`.

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
    sizes = grid_sizes(head, size)
    predictions = ideal_predictions(head, sizes, objects) if head.assigns_quality else ()
    assigning = with_dirac_box(head) if predictions else head
    targets = assigning.targets(assigning.assignment_batch(sizes, [objects], [meta], [ignored], *predictions))
    distances = targets.locations.distances(targets.gt_bboxes)
    return list(distances.split(targets.pos.per_level)), targets.gt_bboxes


# Measuring ----------------------------------------------------------------------------------------------------------


def measure(
    cfg: Config,
    split: str = 'train',
    images: int = 0,
    workers: int = 0,
    seed: int = 0,
) -> Report:
    """Read a data set through a config, with progress on stderr.

    Args:
        cfg: The config.
        split: Whose images.
        images: How many of them, drawn at random; 0 takes all.
        workers: Processes that read them.
        seed: Of the draw and of the augmentation.

    Raises:
        UserError: The config has no head or no data set that this can measure, or an image or a box is broken.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with friendly_errors(cfg):
        # That of ours which assigns the same targets as MMDetection's.
        head = build_head(head_config(cfg.get('model') or ConfigDict()))
    dataset = training_dataset(cfg, split)
    indices = list(range(len(dataset)))
    if 0 < images < len(indices):
        indices = sorted(random.Random(seed).sample(indices, images))
    report = new_report(head, len(dataset))
    preprocess = MMDET_MODELS.build(cfg.model.get('data_preprocessor') or dict(type='DetDataPreprocessor'))
    for number, item in enumerate(tqdm(samples(dataset, indices, workers, seed), 'images', len(indices))):
        MessageHub.get_current_instance().update_info('iter', number)  # a Runner's; batch_augments ask for it
        random.seed(seed + number + 1)  # for them too, whatever a worker has drawn
        batch = preprocess(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]), training=True)
        sample = batch['data_samples'][0]
        size = tuple(batch['inputs'].shape[-2:])
        add_image(report, head, size, sample.gt_instances, sample.metainfo, sample.ignored_instances)
    return report


def new_report(head: DenseGFLMixin, available: int) -> Report:
    """A report of no images yet, for a data set with ``available`` images."""
    box = head.box if isinstance(head.box, GeneralBox) else GeneralBox()
    levels, assumed = [TargetHistogram(box) for _ in head.level_strides], box is not head.box
    total, longest = TargetHistogram(box), TargetHistogram(box)
    return Report(
        levels, total, longest, head.level_strides, assumed, available, ideal_predictions=head.assigns_quality
    )


def add_image(
    report: Report,
    head: DenseGFLMixin,
    size: tuple[int, int],
    objects: InstanceData,
    meta: dict[str, Any],
    ignored: InstanceData,
) -> None:
    """Count one image; the arguments are those of :func:`distance_targets`.

    Raises:
        UserError: A box is not finite or a label is not the model's.
    """
    try:
        validate_ground_truth([objects], [meta], head.num_classes)
    except ValueError as error:
        raise UserError(str(error)) from error
    distances, learned = distance_targets(head, size, objects, meta, ignored)
    report.add(distances)
    boxes = get_box_tensor(objects.bboxes)
    report.images += 1
    report.empty_images += not len(boxes)
    report.ignored += len(ignored.bboxes)
    nobody = ~(boxes[:, None] == learned.unique(dim=0)[None]).all(dim=2).any(dim=1)  # (G,)
    for counts, chosen in ((report.objects, boxes), (report.unassigned, boxes[nobody])):
        for index, number in enumerate(by_area(chosen)):
            counts[index] += number
