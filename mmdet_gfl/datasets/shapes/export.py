"""The set as files, for tools that read nothing else."""

from __future__ import annotations

import argparse
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmdet_gfl.engine.errors import UserError

from .drawing import files
from .outlines import CLASSES
from .parameters import PREFIX, Parameters, parse


def make_shapes(root: str | Path, parameters: Parameters = Parameters()) -> None:  # noqa: B008  frozen
    """Write all files of a set into a new folder, which appears when the last one is written.

    Args:
        root: The folder.
        parameters: What determines the set.

    Raises:
        UserError: ``root`` is a file or a folder that is not empty, or cannot be written.
    """
    root = Path(root).expanduser().absolute()
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise UserError(f'{root} exists already; remove it, or name another folder')
    unfinished = root.with_name(f'.{root.name}.unfinished-{secrets.token_hex(4)}')
    try:
        for path, content in files(parameters).items():
            (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / path).write_bytes(content())
        unfinished.rename(root)
    except OSError as error:
        raise UserError(
            f'{root} cannot be written ({error.strerror}: {error.filename}); name a folder that can be, on a disk with '
            f'about 310 kB to spare for each image of 320 x 320 px'
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the set that ``argv`` describes.

    Raises:
        UserError: A parameter is not possible, or the folder cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog='make_shapes.py',
        description='Write the shapes data set as files: BMP images and annotations in COCO format.',
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument('root', nargs='?', default='data/shapes', help='new folder; default: data/shapes')
    parser.add_argument('address', nargs='?', default=PREFIX, help="a config's data_root, which the options change")
    parser.add_argument('--train', type=int, metavar='N', help='number of training images; default: 1000')
    parser.add_argument('--val', type=int, metavar='N', help='number of validation images; default: 200')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('W', 'H'), help='size of the images in pixels; default: 320 320'
    )
    parser.add_argument('--seed', type=int, help='random seed of the drawing; default: 0')
    parser.add_argument('--clutter', type=float, help='textures and distractors, from 0 to 1; default: 1')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help=f'classes to draw of {", ".join(CLASSES)}')
    parser.add_argument('--rare', nargs='+', metavar='NAME', help='classes of --classes that are rare and always small')
    options = vars(parser.parse_args(argv))
    root, address = options.pop('root'), options.pop('address')
    parameters, path = parse(address)
    if path:
        raise UserError(f'{address} names the file {path!r} of a data set; give shapes://, or shapes://NAME=VALUE,...')
    if 'size' in options:
        options['width'], options['height'] = options.pop('size')
    options |= {key: tuple(options[key]) for key in ('classes', 'rare') if key in options}
    try:
        parameters = replace(parameters, **options)
    except ValueError as error:
        raise UserError(str(error)) from error
    make_shapes(root, parameters)
    print(f'{root}: the files of {parameters.address}; give it as data_root or SHAPES_ROOT to read them')
