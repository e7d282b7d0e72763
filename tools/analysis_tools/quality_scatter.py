"""Draw the scores of detections against their true IoUs, as Fig. 2b of GFL, see docs/reading_scores.md."""

import argparse
from pathlib import Path

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet_gfl.analysis import detector, quality
from mmdet_gfl.engine.files import PICTURE_SUFFIXES, make_folder_of
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
    parser.add_argument('--names', nargs='+', help='of the models in the picture; default: the names of their configs')
    parser.add_argument('--split', choices=['val', 'test'], default='val', help='data loader, default: %(default)s')
    parser.add_argument(
        '--out', type=Path, default=Path('outputs/quality_scatter.png'), help='picture to write, default: %(default)s'
    )
    detector.add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Checks, detects with each model, prints the rank correlations and draws."""
    args = parse_args()
    named = detector.named_models(args.models, args.names)
    configs = [detector.read_config(config, args) for _, config, _ in named]
    make_folder_of('--out', args.out, PICTURE_SUFFIXES)
    models = []
    for cfg, (_, _, weights) in zip(configs, named):
        images, _ = detector.images_of(cfg, weights, args.split, args.device)
        models.append(quality.score_and_iou(images))
    names = [name for name, _, _ in named]
    print(quality.table(names, models))
    draw_scatter(names, models).savefig(args.out)
    print(args.out)


if __name__ == '__main__':
    main()
