"""Compare predicted standard deviations of sides with the shapes' true ambiguity, see docs/uncertainty.md."""

import argparse
from pathlib import Path

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet_gfl.analysis import detector, uncertainty
from mmdet_gfl.engine.files import PICTURE_SUFFIXES, make_folder_of
from mmdet_gfl.visualization.uncertainty import draw_uncertainty


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT', help='one model or several side by side')
    parser.add_argument('--names', nargs='+', help='of the models; default: the names of their configs')
    parser.add_argument('--split', choices=['val', 'test'], default='val', help='data loader, default: %(default)s')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score, default: %(default)s')
    parser.add_argument(
        '--out', type=Path, default=Path('outputs/uncertainty.png'), help='picture to write, default: %(default)s'
    )
    detector.add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Checks, detects with each model, prints what its standard deviations are worth and draws."""
    args = parse_args()
    named = detector.named_models(args.models, args.names)
    configs = [detector.read_config(config, args) for _, config, _ in named]
    make_folder_of('--out', args.out, PICTURE_SUFFIXES)
    models = []
    for cfg, (_, _, weights) in zip(configs, named):
        models.append(uncertainty.sides_of(detector.load(cfg, weights, args.device), args.split, args.score_thr))
    names = [name for name, _, _ in named]
    labels, sides = uncertainty.with_floors_taken_away(names, models)
    print(uncertainty.table(labels, [uncertainty.evaluate(one) for one in sides]))
    draw_uncertainty(names, models).savefig(args.out)
    print(args.out)


if __name__ == '__main__':
    main()
