"""One look at the data, as the training will see it.

MMEngine's Runner builds the data sets of a config; each is looked at while it does. For the time of its construction a
data set's class is a subclass that notes what reading and filtering leave out, and looks at the list of images before
it is serialized. So nothing is read twice, order and random numbers are the Runner's, and every format, class and
wrapper counts that the training takes. What the evaluator alone reads is looked at in the object that it has loaded.
"""

from __future__ import annotations

import copy
import gc
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import mmengine.registry as roots
import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_gfl.engine import coco_files
from mmdet_gfl.engine.coco_files import PAGE
from mmdet_gfl.engine.errors import UserError, note, some

VOC_FOLDERS = ('JPEGImages', 'Annotations', 'ImageSets', 'VOC2007', 'VOC2012')
#: Fields of a Pascal VOC file that MMDetection reads as numbers, and how.
XML_NUMBERS: dict[str, type] = dict(difficult=int) | {
    f'bndbox/{side}': float for side in ('xmin', 'ymin', 'xmax', 'ymax')
}


def nodes(value: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All dicts inside ``value``, each with the dotted key that leads to it."""
    if isinstance(value, dict):
        yield key, value
        for name, child in value.items():
            yield from nodes(child, f'{key}{name}.')
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from nodes(child, f'{key}{index}.')


# Before anything is read --------------------------------------------------------------------------------------------


def check_data(cfg: Config, *splits: str) -> None:
    """Raise for annotation files that are missing, before a long training reads the first of them.

    The files are those of the configured classes, asked for where these will read them; only what is certainly
    missing is refused.

    Args:
        cfg: The config.
        *splits: ``'train'``, ``'val'`` or ``'test'``; a split without a data loader is skipped.

    Raises:
        UserError: Names the key, the file and what to set.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, node in _data_sets(loader.get('dataset'), f'{split}_dataloader.dataset.', cfg.get('default_scope')):
            _check_data_set(key, node)
        for key, node in nodes(cfg.get(f'{split}_evaluator') if loader else None, f'{split}_evaluator.'):
            path = node.get('ann_file')
            if isinstance(path, str) and path:
                _check_file(f'{key}ann_file', path, node.get('backend_args'), f'{key}ann_file=/path/to/file.json')


def _data_sets(node: Any, key: str, scope: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The innermost data sets of a config whose class is one of MMEngine's, with their dotted keys."""
    if not isinstance(node, dict):
        return
    if 'dataset' in node or 'datasets' in node:
        yield from _data_sets(node.get('dataset'), f'{key}dataset.', scope)
        for index, child in enumerate(node.get('datasets') or ()):
            yield from _data_sets(child, f'{key}datasets.{index}.', scope)
    elif class_of(node, scope) is not None:
        yield key, node


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


def _check_data_set(key: str, node: dict[str, Any]) -> None:
    prefix, metainfo = node.get('data_prefix'), node.get('metainfo')
    if isinstance(prefix, str):
        raise UserError(f'{key}data_prefix={prefix!r} is a text, and it needs a dict: data_prefix=dict(img={prefix!r})')
    classes = metainfo.get('classes') if isinstance(metainfo, dict) else None
    if isinstance(classes, str) and not os.path.isfile(classes):
        raise UserError(
            f'{key}metainfo.classes={classes!r} is one text and no file with a class per line; write a tuple, and mind '
            f'the comma of a single class: classes=({classes!r},)'
        )
    root, path = node.get('data_root') or '', node.get('ann_file')
    if isinstance(path, str) and path:
        whole = path if '://' in path or os.path.isabs(path) else os.path.join(root, path)
        found = '' if os.path.isabs(path) else _contents(root)
        _check_file(f'{key}ann_file', whole, node.get('backend_args'), f'{key}data_root=/path/to/data', found)


def _check_file(key: str, path: str, backend_args: Any, option: str, found: str = '') -> None:
    try:
        if fileio.exists(path, backend_args=copy.deepcopy(backend_args)):
            return
    except Exception:  # a storage that cannot say it, or whose client is not here
        return
    raise UserError(
        f'{key}: {os.path.abspath(path)} does not exist{found}; put or link the data there, or point the config to it '
        f'(--cfg-options {option})'
    )


def _contents(root: str) -> str:
    """The contents of a data folder, as the end of a sentence."""
    folder = Path(root)
    if not root or not folder.is_dir():
        return ''
    if any((folder / name).is_dir() for name in VOC_FOLDERS):
        return f" (the folder is in Pascal VOC format, which type='VOCDataset' reads: {PAGE})"
    if (folder / 'labels').is_dir():
        return f' (the folder looks like YOLO format, which has to be converted to COCO format: {PAGE})'
    jsons = sorted(str(file.relative_to(folder)) for pattern in ('*.json', '*/*.json') for file in folder.glob(pattern))
    if jsons:
        return f' (the folder has {some(jsons)})'
    return f' (the folder has {some(sorted(entry.name for entry in folder.iterdir())) or "nothing in it"})'


# While a data set is built ------------------------------------------------------------------------------------------


@dataclass
class Record:
    """Facts about a data set, collected while it is built.

    Attributes:
        key: The dotted key of its config.
        dataset: The data set.
        api: Index of its file, for data sets that read COCO format.
        left_out: Objects that are not delivered, counted by reason.
        examples: A value for each reason.
        ids: File names by id of the image.
        classes: Names in the order of the labels.
        counts: Objects of each class; those marked to be ignored do not count.
        ignored: Objects marked to be ignored, and those without an area.
        shares: True if all boxes lie in a square of one pixel, as shares of the image's size do.
    """

    key: str
    dataset: Any = None
    api: Any = None
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    ids: dict[Any, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    counts: Any = None
    ignored: int = 0
    shares: bool = False

    def leave_out(self, reason: str, example: str, count: int = 1) -> None:
        """Count objects that are not delivered."""
        if count:
            self.left_out[reason] += count
            self.examples.setdefault(reason, example)

    @property
    def reasons(self) -> str:
        """All reasons with their numbers, as the end of a sentence."""
        return '; '.join(f'{n} {reason}, such as {self.examples[reason]}' for reason, n in self.left_out.items())

    @property
    def total(self) -> int:
        """Number of objects in the files."""
        delivered = 0 if self.counts is None else int(self.counts.sum())
        return delivered + self.ignored + self.left_out.total()


class _Observed(BaseDataset):
    """The steps of a data set's construction, with a look at each; a base of the class that :func:`observed` makes."""

    record: ClassVar[Record]
    observed_class: ClassVar[Any]

    def full_init(self) -> None:
        """Build the data set, look at its list of images, and then serialize it where the config wants that."""
        if self._fully_initialized:
            return
        serialize = vars(self)['serialize_data']
        self.serialize_data = False
        with _garbage_collector_paused():
            super().full_init()
            self.serialize_data = serialize
            if 'data_bytes' not in vars(self):
                examine(self.record, self)
                if serialize:
                    self.data_bytes, self.data_address = self._serialize_data()
        self.record.dataset, self.record.api = self, None
        self.__class__ = self.observed_class

    def COCOAPI(self, path: str) -> Any:
        """Read a file in COCO format, as data sets of this format do."""
        key = f'{self.record.key}ann_file'
        try:
            api = self.observed_class.COCOAPI(path)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise coco_files.unreadable(key, str(self.ann_file), error) from error
        if coco_files.is_plain(api):
            coco_files.check_entries(key, str(self.ann_file), api)
            self.record.api = api
            strays = [(number, len(found)) for number, found in api.imgToAnns.items() if number not in api.imgs]
            for number, count in strays:
                example = f'image_id={number!r} where an image has id={next(iter(api.imgs), None)!r}'
                self.record.leave_out('of images that the file does not list', example, count)
        return api

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation files; then compare the classes with the names that the labels stand for."""
        infos = super().load_data_list()
        record, classes = self.record, self._metainfo.get('classes')
        record.classes = list(classes) if isinstance(classes, (list, tuple)) else []
        numbers = getattr(self, 'cat2label', None)
        if record.api is not None and isinstance(numbers, dict) and any(info.get('instances') for info in infos):
            names = [record.api.cats[number]['name'] for number in numbers]
            if names != record.classes:
                names = [category['name'] for category in record.api.dataset['categories']]
                coco_files.check_class_names(f'{record.key}ann_file', str(self.ann_file), record.classes, names)
        return infos

    def parse_data_info(self, raw_data_info: dict[str, Any], /) -> dict[str, Any] | list[dict[str, Any]]:
        """Read an image's entry, and count the objects that this leaves out."""
        try:
            info = super().parse_data_info(raw_data_info)
        except (AttributeError, KeyError, TypeError, ValueError, SyntaxError):
            _check_entry(f'{self.record.key}ann_file', str(self.ann_file), raw_data_info)
            raise
        if self.record.api is not None and isinstance(info, dict) and 'instances' in info:
            annotations = raw_data_info['raw_ann_info']
            if len(annotations) != len(info['instances']):
                self._count_left_out(annotations, raw_data_info['raw_img_info'], len(info['instances']))
        return info

    def _count_left_out(self, annotations: list[dict[str, Any]], image: dict[str, Any], delivered: int) -> None:
        wanted = getattr(self, 'cat2label', ())
        reasons = [coco_files.why_left_out(annotation, image, self.record.api, wanted) for annotation in annotations]
        for reason, example in filter(None, reasons):
            self.record.leave_out(reason, example)
        rest = reasons.count(None) - delivered
        self.record.leave_out(f'by {self.observed_class.__name__}', f'in {image.get("file_name")}', max(rest, 0))

    def _parse_instance_info(self, raw_ann_info: Any, *args: Any, **options: Any) -> list[dict[str, Any]]:
        """Read the objects of a file in Pascal VOC format, and count the names that are no classes."""
        instances = self.observed_class._parse_instance_info(self, raw_ann_info, *args, **options)
        for name in (entry.findtext('name') for entry in raw_ann_info.findall('object')):
            if name not in self._metainfo['classes']:
                self.record.leave_out('of classes that metainfo.classes leaves out', repr(name))
        return instances

    def filter_data(self) -> list[dict[str, Any]]:
        """Filter the images, and count the objects of those that go."""
        before = _count_objects(self.data_list)
        infos: list[dict[str, Any]] = super().filter_data()
        count = before - _count_objects(infos)
        self.record.leave_out('in images that filter_cfg leaves out', f'filter_cfg={self.filter_cfg}', count)
        return infos


@contextmanager
def _garbage_collector_paused() -> Iterator[None]:
    """Spare the collector from walking through millions of entries, which hold no cycles, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _count_objects(infos: list[dict[str, Any]]) -> int:
    return sum(len(info.get('instances', ())) for info in infos)


def _check_entry(key: str, path: str, raw: dict[str, Any]) -> None:
    """Raise for the value of an image's entry that could not be read, if its format is known."""
    for annotation in raw.get('raw_ann_info', ()):
        coco_files.check_annotation(key, path, annotation)
    path = raw.get('xml_path', '')
    if not path:
        return
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise UserError(f'{key}: {path} is not XML ({error})') from error
    for name in ('size/width', 'size/height'):
        _check_number(key, path, root, name, int)
    for number, entry in enumerate(root.findall('object')):
        for name, read in XML_NUMBERS.items():
            _check_number(key, f'{path}, object {number}', entry, name, read)


def _check_number(key: str, where: str, entry: ElementTree.Element, name: str, read: Any) -> None:
    found = entry.find(name)
    if found is None and not name.startswith('bndbox'):
        return
    try:
        read(None if found is None else found.text)
    except (TypeError, ValueError) as error:
        value = 'missing' if found is None else repr(found.text)
        kind = 'a whole number' if read is int else 'a number'
        raise UserError(f'{key}: {where}: {name} is {value}, and Pascal VOC format needs {kind}') from error


def examine(record: Record, dataset: BaseDataset) -> None:
    """Look at the images and objects that a data set delivers, and note their numbers.

    Args:
        record: What is noted, and the data set's key.
        dataset: The data set, filtered and not yet serialized.

    Raises:
        UserError: There is no image; an image is not there; a box is not finite, or its sides are in the wrong order;
            a label is outside the classes. Names the file, the object and the value.
    """
    infos = dataset.data_list
    if not infos:
        out = f': {record.reasons}' if record.left_out else ''
        raise UserError(
            f'{record.key}ann_file: {dataset.ann_file} gives no image under filter_cfg={dataset.filter_cfg}{out}; give '
            f'the annotation file of these images, or change filter_cfg'
        )
    record.ids = {info['img_id']: str(info.get('img_path')) for info in infos if 'img_id' in info}
    _check_images(record, dataset, infos)
    instances = list(chain.from_iterable(info.get('instances', ()) for info in infos))
    labels = _labels(instances)
    if labels is None or not all('bbox' in instance for instance in instances):
        return  # masks alone, segments, captions
    used = ~np.fromiter((bool(instance.get('ignore_flag')) for instance in instances), bool, len(instances))
    _check_labels(record, dataset, labels, used)
    boxes = _boxes(instances)
    if boxes is not None:
        _check_boxes(record, dataset, boxes, used)
        used &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        record.shares = bool(used.any()) and bool(np.ptp(boxes[used], axis=0).max() <= 1 and boxes[used].max() <= 1)
    record.ignored = len(used) - int(used.sum())
    record.counts = np.bincount(labels[used], minlength=len(record.classes))


def _labels(instances: list[dict[str, Any]]) -> np.ndarray | None:
    """Classes of the objects, (G,); None for objects of no class or of several."""
    try:
        return np.fromiter((instance['bbox_label'] for instance in instances), np.int64, len(instances))
    except (KeyError, TypeError, ValueError):
        return None


def _boxes(instances: list[dict[str, Any]]) -> np.ndarray | None:
    """Corners of the boxes, (G, 4); None for other boxes, as rotated ones."""
    try:
        boxes = np.array([instance['bbox'] for instance in instances], float)
    except (TypeError, ValueError):
        return None
    return boxes.reshape(-1, 4) if boxes.size == 4 * len(instances) else None


def _check_labels(record: Record, dataset: BaseDataset, labels: np.ndarray, used: np.ndarray) -> None:
    wrong = np.flatnonzero(used & ((labels < 0) | (labels >= len(record.classes))))
    if record.classes and len(wrong):
        raise UserError(
            f'{record.key}metainfo.classes has {len(record.classes)} classes, but {_name_of(dataset, wrong[0])} has '
            f'the label {labels[wrong[0]]}, which {type(dataset).__name__} counts from 0; give the classes that the '
            f'file has, all of them where the data set takes no selection'
        )


def _check_boxes(record: Record, dataset: BaseDataset, boxes: np.ndarray, used: np.ndarray) -> None:
    """Raise for boxes that no training can use, if the data set's transforms load them as they stand."""
    wrong = np.flatnonzero(
        used & ~((boxes[:, 2:] >= boxes[:, :2]) & np.isfinite(boxes).reshape(-1, 2, 2).all(1)).all(1)
    )
    if not len(wrong):
        return
    info, _ = _find(dataset.data_list, wrong[0])
    if _repaired(dataset, info):
        return
    raise UserError(
        f'{record.key}ann_file: {len(wrong)} of the {int(used.sum())} boxes are not x1 <= x2, y1 <= y2 and finite; '
        f'{_name_of(dataset, wrong[0])} is {boxes[wrong[0]].tolist()}; fix the annotation file, or leave them out'
    )


def _repaired(dataset: BaseDataset, info: dict[str, Any]) -> bool:
    """True if a transform of the data set loads the boxes of an image in another order than they are written."""
    try:
        loaded = _load(dataset, info, 'gt_bboxes')
    except OSError:
        return False
    corners = np.asarray(getattr(loaded, 'tensor', loaded) if loaded is not None else np.full((1, 4), np.nan))
    return corners.ndim != 2 or corners.shape[1] != 4 or bool((corners[:, 2:] >= corners[:, :2]).all())


def _load(dataset: BaseDataset, info: dict[str, Any], name: str) -> Any:
    """An entry of an image as the data set's transforms load it; None where they do not."""
    results: Any = copy.deepcopy(info)
    for transform in getattr(dataset.pipeline, 'transforms', ()):
        results = transform(results)
        if results is None or name in results:
            break
    return None if results is None else results.get(name)


def _find(infos: list[dict[str, Any]], number: int) -> tuple[dict[str, Any], int]:
    """The image of the object with this number, and its number there."""
    for info in infos:
        if number < len(info.get('instances', ())):
            break
        number -= len(info.get('instances', ()))
    return info, int(number)


def _name_of(dataset: BaseDataset, number: int) -> str:
    info, number = _find(dataset.data_list, number)
    place = info.get('xml_path') or f'{dataset.ann_file}, image {info.get("img_path")}'
    return f'object {number} of {place}'


def _check_images(record: Record, dataset: BaseDataset, infos: list[dict[str, Any]]) -> None:
    """Raise for images that are not there, if the data set's transforms cannot load them from elsewhere."""
    paths = {info['img_path']: info for info in infos if isinstance(info.get('img_path'), str)}
    missing = missing_files(paths)
    if not missing:
        return
    try:
        _load(dataset, paths[missing[0]], 'img')
    except FileNotFoundError:
        pass
    else:
        return
    raise UserError(
        f'{record.key}data_prefix: {len(missing)} of the {len(paths)} images of {dataset.ann_file} are not there, such '
        f'as {os.path.abspath(missing[0])}{_found_instead(dataset, missing[0])}; fetch them, point data_prefix (now '
        f'{dataset.data_prefix}) to their folder, or take them out of the file'
    )


def _found_instead(dataset: BaseDataset, path: str) -> str:
    """A file found in place of a missing image, as the end of a sentence."""
    others = sorted(Path(path).parent.glob(f'{glob.escape(Path(path).stem)}.*')) if Path(path).parent.is_dir() else []
    if others:
        return f' (there is {others[0].name}; this format may ask for one suffix)'
    for prefix in filter(None, dataset.data_prefix.values()):
        inner = os.path.join(dataset.data_root or '', os.path.relpath(path, prefix))
        if os.path.exists(inner):
            return f' (the file names hold the folder already: there is {inner})'
    return ''


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the files that are not there; each folder is listed once."""
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = _files_in(folder or '.')
        if name not in listed[folder]:
            missing.append(path)
    return missing


def _files_in(folder: str) -> set[str]:
    """Names of the files in a folder; links that lead nowhere, in a circle or where nothing may be read are none."""
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:
        return {
            entry.name for entry in entries if (os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file())
        }


# When all is built --------------------------------------------------------------------------------------------------


class Observer:
    """Looks at the data sets of several splits while they are built, and then at what they are together."""

    def __init__(self) -> None:
        self.records: dict[str, list[Record]] = {}

    def observed(self, split: str, node: Any, key: str) -> Any:
        """A data set's config whose innermost data sets are looked at while they are built."""
        if not isinstance(node, dict):
            return node
        if 'dataset' in node or 'datasets' in node:
            parts = [
                self.observed(split, part, f'{key}datasets.{i}.') for i, part in enumerate(node.get('datasets', ()))
            ]
            inner = dict(dataset=self.observed(split, node.get('dataset'), f'{key}dataset.'), datasets=parts)
            return dict(node, **{name: value for name, value in inner.items() if name in node})
        cls = class_of(node)
        if cls is None:
            return node
        record = Record(key)
        self.records.setdefault(split, []).append(record)
        attributes = dict(record=record, observed_class=cls, __module__=cls.__module__, __doc__=cls.__doc__)
        return dict(node, type=type(cls.__name__, (_Observed, cls), attributes))

    def check(self, split: str, metrics: Sequence[Any], configs: Any) -> None:
        """Look at a split as a whole, once its data sets and its evaluator are there.

        Args:
            split: ``'train'``, ``'val'`` or ``'test'``.
            metrics: Of the split's evaluator.
            configs: The evaluator's config, which names their files.

        Raises:
            UserError: A training has no object; the evaluator's file does not fit the data set.
        """
        records = [record for record in self.records.get(split, ()) if record.dataset is not None]
        for record in records:
            if record.left_out:
                out = record.left_out.total()
                note(f'{record.key[:-1]}: {out} of the {record.total} objects are left out: {record.reasons}')
        if split == 'train':
            _check_objects(records)
        indexed = [metric for metric in metrics if coco_files.is_plain(getattr(metric, '_coco_api', None))]
        files = [(key, node['ann_file']) for key, node in nodes(configs, f'{split}_evaluator.') if node.get('ann_file')]
        if len(records) == len(indexed) == len(files) == 1:
            names = {number: Path(path).name for number, path in records[0].ids.items()}
            key, path = files[0]
            coco_files.check_ground_truth(f'{key}ann_file', path, indexed[0]._coco_api, records[0].classes, names)
        elif len(records) == 1 and not indexed and any(type(metric).__name__ == 'CocoMetric' for metric in metrics):
            _check_packed_instances(split, records[0])

    def check_order(self) -> None:
        """Raise for a validation whose classes are the training's in another order.

        Raises:
            UserError: Names both orders.
        """
        for record in self.records.get('val', ()):
            for other in self.records.get('train', ()):
                if record.classes != other.classes and sorted(record.classes) == sorted(other.classes):
                    raise UserError(
                        f'{record.key}metainfo.classes: {some(record.classes)}, but those of '
                        f'{other.key}metainfo.classes are {some(other.classes)}, and a label is a number in that '
                        f'order; give both one order: in metainfo.classes, and of the categories of COCO files'
                    )


def _check_objects(records: list[Record]) -> None:
    """Raise for a training without objects; note classes without any."""
    known = [record for record in records if record.counts is not None]
    if not known or len(known) < len(records):
        return
    key, files = known[0].key, some(record.dataset.ann_file for record in known)
    ignored = sum(record.ignored for record in known)
    if not sum(record.counts.sum() for record in known):
        total, reasons = sum(record.total for record in known), '; '.join(filter(None, (r.reasons for r in known)))
        more = f'{ignored} marked to be ignored, or without an area' if ignored else ''
        why = '; '.join(filter(None, (reasons, more)))
        why = f'all {total} objects are left out: {why}' if total else 'there is no object at all'
        raise UserError(
            f'{key}ann_file: {files} has nothing to learn for the classes {some(known[0].classes)}: {why}; give the '
            f'annotation file of the training images, and boxes, areas and classes as {PAGE} shows them'
        )
    if all(record.shares for record in known):
        raise UserError(
            f'{key}ann_file: all boxes of {files} lie between 0 and 1, as shares of the image do; write them in pixels'
        )
    if all(record.classes == known[0].classes for record in known):
        absent = [name for name, n in zip(known[0].classes, sum(record.counts for record in known)) if not n]
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


class CheckDataHook(Hook):
    """Looks at the data of a run when MMEngine's Runner has built it; made by :func:`observe`."""

    priority = 'VERY_HIGH'

    def __init__(self, observer: Observer, splits: Sequence[str]) -> None:
        self.observer = observer
        self.splits = splits

    def before_run(self, runner: Runner) -> None:
        """Look at each split that runs, and at all of them together.

        Raises:
            UserError: See :meth:`Observer.check` and :meth:`Observer.check_order`.
            ValueError: See :func:`~mmdet_gfl.engine.hooks.num_class_check_hook.check_num_classes`.
        """
        from mmdet_gfl.engine.hooks.num_class_check_hook import check_num_classes
        from mmdet_gfl.models.dense_heads import DenseGFLMixin

        for split in self.splits:
            loop = getattr(runner, f'{split}_loop')
            if loop is None:
                continue
            if any(isinstance(module, DenseGFLMixin) for module in runner.model.modules()):
                check_num_classes(runner.model, loop.dataloader.dataset, f'{split}_dataloader.dataset')
            metrics = loop.evaluator.metrics if split != 'train' else ()
            self.observer.check(split, metrics, runner.cfg.get(f'{split}_evaluator'))
        self.observer.check_order()
        self.observer.records.clear()


def observe(runner: Any, *splits: str) -> None:
    """Have a Runner's data sets looked at while it builds them, and its evaluators before it begins.

    Args:
        runner: The Runner, before it has built them. Its config, which it has written into the work dir, stays.
        *splits: ``'train'``, ``'val'`` or ``'test'``, as far as they will run.
    """
    observer = Observer()
    for split in splits:
        loader = getattr(runner, f'_{split}_dataloader', None)
        if isinstance(loader, dict) and 'dataset' in loader:
            node = observer.observed(split, loader['dataset'], f'{split}_dataloader.dataset.')
            setattr(runner, f'_{split}_dataloader', dict(loader, dataset=node))
    runner.register_hook(CheckDataHook(observer, splits))


def build_dataset(cfg: Config, split: str) -> Any:
    """The data set of a split, looked at as a Runner's is.

    Raises:
        UserError: It has no images, or what it has cannot be used.
    """
    check_data(Config({key: cfg[key] for key in ('default_scope', f'{split}_dataloader') if key in cfg}), split)
    roots.init_default_scope(cfg.get('default_scope') or 'mmdet')
    observer = Observer()
    node = observer.observed(split, cfg[f'{split}_dataloader']['dataset'], f'{split}_dataloader.dataset.')
    dataset = roots.DATASETS.build(copy.deepcopy(node))
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    observer.check(split, (), None)
    return dataset
