"""dist_*.sh and slurm_*.sh: two nodes, two processes, a Slurm job, on CPUs; a stand-in for srun starts the tasks."""

import contextlib
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mmdet_gfl.benchmark.mini import Mini, shrink

MINI = Mini(size=64, train=8, val=5, epochs=1, batch_size=2, channels=32, stacked_convs=1)
#: Starts the tasks of a job on this machine, as Slurm does on its nodes, and writes down its own arguments.
SRUN = f"""#!{sys.executable}
import json, os, subprocess, sys
arguments = sys.argv[1:]
command = arguments[next(i for i, word in enumerate(arguments) if word == os.environ['PYTHON']):]
options = arguments[:-len(command)]
json.dump(dict(options=options, command=command), open(os.environ['SRUN_LOG'], 'w'))
tasks = int(next(word for word in options if word.startswith('--ntasks=')).partition('=')[2])
if os.environ.get('SRUN_START') == 'no':
    sys.exit(7)
started = [
    subprocess.Popen(command, env=dict(os.environ, SLURM_PROCID=str(i), SLURM_LOCALID=str(i), SLURM_NTASKS=str(tasks)))
    for i in range(tasks)
]
sys.exit(max(task.wait() for task in started))
"""
SCONTROL = '#!/bin/sh\n[ "$*" = "show hostnames localhost" ] && echo localhost\n'


@pytest.fixture(scope='module', autouse=True)
def _python(warm_python):
    """Python interpreter of the scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHON', warm_python)
        yield


@pytest.fixture(scope='module')
def place(root, tmp_path_factory):
    """A folder with a tiny config for the shapes, and the stand-ins for Slurm's programs."""
    from mmengine.config import Config

    place = tmp_path_factory.mktemp('dist')
    shipped = Config.fromfile(root / 'configs' / 'gfl' / 'gfl_r50_fpn_1x_coco.py')
    small = shrink(shipped, MINI)
    small.model.backbone.base_channels = 4
    small.model.neck.in_channels = [8, 16, 32]
    small.model.bbox_head.norm_cfg = dict(type='GN', num_groups=4)  # one image's coarsest level has one cell
    small.model.test_cfg.score_thr = 0.0
    small.model.test_cfg.nms.iou_threshold = 0.9  # many detections to compare
    small.dump(place / 'tiny.py')
    (place / 'bin').mkdir()
    for name, text in dict(srun=SRUN, scontrol=SCONTROL).items():
        (place / 'bin' / name).write_text(text)
        (place / 'bin' / name).chmod(0o755)
    return place


def free_port():
    """A port that is free, and not one of those that systems give to connections: seconds pass until it is taken."""
    while True:
        port = random.SystemRandom().randrange(20000, 32768)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(('127.0.0.1', port))
            return str(port)


def start(root, place, script, *arguments, **variables):
    """A script of ``tools/`` in a folder that is not the checkout."""
    env = {key: value for key, value in os.environ.items() if key not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')}
    env.update(OMP_NUM_THREADS='1', PATH=f'{place / "bin"}:{os.environ["PATH"]}')
    return subprocess.Popen(
        ['bash', root / 'tools' / script, *map(str, arguments)],
        cwd=place,
        env=env | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    """Their output. One that fails would leave the others waiting for it: they are ended then."""
    with ThreadPoolExecutor(len(processes)) as pool:
        talks = [pool.submit(process.communicate) for process in processes]
        while not all(talk.done() for talk in talks) and not any(process.returncode for process in processes):
            time.sleep(0.1)
        for process in processes:
            process.terminate()
    outputs = [talk.result()[0] for talk in talks]
    for process, output in sorted(zip(processes, outputs), key=lambda pair: pair[0].returncode < 0):  # the killed last
        assert process.returncode == 0, output[-3000:]
    return outputs


def detections(file):
    with open(file, 'rb') as stream:
        return {image['img_id']: image['pred_instances'] for image in pickle.load(stream)}


@pytest.fixture(scope='module')
def trained(root, place):
    """The work dir of a training on two nodes of one process each, and what it said."""
    port = free_port()
    nodes = [
        start(root, place, 'dist_train.sh', 'tiny.py', 1, '--work-dir', 'work', NNODES='2', NODE_RANK=node, PORT=port)
        for node in '01'
    ]
    return place / 'work', finish(*nodes)


needs_cpus = pytest.mark.skipif(torch.cuda.is_available(), reason='the scripts would take the GPUs')


@needs_cpus
@pytest.mark.slow
def test_two_nodes_train(trained):
    work, (first, second) = trained
    assert 'training on 2 x CPU' in first and 'effective batch size 4' in first
    assert 'training on' not in second
    last = torch.load(work / 'epoch_1.pth', weights_only=False)
    assert last['meta']['iter'] == 2  # 8 images, four a step
    assert 'bbox_mAP' in first


@needs_cpus
@pytest.mark.slow
def test_two_processes_resume_where_two_nodes_stopped(root, place, trained, tmp_path):
    options = ('--resume', trained[0] / 'epoch_1.pth', '--cfg-options', 'train_cfg.max_epochs=2')
    arguments = ('tiny.py', 2, '--work-dir', tmp_path / 'on', *options)
    (said,) = finish(start(root, place, 'dist_train.sh', *arguments, PORT=free_port()))
    assert 'training on 2 x CPU' in said and 'resumed epoch: 1' in said
    assert torch.load(tmp_path / 'on' / 'epoch_2.pth', weights_only=False)['meta']['iter'] == 4


@needs_cpus
@pytest.mark.slow
def test_a_slurm_job_tests_what_one_process_tests(root, place, trained):
    common = ('tiny.py', trained[0] / 'epoch_1.pth')
    slurm = dict(SRUN_LOG=str(place / 'srun.json'), SLURM_NODELIST='localhost', MASTER_PORT=free_port(), GPUS='2')
    _, said = finish(
        start(root, place, 'dist_test.sh', *common, 1, '--out', 'one.pkl', '--work-dir', 'one', PORT=free_port()),
        start(root, place, 'slurm_test.sh', 'part', 'job', *common, '--out', 'two.pkl', '--work-dir', 'two', **slurm),
    )
    assert 'testing on 2 x CPU' in said and 'bbox_mAP' in said
    one, two = detections(place / 'one.pkl'), detections(place / 'two.pkl')
    assert len(one) == MINI.val and all(len(image['scores']) > 0 for image in one.values())
    assert two.keys() == one.keys()  # five images on two processes, none twice
    for key, image in one.items():
        torch.testing.assert_close(two[key]['scores'], image['scores'])
        torch.testing.assert_close(two[key]['bboxes'], image['bboxes'])


def gradients(work):
    """State of the optimizer after the first step of a training, by the parameters' numbers."""
    states = torch.load(work / 'epoch_1.pth', weights_only=False)['optimizer']['state']
    return {number: state['momentum_buffer'] for number, state in states.items()}


@needs_cpus
@pytest.mark.slow
def test_two_processes_of_torchrun_take_the_step_of_one(root, place, tmp_path):
    # Two images of one size, not flipped, no statistics of a batch; and classes so likely that the weights of the boxes
    # sum up to more than 1.
    from mmengine.config import Config

    cfg = Config.fromfile(place / 'tiny.py')
    cfg.train_dataloader.update(sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.train_dataloader.dataset.indices = 2
    cfg.train_dataloader.dataset.pipeline = [
        transform for transform in cfg.train_dataloader.dataset.pipeline if transform.type != 'RandomFlip'
    ]
    cfg.model.backbone.norm_eval = True
    classes = dict(type='Normal', name='gfl_cls', std=0.01, bias_prob=0.4)
    cfg.model.bbox_head.init_cfg = dict(type='Normal', layer='Conv2d', std=0.01, override=classes)
    # The momentum after one step is the gradient
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
    cfg.dump(tmp_path / 'step.py')
    finish(
        *(
            start(
                *(root, place, 'dist_train.sh', tmp_path / 'step.py', count, '--work-dir', tmp_path / str(count)),
                *('--cfg-options', f'train_dataloader.batch_size={2 // count}'),
                PORT=free_port(),
            )
            for count in (1, 2)
        )
    )
    one, two = gradients(tmp_path / '1'), gradients(tmp_path / '2')
    assert one.keys() == two.keys()
    assert sum(gradient.abs().max() > 1e-4 for gradient in one.values()) > 50
    for number, gradient in one.items():
        limit = max(1e-4 * gradient.abs().max().item(), 1e-8)
        torch.testing.assert_close(two[number], gradient, rtol=0, atol=limit)


def children(pid):
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def status(pid, field):
    """A line of what the system says of a process."""
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return next(line.partition(':')[2].strip() for line in lines if line.startswith(f'{field}:'))


@needs_cpus
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere a process is not told of the end of its parent')
def test_processes_end_with_a_torchrun_that_is_killed(root, place, tmp_path):
    options = ('--work-dir', tmp_path / 'work', '--cfg-options', 'train_cfg.max_epochs=1000')
    torchrun = start(root, place, 'dist_train.sh', 'tiny.py', 2, *options, PORT=free_port(), PYTHON=sys.executable)
    while 'Epoch(train)' not in (line := torchrun.stdout.readline()):
        assert line, 'it ended before its first epoch'
    ranks = children(torchrun.pid)
    try:
        for rank in ranks:  # one alone would also end where it waits for the other, which is gone
            os.kill(rank, signal.SIGSTOP)
            while not status(rank, 'State').startswith('T'):
                time.sleep(0.01)
        torchrun.kill()
        torchrun.wait()
        pending = [int(status(rank, 'ShdPnd'), 16) for rank in ranks]
        assert [signals >> (signal.SIGTERM - 1) & 1 for signals in pending] == [1, 1]
        for rank in ranks:
            os.kill(rank, signal.SIGCONT)
        torchrun.communicate()  # ends when no process holds the pipe any more
    finally:
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)


# What the scripts ask of srun and torchrun --------------------------------------------------------------------------


def asked_of_srun(root, place, script, *arguments, **variables):
    log = place / 'asked.json'
    process = start(root, place, script, *arguments, SRUN_LOG=str(log), SRUN_START='no', **variables)
    output, _ = process.communicate()
    assert process.returncode == 7, output  # what srun ends with, the script ends with
    asked = json.loads(log.read_text())
    return asked['options'], asked['command']


def test_slurm_train_asks_for_eight_gpus_on_one_node(root, place):
    options, command = asked_of_srun(
        root, place, 'slurm_train.sh', 'part', 'my job', 'a b.py', 'out', '--cfg-options', 'x="[1, 2]"'
    )
    assert options == [
        *('-p', 'part', '--job-name=my job', '--gres=gpu:8', '--ntasks=8', '--ntasks-per-node=8'),
        *('--cpus-per-task=5', '--kill-on-bad-exit=1'),
    ]
    tool = str(root / 'tools' / 'train.py')
    train = [os.environ['PYTHON'], '-u', tool, 'a b.py', '--work-dir=out', '--launcher=slurm']
    assert command == [*train, '--cfg-options', 'x="[1, 2]"']


@pytest.mark.parametrize(
    'variables, words',
    [
        (dict(GPUS='4'), ['--gres=gpu:4', '--ntasks=4', '--ntasks-per-node=4']),
        (dict(GPUS='16'), ['--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8']),
        (dict(GPUS='16', GPUS_PER_NODE='4'), ['--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4']),
        (dict(CPUS_PER_TASK='3'), ['--cpus-per-task=3']),
        (dict(SRUN_ARGS='--time=1:00:00  --qos=low'), ['--time=1:00:00', '--qos=low']),
    ],
    ids=str,
)
def test_slurm_test_reads_the_environment(root, place, variables, words):
    options, command = asked_of_srun(root, place, 'slurm_test.sh', 'part', 'job', 'a.py', 'a.pth', '--tta', **variables)
    assert set(words) <= set(options)
    assert command[2:] == [str(root / 'tools' / 'test.py'), 'a.py', 'a.pth', '--launcher=slurm', '--tta']


def test_dist_scripts_read_the_environment(root, place, tmp_path):
    (tmp_path / 'python').write_text('#!/bin/sh\nprintf "%s\\n" "$PYTHONPATH" "$@"\n')
    (tmp_path / 'python').chmod(0o755)
    variables = dict(NNODES='3', NODE_RANK='2', PORT='1', MASTER_ADDR='node0', PYTHONPATH='/mine')
    arguments = ('a b.py', 'a.pth', 4, '--cfg-options', 'x="[1, 2]"')
    (said,) = finish(start(root, place, 'dist_test.sh', *arguments, PYTHON=str(tmp_path / 'python'), **variables))
    python_path, *words = said.splitlines()
    assert python_path == f'{root}:/mine'
    assert words == [
        *('-m', 'torch.distributed.run', '--nproc_per_node=4', '--nnodes=3', '--node_rank=2', '--master_addr=node0'),
        *('--master_port=1', str(root / 'tools' / 'test.py'), 'a b.py', 'a.pth', '--launcher', 'pytorch'),
        *('--cfg-options', 'x="[1, 2]"'),
    ]


@pytest.mark.parametrize(
    'script, arguments, words',
    [
        ('dist_train.sh', ['a.py'], 'bash tools/dist_train.sh CONFIG GPUS'),
        ('dist_test.sh', ['a.py', 'a.pth'], 'bash tools/dist_test.sh CONFIG CHECKPOINT GPUS'),
        ('slurm_train.sh', ['part', 'job', 'a.py'], 'bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR'),
        ('slurm_test.sh', ['--help'], 'bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT'),
        ('dist_train.sh', ['a.py', '--amp'], "error: GPUS must be a number of processes, from 1 up, and is '--amp'"),
        ('dist_test.sh', ['a.py', 'a.pth', '0'], "error: GPUS must be a number of processes, from 1 up, and is '0'"),
    ],
)
def test_wrong_arguments_are_answered(root, place, script, arguments, words):
    process = start(root, place, script, *arguments)
    output, _ = process.communicate()
    assert process.returncode == 2 and words in output and 'Traceback' not in output


def test_without_slurm_the_error_names_the_way_out(root, place, tmp_path):
    for name in ('bash', 'dirname'):
        os.symlink(Path('/usr/bin') / name, tmp_path / name)
    process = start(root, place, 'slurm_test.sh', 'part', 'job', 'a.py', 'a.pth', PATH=str(tmp_path))
    output, _ = process.communicate()
    assert process.returncode == 2
    assert output.strip() == 'error: there is no srun here: this is not a Slurm cluster; tools/dist_test.sh needs none'
