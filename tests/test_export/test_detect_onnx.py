"""``tools/deployment/detect_onnx.py``, which runs without torch, beside MMDetection's test pipeline and predictions."""

import copy
import dataclasses
import importlib.util
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from cases import DYNAMIC_HOSTS, HOSTS, gfl_config, stock_config
from conftest import config, detector_config, randomize
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate

from mmdet_gfl.analysis.detector import Detector
from mmdet_gfl.export import checking, exporting, selection, writing

pytest.importorskip('onnx', reason='onnx is not installed')
pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')


@pytest.fixture(scope='module')
def tool(root):
    spec = importlib.util.spec_from_file_location('detect_onnx', root / 'tools' / 'deployment' / 'detect_onnx.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Odd sizes, a grayscale file, and one whose EXIF tag turns it by a quarter."""
    folder = tmp_path_factory.mktemp('images')
    random = np.random.default_rng(0)
    for name, (height, width) in dict(odd=(97, 143), tall=(211, 83), tiny=(9, 14)).items():
        blocks = random.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        cv2.imwrite(str(folder / f'{name}.png'), blocks.repeat(8, 0).repeat(8, 1)[:height, :width])
    picture = cv2.imread(str(folder / 'odd.png'))
    cv2.imwrite(str(folder / 'gray.png'), picture[..., 0])
    data = cv2.imencode('.jpg', picture)[1].tobytes()
    tag = b'Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00'
    (folder / 'turned.jpg').write_bytes(data[:2] + b'\xff\xe1' + (len(tag) + 2).to_bytes(2, 'big') + tag + data[2:])
    return folder


@pytest.fixture(scope='module')
def model_file(exported, tmp_path_factory):
    """The file of an exported detector."""

    def get(name, **options):
        path = tmp_path_factory.mktemp('onnx') / f'{name}.onnx'
        writing.write(exported(name, **options)[1], path)
        return path

    return get


def predicted(loaded, path):
    """Detections of ``tools/test.py``, in pixels of the file."""
    steps = [step for step in loaded.cfg.test_dataloader.dataset.pipeline if 'Annotations' not in step['type']]
    data = pseudo_collate([Compose(steps)(dict(img_path=str(path), img_id=0))])
    with torch.no_grad():
        return loaded.model.test_step(data)[0].pred_instances


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('gfl', dict(with_std=True)),
        ('gfl', dict(preprocess=True)),
        ('rtmdet', {}),
        ('ssd', {}),
    ],
    ids=str,
)
def test_detects_what_the_test_tool_does(tool, images, model_file, detectors, exported, name, options):
    detect = tool.ONNXDetector(model_file(name, **options))
    assert_detects_the_same(tool, detect, detectors(name), exported(name, **options)[0].thresholds, images)


def assert_detects_the_same(tool, detect, loaded, thresholds, images):
    total = 0
    for file in sorted(images.iterdir()):
        ours, theirs = detect(tool.read_image(file)), predicted(loaded, file)
        sides = [
            [torch.cat((torch.as_tensor(boxes), torch.as_tensor(scores)[:, None]), dim=1), torch.as_tensor(labels)]
            for boxes, scores, labels in (
                (ours.boxes, ours.scores, ours.labels),
                (theirs.bboxes, theirs.scores, theirs.labels),
            )
        ]
        result = checking.match(*sides, thresholds, checking.LIMITS.score)
        assert result.within(checking.LIMITS), (file.name, str(result))
        total += result.compared
    assert total > 40


@pytest.mark.parametrize('host', [*HOSTS, *DYNAMIC_HOSTS, 'GFL'])
def test_detects_what_a_detector_of_mmdetection_does(tool, images, root, host, tmp_path):
    cfg = detector_config(gfl_config('GFLHead', ours=False) if host == 'GFL' else stock_config(host))
    cfg.test_dataloader = config(root, 'gfl').test_dataloader
    cfg.model.data_preprocessor = config(root, 'gfl').model.data_preprocessor
    theirs = Detector(randomize(MODELS.build(cfg.model)), cfg, tuple('abcde'))
    assert type(theirs.model.bbox_head).__module__.startswith('mmdet.')
    exporting.export(
        dataclasses.replace(theirs, model=copy.deepcopy(theirs.model)), exporting.Settings(), tmp_path / 'o.onnx'
    )
    if host == 'SSD':  # MMDetection 3.3 uses it when it predicts, and does not build it
        theirs.model.bbox_head.loss_cls = torch.nn.Identity()
        theirs.model.bbox_head.loss_cls.custom_cls_channels = False
    thresholds = selection.thresholds_of(cfg.model.test_cfg)
    assert_detects_the_same(tool, tool.ONNXDetector(tmp_path / 'o.onnx'), theirs, thresholds, images)


def test_graph_of_one_size_takes_standing_images_too(tool, images, model_file):
    detect = tool.ONNXDetector(model_file('gfl', dynamic='none', shape=(64, 128)))
    tensor, size, scale = detect.prepare(tool.read_image(images / 'tall.png'))
    assert tensor.shape == (1, 3, 64, 128) and size == (64, 25)
    np.testing.assert_allclose(scale, [25 / 83, 64 / 211] * 2, rtol=1e-6)


def test_texts_that_other_tools_add_are_left_alone(tool):
    assert tool.read_facts({'onnx.infer': 'onnxruntime.quant', 'strides': '[8, 16]'}) == dict(strides=[8, 16])


def test_turned_image_is_upright(tool, images):
    assert tool.read_image(images / 'turned.jpg').shape == (143, 97, 3)


def test_std_is_in_pixels_of_the_file(tool, images, model_file, detectors):
    detect = tool.ONNXDetector(model_file('gfl', with_std=True))
    loaded = detectors('gfl')
    head = loaded.model.bbox_head
    head.test_cfg['with_distribution'] = 'stats'
    try:
        theirs = predicted(loaded, images / 'tall.png')
    finally:
        head.test_cfg['with_distribution'] = None
    ours = detect(tool.read_image(images / 'tall.png'))
    np.testing.assert_allclose(ours.std, theirs.bbox_std.numpy(), rtol=1e-3, atol=1e-2)


def test_each_side_has_a_band_of_two_standard_deviations(tool):
    box, std = np.array([20, 10, 80, 60]), np.array([2, 3, 4, 5])
    drawn = tool._with_bands(np.zeros((100, 100, 3), np.uint8), box, std, (200, 100, 50))
    painted = drawn.any(axis=2)
    # Pixels of a band include both its ends: x - std to x + std. Middle row and column, then outside of the box.
    assert np.flatnonzero(painted[35]).tolist() == [*range(18, 23), *range(76, 85)]
    assert np.flatnonzero(painted[:, 50]).tolist() == [*range(7, 14), *range(55, 66)]
    assert drawn[35, 20].tolist() == [70, 35, 18] and not painted[:7].any() and not painted[66:].any()


def test_json_pictures_and_average_precision(tool, images, model_file, tmp_path, capsys):
    model = model_file('gfl', with_std=True)
    tool.main(
        [str(model), str(images), '--json', str(tmp_path / 'out/found.json'), '--out-dir', str(tmp_path / 'drawn')]
    )
    entries = json.loads((tmp_path / 'out/found.json').read_text())
    assert {file.stem for file in (tmp_path / 'drawn').iterdir()} == {file.stem for file in images.iterdir()}
    best = max(entries, key=lambda entry: entry['score'])
    assert best.keys() == {'image_id', 'category_id', 'bbox', 'score', 'std'} and len(best['std']) == 4
    assert {entry['image_id'] for entry in entries} <= {file.name for file in images.iterdir()}

    files = sorted(file for file in images.iterdir())
    by_name = {file.name: index for index, file in enumerate(files, 1)}
    truth = dict(  # the best detection of each image and class
        images=[dict(id=index, file_name=name, width=200, height=200) for name, index in by_name.items()],
        categories=[dict(id=7 + index, name=name) for index, name in enumerate('abc')],
        annotations=[],
    )
    for name, index in by_name.items():
        of_image = [entry for entry in entries if entry['image_id'] == name]
        for label in range(3):
            of_class = [entry for entry in of_image if entry['category_id'] == label]
            if of_class:
                top = max(of_class, key=lambda entry: entry['score'])
                area = top['bbox'][2] * top['bbox'][3]
                truth['annotations'].append(
                    dict(
                        id=len(truth['annotations']) + 1,
                        image_id=index,
                        category_id=7 + label,
                        bbox=top['bbox'],
                        area=area,
                        iscrowd=0,
                    )
                )
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    tool.main([str(model), str(images), '--ann-file', str(tmp_path / 'truth.json')])
    lines = capsys.readouterr().out
    assert 'IoU=0.50:0.95' in lines
    assert ' = 1.000' in lines.split('Average Recall')[3]  # all objects are found exactly, at up to 100 detections


def test_bad_input_is_a_sentence(tool, images, model_file, tmp_path):
    model = model_file('gfl', with_std=True)
    half = tmp_path / 'half.onnx'
    half.write_bytes(model.read_bytes()[:5000])
    raw = model_file('fcos', output='raw')
    text = tmp_path / 'text.jpg'
    text.write_text('no image')
    for args, message in (
        ([tmp_path / 'none.onnx', images], 'none.onnx does not exist'),
        ([half, images], 'half.onnx cannot be loaded, it is cut short'),
        ([raw, images], 'does not give detections; export it with .* --output nms'),
        ([model, tmp_path / 'nowhere'], 'nowhere does not exist'),
        ([model, text], 'text.jpg cannot be read'),
        ([model, images, '--ann-file', text], 'cannot be read as COCO annotations'),
    ):
        with pytest.raises(SystemExit, match=message):
            tool.main(list(map(str, args)))


def test_needs_neither_torch_nor_mmdetection(root, images, model_file):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'mmdet', 'mmcv', 'mmengine', 'mmdet_gfl')));"
        'import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'
    )
    script = root / 'tools' / 'deployment' / 'detect_onnx.py'
    command = [sys.executable, '-c', code, str(script), str(model_file('gfl', with_std=True)), str(images)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert '5 images' in result.stdout
