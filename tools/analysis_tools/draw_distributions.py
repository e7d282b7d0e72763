"""Draw detections with the predicted distributions of their sides, as Fig. 3 of GFL, see docs/uncertainty.md."""

import argparse
from pathlib import Path

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet_gfl.analysis import detector
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.visualization import pictures


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('images', type=Path, help='an image, or a folder of images')
    parser.add_argument('config', help='config file of a model with distributions')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--ann-file', type=Path, help='COCO annotations of the images: their boxes are drawn dashed')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs/distributions'), help='default: %(default)s')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score of a detection, default: %(default)s')
    parser.add_argument('--max-boxes', type=int, default=10, help='detections on an image, default: %(default)s')
    parser.add_argument('--max-rows', type=int, default=4, help='detections with distributions, default: %(default)s')
    parser.add_argument('--max-images', type=int, help='draw the first ones of a folder only')
    detector.add_arguments(parser)
    args = parser.parse_args()
    for name, least in (('boxes', 1), ('rows', 0), ('images', 1)):
        number = getattr(args, f'max_{name}')
        if number is not None and number < least:
            raise UserError(f'--max-{name} {number}: a whole number from {least} on is needed')
    return args


def main() -> None:
    """Checks, detects, draws and names the pictures."""
    args = parse_args()
    files = pictures.image_files(args.images)[: args.max_images]
    truth = pictures.read_ground_truth(args.ann_file) if args.ann_file else None
    loaded = detector.load(detector.read_config(args.config, args), args.checkpoint, args.device)
    drawn = pictures.draw_files(
        loaded, files, args.out_dir, truth, args.score_thr, max_boxes=args.max_boxes, max_rows=args.max_rows
    )
    for path in drawn:
        print(path, flush=True)


if __name__ == '__main__':
    main()
