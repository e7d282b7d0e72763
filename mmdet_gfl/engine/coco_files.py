"""Faults of a file in COCO format, found in the object that pycocotools has made of it.

Nothing here reads a file: the data set or the evaluator has. What pycocotools, MMDetection or numpy answers with an
error of their own, far from the file, is answered here with the file's name, the entry and the value.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

from pycocotools.coco import COCO

from mmdet_gfl.engine.errors import UserError, note, some

PAGE = 'docs/your_data.md'
#: Fields of an image that MMDetection reads, and their kind.
IMAGE_FIELDS: dict[str, tuple[type, str]] = dict(
    file_name=(str, 'a text'), height=(Real, 'a number'), width=(Real, 'a number')
)


def is_plain(api: Any) -> bool:
    """True for pycocotools' own index of boxes; False for panoptic segments and other formats."""
    return isinstance(api, COCO) and type(api).createIndex is COCO.createIndex


def unreadable(key: str, path: str, error: Exception) -> UserError:
    """The error for a file that pycocotools cannot index."""
    if isinstance(error, KeyError):
        return _not_coco(key, path, f'an entry lacks {error}')
    if isinstance(error, UnicodeError) or 'BOM' in str(error):
        return UserError(f'{key}: {path} is JSON in another encoding ({error}); save it as UTF-8 without a mark')
    if isinstance(error, ValueError):
        return UserError(
            f"{key}: {path} is not a JSON file ({error}), and COCO's is one; for Pascal VOC take type='VOCDataset' "
            f'({PAGE})'
        )
    return _not_coco(key, path, str(error))


def check_entries(key: str, path: str, api: COCO) -> None:
    """Raise for lists that are missing, ids that are there twice, and images without the fields that are read.

    Args:
        key: The config's key that names the file, for the message.
        path: The file.
        api: What has been loaded from it; a file without ``annotations`` is one of unlabeled images.

    Raises:
        UserError: Names the entry.
    """
    for name in ('images', 'categories'):
        if not isinstance(api.dataset.get(name), list):
            raise _not_coco(key, path, f"it has no list '{name}' beside {some(api.dataset) or 'nothing'}")
    for name, index in (('images', api.imgs), ('categories', api.cats), ('annotations', api.anns)):
        entries = api.dataset.get(name, ())
        if len(index) != len(entries):
            raise _not_coco(key, path, _same_ids(name, [entry['id'] for entry in entries]))
    for number, image in enumerate(api.dataset['images']):
        for field, (kind, wanted) in IMAGE_FIELDS.items():
            if not isinstance(image.get(field), kind):
                raise _not_coco(key, path, f'images[{number}].{field}={image.get(field)!r} is not {wanted}')


def _same_ids(name: str, ids: list[Any]) -> str:
    first: dict[Any, int] = {}
    for number, value in enumerate(ids):
        if first.setdefault(value, number) != number:
            return f'{name}[{first[value]}] and {name}[{number}] have the same id, {value!r}'
    raise AssertionError('ids differ')


def _not_coco(key: str, path: str, what: str) -> UserError:
    return UserError(f'{key}: {path} is not in COCO format: {what}; {PAGE} shows what such a file holds')


def check_annotation(key: str, path: str, annotation: dict[str, Any]) -> None:
    """Raise for an annotation whose values MMDetection cannot compute with.

    Raises:
        UserError: Names the annotation, the field and the value.
    """
    box, fields = annotation.get('bbox'), ('bbox', 'area', 'category_id')
    wanted = dict(bbox='a list of four numbers: x, y, width, height', area='a number', category_id='a number or a text')
    fine = dict(
        bbox=isinstance(box, (list, tuple)) and len(box) == 4 and all(isinstance(side, Real) for side in box),
        area=isinstance(annotation.get('area'), Real),
        category_id=isinstance(annotation.get('category_id'), (Real, str)),
    )
    for field in fields:
        if not fine[field]:
            value = f'{field}={annotation[field]!r}' if field in annotation else f'no {field}, which'
            raise _not_coco(
                key, path, f'the annotation with id {annotation.get("id")!r} has {value}, not {wanted[field]}'
            )


def why_left_out(
    annotation: dict[str, Any], image: dict[str, Any], api: COCO, wanted: Iterable[Any]
) -> tuple[str, str] | None:
    """The reason for which ``CocoDataset`` does not deliver an object, with its value; None where it delivers it.

    Args:
        annotation: The object's entry.
        image: Its image's.
        api: The file's index.
        wanted: Ids of the categories of the data set's classes.
    """
    number = annotation['category_id']
    if number not in api.cats:
        return "of a category_id that the file's categories lack", repr(number)
    if number not in wanted:
        return 'of categories that metainfo.classes leaves out', repr(api.cats[number]['name'])
    if annotation.get('ignore'):
        return 'marked to be ignored', f'ignore={annotation["ignore"]!r}'
    x, y, w, h = annotation['bbox']
    if w < 1 or h < 1:
        return (
            'narrower or lower than 1 pixel (boxes are pixels, not shares of the image)',
            f'bbox={annotation["bbox"]}',
        )
    if annotation['area'] <= 0:
        return 'without an area (without masks it is the width times the height)', f'area={annotation["area"]}'
    if min(x + w, image['width']) <= max(x, 0) or min(y + h, image['height']) <= max(y, 0):
        return 'outside of their image', f'bbox={annotation["bbox"]} in {image["width"]} x {image["height"]} pixels'
    return None


# Evaluation ---------------------------------------------------------------------------------------------------------


def check_ground_truth(key: str, path: str, api: COCO, classes: list[str], images: dict[Any, str]) -> None:
    """Raise for what would end an evaluation, or falsify it, after an epoch of training.

    Args:
        key: The config's key that names the evaluator's file.
        path: The file.
        api: What ``CocoMetric`` has loaded from it.
        classes: The data set's, in the order of its labels.
        images: Ids of the data set's images to their file names.

    Raises:
        UserError: Names the entry, or the image or class that the file has not.
    """
    check_entries(key, path, api)
    if not isinstance(api.dataset.get('annotations'), list):
        raise _not_coco(key, path, f"it has no list 'annotations' beside {some(api.dataset)}")
    check_class_names(key, path, classes, [category['name'] for category in api.dataset['categories']])
    for number, name in images.items():
        if number not in api.imgs or _base(api.imgs[number]['file_name']) != _base(name):
            raise UserError(
                f'{key}: {path} does not hold the images of the data set that it evaluates, such as {name} with id '
                f'{number!r}; give the evaluator the annotation file of that data set'
            )
    for annotation in api.dataset['annotations']:
        check_annotation(key, path, annotation)
        if not (isinstance(annotation.get('iscrowd'), Real) and isinstance(annotation['id'], Real)):
            field = 'iscrowd' if isinstance(annotation['id'], Real) else 'id'
            value = f'{field}={annotation[field]!r}' if field in annotation else f'no {field}'
            raise _not_coco(
                key, path, f'the annotation with id {annotation["id"]!r} has {value}, and pycocotools needs a number'
            )
    if 0 in api.anns:
        note(
            f'{key}: an annotation of {path} has the id 0, which pycocotools takes for "no match": it counts as missed'
        )
    if len(images) < len(api.imgs):
        note(
            f'{key}: {path} has {len(api.imgs)} images, and the data set {len(images)} of them; the objects of the '
            f'others count as missed'
        )


def _base(path: str) -> str:
    return path.replace('\\', '/').rpartition('/')[2]


def check_class_names(key: str, path: str, classes: list[str], categories: list[str]) -> None:
    """Raise for classes that a file lacks, or has in another order: MMDetection numbers labels as the file does.

    Raises:
        UserError: Names the class, or both orders.
    """
    missing = [name for name in classes if name not in categories]
    if missing:
        raise UserError(
            f'{key}: metainfo.classes has {missing[0]!r}, which is no category of {path}, where there are '
            f"{some(categories)}; set metainfo=dict(classes=(...)) of each data set to the file's names, and "
            f'num_classes of the head to their number'
        )
    in_file = [name for name in categories if name in classes]
    if in_file != classes:
        raise UserError(
            f'{key}: metainfo.classes is {some(classes)}, but {path} lists them as {some(in_file)}, and MMDetection '
            f"numbers the labels in the file's order; write the classes in that order, each once"
        )
