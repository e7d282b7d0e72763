"""Train the rows of the paper's table 3 on your own config, and say what each brings: run, status, report.

python tools/ablate.py run my_config.py --estimate
python tools/ablate.py run my_config.py --rows baseline qfl gfl --seeds 0 1 2
python tools/ablate.py status my_config.py
python tools/ablate.py report my_config.py
"""

import argparse
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import mmdet_gfl  # noqa: F401  # isort: skip  before MMDetection

# Nothing here imports torch or MMDetection, which takes seconds: the commands do, once the command line is read.
from mmdet_gfl.benchmark.commands import add_run_arguments, check_arguments, exit_with, launcher_of, visible_gpus
from mmdet_gfl.engine.options import read_options


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, text in (
        ('run', 'train the rows that have no result yet'),
        ('status', 'runs that are done, in training, failed, or not begun'),
        ('report', 'Markdown, JSON and a picture of the rows beside the baseline'),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            'config',
            metavar='CONFIG',
            nargs=None if name == 'run' else '?',
            help='a path, or the name of a config that MMDetection ships'
            + ('' if name == 'run' else '; not needed with --work-dir'),
        )
        command.add_argument('--work-dir', type=Path, help='default: work_dirs/ablate/<name of the config>')
        if name == 'run':
            add_ablation_arguments(command)
            add_run_arguments(command)
        if name == 'report':
            command.add_argument(
                '--lower-is-better', action='store_true', help='the metric is better when lower; not needed for mMR'
            )
    args = parser.parse_args()
    if args.config is None and args.work_dir is None:
        parser.error(f'{args.command}: name the config, or its --work-dir')
    return args


def add_ablation_arguments(command: argparse.ArgumentParser) -> None:
    """The options of ``run`` alone."""
    command.add_argument('--rows', nargs='+', metavar='ROW', help='of baseline qfl dfl gfl gflv2; default: all')
    command.add_argument(
        '--row',
        action='append',
        default=[],
        metavar='NAME:quality=Q,box=B,box_weight=W',
        help='a row of your own; may be repeated',
    )
    command.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    command.add_argument('--epochs', type=int, help='number of epochs, for a quick look; the schedule is scaled to it')
    command.add_argument('--fraction', type=float, help='for a quick look: share of the training images, as 0.1')
    command.add_argument('--gpus', type=int, help='per row; default 1')
    command.add_argument('--dry-run', action='store_true', help='list rows, heads and folders, and train nothing')
    command.add_argument(
        '--estimate', action='store_true', help='the same with hours and disk, from a few iterations of each row'
    )


def run(args: argparse.Namespace, work_dir: Path) -> int:
    """Trains, or says what it would."""
    import torch

    from mmdet_gfl.benchmark import ablation, dry_run, running
    from mmdet_gfl.benchmark import work_dir as folder

    rows = ablation.choose_rows(args.rows, args.row)
    devices = torch.cuda.device_count()
    with redirect_stdout(sys.stderr):  # MMEngine logs to standard output
        plan = ablation.read_ablation(
            args.config,
            rows,
            args.gpus,
            read_options('--cfg-options', args.cfg_options or []),
            args.epochs,
            args.fraction,
            -1 if args.launcher == 'slurm' else devices,
        )
        repeated = plan.repeated()
    launcher = launcher_of(args.launcher, plan.gpus, args.srun_args, visible_gpus(os.environ, devices))
    folder.check_settings(work_dir, plan)
    print(ablation.listing(plan, args.seeds, work_dir), flush=True)
    if args.dry_run and not args.estimate:
        return 0
    configs = [plan.path_of(row.name) for row in rows if row.name not in repeated]
    settings = (configs, args.seeds, work_dir, plan, launcher, args.jobs)
    if args.estimate:
        return dry_run.dry_run(*settings, quick=False, log=lambda line: print(line, flush=True))
    folder.prepare(work_dir, plan, print)
    ablation.write_rows(plan, work_dir)
    return running.run_all(*settings)


def main() -> int:
    """Run the command and return the exit status."""
    args = parse_args()
    work_dir = args.work_dir or Path('work_dirs') / 'ablate' / Path(args.config).name.removesuffix('.py')
    check_arguments(args)
    if args.command == 'run':
        return run(args, work_dir)
    from mmdet_gfl.benchmark import ablation, ablation_report, progress

    if args.command == 'status':
        rows = ablation.read_rows(work_dir)
        print(progress.status([row['path'] for row in rows.values() if not row['same_as']], None, work_dir))
    else:
        print(ablation_report.write_report(work_dir, args.lower_is_better))
    return 0


if __name__ == '__main__':
    exit_with(main)
