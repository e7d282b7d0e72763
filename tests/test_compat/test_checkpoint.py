"""Checkpoints: MMEngine's own load in the safe mode, those that want to run code do not, damage is named."""

import collections
import logging
import os
import pickle
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmdet_gfl.compat import checkpoint
from mmdet_gfl.compat.checkpoint import (
    DamagedCheckpointError,
    UnsafeCheckpointError,
    allow_unsafe_checkpoints,
    check_checkpoint,
    install_checkpoint_support,
    load_from_local,
)

VARIABLE = 'MMDET_GFL_ALLOW_UNSAFE_CHECKPOINT'
needs_safe_mode = pytest.mark.skipif(
    not checkpoint.HAS_SAFE_MODE, reason='torch < 2.6 loads checkpoints in full and says so'
)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    install_checkpoint_support()


def save(path, content, **kwargs):
    torch.save(content, path, **kwargs)
    return str(path)


class Reduced:
    """Pickles as the call of a function, with a state to set afterwards if one is given."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class Line(BaseModel):
    """y = w x: the smallest model that MMEngine's Runner trains."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, y, mode):
        error = (self.layer(x) - y).square().mean()
        return dict(loss=error) if mode == 'loss' else [error]


class MeanError(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(float(data_samples[0]))

    def compute_metrics(self, results):
        return dict(error=np.float64(np.mean(results)))


def make_runner(work_dir, max_epochs, **kwargs):
    data = [(torch.tensor([float(i)]), torch.tensor([2.0 * i])) for i in range(4)]
    loader = dict(
        dataset=data,
        sampler=dict(type='DefaultSampler', shuffle=False),
        batch_size=2,
        collate_fn=dict(type='default_collate'),
    )
    return Runner(
        Line(),
        str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        val_cfg=dict(),
        val_evaluator=Evaluator(MeanError(prefix='line')),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='line/error', rule='less')),
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}_{max_epochs}_{len(kwargs)}',
        **kwargs,
    )


def test_a_training_run_resumes_safely(tmp_path):
    make_runner(tmp_path, 1).train()
    path = str(tmp_path / 'epoch_1.pth')
    assert b'getattr' in Path(path).read_bytes()
    check_checkpoint(path)
    runner = make_runner(tmp_path, 2, resume=True)
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 4)
    history = load_from_local(str(tmp_path / 'epoch_2.pth'))['message_hub']['log_scalars']['train/loss']
    assert len(history.data[0]) == 4  # two iterations of each run
    assert history.statistics('mean', 4) == history.mean(4)


def test_history_buffer_survives(tmp_path):
    history = HistoryBuffer([1.5, 2.5], [1, 3])
    path = save(tmp_path / 'a.pth', dict(history=history, methods=[HistoryBuffer.max, HistoryBuffer.current]))
    loaded = load_from_local(path)
    assert [array.tolist() for array in loaded['history'].data] == [[1.5, 2.5], [1, 3]]
    assert loaded['methods'] == [HistoryBuffer.max, HistoryBuffer.current]
    assert loaded['history'].max_length == 1000000
    assert torch.load(path)['history'].mean() == 1.0  # as MMEngine's loaders for URLs call it


@pytest.mark.parametrize('code', '?bhilBHILefdFD')
def test_arrays_and_scalars_of_all_number_types(tmp_path, code):
    dtype = np.dtype(code)
    arrays = [
        np.arange(6).reshape(2, 3).astype(dtype),
        np.asfortranarray(np.ones((2, 2), dtype)),
        np.zeros((0, 3), dtype),
    ]
    scalar = dtype.type(1)
    loaded = load_from_local(save(tmp_path / 'a.pth', dict(arrays=arrays, scalar=scalar)))
    for array, expected in zip(loaded['arrays'], arrays, strict=True):
        assert type(array) is np.ndarray and array.dtype == dtype
        np.testing.assert_array_equal(array, expected)
    assert loaded['scalar'] == scalar and type(loaded['scalar']) is type(scalar)


def test_names_of_numpy_1(tmp_path):
    """A pickle as numpy 1 writes it differs by the module's name, here put in place of the one of numpy 2."""
    path = save(
        tmp_path / 'a.pth', dict(array=np.arange(3.0), scalar=np.float32(0.5)), _use_new_zipfile_serialization=False
    )
    content = Path(path).read_bytes()
    content = content.replace(b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n')
    assert b'cnumpy.core.multiarray\n' in content
    Path(path).write_bytes(content)
    loaded = load_from_local(path)
    assert loaded['array'].tolist() == [0, 1, 2] and loaded['scalar'] == 0.5


@pytest.mark.parametrize('options', [{}, dict(_use_new_zipfile_serialization=False)], ids=['zip', 'legacy'])
def test_bare_state_dicts(tmp_path, options, monkeypatch):
    layer = torch.nn.Linear(2, 3)
    path = save(tmp_path / 'a.pth', layer.state_dict(), **options)
    check_checkpoint(path)
    other = torch.nn.Linear(2, 3)
    load_checkpoint(other, path, map_location='cpu')
    assert torch.equal(other.weight, layer.weight)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert torch.equal(load_from_local('~/a.pth', 'cpu')['bias'], layer.bias)
    assert load_from_local(path, 'meta')['bias'].is_meta


@needs_safe_mode
def test_torch_itself_loads_behind_an_import_of_mmengine(tmp_path):
    """As MMDetection's ``publish_model.py`` does, which imports torch first."""
    path = save(tmp_path / 'a.pth', dict(history=HistoryBuffer([1.0], [1])))
    for imports in ('mmdet_gfl, torch, mmengine.logging', 'torch, mmengine.logging, mmdet_gfl'):
        code = f'import {imports}; torch.load({path!r})'
        subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)


def test_mmengine_uses_the_loader():
    assert CheckpointLoader._get_checkpoint_loader('work_dirs/epoch_1.pth') is load_from_local
    assert CheckpointLoader._get_checkpoint_loader('https://x.org/a.pth') is not load_from_local


@needs_safe_mode
def test_installing_again_changes_nothing():
    before = torch.serialization.get_safe_globals()
    install_checkpoint_support()
    assert len(torch.serialization.get_safe_globals()) == len(before)


def system(path):
    return Reduced(os.system, (f'touch {path}',))


def foreign(name, path):
    """Things that a checkpoint may hold to run code, or to get at memory, with the name the refusal has to show."""
    object_array = np.empty(1, object)
    object_array[0] = system(path)
    history = HistoryBuffer([1.0], [1])
    history.max_length = system(path)
    lying_state = (3, '<', None, ('a',), {'a': (np.dtype('O'), 0)}, 8, 8, 63)
    return {
        'system': (system(path), 'posix.system'),
        'eval': (Reduced(eval, (f'open({str(path)!r}, "w")',)), 'eval'),
        'in a history': (history, 'posix.system'),
        'in an object array': (object_array, 'numpy.dtype'),
        'getattr of another class': (Reduced(getattr, (collections.OrderedDict, 'fromkeys')), 'builtins.getattr'),
        'another attribute': (Reduced(getattr, (HistoryBuffer, '__init__')), 'builtins.getattr'),
        'globals of a method': (Reduced(getattr, (HistoryBuffer.mean, '__globals__')), 'builtins.getattr'),
        'getattr with a default': (Reduced(getattr, (HistoryBuffer, 'x', print)), 'print'),
        'call of a method': (Reduced(HistoryBuffer.register_statistics, (HistoryBuffer.mean,)), 'builtins.getattr'),
        'objects from bytes': (Reduced(np.ndarray, ((1,), 'O', b'A' * 8)), 'numpy.ndarray'),
        'dtype of objects': (np.dtype('O'), 'numpy.dtype'),
        'structured dtype': (np.dtype([('a', 'O')]), 'numpy.dtype'),
        'lying dtype': (Reduced(np.dtype, ('V8', False, True), lying_state), 'numpy.dtype'),
        'dtype class': (Reduced(np.dtypes.Float64DType, ()), 'numpy.dtypes.Float64DType'),
        'memmap': (Reduced(np.zeros(0).__reduce__()[0], (np.memmap, (0,), b'b')), 'numpy.memmap'),
        'numpy load': (Reduced(np.load, ('x.npy', None, True)), 'numpy.load'),
    }[name]


FOREIGN = [
    'system', 'eval', 'in a history', 'in an object array', 'getattr of another class', 'another attribute',
    'globals of a method', 'getattr with a default', 'call of a method', 'objects from bytes', 'dtype of objects',
    'structured dtype', 'lying dtype', 'dtype class', 'memmap', 'numpy load',
]  # fmt: skip


@needs_safe_mode
@pytest.mark.parametrize('name', FOREIGN)
@pytest.mark.parametrize(
    'load, zipped', [*product((load_from_local, torch.load), (True, False)), (check_checkpoint, True)]
)
def test_foreign_files_are_refused_and_run_nothing(tmp_path, name, load, zipped):
    content, refused = foreign(name, tmp_path / 'ran')
    content = dict(state_dict={}, extra=[content])
    path = save(tmp_path / 'foreign.pth', content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError if load is torch.load else UnsafeCheckpointError) as caught:
        load(path)
    assert refused in str(caught.value)
    assert not (tmp_path / 'ran').exists()
    if load is not torch.load:
        assert f"{path} is refused, for it asks for '{refused}'" in str(caught.value)
        assert '--allow-unsafe-checkpoint' in str(caught.value) and f'{VARIABLE}=1' in str(caught.value)


@needs_safe_mode
def test_state_of_a_dtype_is_not_believed(tmp_path):
    """numpy takes this state for a float64 that holds objects; arrays of it would point anywhere."""
    state = (3, '<', None, ('a',), {'a': (1, 0)}, 8, 8, 63)
    lying = Reduced(np.dtype, ('f8', False, True), state)
    loaded = load_from_local(save(tmp_path / 'a.pth', dict(dtype=lying)))['dtype']
    assert loaded is np.dtype('f8')
    assert not loaded.hasobject and loaded.fields is None


def test_classes_that_may_be_filled_cannot_be_named():
    """A file asks for 'module.name', so a name without a dot is out of its reach."""
    names = {entry[1]: entry[0] for entry in checkpoint._safe_globals() if isinstance(entry, tuple)}
    reachable = [value for name, value in names.items() if '.' in name]
    assert not any(isinstance(value, type) for value in reachable)
    assert getattr not in reachable and np.ndarray in names.values()


@needs_safe_mode
def test_allowed_in_full_with_one_warning(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(checkpoint, 'print_log', lambda text, logger, level: messages.append((level, text)))
    ran = tmp_path / 'ran'
    path = save(tmp_path / 'foreign.pth', dict(state_dict={}, extra=system(ran)))
    monkeypatch.setenv(VARIABLE, '0')
    with pytest.raises(UnsafeCheckpointError):
        load_from_local(path)
    allow_unsafe_checkpoints()
    assert os.environ[VARIABLE] == '1'
    check_checkpoint(path)
    assert not ran.exists() and not messages
    assert load_from_local(path)['extra'] == 0
    assert ran.exists()
    ((level, text),) = messages
    assert level == logging.WARNING and path in text and 'posix.system' in text
    assert '\n' not in text


@needs_safe_mode
def test_allowing_changes_nothing_for_safe_files(tmp_path, monkeypatch):
    allowed = []
    monkeypatch.setattr(checkpoint.torch, 'load', lambda *args, **kwargs: allowed.append(kwargs['weights_only']))
    monkeypatch.setenv(VARIABLE, '1')
    load_from_local(save(tmp_path / 'a.pth', {}))
    assert allowed == [True]


@needs_safe_mode
def test_a_pickle_protocol_that_the_safe_mode_cannot_read(tmp_path, monkeypatch):
    path = save(tmp_path / 'a.pth', dict(a=torch.ones(2), text='x' * 300), pickle_protocol=4)
    with (
        pytest.warns(UserWarning, match='protocol 4'),
        pytest.raises(UnsafeCheckpointError, match='cannot read it .*149'),
    ):
        load_from_local(path)
    monkeypatch.setenv(VARIABLE, '1')
    with pytest.warns(UserWarning, match='protocol 4'):
        assert load_from_local(path)['a'].tolist() == [1, 1]


@needs_safe_mode
def test_torchscript(tmp_path):
    path = str(tmp_path / 'script.pth')
    traced = torch.jit.trace(torch.nn.Identity(), torch.ones(1))
    traced.save(path)
    with pytest.warns(UserWarning), pytest.raises(UnsafeCheckpointError, match='TorchScript'):
        load_from_local(path)


@pytest.mark.parametrize('load', [load_from_local, check_checkpoint])
def test_missing_files(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=f'no checkpoint at {re.escape(str(tmp_path))}/epoch_12.pth'):
        load(f'{tmp_path}/epoch_12.pth')
    with pytest.raises(FileNotFoundError, match='is a directory'):
        load(str(tmp_path))


@pytest.mark.parametrize('load', [load_from_local, check_checkpoint])
@pytest.mark.parametrize('allowed', ['0', '1'])
@pytest.mark.parametrize(
    'content, reason',
    [
        (b'', 'is an empty file'),
        (b'<html>404 Not Found</html>', 'not a checkpoint of torch.save'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'not a checkpoint of torch.save'),
        (pickle.dumps(dict(a=1)), 'not a checkpoint of torch.save'),
        (pickle.dumps(Reduced(os.system, ('exit 1',))), 'not a checkpoint of torch.save'),
        (b'PK\x03\x04' + bytes(100), 'not a checkpoint of torch.save'),
    ],
)
def test_files_that_are_not_checkpoints(tmp_path, monkeypatch, load, allowed, content, reason):
    monkeypatch.setenv(VARIABLE, allowed)
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=f'{re.escape(str(path))} .*{reason}.*download it again'):
        load(str(path))


def example(path, zipped):
    """The bytes of a small training checkpoint."""
    content = dict(meta=dict(epoch=1), history=HistoryBuffer([1.0], [1]), state_dict=torch.nn.Linear(8, 8).state_dict())
    return bytearray(Path(save(path, content, _use_new_zipfile_serialization=zipped)).read_bytes())


@pytest.mark.parametrize('load', [load_from_local, check_checkpoint])
@pytest.mark.parametrize('allowed', ['0', '1'])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_files_cut_short(tmp_path, monkeypatch, load, allowed, zipped):
    if load is check_checkpoint and not zipped:
        pytest.skip('checking stops before the weights, of which a zip has a list at its end')
    monkeypatch.setenv(VARIABLE, allowed)
    whole = example(tmp_path / 'whole.pth', zipped)
    path = tmp_path / 'cut.pth'
    for size in {*range(0, len(whole) - 1, 61), len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedCheckpointError, match=re.escape(str(path))):
            load(str(path))


@pytest.mark.parametrize('size', [4500, 5000, 9000])
def test_a_larger_file_cut_short(tmp_path, size):
    path = tmp_path / 'cut.pth'
    torch.save(torch.nn.Linear(64, 64).state_dict(), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedCheckpointError, match=f'cut short .*{size} bytes'):
        check_checkpoint(str(path))


@needs_safe_mode
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_changed_bytes_give_no_other_error(tmp_path, zipped):
    whole = example(tmp_path / 'whole.pth', zipped)
    path = tmp_path / 'changed.pth'
    for place in range(0, len(whole), 7):
        changed = whole.copy()
        changed[place] ^= 0x15
        path.write_bytes(changed)
        try:
            load_from_local(str(path))
        except checkpoint.CheckpointError as error:
            assert str(path) in str(error)
        except RuntimeError as error:
            assert 'restore data location' in str(error)  # 'cpu' was changed


def test_errors_of_the_device_are_not_called_damage(tmp_path):
    path = save(tmp_path / 'a.pth', dict(a=torch.ones(1)))
    with pytest.raises(RuntimeError) as caught:
        load_from_local(path, 'cuda:99')
    assert not isinstance(caught.value, checkpoint.CheckpointError)


def test_addresses_are_not_checked():
    for address in ('https://x.org/a.pth', 'torchvision://resnet50', 'open-mmlab://x', 'open-mmlab:s3://x'):
        check_checkpoint(address)


@needs_safe_mode
def test_checking_reads_no_weights(tmp_path, monkeypatch):
    calls = []
    load = torch.load
    monkeypatch.setattr(checkpoint.torch, 'load', lambda *args, **kwargs: calls.append(kwargs) or load(*args, **kwargs))
    path = save(tmp_path / 'old.pth', dict(a=torch.ones(3)), _use_new_zipfile_serialization=False)
    check_checkpoint(path)  # as of torch before 1.6, which can only be read whole
    assert not calls and load_from_local(path)['a'].tolist() == [1, 1, 1]
    calls.clear()
    check_checkpoint(save(tmp_path / 'a.pth', dict(a=torch.ones(3))))
    assert [kwargs['mmap'] for kwargs in calls] == [True]


@pytest.fixture
def before_torch_2_6(monkeypatch):
    """The messages logged, and the arguments that ``torch.load`` gets, where there is no safe mode."""
    messages, calls = [], []
    fake = SimpleNamespace(load=lambda path, **kwargs: calls.append(kwargs) or 'loaded', __version__='2.5.1')
    monkeypatch.setattr(checkpoint, 'torch', fake)
    monkeypatch.setattr(checkpoint, 'HAS_SAFE_MODE', False)
    monkeypatch.setattr(checkpoint, 'print_log', lambda text, logger, level: messages.append((level, text)))
    checkpoint._warn_of_full_loading.cache_clear()
    yield messages, calls
    checkpoint._warn_of_full_loading.cache_clear()


def test_before_torch_2_6_files_are_loaded_in_full_with_one_warning(tmp_path, before_torch_2_6):
    messages, calls = before_torch_2_6
    path = save(tmp_path / 'a.pth', {})
    check_checkpoint(path)
    assert not messages and not calls
    assert load_from_local(path, 'cpu') == load_from_local(path, 'cpu') == 'loaded'
    assert calls == [dict(map_location='cpu', weights_only=False)] * 2
    ((level, text),) = messages
    assert level == logging.WARNING and text.startswith('torch 2.5.1 loads checkpoints in full, which runs any code')
    assert 'torch 2.6 or later' in text and f'{VARIABLE}=1' in text
    install_checkpoint_support()
    Path(path).write_bytes(b'')
    with pytest.raises(DamagedCheckpointError, match='empty'):
        check_checkpoint(path)


def test_before_torch_2_6_the_warning_can_be_silenced(tmp_path, before_torch_2_6, monkeypatch):
    messages, calls = before_torch_2_6
    monkeypatch.setenv(VARIABLE, '1')
    assert load_from_local(save(tmp_path / 'a.pth', {})) == 'loaded'
    assert calls and not messages


ORDERS = (
    'mmdet_gfl, mmengine.runner',
    'mmengine.runner, mmdet_gfl',
    'mmdet_gfl, mmdet.apis',
    'mmdet_gfl.compat.checkpoint',
)
#: Forks of a process that has imported nothing but torch.
IN_EACH_ORDER = """
import os, sys, torch
for order in sys.argv[1:]:
    if os.fork() == 0:
        exec(f'import {order}')
        from mmengine.runner.checkpoint import CheckpointLoader, __file__ as file
        loader = CheckpointLoader._get_checkpoint_loader('a.pth').__module__
        print(loader, file, 'mmdet_gfl.registry' in sys.modules, flush=True)
        os._exit(0)
    _, status = os.wait()
    assert status == 0, order
"""


def test_importing_the_package_is_enough_in_any_order(root):
    env = dict(os.environ, PYTHONPATH=str(root))
    result = subprocess.run([sys.executable, '-c', IN_EACH_ORDER, *ORDERS], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ['mmdet_gfl.compat.checkpoint', mmengine_checkpoint.__file__, 'False'] * len(ORDERS)
