"""Command lines: of ``reproduce.py`` and ``ablate.py``, and of a row under torchrun, under Slurm, or alone.

Nothing here needs torch or a config.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mmdet_gfl.engine.options import CFG_OPTIONS_HELP, check_options
from mmdet_gfl.engine.processes import cores

from .rows import RowError

TOOLS = Path(__file__).parents[1] / '.mim' / 'tools'
#: GPUs of a node under Slurm, unless ``--srun-args`` say otherwise.
NODE_GPUS = 8
#: Options that are whole numbers, and the least of them.
LEAST = dict(seeds=0, jobs=1, gpus=1, batch_size=1, train_images=1, epochs=1)


@dataclass(frozen=True)
class Launcher:
    """Launcher of a row's processes.

    Attributes:
        kind: ``'none'`` (one process), ``'pytorch'`` (torchrun on this machine) or ``'slurm'`` (srun).
        gpus: Processes, one per GPU.
        srun_args: Put behind our own arguments of srun, so that they win.
        visible: GPUs of this machine as ``CUDA_VISIBLE_DEVICES`` names them.
    """

    kind: str
    gpus: int
    srun_args: tuple[str, ...] = ()
    visible: tuple[str, ...] = ()

    def command(self, tool: str, arguments: Sequence[str], name: str) -> list[str]:
        """The command line that runs ``tools/<tool>`` with these arguments; ``name`` is what squeue shows."""
        python = [sys.executable, '-u']
        script = [str(TOOLS / tool), *arguments]
        if self.kind == 'none':
            return [*python, *script]
        script += ['--launcher', self.kind]
        if self.kind == 'pytorch':  # standalone: a free port of its own, so several rows can run side by side
            torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(self.gpus)]
            return [*python, *torchrun, *script]
        node = min(self.gpus, NODE_GPUS)
        srun = ['srun', f'--job-name={name}', f'--ntasks={self.gpus}', f'--ntasks-per-node={node}']
        srun += [f'--gres=gpu:{node}', '--cpus-per-task=5', '--kill-on-bad-exit=1']
        return [*srun, *self.srun_args, *python, *script]


def launcher_of(kind: str | None, gpus: int, srun_args: str | None, visible: Sequence[str] = ()) -> Launcher:
    """The launcher of a command line; without a kind, torchrun where a row has several GPUs.

    Raises:
        RowError: One process cannot have several GPUs, srun is not there, or its arguments are not a command line.
    """
    kind = kind or ('pytorch' if gpus > 1 else 'none')
    if kind == 'none' and gpus > 1:
        raise RowError(f'--launcher none starts one process, and --gpus is {gpus}; take --launcher pytorch, or slurm')
    if kind != 'slurm':
        if srun_args is not None:
            raise RowError(f'--srun-args are for --launcher slurm, and this is --launcher {kind}')
        return Launcher(kind, gpus, visible=tuple(visible))
    if not any(os.access(Path(folder) / 'srun', os.X_OK) for folder in os.get_exec_path()):
        raise RowError('--launcher slurm: there is no srun on PATH; start this on a login node, or leave it out')
    try:
        extra = shlex.split(os.environ.get('SRUN_ARGS', '') if srun_args is None else srun_args)
    except ValueError as error:
        raise RowError(f'--srun-args {srun_args!r} is not a command line: {error}') from error
    return Launcher(kind, gpus, tuple(extra))


def gpus_of_slot(slot: int, gpus: int, visible: Sequence[str]) -> list[str]:
    """The GPUs of the job in this place; disjoint ones as long as there are enough, then round again."""
    return [visible[(slot * gpus + index) % len(visible)] for index in range(gpus)]


def environment(launcher: Launcher, slot: int, jobs: int, name: str) -> dict[str, str]:
    """Variables of a row's processes beside those of this one.

    Args:
        launcher: What starts them.
        slot: Place of the job among those that run side by side, from 0.
        jobs: How many run side by side.
        name: Of the row; decides the port under Slurm, where jobs may meet on a node.
    """
    found = {'CUBLAS_WORKSPACE_CONFIG': ':4096:8', 'PYTHONUNBUFFERED': '1'}  # the first: repeatable products on GPUs
    if launcher.kind == 'slurm':
        return {**found, 'MASTER_PORT': str(20_000 + zlib.crc32(name.encode()) % 10_000)}
    if launcher.visible:
        return {**found, 'CUDA_VISIBLE_DEVICES': ','.join(gpus_of_slot(slot, launcher.gpus, launcher.visible))}
    return {**found, **threads(os.environ, cores(), jobs * launcher.gpus)}


def threads(env: Mapping[str, str], cores: int, processes: int) -> dict[str, str]:
    """The cores shared out to the processes, unless the user has said how many threads each takes."""
    return {} if 'OMP_NUM_THREADS' in env else {'OMP_NUM_THREADS': str(max(1, cores // processes))}


def visible_gpus(env: Mapping[str, str], count: int) -> list[str]:
    """Names of this machine's GPUs, of which torch sees ``count``."""
    named = env.get('CUDA_VISIBLE_DEVICES', '').split(',') if env.get('CUDA_VISIBLE_DEVICES') else []
    return named[:count] if named else [str(index) for index in range(count)]


def add_run_arguments(command: argparse.ArgumentParser) -> None:
    """The options of ``run`` that both programs have."""
    command.add_argument(
        '--jobs', type=int, default=1, help='number of rows that train at the same time; default: %(default)s'
    )
    command.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        help='job launcher; default: torchrun (pytorch) where a row has several GPUs',
    )
    command.add_argument('--srun-args', help='for --launcher slurm, as "-p gpu -t 24:00:00"; default: $SRUN_ARGS')
    command.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise for numbers out of range, seeds given twice, and options that are not ``KEY=VALUE``.

    A command need not have all of them.

    Raises:
        RowError: Names the option, its value and what is accepted.
        UserError: As :func:`~mmdet_gfl.engine.options.check_options`.
    """
    for name, least in LEAST.items():
        given = getattr(args, name, None)
        for number in given if isinstance(given, list) else [given]:
            if number is not None and number < least:
                raise RowError(f'--{name.replace("_", "-")} {number}: give an integer from {least} up')
    seeds = getattr(args, 'seeds', None) or []
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise RowError(f'--seeds: {seed} is given {seeds.count(seed)} times; each seed counts once')
    for name in ('mini', 'cfg_options'):
        check_options(f'--{name.replace("_", "-")}', getattr(args, name, None) or [])


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a tool and exit with its status: 2 for a :class:`RowError`, 130 for Ctrl-C; a reader, as ``head``, may go."""
    status = 0
    try:
        try:
            status = main()
        except RowError as error:
            print(f'error: {error}', file=sys.stderr)
            status = 2
        except KeyboardInterrupt:  # while torch and MMDetection are imported
            print('stopped; the same command resumes', file=sys.stderr)
            status = 130
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at its end
    sys.exit(status)
