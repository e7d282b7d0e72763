"""Say which ``reg_max`` a data set needs: percentiles of the distance targets, the share clipped, and a histogram."""

import argparse
import json
from pathlib import Path

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet_gfl.analysis.regression_targets import measure
from mmdet_gfl.analysis.target_report import as_dict, as_text
from mmdet_gfl.engine import launch
from mmdet_gfl.engine.files import make_folder
from mmdet_gfl.visualization.regression_targets import draw


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help="config file, of this project or MMDetection's own")
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default='train',
        help='data set of the config to read; default: %(default)s',
    )
    parser.add_argument('--images', type=int, default=2000, help='images to read, drawn at random; 0: all')
    parser.add_argument(
        '--share', type=float, default=0.001, help='share of the targets that may be clipped; default: %(default)s'
    )
    parser.add_argument('--workers', type=int, default=2, help='processes that read the images')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='random seed of the chosen images and their augmentation; default: %(default)s',
    )
    parser.add_argument('--out-dir', type=Path, help='folder for the picture and the JSON; default work_dirs/CONFIG')
    parser.add_argument('--cfg-options', nargs='+', action=launch.OptionsAction, help=launch.CFG_OPTIONS_HELP)
    args = parser.parse_args()
    if not 0 <= args.share < 1:
        parser.error(f'--share {args.share}: a share of the targets is needed, as 0.001 for a thousandth')
    if args.images < 0 or args.workers < 0 or args.seed < 0:
        parser.error('--images, --workers and --seed must not be negative')
    return args


def main() -> None:
    """Checks, measures, prints and draws."""
    args = parse_args()
    cfg = launch.read_config(args.config, args.cfg_options)
    cfg.setdefault('default_scope', 'mmdet')  # a part of a config is enough here
    launch.check_data(cfg, args.split)
    folder = args.out_dir or Path('work_dirs') / Path(args.config).stem
    make_folder('--out-dir', folder)

    report = measure(cfg, args.split, args.images, args.workers, args.seed)
    print(as_text(report, args.share))

    stem = folder / f'regression_targets_{args.split}'
    draw(report, args.share, f'{Path(args.config).stem}, {args.split}').savefig(stem.with_suffix('.png'))
    stem.with_suffix('.json').write_text(json.dumps(as_dict(report, args.share)) + '\n')
    print(f'{stem}.png, {stem}.json')


if __name__ == '__main__':
    main()
