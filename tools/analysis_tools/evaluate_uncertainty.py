"""Compare predicted standard deviations of sides with the shapes' true ambiguity, see docs/uncertainty.md."""

import argparse

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet_gfl.analysis import detector, uncertainty
from mmdet_gfl.visualization.uncertainty import draw_uncertainty


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('models', nargs='+', metavar='CONFIG CHECKPOINT', help='one model or several side by side')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score of a detection; default: %(default)s')
    detector.add_comparison_arguments(parser, 'outputs/uncertainty.png')
    return parser.parse_args()


def main() -> None:
    """Checks, detects with each model, prints what its standard deviations are worth and draws."""
    args = parse_args()
    names, models = [], []
    for name, cfg, weights in detector.compared_models(args):
        names.append(name)
        models.append(uncertainty.sides_of(detector.load(cfg, weights, args.device), args.split, args.score_thr))
    labels, sides = uncertainty.with_floors_taken_away(names, models)
    print(uncertainty.table(labels, [uncertainty.evaluate(one) for one in sides]))
    draw_uncertainty(names, models).savefig(args.out)
    print(args.out)


if __name__ == '__main__':
    main()
