"""Command lines and variables of a row's processes."""

import sys

import pytest

from mmdet_gfl.benchmark import commands
from mmdet_gfl.benchmark.commands import TOOLS, Launcher, environment, launcher_of
from mmdet_gfl.benchmark.rows import RowError


def test_the_tools_are_there():
    assert (TOOLS / 'train.py').is_file() and (TOOLS / 'test.py').is_file()


def test_command_lines():
    train = [str(TOOLS / 'train.py'), 'c.py', '--resume']
    assert Launcher('none', 1).command('train.py', ['c.py', '--resume'], 'row') == [sys.executable, '-u', *train]
    torchrun = [sys.executable, '-u', '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '4']
    assert Launcher('pytorch', 4).command('train.py', ['c.py', '--resume'], 'row') == [
        *torchrun, *train, '--launcher', 'pytorch'
    ]  # fmt: skip


@pytest.mark.parametrize('gpus, node', [(4, 4), (16, 8)])
def test_slurm(gpus, node):
    command = Launcher('slurm', gpus, ('-p', 'gpu', '--gres=gpu:v100:4')).command('train.py', ['c.py'], 'row-0')
    assert command[:4] == ['srun', '--job-name=row-0', f'--ntasks={gpus}', f'--ntasks-per-node={node}']
    assert command[4:6] == [f'--gres=gpu:{node}', '--cpus-per-task=5']
    assert command[6:10] == ['--kill-on-bad-exit=1', '-p', 'gpu', '--gres=gpu:v100:4']  # the last --gres counts
    assert command[10:] == [sys.executable, '-u', str(TOOLS / 'train.py'), 'c.py', '--launcher', 'slurm']


def test_the_launcher_of_a_command_line(tmp_path, monkeypatch):
    assert launcher_of(None, 1, None) == Launcher('none', 1)
    assert launcher_of(None, 8, None) == Launcher('pytorch', 8)
    assert launcher_of(None, 2, None, ['4', '7']) == Launcher('pytorch', 2, visible=('4', '7'))
    with pytest.raises(RowError, match='--launcher none starts one process, and --gpus is 8'):
        launcher_of('none', 8, None)
    with pytest.raises(RowError, match='--srun-args are for --launcher slurm'):
        launcher_of('pytorch', 8, '-p gpu')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(RowError, match='no srun on PATH'):
        launcher_of('slurm', 8, None)
    (tmp_path / 'srun').write_text('')
    (tmp_path / 'srun').chmod(0o755)
    monkeypatch.setenv('SRUN_ARGS', "-p gpu --comment 'two words'")
    assert launcher_of('slurm', 8, None) == Launcher('slurm', 8, ('-p', 'gpu', '--comment', 'two words'))
    assert launcher_of('slurm', 8, '-A me') == Launcher('slurm', 8, ('-A', 'me'))
    with pytest.raises(RowError, match='not a command line'):
        launcher_of('slurm', 8, "-p 'gpu")


def test_gpus_are_shared_out():
    four = ['0', '1', '2', '3']
    assert [commands.gpus_of_slot(slot, 2, four) for slot in range(2)] == [['0', '1'], ['2', '3']]
    assert [commands.gpus_of_slot(slot, 1, ['4', '7']) for slot in range(3)] == [['4'], ['7'], ['4']]
    assert [commands.gpus_of_slot(slot, 1, ['0']) for slot in range(2)] == [['0'], ['0']]
    assert environment(Launcher('none', 1, visible=tuple(four)), 2, 3, 'row')['CUDA_VISIBLE_DEVICES'] == '2'
    assert commands.visible_gpus({}, 2) == ['0', '1']
    assert commands.visible_gpus({'CUDA_VISIBLE_DEVICES': '5,GPU-ab'}, 2) == ['5', 'GPU-ab']
    assert commands.visible_gpus({'CUDA_VISIBLE_DEVICES': ''}, 0) == []


def test_cores_are_shared_out_unless_the_user_has():
    assert commands.threads({}, 16, 4) == {'OMP_NUM_THREADS': '4'}
    assert commands.threads({}, 2, 4) == {'OMP_NUM_THREADS': '1'}
    assert commands.threads({'OMP_NUM_THREADS': '3'}, 16, 4) == {}


def test_jobs_on_a_node_have_ports_of_their_own():
    launcher = Launcher('slurm', 8, visible=('0',))
    ports = {environment(launcher, 0, 1, f'row, seed {seed}')['MASTER_PORT'] for seed in range(3)}
    assert len(ports) == 3 and all(20_000 <= int(port) < 30_000 for port in ports)
    assert 'CUDA_VISIBLE_DEVICES' not in environment(launcher, 0, 1, 'row')
