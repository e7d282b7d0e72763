"""Annotation files in COCO format: what of them is read, and what is wrong with a file that is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from mmdet_gfl.engine.errors import UserError, some

PAGE = 'docs/your_data.md'
#: What MMDetection and pycocotools read of each entry of a COCO file.
COCO_FIELDS: dict[str, set[str]] = dict(
    images={'id', 'file_name', 'height', 'width'},
    categories={'id', 'name'},
    annotations={'id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'},
)
#: What their values have to be, where MMDetection reckons with them or looks them up.
COCO_VALUES = dict(
    id='a number or a text',
    image_id='a number or a text',
    category_id='a number or a text',
    name='a text',
    file_name='a text',
    height='a number',
    width='a number',
    area='a number',
    bbox='a list of four numbers: x, y, width, height',
)


class CocoFile(NamedTuple):
    """What the checks ask of an annotation file in COCO format.

    Attributes:
        path: Of the file.
        names: Image ids to file names.
        categories: Names of the categories, in the file's order.
        images_of: Category names to the ids of the images that have an object of it.
        lists: Keys of the file; a file of unlabeled images is without ``annotations``.
    """

    path: str
    names: dict[Any, str]
    categories: list[str]
    images_of: dict[str, set[Any]]
    lists: list[str]

    def images_with(self, classes: Iterable[str]) -> set[Any]:
        """Ids of the listed images with an object of one of the classes."""
        return set().union(*(self.images_of.get(name, set()) for name in classes)) & self.names.keys()


def read_coco(key: str, path: str, split: str) -> CocoFile:
    """Reads an annotation file.

    Args:
        key: The config's key that names the file, for the message.
        path: The file.
        split: What it is for: training needs no ``iscrowd``. A file without ``annotations`` is left to the caller.

    Raises:
        UserError: It is not in COCO format; says what is missing.
    """
    try:
        with open(path, encoding='utf-8') as stream:
            content = json.load(stream)
    except (ValueError, OSError) as error:  # no JSON, no text, a folder
        raise UserError(
            f"{key}: {path} is not a JSON file ({error}), and CocoDataset reads COCO's; for Pascal VOC take "
            f"type='VOCDataset' ({PAGE})"
        ) from error
    for name, fields in COCO_FIELDS.items():
        if name != 'annotations' or name in content:
            _check_entries(key, path, content, name, fields - {'iscrowd'} if split == 'train' else fields)
    categories = {entry['id']: entry['name'] for entry in content['categories']}
    images_of: dict[str, set[Any]] = {name: set() for name in categories.values()}
    for entry in content.get('annotations', ()):
        if entry['category_id'] in categories:
            images_of[categories[entry['category_id']]].add(entry['image_id'])
    _note_unknown_categories(key, path, [entry['category_id'] for entry in content.get('annotations', ())], categories)
    names = {entry['id']: entry['file_name'] for entry in content['images']}
    return CocoFile(path, names, [entry['name'] for entry in content['categories']], images_of, list(content))


def _note_unknown_categories(key: str, path: str, found: list[Any], categories: dict[Any, str]) -> None:
    """Says how many objects are of no category of the file; MMDetection leaves them out, which may be meant."""
    unknown = [number for number in found if number not in categories]
    if unknown:
        print(
            f'note: {key}: {len(unknown)} of the {len(found)} objects of {path} are left out, since its categories '
            f'lack their category_id, such as {unknown[0]!r}',
            flush=True,
        )


def _check_entries(key: str, path: str, content: Any, name: str, fields: set[str]) -> None:
    """Refuses a file without the list ``name``, or with an entry that lacks a field, or holds another kind of value."""
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise no_list(key, path, name, _beside(content))
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not fields <= entry.keys():
            missing = sorted(fields - entry.keys()) if isinstance(entry, dict) else sorted(fields)
            raise _not_coco(key, path, f'{name}[{index}] lacks {", ".join(missing)}')
        for field in fields:
            if not _fits(field, entry[field]):
                was = f'{name}[{index}].{field}={entry[field]!r}'
                raise _not_coco(key, path, f'{was} is not {COCO_VALUES[field]}')
    _check_ids(key, path, name, [entry['id'] for entry in entries])


def _fits(field: str, value: Any) -> bool:
    """Whether a value is what ``COCO_VALUES`` says."""
    if field == 'bbox':
        return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))
    if field in ('id', 'image_id', 'category_id'):
        return isinstance(value, (int, float, str))
    if field in ('name', 'file_name'):
        return isinstance(value, str)
    return field not in COCO_VALUES or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max  # NaN is not


def _check_ids(key: str, path: str, name: str, ids: list[Any]) -> None:
    """Refuses ids that are there twice: all but one of the entries would be lost, or MMDetection would end."""
    first: dict[Any, int] = {}
    for index, number in enumerate(ids):
        if first.setdefault(number, index) != index:
            raise _not_coco(key, path, f'{name}[{first[number]}] and {name}[{index}] have the same id, {number!r}')


def _not_coco(key: str, path: str, what: str) -> UserError:
    return UserError(f'{key}: {path} is not in COCO format: {what}; {PAGE} shows what such a file holds')


def no_list(key: str, path: str, name: str, beside: str) -> UserError:
    """The error for a file without the list ``name``; ``beside`` says what it has."""
    return _not_coco(key, path, f"it has no list '{name}' beside {beside}")


def _beside(content: Any) -> str:
    if isinstance(content, dict):
        return some(content) or 'nothing'
    return 'a list of entries' if isinstance(content, list) else f'the one value {str(content)[:40]!r}'
