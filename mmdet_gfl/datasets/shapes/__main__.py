"""``python -m mmdet_gfl.datasets.shapes``, which is also ``tools/dataset_converters/make_shapes.py``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .generator import Outcome, make_shapes
from .layout import Parameters
from .outlines import CLASSES
from .storage import ShapesError


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the set that ``argv`` describes, or finds it there, and returns the exit status."""
    args = parse_args(argv)
    start = time.monotonic()
    try:
        parameters = Parameters(
            args.train, args.val, args.size[0], args.size[1], args.seed, args.clutter, tuple(args.classes)
        )
        outcome = make_shapes(args.root, parameters, args.workers, args.overwrite, Progress())
    except (ValueError, ShapesError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f'error: {args.root} cannot be written ({error.strerror}: {error.filename}); name a folder that can be, '
            f'on a disk with about 40 kB to spare for each image of 320 x 320 px',
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f'stopped; {args.root} is as it was', file=sys.stderr)
        return 130
    print(report(outcome, parameters, time.monotonic() - start))
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    default = Parameters()
    parser = argparse.ArgumentParser(
        description='Make the shapes data set: COCO format, the same for the same parameters, reused if it is there.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('root', nargs='?', type=Path, default=Path('data/shapes'), help='folder of the set')
    parser.add_argument('--train', type=int, default=default.train, metavar='N', help='number of training images')
    parser.add_argument('--val', type=int, default=default.val, metavar='N', help='number of validation images')
    size = [default.width, default.height]
    parser.add_argument('--size', type=int, nargs=2, default=size, metavar=('W', 'H'), help='size of the images, px')
    parser.add_argument('--seed', type=int, default=default.seed, help='another seed gives another set')
    parser.add_argument('--clutter', type=float, default=default.clutter, help='textures and distractors, from 0 to 1')
    parser.add_argument('--classes', nargs='+', default=CLASSES, metavar='NAME', help='classes that are drawn')
    parser.add_argument('--workers', type=int, default=_cores(), help='processes; they do not change the set')
    parser.add_argument('--overwrite', action='store_true', help='replace a shapes data set of other parameters')
    return parser.parse_args(argv)


def _cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class Progress:
    """Prints a line at each tenth of the work."""

    def __call__(self, done: int, total: int) -> None:
        """Takes the number of pictures done, and of all."""
        if done * 10 // total > (done - 1) * 10 // total:
            print(f'{done} of {total} images', flush=True)


def report(outcome: Outcome, parameters: Parameters, seconds: float) -> str:
    """What was done and what to do next."""
    lines = [f'removed {folder}, left by a run that was killed' for folder in outcome.leftovers]
    made = f'made in {seconds:.0f} s ({outcome.reason})' if outcome.made else 'was there already, whole'
    lines += [
        f'{outcome.root}: {parameters.train} + {parameters.val} images of {parameters.width} x {parameters.height} px, '
        f'{len(parameters.classes)} classes; {made}',
        f'next: inherit configs/_base_/datasets/shapes_detection.py, set num_classes={len(CLASSES)} and, if it is not '
        f'data/shapes/, set SHAPES_ROOT={outcome.root} in the environment',
    ]
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
