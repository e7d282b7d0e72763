"""Train rows of the paper's tables and report them beside the paper: list, run, status, report.

python tools/reproduce.py list
python tools/reproduce.py run --tables 3 --preset mini
python tools/reproduce.py run --tables 1a 3 --preset paper --gpus 8 --seeds 0 1 2 --work-dir work_dirs/paper
python tools/reproduce.py status --work-dir work_dirs/paper
python tools/reproduce.py report --work-dir work_dirs/paper
"""

import argparse
import os
from pathlib import Path

import mmdet_gfl  # noqa: F401  # isort: skip  before MMDetection

# Nothing here imports torch or MMDetection, which takes seconds: the commands do, once the command line is read.
from mmdet_gfl.benchmark import rows
from mmdet_gfl.benchmark.commands import add_run_arguments, check_arguments, exit_with, launcher_of, visible_gpus
from mmdet_gfl.engine.options import read_options


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, text in (
        ('list', "tables, rows, configs and the paper's AP"),
        ('run', 'train the rows that have no result yet'),
        ('status', 'what is done, in training, failed, or not begun'),
        ('report', 'Markdown, JSON and pictures of what was measured'),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument('--tables', nargs='+', metavar='TABLE', help='tables to include; default: all')
        command.add_argument('--rows', nargs='+', metavar='GLOB', help='patterns of config names to include, as atss/*')
        if name != 'list':
            command.add_argument(
                '--work-dir',
                type=Path,
                default=Path('work_dirs/reproduce'),
                help='folder of the runs; default: %(default)s',
            )
        if name in ('run', 'status'):
            seeds = [0] if name == 'run' else None
            command.add_argument(
                '--seeds',
                type=int,
                nargs='+',
                default=seeds,
                help='random seeds, one run each; default: 0; status: all that have a run',
            )
        if name == 'run':
            add_training_arguments(command)
            add_run_arguments(command)
    return parser.parse_args()


def add_training_arguments(command: argparse.ArgumentParser) -> None:
    """The options of ``run`` alone."""
    command.add_argument('--configs', nargs='+', default=[], help='configs to train beside those of the tables')
    command.add_argument(
        '--preset',
        choices=['mini', 'small', 'paper'],
        default='mini',
        help='paper: as the paper; small: ResNet-18 on a tenth of COCO; mini: ResNet-18 on the shapes',
    )
    command.add_argument('--train-images', type=int, help='training images of the mini preset')
    command.add_argument('--epochs', type=int, help='number of epochs of the mini preset')
    command.add_argument(
        '--mini', nargs='+', action='extend', metavar='SIZE=N', help='other sizes of the mini preset, as size=320'
    )
    command.add_argument(
        '--gpus', type=int, help='GPUs per row; default: 8 in preset paper (other numbers scale the lr), else 1'
    )
    command.add_argument(
        '--batch-size',
        type=int,
        help='images per GPU; default: paper: 2 (SSD 8, RTMDet 32), small: 16 over all GPUs; others scale the lr',
    )
    command.add_argument('--dry-run', action='store_true', help='say what would be trained, and for how long')
    command.add_argument('--quick', action='store_true', help='for --dry-run: time one row, not each')


def run(args: argparse.Namespace, configs: list[str]) -> int:
    """Trains, or says what it would."""
    import torch

    from mmdet_gfl.benchmark import dry_run, presets, running

    mini = read_options('--mini', args.mini or [])
    mini |= {k: v for k, v in (('train', args.train_images), ('epochs', args.epochs)) if v is not None}
    options = read_options('--cfg-options', args.cfg_options or [])
    devices = torch.cuda.device_count()
    where = -1 if args.launcher == 'slurm' else devices
    preset = presets.choose(args.preset, args.gpus, args.batch_size, mini, options, where, configs)
    launcher = launcher_of(args.launcher, preset.gpus, args.srun_args, visible_gpus(os.environ, devices))
    settings = (configs, args.seeds, args.work_dir, preset, launcher, args.jobs)
    if args.dry_run:
        return dry_run.dry_run(*settings, args.quick, lambda line: print(line, flush=True))
    return running.run_all(*settings)


def main() -> int:
    """Run the command and return the exit status."""
    args = parse_args()
    check_arguments(args)
    tables = rows.select(rows.read_tables(), args.tables, args.rows)
    if args.command == 'list':
        print(rows.listing(tables))
    elif args.command == 'run':
        configs = [rows.check_config(name) for name in args.configs]
        if args.tables or args.rows or not configs:
            configs = [*rows.configs_of(rows.trained_by(tables, args.preset, args.tables)), *configs]
        return run(args, list(dict.fromkeys(configs)))
    elif args.command == 'status':
        from mmdet_gfl.benchmark import progress, results

        configs = rows.configs_of(tables)
        if not args.tables and not args.rows:
            configs += results.found_configs(args.work_dir)  # those of --configs
        print(progress.status(list(dict.fromkeys(configs)), args.seeds, args.work_dir))
    else:
        from mmdet_gfl.benchmark import report

        print(report.write_report(tables, args.work_dir))
    return 0


if __name__ == '__main__':
    exit_with(main)
