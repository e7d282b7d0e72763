"""Trains rows of the paper's tables and reports them beside the paper: list, run, status, report.

python tools/reproduce.py list
python tools/reproduce.py run --tables 1a 3 --rows 'atss/*' --preset mini --work-dir work_dirs/mini
python tools/reproduce.py report --work-dir work_dirs/mini
"""

import argparse
import sys
from pathlib import Path

import mmdet_gfl  # noqa: F401  # isort: skip  before MMDetection

from mmdet_gfl.benchmark import rows, runs
from mmdet_gfl.benchmark.mini import Mini


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, text in (
        ('list', 'tables, rows, configs and the paper’s AP'),
        ('run', 'train the rows that have no result yet'),
        ('status', 'what is done and what is not'),
        ('report', 'Markdown and JSON of what was measured'),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument('--tables', nargs='+', metavar='TABLE', help='of these tables only')
        command.add_argument('--rows', nargs='+', metavar='GLOB', help='configs of these names only, as atss/*')
        if name != 'list':
            command.add_argument('--work-dir', type=Path, default=Path('work_dirs/reproduce'))
            command.add_argument('--seeds', type=int, nargs='+', default=[0])
        if name == 'run':
            command.add_argument('--preset', choices=['mini'], default='mini', help='mini: ResNet-18 on the shapes')
            command.add_argument('--configs', nargs='+', default=[], help='these configs too, in a table or not')
            command.add_argument(
                '--train-images', type=int, default=Mini.train, help='training images of the mini preset'
            )
            command.add_argument('--epochs', type=int, default=Mini.epochs, help='of the mini preset')
            command.add_argument('--dry-run', action='store_true', help='only say what would be trained')
    return parser.parse_args()


def main() -> int:
    """Runs the command and returns the exit status."""
    args = parse_args()
    try:
        tables = rows.select(rows.read_tables(), args.tables, args.rows)
        if args.command == 'list':
            print(rows.listing(tables))
            return 0
        if args.command == 'run':
            configs = rows.configs_of(tables) if args.tables or args.rows or not args.configs else []
            configs += [rows.check_config(name) for name in args.configs]
            mini = Mini(train=args.train_images, epochs=args.epochs)
            return runs.run_all(list(dict.fromkeys(configs)), args.seeds, args.work_dir, mini, args.dry_run)
        results = runs.read_results(args.work_dir)
        if args.command == 'status':
            print(runs.status(rows.configs_of(tables), args.seeds, args.work_dir))
        else:
            print(runs.write_report(tables, results, args.work_dir))
        return 0
    except rows.RowError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
