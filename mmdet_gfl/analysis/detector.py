"""A trained detector and its data, loaded and checked for the analysis tools; what cannot work is one sentence."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.structures import InstanceData
from torch import nn
from tqdm import tqdm

from mmdet_gfl.compat import checkpoint as checkpoints
from mmdet_gfl.engine import data_checks, launch
from mmdet_gfl.engine.files import PICTURE_SUFFIXES, make_folder_of
from mmdet_gfl.registry import hosts_of_stock_heads

from .matching import Detections, Objects, as_array


@dataclass(frozen=True)
class Detector:
    """A model in eval mode with its weights, and where it comes from.

    Attributes:
        model: On its device.
        cfg: Its config.
        classes: Names by index.
    """

    model: nn.Module
    cfg: Config
    classes: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that the tools share."""
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ...; without it a GPU if there is one')
    launch.add_config_arguments(parser)


def add_comparison_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """The arguments of a tool that draws one model or several side by side; ``out`` is the picture's default."""
    parser.add_argument('--names', nargs='+', help='a name for each model; default: the name of its config')
    parser.add_argument(
        '--split', choices=['val', 'test'], default='val', help='data set of the config to use; default: %(default)s'
    )
    parser.add_argument('--out', type=Path, default=Path(out), help='picture to write, default: %(default)s')
    add_arguments(parser)


def compared_models(args: argparse.Namespace) -> list[tuple[str, Config, str]]:
    """Name, checked config and weights of each model of such a tool, once its picture can be written.

    Raises:
        launch.UserError: As :func:`named_models`, :func:`read_config` and :func:`~.engine.files.make_folder_of`.
    """
    named = named_models(args.models, args.names)
    models = [(name, read_config(config, args), weights) for name, config, weights in named]
    make_folder_of('--out', args.out, PICTURE_SUFFIXES)
    return models


def named_models(models: Sequence[str], names: Sequence[str] | None) -> list[tuple[str, str, str]]:
    """Name, config and weights of each model that a tool compares.

    Args:
        models: Config and weights in turn.
        names: A name each; None: those of the configs.

    Raises:
        launch.UserError: A config or weights stand alone, or there are more or fewer names than models.
    """
    if len(models) % 2:
        raise launch.UserError(f'{models[-1]} stands alone: name a config and a checkpoint for each model')
    pairs = list(zip(models[::2], models[1::2]))
    names = names or [Path(config).stem for config, _ in pairs]
    if len(names) != len(pairs):
        raise launch.UserError(f'--names gives {len(names)} names for {len(pairs)} models')
    return [(name, *pair) for name, pair in zip(names, pairs)]


def read_config(path: str, args: argparse.Namespace) -> Config:
    """A config with the options of :func:`add_arguments`, checked.

    Raises:
        launch.UserError: The file is missing or no config, or an option does not fit it.
    """
    if args.allow_unsafe_checkpoint:
        checkpoints.allow_unsafe_checkpoints()
    cfg = launch.read_config(path, args.cfg_options)
    cfg.setdefault('default_scope', 'mmdet')  # a part of a config is enough here
    return cfg


def load(cfg: Config, checkpoint: str, device: str | None = None) -> Detector:
    """The model of a config with the weights of a checkpoint.

    Raises:
        launch.UserError: The checkpoint is missing, damaged, wants to run code or is of another model; the config has
            no model that can be built; there is no such device.
    """
    place = device_of(device)
    launch.check_checkpoint(checkpoint)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if 'model' not in cfg:
        raise launch.UserError(f'config {cfg.filename} has no model; name the config that the checkpoint was made with')
    try:
        with launch.friendly_errors(cfg):
            model = MODELS.build(cfg.model)
    except (TypeError, ValueError, KeyError) as error:
        raise launch.UserError(f'the model of config {cfg.filename} cannot be built: {error}') from error
    try:
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except checkpoints.CheckpointError as error:  # of torch before 1.6, which shows its faults when it is loaded
        raise launch.UserError(str(error)) from error
    launch.check_fit(model, checkpoint, loaded)  # which loads what fits
    meta = loaded.get('meta', {}).get('dataset_meta') or {}
    model.cfg = cfg  # MMDetection's inference looks there for the pipeline
    classes = meta.get('classes') or meta.get('CLASSES') or _classes_of_config(cfg)
    model.to(place).eval()  # not chained further: a backbone of MMDetection returns None
    return Detector(model, cfg, tuple(classes))


def device_of(name: str | None) -> torch.device:
    """The device of a name; a GPU if there is one without a name.

    Raises:
        launch.UserError: There is no such device here.
    """
    try:
        place = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition('\n')[0]
        raise launch.UserError(f'--device {name}: this machine or this torch has none ({reason}); use cpu') from error
    return place


def _classes_of_config(cfg: Config) -> Sequence[str]:
    """Class names of the test data, without reading it; empty where they are not told."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    own, cls = (dataset.get('metainfo') or {}).get('classes'), data_checks.class_of(dataset, cfg.get('default_scope'))
    classes = own or getattr(cls, 'METAINFO', {}).get('classes')
    return classes if isinstance(classes, (list, tuple)) else ()


# Distributions ------------------------------------------------------------------------------------------------------

_TRAIN_ONE = "train one with box=dict(type='mmdet_gfl.GeneralBox'), as configs/gfl/gfl_r50_fpn_1x_coco.py does"


def turn_on_distributions(detector: Detector) -> str:
    """Let the results hold all that the box representation can tell of its sides.

    Returns:
        What ``test_cfg.with_distribution`` is now: ``'full'``, or ``'stats'`` where sides have a mean and a standard
        deviation only.

    Raises:
        launch.UserError: The model predicts no distributions.
    """
    head = getattr(detector.model, 'bbox_head', None)
    kind, name = type(head).__name__, detector.cfg.filename
    box = getattr(head, 'box', None)
    with_distributions = {stock.__name__: host for stock, host in hosts_of_stock_heads().items() if not host.free_axes}
    if box is None and kind in with_distributions:
        raise launch.UserError(
            f"config {name} has MMDetection's {kind}, whose results do not hold its distributions; with "
            f'--cfg-options model.bbox_head.type=mmdet_gfl.{with_distributions[kind].__name__} the same checkpoint does'
        )
    if head is None or box is None:
        what = f'a {kind}' if head is not None else f'a {type(detector.model).__name__} without a dense head'
        raise launch.UserError(f'config {name} has {what}, which predicts no distributions of the sides; {_TRAIN_ONE}')
    if not box.statistics:
        raise launch.UserError(
            f'config {name} has a {type(box).__name__}: it predicts one number per side and no distribution; '
            f'{_TRAIN_ONE}'
        )
    head.test_cfg.with_distribution = box.statistics[-1]
    return head.test_cfg.with_distribution


# Data sets ----------------------------------------------------------------------------------------------------------

#: Detections and objects of an image.
Image = tuple[Detections, Objects]


def images_of(cfg: Config, weights: str, split: str, device: str | None = None) -> tuple[list[Image], tuple[str, ...]]:
    """Detections and objects of each image of a split, and the data set's class names.

    Args:
        cfg: The config.
        weights: A checkpoint, or the ``.pkl`` with detections that ``tools/test.py --out`` writes.
        split: ``'val'`` or ``'test'``: whose data loader of the config.
        device: See :func:`load`.

    Raises:
        launch.UserError: Data, weights or detections cannot be used.
    """
    dataset = dataset_of(cfg, split)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    if not any(info.get('instances') for info in infos):
        key, classes = f'{split}_dataloader', ', '.join(dataset.metainfo['classes'])
        way = f'set {key}.dataset.metainfo.classes to the names of its categories'
        raise launch.UserError(f'the data set of {key} has no objects of the classes {classes}; {way}')
    if weights.endswith(('.pkl', '.pickle')):
        found = _read_detections(weights)
    else:
        detector = load(cfg, weights, device)
        keep_quality(getattr(detector.model, 'bbox_head', None))
        samples = predictions(detector, split, dataset)
        found = {sample.img_id: detections_of(sample.pred_instances) for sample in samples}
    _check_detections(found, infos, dataset.metainfo['classes'], weights)
    images = [(found[info['img_id']], objects_of(info)) for info in infos]
    return images, tuple(dataset.metainfo['classes'])


def dataset_of(cfg: Config, split: str) -> BaseDataset:
    """The data set of a split.

    Raises:
        launch.UserError: The config has none, its files are missing or of another format, its classes do not fit.
    """
    if not cfg.get(f'{split}_dataloader'):
        other = 'test' if split == 'val' else 'val'
        hint = f'try --split {other}' if cfg.get(f'{other}_dataloader') else 'write one, as configs/_base_/datasets do'
        raise launch.UserError(f'config {cfg.filename} has no {split}_dataloader, hence no data set; {hint}')
    try:
        dataset: BaseDataset = launch.build_dataset(cfg, split)
        return dataset
    except (AssertionError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise launch.UserError(
            f'the data set of {split}_dataloader in config {cfg.filename} cannot be read ({type(error).__name__}: '
            f"{error}); its type must be that of the annotation file, such as CocoDataset for COCO's JSON"
        ) from error


def objects_of(info: dict[str, Any]) -> Objects:
    """The annotated objects of an entry of a data set."""
    instances = info.get('instances', [])
    return Objects(
        np.array([one['bbox'] for one in instances], float).reshape(-1, 4),
        np.array([one['bbox_label'] for one in instances], int),
        np.array([one.get('ignore_flag', 0) for one in instances], bool),
    )


def predictions(detector: Detector, split: str, dataset: BaseDataset) -> Iterator[DetDataSample]:
    """The sample of each image of a split with ``pred_instances``, with progress on the screen."""
    model: Any = detector.model
    loader = Runner.build_dataloader(dict(detector.cfg[f'{split}_dataloader'], dataset=dataset))
    for batch in tqdm(loader, 'batches'):
        with torch.no_grad():
            samples = model.test_step(batch)
        yield from samples


def detections_of(results: InstanceData | dict[str, Any]) -> Detections:
    """The detections of an image out of a model's results, or of those that were written to a file."""
    boxes, scores, labels = (as_array(results[key]) for key in ('bboxes', 'scores', 'labels'))
    return Detections(boxes, scores, labels.astype(int), as_array(results['quality']) if 'quality' in results else None)


class _QualityKept(BaseDenseHead):
    """Base class, before that of a dense head, by which results keep what the branch gave, as ``quality``.

    MMDetection multiplies it into the score and drops it.
    """

    def _bbox_post_process(self, results: InstanceData, *args: Any, **kwargs: Any) -> InstanceData:
        if 'score_factors' in results:
            results.quality = results.score_factors
        return super()._bbox_post_process(results, *args, **kwargs)


def keep_quality(head: Any) -> None:
    """Derive the class of a dense head, MMDetection's too, from :class:`_QualityKept`; leave other heads alone.

    The model is built by ``init_detector``, which takes no other class; its class is replaced, not a method of it, so
    that the head's own overrides stay.
    """
    if isinstance(head, BaseDenseHead):
        kind = type(head)
        head.__class__ = type(
            kind.__name__, (_QualityKept, kind), dict(__module__=kind.__module__, __doc__=kind.__doc__)
        )


def _read_detections(path: str) -> dict[Any, Detections]:
    """Detections by image id of a file of ``tools/test.py --out``; raises if it holds no detections."""
    if not Path(path).is_file():
        raise launch.UserError(f'there are no detections at {path}; write them with tools/test.py --out {path}')
    try:
        samples = pickle.loads(Path(path).read_bytes())
        return {sample['img_id']: detections_of(sample['pred_instances']) for sample in samples}
    except Exception as error:  # whatever unpickling another file trips over
        raise launch.UserError(
            f'{path} holds no detections as tools/test.py --out writes them ({type(error).__name__}: {error})'
        ) from error


def _check_detections(
    found: dict[Any, Detections], infos: Sequence[dict[str, Any]], classes: Sequence[str], weights: str
) -> None:
    """Raise for detections of another data set: an image has none, or a class is not one of the data set's."""
    missing = [info['img_id'] for info in infos if info['img_id'] not in found]
    if missing:
        raise launch.UserError(
            f'{weights} has no entry for {len(missing)} of the {len(infos)} images of the data set, such as img_id '
            f'{missing[0]}: it was made from another data set'
        )
    largest = max(int(one.labels.max(initial=-1)) for one in found.values())
    if largest >= len(classes):
        raise launch.UserError(
            f'{weights} detects the class of index {largest}, but the data set has {len(classes)} classes: it was '
            f'made for another data set'
        )
