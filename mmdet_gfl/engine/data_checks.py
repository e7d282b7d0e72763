"""One look at the data, as the training will see it.

MMEngine's Runner builds the data sets of a config; each is looked at while it does. For the time of its construction a
data set's class is a subclass that keeps the index of its file, counts what an image's entry loses, and looks at the
list of images before it is serialized. So nothing is read twice, order and random numbers are the Runner's, and every
format, class and wrapper counts that the training takes. What the evaluator alone reads is looked at in the object that
it has loaded.
"""

from __future__ import annotations

import copy
import gc
import linecache
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import mmengine.registry as roots
import numpy as np
from mmdet.evaluation import CocoMetric
from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_gfl.engine import coco_files
from mmdet_gfl.engine.coco_files import PAGE
from mmdet_gfl.engine.errors import UserError, note, some
from mmdet_gfl.engine.type_checks import friendly_errors, nodes

#: Errors of reading a file that is not there or has other content, and the packages whose errors they are.
READING_ERRORS: tuple[type[Exception], ...] = (ArithmeticError, AssertionError, AttributeError, FileNotFoundError)
READING_ERRORS += (LookupError, SyntaxError, TypeError, ValueError)
READERS = ('mmdet', 'mmcv', 'mmengine', 'pycocotools', 'lvis')

# Before anything is read --------------------------------------------------------------------------------------------


def check_data(cfg: Config, *splits: str) -> None:
    """Raise for annotation files that are missing, before a long training reads the first of them.

    Args:
        cfg: The config.
        *splits: ``'train'``, ``'val'`` or ``'test'``; a split without a data loader is skipped.

    Raises:
        UserError: Names the key, the file and what to set.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, node in nodes(loader.get('dataset'), f'{split}_dataloader.dataset.'):
            if {'ann_file', 'data_prefix'} & node.keys() and class_of(node, cfg.get('default_scope')) is not None:
                if isinstance(prefix := node.get('data_prefix'), str):
                    raise UserError(
                        f'{key}data_prefix={prefix!r} is a text, and it needs a dict: data_prefix=dict(img={prefix!r})'
                    )
                _check_file(key, node, node.get('data_root') or '')
        for key, node in nodes(cfg.get(f'{split}_evaluator') if loader else None, f'{split}_evaluator.'):
            _check_file(key, node)


def class_of(node: Mapping[str, Any], scope: str | None = None) -> type[BaseDataset] | None:
    """The class of a data set's config, if it is one of MMEngine's; None where it cannot be told."""
    kind = node.get('type')
    if isinstance(kind, str) and '_scope_' not in node:
        with roots.DATASETS.switch_scope_and_registry(scope) as registry:
            try:
                kind = registry.get(kind)
            except (ImportError, RuntimeError):  # which the Runner will meet too
                return None
    return kind if isinstance(kind, type) and issubclass(kind, BaseDataset) else None


def _check_file(key: str, node: dict[str, Any], root: str = '') -> None:
    path = node.get('ann_file')
    if not isinstance(path, str) or not path:
        return
    whole = path if '://' in path else os.path.join(root, path)
    try:
        if fileio.exists(whole, backend_args=copy.deepcopy(node.get('backend_args'))):
            return
    except Exception:  # a storage that cannot say it, or whose client is not here
        return
    option = f'{key}data_root=/path/to/data' if root else f'{key}ann_file=/path/to/file'
    raise UserError(
        f'{key}ann_file: {os.path.abspath(whole)} does not exist{_contents(Path(root)) if root else ""}; put or link '
        f'the data there, or point the config to it (--cfg-options {option})'
    )


def _contents(folder: Path) -> str:
    """The contents of a data folder, as the end of a sentence."""
    if not folder.is_dir():
        return ''
    names = sorted(entry.name for entry in folder.iterdir())
    if 'JPEGImages' in names or 'VOC2007' in names or 'VOC2012' in names:
        return f" (the folder is in Pascal VOC format, which type='VOCDataset' reads: {PAGE})"
    jsons = sorted(str(file.relative_to(folder)) for pattern in ('*.json', '*/*.json') for file in folder.glob(pattern))
    return f' (the folder has {some(jsons or names) or "nothing in it"})'


# While a data set is built ------------------------------------------------------------------------------------------


@dataclass
class Record:
    """Facts about a data set, collected while it is built."""

    key: str  # dotted key of its config
    dataset: Any = None  # once it is built
    api: Any = None  # index of its file while it is built, in COCO format
    entry: Any = None  # the image's that is being read
    read: int = 0  # objects so far
    names: Counter[str] = field(default_factory=Counter)  # of objects that are no class, in Pascal VOC format
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)  # reason: number of objects, value of the first
    ids: dict[Any, str] = field(default_factory=dict)  # id of each image: name of its file
    classes: list[str] = field(default_factory=list)  # in the order of the labels
    counts: Any = None  # objects of each class that are not to be ignored
    ignored: int = 0  # objects to be ignored, or without an area

    def leave_out(self, reason: str, example: str, count: int = 1) -> None:
        """Count objects that are not delivered."""
        before, first = self.left_out.get(reason, (0, example))
        if count > 0:
            self.left_out[reason] = before + count, first

    def sentence(self) -> tuple[int, int, str]:
        """Number of objects that are left out and of all in the files, and the reasons as the end of a sentence."""
        out = sum(count for count, _ in self.left_out.values())
        delivered = 0 if self.counts is None else int(self.counts.sum())
        reasons = [f'{count} {reason}, such as {first}' for reason, (count, first) in self.left_out.items()]
        return out, delivered + self.ignored + out, '; '.join(reasons)


class _Observed(BaseDataset):
    """The construction of a data set with a look at it; a base of the class that :class:`CheckDataHook` makes."""

    record: ClassVar[Record]
    observed_class: ClassVar[Any]

    def full_init(self) -> None:
        """Build the data set, look at its list of images, and then serialize it where the config wants that.

        Raises:
            UserError: A file cannot be read; or see :func:`examine`.
        """
        if self._fully_initialized:
            return
        serialize, self.serialize_data = vars(self)['serialize_data'], False
        collecting = gc.isenabled()
        gc.disable()  # it would walk through millions of entries, which hold no cycles, again and again
        try:
            super().full_init()
            self.serialize_data = serialize
            if 'data_bytes' not in vars(self):
                examine(self.record, self)
                if serialize:
                    self.data_bytes, self.data_address = self._serialize_data()
        except READING_ERRORS as error:
            line = _reading_line(error)
            if line is None:
                raise
            raise _unreadable(self.record, self, error, line) from error
        finally:
            if collecting:
                gc.enable()
        self.record.dataset, self.record.api = self, None
        self.__class__ = self.observed_class

    def COCOAPI(self, path: str) -> Any:
        """Read a file in COCO format, as data sets of this format do, and keep its index."""
        api = self.observed_class.COCOAPI(path)
        if coco_files.is_plain(api):
            coco_files.check_entries(f'{self.record.key}ann_file', str(self.ann_file), api)
            self.record.api = api
        return api

    def parse_data_info(self, raw: dict[str, Any], /) -> dict[str, Any] | list[dict[str, Any]]:
        """Read an image's entry, and count the objects that this leaves out."""
        self.record.entry = raw
        info = super().parse_data_info(raw)
        self.record.entry = None
        if isinstance(info, dict) and 'instances' in info:
            delivered = len(info['instances'])
            self.record.read += delivered
            api = self.record.api or getattr(self, 'lvis', None)  # MMDetection keeps LVIS's index while it reads
            if api is not None and 'raw_ann_info' in raw and len(raw['raw_ann_info']) != delivered:
                image, wanted = raw['raw_img_info'], getattr(self, 'cat2label', ())
                reasons = [coco_files.why_left_out(one, image, api, wanted) for one in raw['raw_ann_info']]
                for reason, example in filter(None, reasons):
                    self.record.leave_out(reason, example)
                name, rest = self.observed_class.__name__, reasons.count(None) - delivered
                self.record.leave_out(f'by {name}', f'in {image.get("file_name")}', rest)
        return info

    def _parse_instance_info(self, tree: Any, *args: Any, **options: Any) -> list[dict[str, Any]]:
        """Read the objects of a file in Pascal VOC format, and count the names that are no classes."""
        names = (str(entry.findtext('name')) for entry in tree.iterfind('object'))
        self.record.names.update(name for name in names if name not in self._metainfo['classes'])
        found: list[dict[str, Any]] = super()._parse_instance_info(tree, *args, **options)
        return found


def _reading_line(error: Exception) -> str | None:
    """The line of MMDetection's code that has failed to read; None for an error of a data set's own code."""
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = frame.f_globals['__name__'].partition('.')[0]
        if package not in sys.stdlib_module_names:
            return linecache.getline(frame.f_code.co_filename, number).strip() if package in READERS else None
    return None


def _unreadable(record: Record, dataset: _Observed, error: Exception, line: str) -> UserError:
    """The error for a file that the data set cannot read; it names the image's entry, and the field or who reads it."""
    key, path, entry, place = f'{record.key}ann_file', str(dataset.ann_file), record.entry, ''
    if isinstance(entry, dict):
        if 'raw_ann_info' in entry:
            coco_files.check_fields(key, path, entry['raw_img_info'], coco_files.IMAGE_FIELDS)
        for annotation in entry.get('raw_ann_info', ()):
            coco_files.check_fields(key, path, annotation, coco_files.OBJECT_FIELDS)
        path = entry.get('xml_path') or f'{path}, image {entry.get("ID", entry.get("img_id"))}'
        place = f' in `{line}`'
    what = f'cannot be read by {dataset.observed_class.__name__}: {type(error).__name__}: {error}{place}'
    return UserError(f'{key}: {path} {what}; {PAGE} shows the formats')


def examine(record: Record, dataset: BaseDataset) -> None:
    """Look at the images and objects that a data set delivers, filtered and not yet serialized, and note their numbers.

    Raises:
        UserError: The classes are not the file's; there is no image; an image is not there; a box is not finite, or its
            sides are in the wrong order; a label is outside the classes. Names the file, the object and the value.
    """
    key, infos, classes = record.key, dataset.data_list, dataset.metainfo.get('classes')
    if isinstance(classes, str):
        raise UserError(
            f'{key}metainfo.classes={classes!r} is one text and no file with a class per line; write a tuple, and mind '
            f'the comma of a single class: classes=({classes!r},)'
        )
    record.classes = list(classes or ())
    instances = list(chain.from_iterable(info.get('instances', ()) for info in infos))
    _count_left_out(record, dataset, len(instances))
    if not infos:
        raise UserError(
            f'{key}ann_file: {dataset.ann_file} gives no image under filter_cfg={dataset.filter_cfg} (left out: '
            f'{record.sentence()[2] or "nothing"}); give the annotation file of these images, or change filter_cfg'
        )
    record.ids = {info['img_id']: os.path.basename(str(info.get('img_path'))) for info in infos if 'img_id' in info}
    _check_images(record, dataset, infos)
    try:
        labels = np.fromiter((instance['bbox_label'] for instance in instances), np.int64, len(instances))
        boxes = np.array([instance['bbox'] for instance in instances], float)
    except (KeyError, TypeError, ValueError):
        return  # objects of no class or of several, masks alone, segments, captions
    used = ~np.fromiter((bool(instance.get('ignore_flag')) for instance in instances), bool, len(instances))
    wrong = np.flatnonzero(used & ((labels < 0) | (labels >= len(record.classes))))
    if record.classes and len(wrong):
        raise UserError(
            f'{key}metainfo.classes has {len(record.classes)} classes, but {_find(dataset, wrong[0])[1]} has the label '
            f'{labels[wrong[0]]}, counted from 0; give the classes that the file has, all of them where the data set '
            f'takes no selection'
        )
    if boxes.size == 4 * len(instances):  # others are rotated
        boxes = boxes.reshape(-1, 4)
        _check_boxes(key, dataset, boxes, used)
        used &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    record.ignored = len(used) - int(used.sum())
    record.counts = np.bincount(labels[used], minlength=len(record.classes))


def _count_left_out(record: Record, dataset: BaseDataset, delivered: int) -> None:
    """Count what parsing has not seen to be left out; raise for classes that are not those of a COCO file."""
    if record.names:
        reason = 'of classes that metainfo.classes leaves out'
        record.leave_out(reason, repr(record.names.most_common(1)[0][0]), record.names.total())
    if dataset._indices is None:
        example = f'filter_cfg={dataset.filter_cfg}'
        record.leave_out('in images that filter_cfg leaves out', example, record.read - delivered)
    if (api := record.api) is None:
        return
    for number, strays in api.imgToAnns.items():
        if number not in api.imgs:
            example = f'image_id={number!r} where an image has id={next(iter(api.imgs), None)!r}'
            record.leave_out('of images that the file does not list', example, len(strays))
    numbers = getattr(dataset, 'cat2label', None)
    if record.read and numbers and [api.cats[number]['name'] for number in numbers] != record.classes:
        names = [category['name'] for category in api.dataset['categories']]
        coco_files.check_class_names(f'{record.key}ann_file', str(dataset.ann_file), record.classes, names)


def _check_boxes(key: str, dataset: BaseDataset, boxes: np.ndarray, used: np.ndarray) -> None:
    """Raise for boxes that no training can use, if the data set's transforms load them as they stand."""
    wrong = np.flatnonzero(used & ~((boxes[:, 2:] >= boxes[:, :2]).all(1) & np.isfinite(boxes).all(1)))
    what = f'{len(wrong)} of the {int(used.sum())} boxes are not x1 <= x2, y1 <= y2 and finite'
    if not len(wrong):
        wrong = np.flatnonzero(used)
        if not len(wrong) or not 0 < boxes[used].max() <= 1 or boxes[used].min() < -1:
            return
        what = f'all boxes of {dataset.ann_file} lie between 0 and 1, as shares of the image do, and not in pixels'
    info, name = _find(dataset, wrong[0])
    loaded = _load(dataset, info, 'gt_bboxes')
    corners = np.asarray(getattr(loaded, 'tensor', loaded), float)
    as_it_is = corners.shape[-1:] == (4,) and np.isclose(corners, boxes[wrong[0]], equal_nan=True).all(axis=-1).any()
    if loaded is None or as_it_is:
        raise UserError(
            f'{key}ann_file: {what}; {name} is {boxes[wrong[0]].tolist()}; fix the annotation file, or leave them out'
        )


def _load(dataset: BaseDataset, info: dict[str, Any], name: str) -> Any:
    """An entry of an image as the data set's transforms load it; None where they do not."""
    results: Any = copy.deepcopy(info)
    for transform in getattr(dataset.pipeline, 'transforms', ()):
        results = transform(results)
        if results is None or name in results:
            break
    return None if results is None else results.get(name)


def _find(dataset: BaseDataset, number: int) -> tuple[dict[str, Any], str]:
    """The image of the object with this number, and the object's name in a sentence."""
    for info in dataset.data_list:
        if number < len(info.get('instances', ())):
            break
        number -= len(info.get('instances', ()))
    place = info.get('xml_path') or f'{dataset.ann_file}, image {info.get("img_path")}'
    return info, f'object {number} of {place}'


def _check_images(record: Record, dataset: BaseDataset, infos: list[dict[str, Any]]) -> None:
    """Raise for images that are not there, if the data set's transforms cannot load them from elsewhere."""
    paths = {info['img_path']: info for info in infos if isinstance(info.get('img_path'), str)}
    missing = missing_files(paths)
    if not missing:
        return
    try:
        _load(dataset, paths[missing[0]], 'img')
    except FileNotFoundError as error:
        raise UserError(
            f'{record.key}data_prefix={dataset.data_prefix}: {len(missing)} of the {len(paths)} images of '
            f'{dataset.ann_file} are not there, such as {os.path.abspath(missing[0])}; fetch them, point data_prefix '
            f'to their folder, or take them out of the file'
        ) from error


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the files that are not there, or links that lead nowhere or in a circle; each folder is listed once."""
    paths = list(paths)
    there = {os.path.dirname(path): set[str]() for path in paths}
    for folder, names in there.items():
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder or '.') as entries:
            names.update(e.name for e in entries if (os.path.isfile(e.path) if e.is_symlink() else e.is_file()))
    return [path for path in paths if os.path.basename(path) not in there[os.path.dirname(path)]]


# When all is built --------------------------------------------------------------------------------------------------


class CheckDataHook(Hook):
    """Hook that examines the data sets of a run while they are built, and the evaluators before it begins.

    Args:
        *splits: ``'train'``, ``'val'`` or ``'test'``, as far as they will run.
    """

    priority = 'VERY_HIGH'

    def __init__(self, *splits: str) -> None:
        self.records: dict[str, list[Record]] = {split: [] for split in splits}

    def observed(self, split: str, node: Any, key: str) -> Any:
        """A data set's config whose innermost data sets are looked at while they are built."""
        if isinstance(node, (list, tuple)):
            return [self.observed(split, part, f'{key}{index}.') for index, part in enumerate(node)]
        if not isinstance(node, dict):
            return node
        node = dict(node) | {
            name: self.observed(split, node[name], f'{key}{name}.') for name in ('dataset', 'datasets') if name in node
        }
        cls = class_of(node)
        if cls is not None:
            record = Record(key)
            self.records[split].append(record)
            attributes = dict(record=record, observed_class=cls, __module__=cls.__module__, __doc__=cls.__doc__)
            node['type'] = type(cls.__name__, (_Observed, cls), attributes)
        return node

    def before_run(self, runner: Runner) -> None:
        """Look at each split that runs, and at all of them together.

        Raises:
            UserError: See :meth:`check`; or the validation numbers the training's classes in another order.
            ValueError: See :func:`~mmdet_gfl.engine.hooks.num_class_check_hook.check_num_classes`.
        """
        from mmdet_gfl.engine.hooks.num_class_check_hook import check_num_classes
        from mmdet_gfl.models.dense_heads import DenseGFLMixin

        for split in self.records:
            loop = getattr(runner, f'{split}_loop')
            if loop is None:
                continue
            if any(isinstance(module, DenseGFLMixin) for module in runner.model.modules()):
                check_num_classes(runner.model, loop.dataloader.dataset, f'{split}_dataloader.dataset')
            evaluator = None if split == 'train' else loop.evaluator
            self.check(split, evaluator, runner.cfg.get(f'{split}_evaluator'))
        for record in self.records.get('val', ()):
            for other in self.records.get('train', ()):
                if record.classes != other.classes and sorted(record.classes) == sorted(other.classes):
                    raise UserError(
                        f'{record.key}metainfo.classes: {some(record.classes)}, but those of '
                        f'{other.key}metainfo.classes are {some(other.classes)}, and a label is a number in that '
                        f'order; give both one order: in metainfo.classes, and of the categories of COCO files'
                    )
        self.records.clear()

    def check(self, split: str, evaluator: Any = None, configs: Any = None) -> None:
        """Look at a split as a whole, once its data sets and its evaluator are there.

        Args:
            split: ``'train'``, ``'val'`` or ``'test'``.
            evaluator: The split's, if it has one.
            configs: The evaluator's config, which names its files.

        Raises:
            UserError: A training has no object; the evaluator's file does not fit the data set.
        """
        records = [record for record in self.records[split] if record.dataset is not None]
        if split == 'train' and records and all(record.counts is not None for record in records):
            _check_objects(records)
        for record in records:
            out, total, reasons = record.sentence()
            if out:
                note(f'{record.key[:-1]}: {out} of the {total} objects are left out: {reasons}')
        metrics = evaluator.metrics if evaluator is not None and records else []
        found = nodes(configs, f'{split}_evaluator.')
        files = [(f'{key}ann_file', node['ann_file']) for key, node in found if node.get('ann_file')]
        indexed = [metric for metric in metrics if coco_files.is_plain(getattr(metric, '_coco_api', None))]
        several = hasattr(evaluator, 'dataset_prefixes') and len(metrics) == len(records)  # MultiDatasetsEvaluator
        for number, metric in enumerate(metrics):
            judged = [records[number]] if several else records
            if metric in indexed and len(files) == len(indexed):
                key, path = files[indexed.index(metric)]
                images = {number: name for record in judged for number, name in record.ids.items()}
                classes, only = judged[0].classes, metric.format_only
                coco_files.check_ground_truth(key, path, metric._coco_api, classes, images, only)
            elif type(metric) is CocoMetric and metric._coco_api is None:
                _check_packed_instances(split, judged[0])


def _check_objects(records: list[Record]) -> None:
    """Raise for a training without objects; note classes without any."""
    key, files, classes = records[0].key, some(record.dataset.ann_file for record in records), records[0].classes
    if not sum(record.counts.sum() for record in records):
        ignored, total = sum(record.ignored for record in records), sum(record.sentence()[1] for record in records)
        reasons = [record.sentence()[2] for record in records]
        reasons += [f'{ignored} marked to be ignored, or without an area'] * bool(ignored)
        why = f'all {total} objects are left out: {"; ".join(filter(None, reasons))}'
        raise UserError(
            f'{key}ann_file: {files} has nothing to learn for the classes {some(classes)}: '
            f'{why if total else "there is no object at all"}; give the annotation file of the training images, and '
            f'boxes, areas and classes as {PAGE} shows them'
        )
    if any(record.classes != classes for record in records):
        return
    names = sum((record.names for record in records), Counter())
    absent = [name for name, count in zip(classes, sum(record.counts for record in records)) if not count]
    for name in absent:
        for other in get_close_matches(name, names, n=1):
            raise UserError(
                f'{key}metainfo.classes has {name!r}, which no object of {files} is called, but {names[other]} of the '
                f'objects left out are called {other!r}; write the class as the files do, or take it out'
            )
    if absent:
        note(f'{key[:-1]}: no object of the class {some(absent)}, so this is not learned')


def _check_packed_instances(split: str, record: Record) -> None:
    """Raise for objects that do not reach an evaluator without a file."""
    transforms = getattr(record.dataset.pipeline, 'transforms', ())
    if transforms and 'instances' not in getattr(transforms[-1], 'meta_keys', ('instances',)):
        raise UserError(
            f'{split}_evaluator.ann_file is not set, so CocoMetric takes the objects from the data set; add '
            f"'instances' to meta_keys of {record.key}pipeline.{len(transforms) - 1} ({PAGE})"
        )


def observe(runner: Any, *splits: str) -> None:
    """Have a Runner's data sets looked at while it builds them, and its evaluators before it begins.

    Args:
        runner: The Runner, before it has built them. Its config, which it has written into the work dir, stays.
        *splits: ``'train'``, ``'val'`` or ``'test'``, as far as they will run.
    """
    hook = CheckDataHook(*splits)
    for split in splits:
        loader = getattr(runner, f'_{split}_dataloader', None)
        if isinstance(loader, dict) and 'dataset' in loader:
            node = hook.observed(split, loader['dataset'], f'{split}_dataloader.dataset.')
            setattr(runner, f'_{split}_dataloader', dict(loader, dataset=node))
    runner.register_hook(hook)


def build_dataset(cfg: Config, split: str) -> Any:
    """The data set of a split, looked at as a Runner's is.

    Raises:
        UserError: It has no images, or what it has cannot be used; or a part of it cannot be built.
    """
    check_data(Config({key: cfg[key] for key in ('default_scope', f'{split}_dataloader') if key in cfg}), split)
    roots.init_default_scope(cfg.get('default_scope') or 'mmdet')
    hook = CheckDataHook(split)
    with friendly_errors(cfg):
        node = hook.observed(split, cfg[f'{split}_dataloader']['dataset'], f'{split}_dataloader.dataset.')
        dataset = roots.DATASETS.build(copy.deepcopy(node))
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
    hook.check(split)
    return dataset
