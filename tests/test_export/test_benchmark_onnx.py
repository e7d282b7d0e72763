"""``tools/analysis_tools/benchmark_onnx.py``: AP and times of both runtimes on the same data."""

import dataclasses
import importlib.util
import json
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from mmdet_gfl.analysis import detector
from mmdet_gfl.engine.errors import UserError

pytest.importorskip('onnx', reason='onnx is not installed')
pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')


@pytest.fixture(scope='module')
def tool(root):
    spec = importlib.util.spec_from_file_location('benchmark_onnx', root / 'tools/analysis_tools/benchmark_onnx.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def loaded(detectors, tmp_path_factory):
    """A detector whose test data has as objects the best half of what it finds in each image."""
    folder = tmp_path_factory.mktemp('data')
    truth = dict(images=[], annotations=[], categories=[dict(id=5 + i, name=name) for i, name in enumerate('abc')])
    random = np.random.default_rng(0)
    for index in (1, 2, 3):
        pixels = random.integers(0, 255, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        cv2.imwrite(str(folder / f'{index}.png'), pixels)
        truth['images'].append(dict(id=index, file_name=f'{index}.png', height=96, width=128))
    cfg = detectors('gfl').cfg.copy()
    cfg.test_dataloader.dataset.update(
        type='CocoDataset',
        data_root='',
        ann_file=str(folder / 'truth.json'),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=tuple('abc')),
    )
    cfg.test_evaluator.ann_file = str(folder / 'truth.json')
    made = dataclasses.replace(detectors('gfl'), cfg=cfg)
    (folder / 'truth.json').write_text(json.dumps(truth))
    dataset = detector.dataset_of(cfg, 'test')
    for index in range(3):
        with torch.no_grad():
            (sample,) = made.model.test_step(pseudo_collate([dataset[index]]))
        found = sample.pred_instances[: len(sample.pred_instances) // 2]
        for box, label in zip(found.bboxes.tolist(), found.labels.tolist()):
            x1, y1, x2, y2 = box
            size = dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1), iscrowd=0)
            number = len(truth['annotations']) + 1
            truth['annotations'].append(dict(size, id=number, image_id=index + 1, category_id=5 + label))
    (folder / 'truth.json').write_text(json.dumps(truth))
    return made


def test_both_find_the_same(tool, loaded):
    row = tool.compare(loaded, repeats=2, timed_images=2)
    assert row.ap[0] > 50 and abs(row.ap[0] - row.ap[1]) <= 0.1
    assert 0.1 < row.megabytes < 10
    assert {name: len(times) for name, times in row.times.items()} == dict(torch=2, onnxruntime=2)


def test_ap_of_the_export_is_its_own(tool, loaded, monkeypatch):
    class Halved:
        def __init__(self, file):
            self.detect = plain(file)

        def __call__(self, image):
            found = self.detect(image)
            return found._replace(boxes=found.boxes / 2)

    plain = tool.detect_onnx().ONNXDetector
    monkeypatch.setattr(tool.detect_onnx(), 'ONNXDetector', Halved)
    row = tool.compare(loaded, repeats=1, timed_images=1)
    assert row.ap[0] > 50 > row.ap[1]


def test_line_of_the_table(tool):
    row = tool.Measurements((38.94, 38.86), 4.52, dict(torch=[30.0, 50, 20], onnxruntime=[10.0, 20, 10]))
    line = tool.markdown('gfl', row)
    assert line == '| gfl | 38.9 | 38.9 | 4.5 | 30.0 | 10.0 | 2.50 |'
    assert {one.count('|') for one in (*tool.HEADER.splitlines(), line)} == {8}


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['gfl.py'], 'gfl.py stands alone'),
        (['gfl.py', 'gfl.pth', '--repeats', '0'], '--repeats 0: needs a whole number from 1 on'),
        (['gfl.py', 'gfl.pth'], 'gfl.py does not exist'),
    ],
)
def test_bad_input_is_a_sentence(tool, monkeypatch, args, message):
    monkeypatch.setattr(sys, 'argv', ['benchmark_onnx.py', *args])
    with pytest.raises(UserError, match=message):
        tool.main()
