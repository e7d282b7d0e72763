"""``tools/export_onnx.py`` from the command line to its file, and what it refuses."""

import importlib.util
import json
import os
import signal
import sys

import pytest
import torch
from conftest import SIZE, config
from mmdet.models.backbones import ResNet

from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.export import checking, exporting, metadata, writing

onnx = pytest.importorskip('onnx', reason='onnx is not installed')
pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')


@pytest.fixture(scope='module')
def tool(root):
    spec = importlib.util.spec_from_file_location('export_onnx', root / 'tools' / 'export_onnx.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def files(root, detectors, tmp_path_factory):
    """Config and checkpoint of a small detector."""
    folder = tmp_path_factory.mktemp('files')
    config(root, 'gfl').dump(folder / 'gfl.py')
    state = dict(state_dict=detectors('gfl').model.state_dict(), meta=dict(dataset_meta=dict(classes=('a', 'b', 'c'))))
    torch.save(state, folder / 'gfl.pth')
    return folder


@pytest.fixture
def run(tool, files, monkeypatch):
    def call(*args, config='gfl.py', checkpoint='gfl.pth'):
        monkeypatch.setattr(
            sys, 'argv', ['export_onnx.py', str(files / config), str(files / checkpoint), *map(str, args)]
        )
        tool.main()

    return call


def test_writes_beside_the_checkpoint(run, files, capsys):
    run('--std', '--preprocess')
    model = onnx.load(files / 'gfl.onnx')
    onnx.checker.check_model(model, full_check=True)
    facts = {one.key: json.loads(one.value) for one in model.metadata_props}
    assert facts['classes'] == ['a', 'b', 'c'] and facts['preprocess'] is True and facts['shape'] == [SIZE, SIZE]
    said = capsys.readouterr().out
    assert f'onnxruntime beside torch on a random input (3, 3, {SIZE}, {SIZE})' in said
    assert 'gfl.onnx: ' in said and 'outputs dets, labels, std' in said
    (files / 'gfl.onnx').unlink()


def test_checks_images_and_ends_with_1_where_they_differ(run, root, tmp_path, capsys, monkeypatch):
    image = root / 'docs' / 'images' / sorted(one.name for one in (root / 'docs' / 'images').glob('*.png'))[0]
    run(tmp_path / 'out.onnx', '--output', 'raw', '--dynamic', 'batch', '--check', image)
    assert f'on {image}: ' in capsys.readouterr().out
    monkeypatch.setattr(checking, 'LIMITS', checking.Limits(0.1, -1.0))
    with pytest.raises(UserError, match='differ by more than 0.1 pixels, -1.0 in score.*other.onnx is not written'):
        run(tmp_path / 'other.onnx', '--output', 'raw', '--dynamic', 'batch')
    assert os.listdir(tmp_path) == ['out.onnx']


def test_takes_batch_where_another_size_does_not_come_out_right(detectors, monkeypatch, tmp_path, capsys):
    compare = checking.difference

    def refuse(session, graph, given, limits):
        if tuple(given.images.shape[2:]) != (SIZE, SIZE):
            raise RuntimeError('a level of one cell')
        return compare(session, graph, given, limits)

    monkeypatch.setattr(checking, 'difference', refuse)
    exporting.export(detectors('gfl'), exporting.Settings(output='raw'), tmp_path / 'out.onnx')
    assert '(a level of one cell); --dynamic batch is taken' in capsys.readouterr().out
    shape = onnx.load(tmp_path / 'out.onnx').graph.input[0].type.tensor_type.shape
    assert [one.dim_value or one.dim_param for one in shape.dim] == ['batch', 3, SIZE, SIZE]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['out.txt'], r'OUT .*out.txt: the name of the file must end in .onnx'),
        (['--output', 'raw', '--std'], '--std with --output raw'),
        (['--shape', '0', '64'], '--shape 0 64: height and width'),
        (['--check', 'nowhere.jpg'], '--check nowhere.jpg: there is no such file'),
        (['--opset', '9'], '--opset 9: accepted are 16 to 20'),
        (['/proc/none/out.onnx'], 'OUT: folder /proc/none cannot be written to'),
        (['--cfg-options', 'model.test_cfg.nms.type=soft_nms'], 'soft_nms'),
        (['--cfg-options', 'test_dataloader.dataset.pipeline=[]'], 'has no test_dataloader.dataset.pipeline'),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(run, files, args, message):
    before = sorted(os.listdir(files))
    with pytest.raises(SystemExit, match=message):
        run(*args)
    assert sorted(os.listdir(files)) == before


def test_bad_files(run, files, tmp_path, root):
    torch.save(dict(state_dict=dict(weight=torch.zeros(3))), files / 'other.pth')
    (files / 'half.pth').write_bytes((files / 'gfl.pth').read_bytes()[:3000])
    (files / 'empty.py').write_text('a = 1\n')
    (files / 'backbone.py').write_text("model = dict(type='ResNet', depth=18, base_channels=4)\n")
    torch.save(dict(state_dict=ResNet(18, base_channels=4).state_dict()), files / 'backbone.pth')
    out = tmp_path / 'out.onnx'
    out.write_bytes(b'what was there before')
    for names, message in (
        (dict(checkpoint='other.pth'), 'does not fit the config'),
        (dict(checkpoint='half.pth'), 'half.pth'),
        (dict(checkpoint='none.pth'), 'none.pth'),
        (dict(config='none.py'), 'none.py does not exist'),
        (dict(config='empty.py'), 'has no model'),
        (dict(config='backbone.py', checkpoint='backbone.pth'), 'model.type=ResNet is not a detector with one dense'),
    ):
        with pytest.raises(SystemExit, match=message):
            run(out, **names)
    assert out.read_bytes() == b'what was there before' and os.listdir(tmp_path) == ['out.onnx']


def test_a_kill_while_writing_leaves_the_former_file(exported, tmp_path):
    model, out = exported('gfl', with_std=True)[1], tmp_path / 'out.onnx'
    out.write_bytes(b'former')
    child = os.fork()
    if not child:  # killed when the new file has its bytes, and before it takes the place
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        try:
            writing.write(model, out)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert out.read_bytes() == b'former' and [one for one in os.listdir(tmp_path) if one.endswith('.onnx')] == [
        out.name
    ]
    writing.write(model, out)
    onnx.load(out)
    assert os.listdir(tmp_path) == ['out.onnx']


def test_a_full_disk_leaves_the_former_file(exported, tmp_path, monkeypatch):
    out = tmp_path / 'out.onnx'
    out.write_bytes(b'former')
    monkeypatch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(UserError, match='out.onnx cannot be written .No space left on device'):
        writing.write(exported('gfl', with_std=True)[1], out)
    assert os.listdir(tmp_path) == ['out.onnx'] and out.read_bytes() == b'former'


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime'])
def test_missing_packages(run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError, match=rf"needs the packages onnx and onnxruntime .*{package}.*pip install 'mmdet_gfl\[onnx\]'"
    ):
        run()


def test_std_needs_a_distribution(detectors, tmp_path):
    with pytest.raises(UserError, match='--std: a DiracBox predicts no distribution'):
        exporting.export(detectors('atss'), exporting.Settings(with_std=True), tmp_path / 'out.onnx')


def test_size_that_the_detector_cannot_take(detectors, tmp_path):
    settings = exporting.Settings(shape=(100, 90))
    with pytest.raises(UserError, match='--shape 100 90: the detector cannot take .* multiples of .* 32'):
        exporting.export(detectors('rtmdet'), settings, tmp_path / 'out.onnx')


@pytest.mark.parametrize(
    'step',
    [dict(type='CenterCrop', crop_size=8), dict(type='Resize', scale_factor=0.5), dict(type='RandomFlip', prob=0.5)],
)
def test_pipelines_that_the_runtime_cannot_do(root, step):
    cfg = config(root, 'gfl')
    cfg.test_dataloader.dataset.pipeline.insert(1, step)
    with pytest.raises(UserError, match=f'step .*{step["type"]}.* cannot be done without MMDetection'):
        metadata.input_rule(cfg, None)


def test_deformable_convolution_needs_opset_19(detectors):
    from mmcv.ops import ModulatedDeformConv2d

    model = torch.nn.Sequential(ModulatedDeformConv2d(3, 3, 1))
    with pytest.raises(UserError, match='--opset 18: model.0 is a deformable convolution, .* give --opset 19'):
        writing.check_opset(model, 18)
    writing.check_opset(model, 19)
