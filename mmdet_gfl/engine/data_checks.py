"""What can be wrong with a data set, looked at before anything is built.

MMDetection drops an object whose category it does not know, numbers the classes as the annotation file does and not as
the config does, and meets a missing image in the middle of a training. Here each is one sentence at the start.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmengine.config import Config
from mmengine.fileio import list_from_file

from mmdet_gfl.engine.coco_files import PAGE, CocoFile, no_list, read_coco
from mmdet_gfl.engine.errors import UserError, some

#: Files that were read, by their place and whether for training.
_Files = dict[tuple[str, bool], CocoFile]

VOC_FOLDERS = ('JPEGImages', 'Annotations', 'ImageSets', 'VOC2007', 'VOC2012')


def nodes(value: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All dicts inside ``value``, each with the dotted key that leads to it."""
    if isinstance(value, dict):
        yield key, value
        for name, child in value.items():
            yield from nodes(child, f'{key}{name}.')
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from nodes(child, f'{key}{index}.')


def data_sets(cfg: Config, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The data sets of a split that read an annotation file, each with the dotted key that leads to it."""
    loader = cfg.get(f'{split}_dataloader') or {}
    for key, node in nodes(loader.get('dataset'), f'{split}_dataloader.dataset.'):
        if 'ann_file' in node:
            yield key, node


def check_data(cfg: Config, *splits: str) -> None:
    """Refuses data of the splits that will run which is missing, in another format, or of other classes.

    Looked at are the annotation files and image folders of all data sets; of those in COCO and Pascal VOC format also
    what the files hold: fields, classes and their order, and whether the images are there. Whether there are objects is
    asked of all data sets of a split together: one of them may be of unlabeled images. Not looked at are remote files,
    told by their address or by ``backend_args``, and the images of a data set with ``indices``, which reads a few only.

    Under torchrun one process of a machine looks: it ends the others where it fails, and they wait for it where not.

    Args:
        cfg: The config.
        *splits: ``'train'``, ``'val'`` or ``'test'``; a split without a data loader is skipped.

    Raises:
        UserError: Names the key, the file and what to set.
    """
    if 'TORCHELASTIC_RUN_ID' in os.environ and os.environ.get('LOCAL_RANK', '0') != '0':
        return
    files: _Files = {}
    for split in splits:
        _check_split(cfg, split, files)


def _check_split(cfg: Config, split: str, files: _Files) -> None:
    sets = list(data_sets(cfg, split))
    local = [(key, dataset) for key, dataset in sets if isinstance(dataset['ann_file'], str) and not _remote(dataset)]
    for key, dataset in local:
        _check_paths(key, dataset)
    coco = [
        (key, dataset, _read_once(f'{key}ann_file', _ann_file(dataset), files, split))
        for key, dataset in local
        if _loads_like(dataset, 'CocoDataset') and '://' not in _ann_file(dataset)
    ]
    _check_coco(coco, split, len(coco) == len(sets))
    voc = [
        (key, dataset)
        for key, dataset in local
        if _loads_like(dataset, 'XMLDataset') and '://' not in _ann_file(dataset) + _voc_folder(dataset)
    ]
    _check_voc(voc, split, len(voc) == len(sets))
    if cfg.get(f'{split}_dataloader'):
        _check_evaluators(cfg, split, files, [(key, file) for key, _, file in coco])


def check_classes(cfg: Config, split: str) -> None:
    """Refuses a head of ours whose ``num_classes`` is not that of the data set, as far as the config tells both.

    Raises:
        UserError: Names both numbers and the keys.
    """
    head = (cfg.get('model') or {}).get('bbox_head')
    if not isinstance(head, dict) or not str(head.get('type')).startswith('mmdet_gfl.'):
        return  # of other heads this is not known: some have more outputs than classes
    wanted = head.get('num_classes')
    for key, dataset in data_sets(cfg, split):
        classes = classes_of(key, dataset)
        if wanted is not None and classes is not None and len(classes) != wanted:
            raise UserError(
                f'model.bbox_head.num_classes={wanted}, but the data set of {key}type has {len(classes)} classes; set '
                f'num_classes={len(classes)}, or {key}metainfo.classes'
            )


def check_order(cfg: Config) -> None:
    """Refuses a validation that numbers the training's classes in another order: it would count right labels as wrong.

    Raises:
        UserError: Names both orders and the keys.
    """
    trained = [(key, classes_of(key, dataset)) for key, dataset in data_sets(cfg, 'train')]
    for key, dataset in data_sets(cfg, 'val'):
        classes = classes_of(key, dataset)
        for of, wanted in trained:
            if classes and wanted and classes != wanted and sorted(classes) == sorted(wanted):
                raise UserError(
                    f'{key}metainfo.classes: {some(classes)}, but those of {of}metainfo.classes are {some(wanted)}, '
                    f'and a label is a number in that order; give both one order: '
                    f'in metainfo.classes, and of the categories of COCO files'
                )


def classes_of(key: str, dataset: dict[str, Any]) -> list[str] | None:
    """The classes of a data set's config: ``metainfo.classes``, else its type's; None where neither says.

    Raises:
        UserError: ``metainfo.classes`` is a text that names no file.
    """
    classes = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):
        if not os.path.isfile(classes):
            raise UserError(
                f'{key}metainfo.classes={classes!r} is one text and no file with a class a line; write a tuple, and '
                f'mind the comma of a single class: classes=({classes!r},)'
            )
        return list(list_from_file(classes))
    classes = classes or getattr(_kind(dataset), 'METAINFO', {}).get('classes')
    return list(classes) if isinstance(classes, (list, tuple)) else None


def _kind(dataset: dict[str, Any]) -> Any:
    from mmdet.registry import DATASETS

    kind = dataset.get('type')
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def _meant(name: str, others: Iterable[str], dataset: dict[str, Any]) -> str | None:
    """The one of ``others`` that ``name`` may be a misspelling of.

    Two classes of a list that is known, as ``car`` and ``cat`` of Pascal VOC, are none of each other.
    """
    from mmdet.registry import DATASETS

    kinds = [_kind(dataset), DATASETS.get('CocoDataset'), DATASETS.get('VOCDataset')]
    lists = [getattr(kind, 'METAINFO', {}).get('classes', ()) for kind in kinds]
    possible = [other for other in others if not any(name in known and other in known for known in lists)]
    close = difflib.get_close_matches(name, possible, n=1)
    return close[0] if close else None


def _loads_like(dataset: dict[str, Any], name: str) -> bool:
    """Whether the data set reads its files as MMDetection's class of that name does, in each step."""
    from mmdet.registry import DATASETS

    kind, base = _kind(dataset), DATASETS.get(name)
    steps = ('load_data_list', 'parse_data_info', '_parse_instance_info')
    return kind is not None and all(getattr(kind, step, None) is getattr(base, step, None) for step in steps)


def _remote(node: dict[str, Any]) -> bool:
    """Whether a storage other than this machine's disk is named, where a path that looks local need not exist."""
    storages = [node.get(key) for key in ('backend_args', 'file_client_args')]
    return any(isinstance(args, dict) and args.get('backend', 'local') not in ('local', 'disk') for args in storages)


def _remote_images(dataset: dict[str, Any]) -> bool:
    """Whether a step of the pipeline fetches the images from such a storage."""
    return any(_remote(node) for _, node in nodes(dataset.get('pipeline'), ''))


# Paths --------------------------------------------------------------------------------------------------------------


def _check_paths(key: str, dataset: dict[str, Any]) -> None:
    root = dataset.get('data_root') or ''
    mend = f'--cfg-options {key}data_root=/path/to/data'
    if isinstance(dataset['ann_file'], str) and dataset['ann_file']:
        path = _join(root, dataset['ann_file'])
        _check_path(f'{key}ann_file', path, mend, '' if os.path.isabs(dataset['ann_file']) else _what_is_in(root))
    for name, folder in (dataset.get('data_prefix') or {}).items():
        if isinstance(folder, str) and not _remote_images(dataset):
            _check_path(f'{key}data_prefix.{name}', _join(root, folder), mend)


def _join(root: str, path: str) -> str:
    return path if '://' in path or os.path.isabs(path) else os.path.join(root, path)


def _ann_file(dataset: dict[str, Any]) -> str:
    return _join(dataset.get('data_root') or '', dataset['ann_file'])


def _check_path(key: str, path: str, mend: str, found: str = '') -> None:
    if '://' not in path and not os.path.exists(path):
        raise UserError(
            f'{key}: {os.path.abspath(path)} does not exist{found}; put or link the data there, or point the config to '
            f'it ({mend})'
        )


def _what_is_in(root: str) -> str:
    """What a data folder holds instead, as the end of a sentence."""
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


# COCO ---------------------------------------------------------------------------------------------------------------


def _check_coco(sets: list[tuple[str, dict[str, Any], CocoFile]], split: str, complete: bool) -> None:
    """Looks at the data sets of a split in COCO format.

    Args:
        sets: Of each the dotted key, the config and the file.
        split: What they are for.
        complete: Whether the split has no data set beside them, which may have the objects.
    """
    labeled = not complete or any(file.images_with(file.categories) for _, _, file in sets)
    objects = not complete
    for key, dataset, file in sets:
        if not labeled and split != 'test':
            _check_annotations(f'{key}ann_file', file)
        classes = classes_of(key, dataset)
        if classes is not None and not (labeled and not file.images_with(file.categories)):
            _check_categories(key, dataset, classes, file)
        with_objects = file.images_with(file.categories if classes is None else classes)
        objects = objects or classes is None or bool(with_objects)
        if dataset.get('indices') is None and not _remote_images(dataset):
            filtered = not dataset.get('test_mode') and (dataset.get('filter_cfg') or {}).get('filter_empty_gt')
            names = [name for image, name in file.names.items() if not filtered or image in with_objects]
            _check_images(key, dataset, names, file.path)
    if split == 'train' and not objects and sets:
        key, dataset, file = sets[0]
        raise UserError(
            f'{key}ann_file: no image of {some(file.path for _, _, file in sets)} has an object of the classes '
            f'{some(classes_of(key, dataset) or [])}, so there is nothing to learn; give the annotation file of the '
            f'training images'
        )


def _check_annotations(key: str, file: CocoFile) -> None:
    if 'annotations' not in file.lists:
        raise no_list(key, file.path, 'annotations', some(file.lists))


def _read_once(key: str, path: str, files: _Files, split: str) -> CocoFile:
    place = os.path.realpath(path), split == 'train'  # which asks for less
    if place not in files:
        files[place] = read_coco(key, path, split)
    return files[place]


def _check_categories(key: str, dataset: dict[str, Any], classes: list[str], file: CocoFile) -> None:
    """Refuses classes that the file lacks, or has in another order: MMDetection numbers them as the file does."""
    given = bool((dataset.get('metainfo') or {}).get('classes'))
    says = f'{key}metainfo.classes' if given else f'{key}metainfo.classes is not set, so the classes are those of COCO'
    missing = [name for name in classes if name not in file.categories]
    if missing:
        meant = _meant(missing[0], [name for name in file.categories if name not in classes], dataset)
        hint = f' (did you mean {meant!r}?)' if meant else ''
        raise UserError(
            f'{says}: {missing[0]!r} is no category of {file.path}, which has {some(file.categories)}{hint}; set '
            f"metainfo=dict(classes=(...)) of each data set to the file's names, and num_classes of the head to their "
            f'number'
        )
    in_file = [name for name in file.categories if name in classes]
    if in_file != classes:
        raise UserError(
            f'{says}: {some(classes)}, but {file.path} lists them as {some(in_file)}, and MMDetection numbers the '
            f"labels in the file's order; write the classes in that order, each once"
        )


def _check_images(key: str, dataset: dict[str, Any], names: list[str], path: str) -> None:
    root = dataset.get('data_root') or ''
    prefix = (dataset.get('data_prefix') or {}).get('img') or ''
    folder = _join(root, prefix)
    missing = missing_files(folder, names)
    if missing:
        hint = ''
        if len(missing) == len(names) and prefix and os.path.exists(_join(root, missing[0])):
            hint = f"; the file names hold the folder already, so set {key}data_prefix.img=''"
        raise UserError(
            f'{key}data_prefix.img: {len(missing)} of the {len(names)} images of {path} are not in '
            f'{os.path.abspath(folder or ".")}, such as {missing[0]}; fetch them, point data_prefix.img (now '
            f'{prefix!r}) to their folder, or take them out of the file{hint}'
        )


def missing_files(folder: str, names: Iterable[str]) -> list[str]:
    """Those of the names, relative to ``folder``, that are not there; each folder is listed once."""
    if '://' in folder:
        return []
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        place, base = os.path.split(os.path.join(folder, name))
        if place not in listed:
            listed[place] = _files_in(place or '.')
        if base not in listed[place]:
            missing.append(name)
    return missing


def _files_in(folder: str) -> set[str]:
    """Names of the files in a folder; links that lead nowhere, in a circle or where nothing may be read are none."""
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:
        return {
            entry.name for entry in entries if (os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file())
        }


# Pascal VOC ---------------------------------------------------------------------------------------------------------


def _voc_folder(dataset: dict[str, Any]) -> str:
    return _join(dataset.get('data_root') or '', (dataset.get('data_prefix') or {}).get('sub_data_root') or '')


def _check_voc(sets: list[tuple[str, dict[str, Any]]], split: str, complete: bool) -> None:
    """Looks at the data sets of a split in Pascal VOC format; ``complete`` where the split has none beside them."""
    found: set[str] = set()
    for key, dataset in sets:
        found |= _names_of_set(key, dataset)
    if split == 'train' and complete:
        for key, dataset in sets:
            _check_names(key, dataset, found, some(_ann_file(each) for _, each in sets))


def _names_of_set(key: str, dataset: dict[str, Any]) -> set[str]:
    """Names of the objects of a data set, whose files have to be there."""
    path, folder = _ann_file(dataset), _voc_folder(dataset)
    if path.endswith('.json'):
        raise UserError(
            f"{key}ann_file: {path} is JSON, and {dataset['type']} reads a text file with an image's name a line; take "
            f"type='CocoDataset', or the list below ImageSets/Main ({PAGE})"
        )
    images = list_from_file(path)
    for what, suffix, default in (('ann_subdir', '.xml', 'Annotations'), ('img_subdir', '.jpg', 'JPEGImages')):
        if what == 'img_subdir' and _remote_images(dataset):
            continue
        place = os.path.join(folder, dataset.get(what, default))
        missing = missing_files(place, [image + suffix for image in images])
        if missing:
            raise UserError(
                f'{key}{what}: {len(missing)} of the {len(images)} files that {path} lists are not in '
                f'{os.path.abspath(place)}, such as {missing[0]!r}; the list has names without a suffix, and the files '
                f'end in {suffix}: fetch them, or take them out of the list'
            )
    place = os.path.join(folder, dataset.get('ann_subdir', 'Annotations'))
    return {name for image in images for name in _names_in(key, os.path.join(place, f'{image}.xml'))}


def _names_in(key: str, path: str) -> set[str]:
    """Names of the objects in an XML file.

    Raises:
        UserError: It is not Pascal VOC's.
    """
    try:
        objects = ElementTree.parse(path).getroot().findall('object')
        for entry in objects:
            for side in ('xmin', 'ymin', 'xmax', 'ymax'):
                float(entry.findtext(f'bndbox/{side}', ''))
        return {entry.findtext('name', '') for entry in objects}
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(
            f'{key}ann_subdir: {path} is not in Pascal VOC format ({error}); each object has a name and a bndbox with '
            f'xmin, ymin, xmax, ymax'
        ) from error


def _check_names(key: str, dataset: dict[str, Any], found: set[str], path: str) -> None:
    """Refuses classes of which there is no object at all, and one that looks like another spelling of a name found."""
    classes = classes_of(key, dataset) or []
    unknown = sorted(found - set(classes))
    absent = {name: _meant(name, unknown, dataset) for name in classes if name not in found}
    misspelt = [name for name, meant in absent.items() if meant]
    if misspelt or len(absent) == len(classes) > 0:
        name = (misspelt or classes)[0]
        hint = f' (did you mean {absent[name]!r}?)' if misspelt else ''
        raise UserError(
            f'{key}metainfo.classes: no object of the images in {path} is a {name!r}; they are '
            f'{some(sorted(found)) or "none"}{hint}: set metainfo=dict(classes=(...)) of each data set to those names '
            f'in the XML files that you want'
        )


# Evaluators ---------------------------------------------------------------------------------------------------------


def _check_evaluators(cfg: Config, split: str, files: _Files, sets: Iterable[tuple[str, CocoFile]]) -> None:
    """Refuses an evaluator's annotation file that is missing, or another set's than the images'."""
    evaluators = [
        (key, node)
        for key, node in nodes(cfg.get(f'{split}_evaluator'), f'{split}_evaluator.')
        if isinstance(node.get('ann_file'), str) and node['ann_file']
    ]
    for key, evaluator in evaluators:
        if not _remote(evaluator):
            path = evaluator['ann_file']
            _check_path(f'{key}ann_file', path, f'--cfg-options {key}ann_file=/path/to/file.json')
    if len(evaluators) != 1 or evaluators[0][1].get('type') != 'CocoMetric':
        return  # several data sets with an evaluator each, or another format
    key, path = f'{evaluators[0][0]}ann_file', evaluators[0][1]['ann_file']
    if _remote(evaluators[0][1]) or '://' in path:
        return
    truth = _read_once(key, path, files, split)
    if split != 'test':
        _check_annotations(key, truth)
    for of, file in sets:
        if file is not truth and not file.names.items() <= truth.names.items():
            raise UserError(
                f'{key}: {path} does not hold the images of {of}ann_file, {file.path}; give the evaluator the file of '
                f'the data set that it judges'
            )
