"""Validation of the data as the training will see it.

MMEngine's Runner builds the data sets of a config; each is looked at while it does. For the time of its construction a
data set's class is a subclass that keeps the index of its file, counts what an image's entry loses, and looks at the
list of images before it is serialized. So nothing is read twice, order and random numbers are the Runner's, and every
format, class and wrapper counts that the training takes. What the evaluator alone reads is looked at in the object that
it has loaded.
"""

from __future__ import annotations

import copy
import gc
import inspect
import linecache
import os
import random
import re
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, compress, islice, product
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import mmengine.registry as roots
import numpy as np
import torch
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.structures.bbox import get_box_tensor
from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.registry import Registry
from mmengine.runner import Runner
from pycocotools.coco import COCO

from mmdet_gfl.engine.errors import UserError, note, some
from mmdet_gfl.engine.type_checks import check_losses, friendly_errors, nodes

PAGE = 'docs/your_data.md'
#: Packages whose errors are about a file that is not there or has other content.
READERS = ('mmdet', 'mmcv', 'mmengine', 'pycocotools', 'lvis')
#: Boxes that no training can use of which the transforms are asked whether they repair them; each takes a pipeline.
REPAIRS = 100
#: How often the transforms are asked for one of these images, since they may be random.
ASKED = 5
#: What the evaluation reads of an object, in words.
NEEDED = {
    'bbox': 'x, y, width and height in pixels',
    'area': 'the area in pixels: of its mask, or width times height',
    'iscrowd': '0, or 1 for a region to be ignored',
    'id': 'a number of its own, from 1 on',
}
#: Reason for which an object is left out that is of no class of the data set.
OTHER_CLASS = 'of classes that metainfo.classes leaves out'


def check_data(cfg: Config, *splits: str) -> None:
    """Raise for annotation files that are missing, before a long training reads the first of them.

    Args:
        cfg: The config.
        *splits: ``'train'``, ``'val'`` or ``'test'``; a split without a data loader is skipped.

    Raises:
        UserError: Names the key, the file and what to set.
    """
    scope = cfg.get('default_scope')
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for value, place, registry in (
            (loader.get('dataset'), f'{split}_dataloader.dataset.', roots.DATASETS),
            (cfg.get(f'{split}_evaluator') if loader else None, f'{split}_evaluator.', roots.METRICS),
        ):
            for key, node in nodes(value, place):
                cls = type_of(node, registry, scope) if 'ann_file' in node else None
                if takes_paths(cls):
                    _check_paths(key, node, needed=issubclass(cls or object, CocoMetric))


def takes_paths(cls: type | None) -> bool:
    """True for a class that reads the paths of its config as MMDetection does, and not in a way of its own."""
    names = ('__init__', '_join_prefix', 'full_init', 'load_data_list')
    makers = [getattr(cls, name) for name in names if hasattr(cls, name)] if cls else [None]
    return all(getattr(one, '__module__', '').partition('.')[0] in ('mmdet_gfl', *READERS) for one in makers)


def _check_paths(key: str, node: dict[str, Any], needed: bool) -> None:
    """Raise for the annotation file in a config; see :func:`check_data`."""
    path = node.get('ann_file')
    if path == '' and needed:
        raise UserError(f'{key}ann_file={path!r} names no file; give one, or None for the objects of the data set')
    if not isinstance(path, str) or not path:
        return
    path = path if '://' in path else os.path.join(node.get('data_root') or '', path)
    with suppress(Exception):  # a storage that cannot say it, or whose client is not here
        if not fileio.exists(path, backend_args=copy.deepcopy(node.get('backend_args'))):
            there = Path(os.path.abspath(path))
            way = f'put it there, or set --cfg-options {key}ann_file=/path/to/file'
            raise UserError(f'{key}ann_file: {there} does not exist{_contents(there)}; {way}')


def _contents(path: Path) -> str:
    """Names in the place of a missing file, as the end of a sentence."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    names = sorted(os.listdir(folder))
    if {'JPEGImages', 'VOC2007', 'VOC2012'} & set(names):
        return f" ({folder} is in Pascal VOC format, which type='VOCDataset' reads: {PAGE})"
    return f' ({folder} has {some(names) or "nothing in it"})'


def type_of(node: Mapping[str, Any], registry: Registry, scope: str | None = None) -> type | None:
    """The class of a part's config; None where it cannot be told."""
    kind = node.get('type')
    if isinstance(kind, str):
        scope = node.get('_scope_', scope)  # of a config that inherits from another package's
        with suppress(ImportError, RuntimeError), registry.switch_scope_and_registry(scope) as scoped:
            kind = scoped.get(kind)
    return kind if isinstance(kind, type) else None


def class_of(node: Mapping[str, Any], scope: str | None = None) -> type[BaseDataset] | None:
    """The class of a data set's config, if it is one of MMEngine's; None where it cannot be told."""
    cls = type_of(node, roots.DATASETS, scope)
    return cls if cls is not None and issubclass(cls, BaseDataset) else None


@dataclass
class Record:
    """Facts about a data set, collected while it is built."""

    key: str  # dotted key of its config
    dataset: Any = None  # once it is built
    api: Any = None  # index of its file while it is built, in COCO format
    entry: Any = None  # the image's that is being read
    read: int = 0  # objects so far
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # reason: value of each object
    images: dict[Any, str] = field(default_factory=dict)  # id of each image: name of its file
    classes: list[str] = field(default_factory=list)  # in the order of the labels
    delivered: int = 0  # objects
    counts: Any = None  # those of each class that are not to be ignored

    def sentence(self) -> tuple[int, int, str]:
        """Number of objects that are left out and of all in the files, and the reasons as the end of a sentence."""
        reasons = [f'{len(v)} {reason}, such as {v[0]}' for reason, v in self.left_out.items() if v]
        out = sum(map(len, self.left_out.values()))
        return out, out + self.delivered, '; '.join(reasons)


class _Observed(BaseDataset):
    """The construction of a data set with a look at it; a base of the class that :func:`observed` makes."""

    record: ClassVar[Record]
    observed_class: ClassVar[Any]

    def _join_prefix(self) -> None:
        """Join the folders of the config; raise for a prefix that is a text, where the class takes none."""
        try:
            super()._join_prefix()
        except AttributeError as error:
            if not isinstance(prefix := self.data_prefix, str):
                raise
            what = f'{self.record.key}data_prefix={prefix!r} is a text'
            raise UserError(f'{what}; write data_prefix=dict(img={prefix!r})') from error

    def full_init(self) -> None:
        """Build the data set, look at its list of images, and then serialize it where the config wants that.

        Raises:
            UserError: A file cannot be read; or see :func:`examine`.
        """
        serialize, self.serialize_data = vars(self)['serialize_data'], False
        gc.disable()  # it would walk through millions of entries, which hold no cycles, again and again
        try:
            super().full_init()
            examine(self.record, self)
            self.serialize_data = serialize
            if serialize:
                self.data_bytes, self.data_address = self._serialize_data()
        except Exception as error:
            if (sentence := _reading_error(self.record, self, error)) is None:
                raise
            raise UserError(sentence) from error
        finally:
            gc.enable()
        self.record.dataset, self.record.api = self, None
        self.__class__ = self.observed_class

    def parse_data_info(self, raw: dict[str, Any], /) -> dict[str, Any] | list[dict[str, Any]]:
        """Read an image's entry, and count the objects that this leaves out."""
        self.record.entry = raw
        kept = vars(self)  # MMDetection keeps the index there while it reads
        if self.record.api is None and ('lvis' in kept or is_plain(kept.get('coco'))):
            self.record.api = kept.get('lvis', kept.get('coco'))
            check_ids(f'{self.record.key}ann_file: {self.ann_file}', self.record.api)
        info = super().parse_data_info(raw)
        self.record.entry = None
        if isinstance(info, dict) and 'instances' in info:
            delivered = len(info['instances'])
            self.record.read += delivered
            api = self.record.api
            if api is not None and 'raw_ann_info' in raw and len(raw['raw_ann_info']) != delivered:
                image, objects = raw['raw_img_info'], raw['raw_ann_info']
                known = list(filter(None, (why_left_out(one, image, api, self.cat2label) for one in objects)))
                own = (f'by {self.observed_class.__name__}', f'in {image.get("file_name")}')
                for reason, value in known + [own] * (len(objects) - delivered - len(known)):
                    self.record.left_out[reason].append(value)
        return info

    def _parse_instance_info(self, tree: Any, *args: Any, **options: Any) -> list[dict[str, Any]]:
        """Read the objects of a file in Pascal VOC format, and count the names that are not classes."""
        names = (str(entry.findtext('name')) for entry in tree.iterfind('object'))
        self.record.left_out[OTHER_CLASS] += [repr(name) for name in names if name not in self._metainfo['classes']]
        found: list[dict[str, Any]] = super()._parse_instance_info(tree, *args, **options)
        return found


def _reading_error(record: Record, dataset: _Observed, error: Exception) -> str | None:
    """The sentence on a file that MMDetection cannot read; None for an error of a data set's own code.

    It names the image, the line of code that has failed, and the values that this line has read.
    """
    frames = [(str(f.f_globals['__name__']).partition('.')[0], f, n) for f, n in traceback.walk_tb(error.__traceback__)]
    package, frame, line_number = [one for one in frames if one[0] not in sys.stdlib_module_names][-1]
    if package not in READERS:
        return None
    lines = [linecache.getline(one.f_code.co_filename, number).strip() for _, one, number in frames]
    if isinstance(error, KeyError) and any(f'data_prefix[{error}]' in line for line in lines):
        what = f'{record.key}data_prefix={dataset.data_prefix} has no {error}'
        return f'{what}, the folder that {dataset.observed_class.__name__} joins to the name of an image; name it so'
    if isinstance(error, FileNotFoundError) and not (dataset.ann_file or error.filename):
        return f'{record.key}ann_file is not set; give the file that lists the images and their objects'
    path, place, entry = str(dataset.ann_file) or "''", '', record.entry
    if isinstance(entry, dict):
        entry = entry.get('raw_img_info', entry)
        path = entry.get('xml_path') or f'{path}, image {entry.get("ID", entry.get("img_id"))}'
        line = linecache.getline(frame.f_code.co_filename, line_number).strip()
        place = f' in `{line}`'
        for name, key in re.findall(r"(?<![.\w])([a-z]\w*)(?:\['(\w+)'\])?", line.rpartition(' = ')[2]):
            value = frame.f_locals.get(name)
            if key and isinstance(value, dict) and key in value:
                place += f', {key}={value[key]!r:.80}'
            elif not key and name in frame.f_locals and isinstance(value, (str, Real, type(None))):
                place += f', {name}={value!r:.80}'
    what = f'cannot be read by {dataset.observed_class.__name__}: {type(error).__name__}: {error}{place}'
    return f'{record.key}ann_file: {path} {what}; {PAGE} shows the formats'


def why_left_out(one: dict[str, Any], image: dict[str, Any], api: Any, wanted: Any) -> tuple[str, str] | None:
    """The reason for which ``CocoDataset`` does not deliver an object, with its value; None where it delivers it.

    Args:
        one: The object's entry.
        image: Its image's.
        api: The file's index.
        wanted: Ids of the categories of the data set's classes.
    """
    if not {'bbox', 'area', 'category_id'} <= one.keys() or len(one['bbox']) != 4:
        return None  # a format of its own
    number, (x, y, w, h) = one['category_id'], one['bbox']
    if number not in wanted:
        known = number in api.cats
        return OTHER_CLASS, repr(api.cats[number]['name']) if known else f'category_id={number!r} without a category'
    inside = min(x + w, image['width']) > max(x, 0) and min(y + h, image['height']) > max(y, 0)  # not for NaN
    for name, holds, reason in (
        ('ignore', one.get('ignore'), 'marked to be ignored'),
        ('bbox', w < 1 or h < 1, 'narrower or lower than 1 pixel (boxes are pixels, not shares of the image)'),
        ('area', one['area'] <= 0, 'without an area (without masks it is the width times the height)'),
        ('bbox', not inside, 'outside of their image'),
    ):
        if holds:
            return reason, f'{name}={one[name]!r}'
    return None


def is_plain(api: Any) -> bool:
    """True for pycocotools' own index of boxes; False for panoptic segments and other formats."""
    return isinstance(api, COCO) and type(api).createIndex is COCO.createIndex


def check_ids(file: str, api: Any) -> None:
    """Raise for ids that are there twice, of which the index of COCO or LVIS keeps one."""
    for name, index in (('images', api.imgs), ('categories', api.cats), ('annotations', api.anns)):
        ids = [entry['id'] for entry in api.dataset.get(name, ())]
        if len(ids) != len(index):
            what = f'{file}: {name} have the same id, {Counter(ids).most_common(1)[0][0]!r}'
            raise UserError(f'{what}, so one hides the other; number them so that each has an id of its own')


def check_classes(file: str, classes: list[str], api: Any) -> None:
    """Raise for classes that a file lacks, or has in another order: MMDetection numbers labels as the file does.

    The labels of LVIS are all categories of the file, whatever their names: there, the order alone can be wrong.
    """
    categories = [category['name'] for category in api.dataset['categories']]
    if not is_plain(api) and set(categories) != set(classes):
        return
    in_file = [name for name in categories if name in classes]
    if len({*in_file}) < len(in_file):
        twice = Counter(in_file).most_common(1)[0][0]
        raise UserError(f'{file} has two categories called {twice!r}; give each a name of its own')
    if in_file != classes:
        missing = [repr(name) for name in classes if name not in categories]
        fault = f'{missing[0]} is not a category of it' if missing else f'the file lists them as {some(in_file)}'
        way = 'give classes=(...) its names in its order, by which labels are numbered, and num_classes their number'
        has = f'has the categories {some(categories)}'
        raise UserError(f'{file} {has}, and metainfo.classes is {some(classes)}: {fault}; {way}')


def examine(record: Record, dataset: BaseDataset) -> None:
    """Look at the images and objects that a data set delivers, filtered and not yet serialized, and note their numbers.

    Raises:
        UserError: The classes are not the file's; there is no image; an image is not there; a box is not finite, or its
            sides are in the wrong order; a label is outside the classes. Names the file, the object and the value.
    """
    key, infos, classes, api = record.key, dataset.data_list, dataset.metainfo.get('classes') or (), record.api
    if isinstance(classes, str):
        raise UserError(f'{key}metainfo.classes={classes!r} is one text; write a tuple: classes=({classes!r},)')
    record.classes = list(classes)
    if api is not None:
        objects_of = api.imgToAnns if is_plain(api) else api.img_ann_map  # LVIS
        strays = [number for number, objects in objects_of.items() if number not in api.imgs for _ in objects]
        example = f' where an image has id={next(iter(api.imgs), None)!r}'
        record.left_out['of images that the file does not list'] += [f'image_id={one!r}{example}' for one in strays]
        labels = getattr(dataset, 'cat2label', None)
        found = [api.cats[number]['name'] for number in labels or ()]
        lacks_the_last = len(found) == len(api.cats) and found == record.classes[: len(found)]
        if record.read and found and found != record.classes and not lacks_the_last:
            check_classes(f'{key}ann_file: {dataset.ann_file}', record.classes, api)
    instances = list(chain.from_iterable(image.get('instances', ()) for image in image_entries(infos)))
    record.delivered = len(instances)
    value = f'filter_cfg={dataset.filter_cfg}' + f', indices={dataset._indices}' * (dataset._indices is not None)
    if dataset._indices is None:
        record.left_out['in images that filter_cfg leaves out'] += [value] * (record.read - len(instances))
    if not infos:
        what = f'gives no image under {value} (left out: {record.sentence()[2] or "nothing"})'
        raise UserError(f'{key}ann_file: {dataset.ann_file} {what}; give the file of these images, or other settings')
    names = ((image['img_id'], str(image.get('img_path'))) for image in image_entries(infos) if 'img_id' in image)
    record.images = {number: os.path.basename(path) for number, path in names}
    paths = {info['img_path']: info for info in infos if isinstance(info.get('img_path'), str)}
    if missing := missing_files(paths):
        try:
            dataset.pipeline(copy.deepcopy(paths[missing[0]]))  # it may find them elsewhere
        except FileNotFoundError as error:
            what = f'{len(missing)} of the {len(paths)} images of {dataset.ann_file} are not there'
            way = (
                f'such as {os.path.abspath(missing[0])}; fetch them, set data_prefix to their folder, or take them out'
            )
            raise UserError(f'{key}data_prefix={dataset.data_prefix}: {what}, {way}') from error
    _check_objects(record, dataset, instances)


def image_entries(infos: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Entries of the images of a data set, of which a video holds several."""
    return chain.from_iterable(info.get('images', (info,)) for info in infos)


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of the files that are not there, or links that lead nowhere or in a circle; each folder is listed once."""
    paths = list(paths)
    there = {os.path.dirname(path): set[str]() for path in paths}
    for folder, names in there.items():
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder or '.') as entries:
            names.update(e.name for e in entries if (os.path.isfile(e.path) if e.is_symlink() else e.is_file()))
    return [path for path in paths if os.path.basename(path) not in there[os.path.dirname(path)]]


def _check_objects(record: Record, dataset: BaseDataset, instances: list[dict[str, Any]]) -> None:
    """Raise for labels and boxes that no training can use."""
    try:
        labels = np.fromiter((instance['bbox_label'] for instance in instances), np.int64, len(instances))
        boxes = np.array([instance['bbox'] for instance in instances], float)
    except (KeyError, TypeError, ValueError):
        return  # objects of no class or of several, masks alone, segments, captions
    used = ~np.fromiter((bool(instance.get('ignore_flag')) for instance in instances), bool, len(instances))
    boxes = boxes.reshape(-1, 4) if boxes.size == 4 * len(used) else np.tile([0.0, 0, 2, 2], (len(used), 1))  # rotated
    low, high = boxes[:, :2], boxes[:, 2:]
    in_shares = used.any() and 0 < high[used].max() <= 1 and low[used].min() >= -1
    outside = (labels < 0) | (labels >= (len(record.classes) or np.inf))
    for wrong, values, what in (
        (outside, labels, f'labels are not those of {len(record.classes)} classes, counted from 0'),
        (~((low <= high) & np.isfinite(high - low)).all(1), boxes, 'boxes are not x1 <= x2, y1 <= y2 and finite'),
        (in_shares, boxes, 'boxes lie between 0 and 1, as shares of the image do, and not in pixels'),
    ):
        images = image_entries(dataset.data_list)
        objects = ((info, k) for info in images for k, _ in enumerate(info.get('instances', ())))
        found = zip(compress(objects, used & wrong), np.flatnonzero(used & wrong))
        for (info, number), first in islice(found, REPAIRS):
            if values is boxes and _repaired(dataset, info):
                continue
            place = info.get('xml_path') or f'{dataset.ann_file}, image {info.get("img_path")}'
            count = f'{(used & wrong).sum()} of the {used.sum()}'
            one = f'object {number} of {place} is {values[first].tolist()}'
            raise UserError(f'{record.key}ann_file: {count} {what}; {one}; fix the file, metainfo.classes or the box')
    used &= (low < high).all(1)
    if not used.any():  # nothing to learn, though it is delivered
        record.left_out['marked to be ignored, or without an area'] += [f'bbox={box}' for box in boxes.tolist()]
        record.delivered = 0
    record.counts = np.bincount(labels[used], minlength=len(record.classes))


def _repaired(dataset: BaseDataset, info: dict[str, Any]) -> bool:
    """True if the data set's own transforms make boxes of an image's that a training can use, however they draw.

    A draw without boxes, as of a crop, says nothing. The training's random numbers stay what they are.
    """
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=()):
            made = [_usable(dataset.pipeline(copy.deepcopy(info))) for _ in range(ASKED)]
        return True in made and False not in made
    except Exception:
        return False  # of the reported fault
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _usable(made: dict[str, Any] | None) -> bool | None:
    """True for boxes that a training can use, in what a pipeline gives; None where it gives none."""
    if made is None:  # MMEngine takes another image
        return None
    packed = 'data_samples' in made  # not yet inside of a MultiImageMixDataset
    boxes = get_box_tensor(made['data_samples'].gt_instances.bboxes if packed else made['gt_bboxes'])
    if not len(boxes):
        return None
    return bool(boxes.isfinite().all() and (boxes[:, :2] <= boxes[:, 2:]).all() and (boxes[:, 2:] > 1).any())


def check_length(key: str, dataset: Any) -> None:
    """Raise for a data set without images, of whatever class."""
    length = None
    with suppress(TypeError, NotImplementedError):  # of an endless one
        length = len(dataset)
    if length == 0:
        what = f'{type(dataset).__name__} gives no image'
        raise UserError(f'{key}: {what}; check its arguments and its files')


def check_split(split: str, records: list[Record]) -> None:
    """Raise for a training without objects or with a misspelt class; note what is left out, and classes without any."""
    records = [record for record in records if record.dataset is not None]
    sentences, files = [record.sentence() for record in records], some(record.dataset.ann_file for record in records)
    learning, classes = bool(records) and split == 'train', records[0].classes if records else []
    if learning and all(record.counts is not None and not record.counts.sum() for record in records):
        total, reasons = sum(total for _, total, _ in sentences), '; '.join(why for *_, why in sentences if why)
        why = f'all {total} objects are left out: {reasons}' if total else 'there is no object at all'
        what = f'has nothing to learn for the classes {some(classes)}: {why}'
        raise UserError(f'{records[0].key}ann_file: {files} {what}; {PAGE} shows what boxes, areas and classes must be')
    for record, (out, total, reasons) in zip(records, sentences):
        if out:
            note(f'{record.key[:-1]}: {out} of the {total} objects are left out: {reasons}')
    if not learning or any(record.counts is None or record.classes != classes for record in records):
        return
    key, names = records[0].key, Counter(chain.from_iterable(record.left_out[OTHER_CLASS] for record in records))
    absent = [name for name, count in zip(classes, sum(record.counts for record in records)) if not count]
    for name, other in product(absent, names):
        if other.strip('\'" ').lower() == name.strip().lower():
            what = f'{name!r}, which no object of {files} is called, but {names[other]} of those left out {other}'
            raise UserError(f'{key}metainfo.classes has {what}; write the class as the files do, or take it out')
    if absent:
        left_out = f'; those left out are called {some(names)}' if names else ''
        note(f'{key[:-1]}: no object of the class {some(absent)}, so this is not learned{left_out}')


def check_evaluator(split: str, evaluator: Any, records: list[Record]) -> None:
    """Raise for an evaluator whose file does not fit the split's data sets, or which gets no objects."""
    metrics = evaluator.metrics if records else []
    several = hasattr(evaluator, 'dataset_prefixes') and len(metrics) == len(records)  # MultiDatasetsEvaluator
    for number, metric in enumerate(metrics):
        judged = [records[number]] if several else records
        api = getattr(metric, '_lvis_api' if isinstance(metric, LVISMetric) else '_coco_api', None)
        file = f'{split}_evaluator{".metrics" * several}{f".{number}" * (len(metrics) > 1)}.ann_file'
        transforms = getattr(judged[0].dataset.pipeline, 'transforms', ()) or (None,)
        if is_plain(api) or (api and isinstance(metric, LVISMetric)):
            check_ground_truth(file, metric, api, judged)
        elif type(metric) is CocoMetric and 'instances' not in getattr(transforms[-1], 'meta_keys', ('instances',)):
            place = f'{judged[0].key}pipeline.{len(transforms) - 1}'
            raise UserError(f"{file} is not set, so CocoMetric needs 'instances' in meta_keys of {place} ({PAGE})")


def check_ground_truth(file: str, metric: Any, api: Any, judged: list[Record]) -> None:
    """Raise for what would end or falsify the evaluation of a ``CocoMetric`` or ``LVISMetric``, after an epoch.

    Args:
        file: Key of the metric's file.
        metric: The metric.
        api: The file's index.
        judged: Records of the data sets that it evaluates.
    """
    images = {number: name for record in judged for number, name in record.images.items()}
    check_ids(file, api)
    check_classes(file, judged[0].classes, api)
    check_images(file, images, api)
    if metric.format_only:
        return  # it writes the detections down, and needs no objects
    if 'annotations' not in api.dataset:
        raise UserError(f"{file} has no list 'annotations' to evaluate with; {PAGE} shows what such a file holds")
    total = sum(record.sentence()[1] for record in judged)
    if total and not any(record.delivered for record in judged):
        reasons = '; '.join(record.sentence()[2] for record in judged)
        what = f'{file} has nothing to evaluate: all {total} objects are left out: {reasons}'
        raise UserError(f'{what}; {PAGE} shows what boxes, areas and classes must be')
    if not is_plain(api):
        check_lvis(file, api)
    _check_values(file, api, judged[0].classes)
    if 0 in api.anns or '0' in api.anns:
        note(f'{file}: an annotation has the id 0, which pycocotools takes for "no match": it counts as missed')
    if len(images) < len(api.imgs):
        unseen = f'{len(api.imgs)} images, and the data set {len(images)} of them'
        note(f'{file} has {unseen}; the objects of the others count as missed')


def _check_values(file: str, api: Any, classes: list[str]) -> None:
    """Raise for an object of the classes without the values that the evaluation reads."""
    wanted = {category['id'] for category in api.dataset['categories'] if category['name'] in classes}
    for one in api.dataset['annotations']:
        if one.get('category_id') not in wanted:
            continue  # which the evaluation does not read
        for name in NEEDED if is_plain(api) else ('bbox', 'area', 'id'):
            value = one.get(name)
            numbers = value if name == 'bbox' and isinstance(value, list) and len(value) == 4 else [value]
            if name == 'id' and str(value).isdecimal():
                continue  # a text, of which pycocotools makes a number
            if not all(isinstance(number, Real) for number in numbers):
                what = f'{name}={value!r}' if name in one else f'no {name!r}'
                raise UserError(f'{file}: the annotation with id {one.get("id")!r} has {what}; give it {NEEDED[name]}')


def check_images(file: str, images: dict[Any, str], api: Any) -> None:
    """Raise for an evaluator's file that lacks an image of the data set, given as id and name."""
    for number, name in images.items():
        image = api.imgs.get(number, {})
        listed = os.path.basename(str(image.get('file_name', image.get('coco_url'))))
        if listed != name and (is_plain(api) or not listed.endswith(name)):  # LVIS 0.5 puts COCO_val2014_ before it
            what = f'does not hold the images of the data set that it evaluates, such as {name} with id {number!r}'
            raise UserError(f'{file} {what}; give the annotation file of that data set')


def check_lvis(file: str, api: Any) -> None:
    """Raise for what LVIS's evaluation needs beyond COCO's, and for a package ``lvis`` that ends with an error."""
    needed = dict(images=('neg_category_ids', 'not_exhaustive_category_ids'), categories=('frequency',))
    for name, keys in needed.items():
        for entry, key in product(api.dataset[name], keys):
            if key not in entry:
                what = f'{file}: {name} have no {key!r}, such as the one with id {entry["id"]!r}'
                raise UserError(f"{what}; add it, or evaluate as COCO does, with type='CocoMetric'")
    gone = not hasattr(np, 'float')  # from numpy 1.24 on
    if gone and 'np.float)' in inspect.getsource(sys.modules['lvis'].LVISEval):  # 0.5.3, PyPI's
        what = 'the installed package lvis uses np.float, which numpy removed in 1.24, so its evaluation would fail'
        raise UserError(f'{what}; pip install git+https://github.com/lvis-dataset/lvis-api.git has it fixed')


def observed(node: Any, key: str, records: list[Record]) -> Any:
    """A data set's config whose innermost data sets are looked at while they are built, each with a new record."""
    if isinstance(node, (list, tuple)):
        return [observed(part, f'{key}{index}.', records) for index, part in enumerate(node)]
    if not isinstance(node, dict):
        return node
    inner = {name: observed(node[name], f'{key}{name}.', records) for name in ('dataset', 'datasets') if name in node}
    if (cls := class_of(node)) is not None:
        records.append(Record(key))
        attributes = dict(record=records[-1], observed_class=cls, __module__=cls.__module__, __doc__=cls.__doc__)
        inner['type'] = type(cls.__name__, (_Observed, cls), attributes)
    return dict(node) | inner


class _CheckModelHook(Hook):
    """Hook that looks at the model once it and the data sets are built; a FlexibleRunner builds it when it runs."""

    def __init__(self, splits: Iterable[str]) -> None:
        self.splits = splits

    def before_run(self, runner: Any) -> None:
        """Raise as :func:`check_losses` does, and for a head of this package with classes other than a data set's."""
        from mmdet_gfl.engine.hooks.num_class_check_hook import check_num_classes
        from mmdet_gfl.models.dense_heads import DenseGFLMixin

        check_losses(runner.model)
        if any(isinstance(module, DenseGFLMixin) for module in runner.model.modules()):
            for split in self.splits:
                if (loop := getattr(runner, f'{split}_loop')) is not None:
                    check_num_classes(runner.model, loop.dataloader.dataset, f'{split}_dataloader.dataset')


def observe(runner: Runner, *splits: str) -> None:
    """Have a Runner build its data sets and evaluators, look at each while it does, and then at all of them together.

    Args:
        runner: The Runner, before it has built them. Its config, which it has written into the work dir, stays.
        *splits: ``'train'``, ``'val'`` or ``'test'``, as far as they will run.

    Raises:
        UserError: See :func:`examine`, :func:`check_split` and :func:`check_evaluator`; or the validation numbers the
            training's classes in another order.
    """
    runner.register_hook(_CheckModelHook(splits))
    seen: dict[str, list[Record]] = {split: [] for split in splits}
    for split, records in seen.items():
        loader = getattr(runner, f'_{split}_dataloader', None)
        if isinstance(loader, dict) and 'dataset' in loader:
            node = observed(loader['dataset'], f'{split}_dataloader.dataset.', records)
            setattr(runner, f'_{split}_dataloader', dict(loader, dataset=node))
        loop = getattr(runner, f'{split}_loop')
        if loop is None:
            continue
        check_length(f'{split}_dataloader.dataset', loop.dataloader.dataset)
        check_split(split, records)
        if split != 'train':
            check_evaluator(split, loop.evaluator, records)
    for record, other in product(seen.get('val', ()), seen.get('train', ())):
        if record.classes != other.classes and sorted(record.classes) == sorted(other.classes):
            classes = f'{some(record.classes)}, but those of {other.key}metainfo.classes are {some(other.classes)}'
            what = 'a label is a number in that order; give both one order, there and in the categories of COCO files'
            raise UserError(f'{record.key}metainfo.classes: {classes}, and {what}')


def build_dataset(cfg: Config, split: str) -> Any:
    """The data set of a split, looked at as a Runner's is.

    Raises:
        UserError: It has no image, or what it has cannot be used; or a part of it cannot be built.
    """
    check_data(Config({key: cfg[key] for key in ('default_scope', f'{split}_dataloader') if key in cfg}), split)
    roots.init_default_scope(cfg.get('default_scope') or 'mmdet')
    records: list[Record] = []
    with friendly_errors(cfg):
        node = observed(cfg[f'{split}_dataloader']['dataset'], f'{split}_dataloader.dataset.', records)
        dataset = roots.DATASETS.build(copy.deepcopy(node))
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
    check_length(f'{split}_dataloader.dataset', dataset)
    check_split(split, records)
    return dataset
