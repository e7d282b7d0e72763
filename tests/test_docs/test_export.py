"""The code in docs/export.md, run as it stands there."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cases import build, features, gfl_config
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_gfl.analysis.detector import Detector
from mmdet_gfl.benchmark.mini import Mini, shrink
from mmdet_gfl.export import exporting
from mmdet_gfl.export.decoding import decode_outputs

PAGE = (Path(__file__).parents[2] / 'docs' / 'export.md').read_text(encoding='utf-8')


def names_of(number):
    """The names that a Python block defines."""
    names = {}
    exec(re.findall(r'^```python\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)[number], names)
    return names


@torch.no_grad()
def test_postprocessing_of_raw_outputs():
    postprocess = names_of(0)['postprocess']
    head = build(gfl_config()).eval()
    outs = head(features((160, 224), 1))
    outputs = {
        f'{kind}_{i}': level.numpy() for kind, levels in zip(('cls', 'reg'), outs) for i, level in enumerate(levels)
    }
    boxes, scores = postprocess(outputs, [8, 16, 32, 64, 128], 160, 224)
    wanted = decode_outputs(head, outs, torch.tensor([[160.0, 224]]))
    np.testing.assert_allclose(boxes, wanted.boxes[0], atol=1e-3)
    np.testing.assert_allclose(scores, wanted.scores[0], atol=1e-6)


def test_int8_with_the_box_outputs_in_float(root, tmp_path, monkeypatch):
    onnx = pytest.importorskip('onnx', reason='onnx is not installed')
    if torch.__version__.startswith('2.1.'):
        pytest.skip('torch 2.1 writes graphs that are not valid ONNX')
    pytest.importorskip('onnxruntime.quantization', reason='onnxruntime is not installed')
    monkeypatch.syspath_prepend(root / 'tools' / 'deployment')
    monkeypatch.chdir(tmp_path)  # the calibration writes there
    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(root / 'configs/gflv2/gflv2_r50_fpn_1x_coco.py')
    cfg = shrink(cfg, Mini(size=64, channels=64, stacked_convs=1))
    cfg.model.bbox_head.num_classes = 3
    exporting.export(Detector(MODELS.build(cfg.model).eval(), cfg, tuple('abc')), exporting.Settings(), Path('a.onnx'))
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    cv2.imwrite('image.png', image)
    code = names_of(1)
    code['quantize']('a.onnx', 'int8.onnx', ['image.png'])
    nodes = onnx.load('int8.onnx').graph.node
    quantized = {node.output[0] for node in nodes if node.op_type == 'DequantizeLinear'}
    in_float = {node.name for node in nodes if node.op_type == 'Conv' and node.input[1] not in quantized}
    assert {name.split('/')[2].rstrip('_01234') for name in in_float} == {'gfl_reg', 'reg_conf'}
    assert len(in_float) == 15 and sum(node.op_type == 'Conv' for node in nodes) > 50
    assert code['ONNXDetector']('int8.onnx')(image).boxes.shape[1] == 4
