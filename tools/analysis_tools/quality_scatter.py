"""Draw the scores of detections against their true IoUs, as Fig. 2b of GFL, see docs/reading_scores.md."""

import argparse

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet_gfl.analysis import detector, quality
from mmdet_gfl.visualization import draw_scatter


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'models',
        nargs='+',
        metavar='CONFIG CHECKPOINT',
        help='one model or several side by side; instead of a checkpoint, the .pkl of tools/test.py --out',
    )
    detector.add_comparison_arguments(parser, 'outputs/quality_scatter.png')
    return parser.parse_args()


def main() -> None:
    """Checks, detects with each model, prints the rank correlations and draws."""
    args = parse_args()
    names, models = [], []
    for name, cfg, weights in detector.compared_models(args):
        images, _ = detector.images_of(cfg, weights, args.split, args.device)
        names.append(name)
        models.append(quality.score_and_iou(images))
    print(quality.table(names, models))
    draw_scatter(names, models).savefig(args.out)
    print(args.out)


if __name__ == '__main__':
    main()
