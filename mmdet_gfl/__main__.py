"""``python -m mmdet_gfl``: see ``--help``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet_gfl import __version__, doctor, shipped_configs
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
        description='Without a command: print the versions that matter here, say what does not fit and how to mend it.',
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
    try:
        with args.output.open('x') as file:
            print(text, file=file)
    except FileExistsError:
        print(f'error: {args.output} exists and is not overwritten; remove it, or choose another name', file=sys.stderr)
        return 2
    except FileNotFoundError:
        print(f'error: there is no folder {args.output.parent}; make it first', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
