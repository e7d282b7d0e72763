"""Select the score threshold of each class that gives a wanted precision, see docs/reading_scores.md."""

import argparse
import json
from pathlib import Path

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet_gfl.analysis import detector, thresholds
from mmdet_gfl.engine.files import make_folder_of
from mmdet_gfl.engine.launch import UserError


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or the .pkl of tools/test.py --out')
    parser.add_argument(
        '--precision', type=float, default=0.9, help='precision that each class should have; default: %(default)s'
    )
    parser.add_argument(
        '--iou', type=float, default=0.5, help='least IoU with an object of a correct detection, default: %(default)s'
    )
    parser.add_argument(
        '--split', choices=['val', 'test'], default='val', help='data set of the config to use; default: %(default)s'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('outputs/thresholds.json'), help='file to write, default: %(default)s'
    )
    detector.add_arguments(parser)
    args = parser.parse_args()
    for name in ('precision', 'iou'):
        if not 0 < getattr(args, name) <= 1:
            raise UserError(f'--{name} {getattr(args, name)}: it is a share, above 0 and at most 1')
    return args


def main() -> None:
    """Checks, detects, prints the thresholds and writes them."""
    args = parse_args()
    cfg = detector.read_config(args.config, args)
    make_folder_of('--out', args.out)
    images, classes = detector.images_of(cfg, args.checkpoint, args.split, args.device)
    answers = thresholds.select_thresholds(images, classes, args.precision, args.iou)
    print(
        f'Lowest score for precision {args.precision:g} at IoU {args.iou:g}, on {len(images)} images of {args.split}:'
    )
    print(thresholds.table(answers, args.precision))
    about = dict(config=args.config, checkpoint=args.checkpoint, split=args.split, images=len(images))
    wanted = dict(precision=args.precision, iou=args.iou)
    args.out.write_text(json.dumps({**about, **wanted, 'classes': thresholds.as_json(answers)}, indent=2) + '\n')
    print(args.out)


if __name__ == '__main__':
    main()
