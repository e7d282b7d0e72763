"""``python -m mmdet_gfl``: see ``--help``."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from mmdet_gfl import __version__, doctor, prepare, shipped_configs
from mmdet_gfl.compat import startup


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names and return the exit status."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (OSError, shipped_configs.ConfigNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
    except ImportError as error:
        print(f'error: {error}; `python -m mmdet_gfl` says what to install', file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m mmdet_gfl',
        description='Without a command: print the versions that matter here, say what does not fit and how to fix it.',
    )
    parser.add_argument('--version', action='version', version=f'mmdet_gfl {__version__}')
    parser.set_defaults(run=lambda args: doctor.main())
    commands = parser.add_subparsers(title='commands', metavar='COMMAND')

    checkup = commands.add_parser('doctor', help='the same as no command', description=parser.description)
    checkup.set_defaults(run=lambda args: doctor.main())

    configs = commands.add_parser(
        'configs',
        help='list the configs that come with the package, or print one of them',
        description='List the configs that come with the package, or print one with all it inherits, ready to be '
        'saved and changed: it needs no other file.',
    )
    configs.add_argument('name', nargs='?', metavar='NAME', help='a config of the list, with or without .py')
    configs.add_argument('-o', '--output', type=Path, metavar='FILE', help='write there instead; never overwrites')
    configs.set_defaults(run=_configs)

    convert = commands.add_parser(
        'convert',
        help="write a config that inherits from yours and has a GFL head in place of MMDetection's",
        description='Write a config that inherits from another one and replaces its RetinaNet, FCOS, ATSS, GFL, '
        'FoveaBox, SSD or RTMDet head by the GFL variant, and say what changes.',
    )
    convert.add_argument('config', metavar='CONFIG', help='a path, or the name of a config that MMDetection ships')
    convert.add_argument(
        '-o', '--output', type=Path, metavar='FILE', help='default: NAME_gfl.py here; never overwrites'
    )
    convert.add_argument(
        '--quality', metavar='NAME', help="default: the host's, as a rule JointQuality; baseline: the stock head's"
    )
    convert.add_argument('--box', metavar='NAME', help='default: GeneralBox, with Distribution Focal Loss')
    convert.add_argument(
        '--box-weight', choices=['auto', 'quality', 'score', 'uniform'], help="the quality's weights of the box losses"
    )
    convert.add_argument('--gflv2', action='store_true', help='short for --quality DistributionGuidedQuality')
    convert.set_defaults(run=_convert)

    stand_in = commands.add_parser(
        'stand-in',
        help="put the stand-in for mmcv's operators in place whenever this Python starts, or no longer",
        description="MMDetection's own tools/test.py imports MMDetection before it reads a config. With mmcv-lite that "
        'only works if the stand-in is in place when Python starts: "install" writes a one-line .pth file beside the '
        'installed packages, "remove" removes it. With compiled mmcv it does nothing.',
    )
    stand_in.add_argument('action', choices=['install', 'remove'])
    stand_in.set_defaults(run=_stand_in)
    return parser


def _stand_in(args: argparse.Namespace) -> int:
    if args.action == 'install':
        print(f'{startup.install()} puts the stand-in in place when {sys.executable} starts')
    else:
        print(f'{startup.remove()} is removed')
    return 0


def _configs(args: argparse.Namespace) -> int:
    text = shipped_configs.listing() if args.name is None else shipped_configs.flattened(args.name)
    if args.output is None:
        print(text)
        return 0
    return _write(args.output, f'{text}\n')


def _convert(args: argparse.Namespace) -> int:
    prepare()  # python -m mmdet_gfl does not
    from mmdet_gfl import conversion

    if args.gflv2 and args.quality:
        print('error: --gflv2 is --quality DistributionGuidedQuality; give one of the two', file=sys.stderr)
        return 2
    quality = 'DistributionGuidedQuality' if args.gflv2 else args.quality
    with redirect_stdout(sys.stderr):  # MMEngine logs to standard output
        cfg, path, shipped = conversion.read(args.config)
        given = (quality, args.box, args.box_weight)
        conversions = conversion.convert_config(cfg, *given, own=any(given))  # which may move a GFL head elsewhere
    suffix = '-'.join(filter(None, ('gflv2' if args.gflv2 else 'gfl', args.quality, args.box, args.box_weight)))
    out = args.output or Path(f'{path.stem}_{suffix}.py')
    text = conversion.child_config(path, shipped, cfg, conversions, out)
    status = _write(out, text)
    if status == 0:
        print(f'{out} inherits from {path}')
        print('\n'.join(f'- {line}' for found in conversions for line in found.notes))
    return status


def _write(path: Path, text: str) -> int:
    """Write a new file; return the exit status."""
    try:
        with path.open('x') as file:
            file.write(text)
    except FileExistsError:
        print(f'error: {path} exists and is not overwritten; remove it, or choose another name', file=sys.stderr)
        return 2
    except FileNotFoundError:
        print(f'error: there is no folder {path.parent}; make it first', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
