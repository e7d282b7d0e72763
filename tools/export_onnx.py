"""Export a trained detector to ONNX and compare it with torch, see docs/export.md."""

import argparse
from pathlib import Path

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet_gfl.analysis import detector
from mmdet_gfl.engine import launch
from mmdet_gfl.export import exporting, graph, writing


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', nargs='?', type=Path, help='the file to write, default: the name of the checkpoint')
    parser.add_argument('--output', choices=graph.OUTPUTS, default='nms', help='default: %(default)s')
    parser.add_argument(
        '--std', action='store_true', help="add the standard deviation of each side, in the input's pixels"
    )
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('H', 'W'), help="size of the input, default: the test pipeline's largest"
    )
    parser.add_argument(
        '--dynamic',
        choices=writing.DYNAMIC,
        default='all',
        help='what may differ when the graph runs: nothing (a batch of one), the batch, or its size too; '
        'default: %(default)s',
    )
    parser.add_argument(
        '--preprocess', action='store_true', help='normalise inside the graph: it takes images BGR from 0 to 255'
    )
    parser.add_argument('--fp16', action='store_true', help='layers in half precision; boxes and scores stay float32')
    parser.add_argument('--opset', type=int, default=18, help="version of ONNX's operators, default: %(default)s")
    parser.add_argument(
        '--check',
        nargs='+',
        default=[],
        metavar='IMAGE',
        help='compare with torch on these images, beside a random one; beyond 0.1 pixels or 0.001 in score (1 and 0.01 '
        'with --fp16) nothing is written, and the exit status is 1',
    )
    launch.add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Checks, exports, compares and names the file."""
    args = parse_args()
    settings = exporting.Settings(
        output=args.output,
        with_std=args.std,
        shape=None if args.shape is None else tuple(args.shape),
        dynamic=args.dynamic,
        preprocess=args.preprocess,
        half=args.fp16,
        opset=args.opset,
    )
    out = args.out or exporting.default_path(args.checkpoint)
    exporting.prepare(settings, out, args.check)
    loaded = detector.load(detector.read_config(args.config, args), args.checkpoint, 'cpu')
    exporting.export(loaded, settings, out, args.check)


if __name__ == '__main__':
    main()
