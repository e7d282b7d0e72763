"""Faults of a file in COCO format, found in the object that pycocotools has made of it.

Nothing here reads a file: the data set or the evaluator has. What pycocotools, MMDetection or numpy answers with an
error of their own, far from the file, is answered here with the file's name, the entry and the value.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

from pycocotools.coco import COCO

from mmdet_gfl.engine.errors import UserError, note, some

PAGE = 'docs/your_data.md'
_NUMBER: tuple[Any, str] = (Real, 'a number')
#: Kind of each field that MMDetection or pycocotools computes with.
FIELDS: dict[str, tuple[Any, str]] = dict.fromkeys(('height', 'width', 'area', 'iscrowd', 'id'), _NUMBER) | dict(
    file_name=(str, 'a text'),
    bbox=((list, tuple), 'a list of four numbers: x, y, width, height'),
    category_id=((Real, str), 'a number or a text'),
)
IMAGE_FIELDS = ('file_name', 'height', 'width')
OBJECT_FIELDS = ('bbox', 'area', 'category_id')


def is_plain(api: Any) -> bool:
    """True for pycocotools' own index of boxes; False for panoptic segments and other formats."""
    return isinstance(api, COCO) and type(api).createIndex is COCO.createIndex


def _not_coco(key: str, path: str, what: str) -> UserError:
    return UserError(f'{key}: {path} is not in COCO format: {what}; {PAGE} shows what such a file holds')


def check_entries(key: str, path: str, api: COCO, lists: tuple[str, ...] = ('images', 'categories')) -> None:
    """Raise for lists that are missing, and ids that are there twice.

    Args:
        key: The config's key that names the file, for the message.
        path: The file.
        api: What has been loaded from it.
        lists: Those that it needs; a file without ``annotations`` is one of unlabeled images.
    """
    for name in lists:
        if not isinstance(api.dataset.get(name), list):
            raise _not_coco(key, path, f"it has no list '{name}' beside {some(api.dataset) or 'nothing'}")
    for name, index in (('images', api.imgs), ('categories', api.cats), ('annotations', api.anns)):
        entries, first = api.dataset.get(name, ()), dict[Any, int]()
        for number, entry in enumerate(entries if len(index) != len(entries) else ()):
            before = first.setdefault(entry['id'], number)
            if before != number:
                what = f'{name}[{before}] and {name}[{number}] have the same id, {entry["id"]!r}'
                raise _not_coco(key, path, what)


def check_fields(key: str, path: str, entry: dict[str, Any], fields: tuple[str, ...]) -> None:
    """Raise for an image's or an object's entry that nobody can compute with."""
    for field in fields:
        (kind, wanted), value = FIELDS[field], entry.get(field)
        four = field != 'bbox' or (isinstance(value, kind) and [isinstance(side, Real) for side in value] == [True] * 4)
        if not four or not isinstance(value, kind):
            said = f'{field}={value!r}, not {wanted}' if field in entry else f'no {field} ({wanted})'
            what = 'image' if fields is IMAGE_FIELDS else 'annotation'
            raise _not_coco(key, path, f'the {what} with id {entry.get("id")!r} has {said}')


def why_left_out(annotation: dict[str, Any], image: dict[str, Any], api: Any, wanted: Any) -> tuple[str, str] | None:
    """The reason for which ``CocoDataset`` does not deliver an object, with its value; None where it delivers it.

    Args:
        annotation: The object's entry.
        image: Its image's.
        api: The file's index.
        wanted: Ids of the categories of the data set's classes.
    """
    if not set(OBJECT_FIELDS) <= annotation.keys() or len(annotation['bbox']) != 4:
        return None  # a format of its own
    number, bbox = annotation['category_id'], annotation['bbox']
    if number not in api.cats:
        return "of a category_id that the file's categories lack", repr(number)
    if number not in wanted:
        return 'of categories that metainfo.classes leaves out', repr(api.cats[number]['name'])
    if annotation.get('ignore'):
        return 'marked to be ignored', f'ignore={annotation["ignore"]!r}'
    x, y, w, h = bbox
    if w < 1 or h < 1:
        return 'narrower or lower than 1 pixel (boxes are pixels, not shares of the image)', f'{bbox=}'
    if annotation['area'] <= 0:
        return 'without an area (without masks it is the width times the height)', f'area={annotation["area"]}'
    if not (min(x + w, image['width']) > max(x, 0) and min(y + h, image['height']) > max(y, 0)):  # or NaN
        return 'outside of their image', f'{bbox=} in {image["width"]} x {image["height"]} pixels'
    return None


def check_class_names(key: str, path: str, classes: list[str], categories: list[str]) -> None:
    """Raise for classes that a file lacks, or has in another order: MMDetection numbers labels as the file does."""
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


def check_ground_truth(
    key: str, path: str, api: COCO, classes: list[str], images: dict[Any, str], format_only: bool = False
) -> None:
    """Raise for what would end an evaluation, or falsify it, after an epoch of training.

    Args:
        key: The config's key that names the evaluator's file.
        path: The file.
        api: What ``CocoMetric`` has loaded from it.
        classes: The data set's, in the order of its labels.
        images: Ids of the data set's images to the names of their files.
        format_only: The detections are written down and not judged, so no objects are needed.

    Raises:
        UserError: Names the entry, or the image or class that the file has not.
    """
    check_entries(key, path, api, ('images', 'categories', *(() if format_only else ('annotations',))))
    check_class_names(key, path, classes, [category['name'] for category in api.dataset['categories']])
    for number, name in images.items():
        found = api.imgs.get(number, {}).get('file_name')
        if str(found).replace('\\', '/').rpartition('/')[2] != name:
            raise UserError(
                f'{key}: {path} does not hold the images of the data set that it evaluates, such as {name} with id '
                f'{number!r}; give the evaluator the annotation file of that data set'
            )
    if format_only:
        return
    for annotation in api.dataset['annotations']:
        check_fields(key, path, annotation, (*OBJECT_FIELDS, 'iscrowd', 'id'))
    if 0 in api.anns:
        note(
            f'{key}: an annotation of {path} has the id 0, which pycocotools takes for "no match": it counts as missed'
        )
    if len(images) < len(api.imgs):
        note(
            f'{key}: {path} has {len(api.imgs)} images, and the data set {len(images)} of them; the objects of the '
            f'others count as missed'
        )
