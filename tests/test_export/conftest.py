"""Small detectors of every host with random weights, and their graphs, each exported once."""

import math
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from torch import nn

from mmdet_gfl.analysis.detector import Detector
from mmdet_gfl.benchmark.mini import Mini, shrink
from mmdet_gfl.versions import parse_release

SIZE = 128
TEST_CFG = dict(nms_pre=60, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=30)
CONFIGS = dict(
    gfl='gfl/gfl_r50_fpn_1x_coco.py',
    gflv2='gflv2/gflv2_r50_fpn_1x_coco.py',
    atss='atss/atss_r50_fpn_1x_coco.py',
    gaussian='atss/atss_r50_fpn_gaussian_1x_coco.py',
    guided='atss/atss_r50_fpn_iou-guided_1x_coco.py',
    fcos='fcos/fcos_r50-caffe_fpn_1x_coco.py',
    retina='retinanet/retinanet_r50_fpn_gfl_1x_coco.py',
    fovea='foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    ssd='ssd/ssd512_coco.py',
    rtmdet='rtmdet/rtmdet_tiny_general-dfl_8xb32-300e_coco.py',
    rtmdet_dirac='rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
)


@pytest.fixture(scope='session', autouse=True)
def _exporter():
    if parse_release(torch.__version__) < (2, 2):
        pytest.skip('torch 2.1 writes graphs that are not valid ONNX')


def randomize(model: nn.Module) -> nn.Module:
    """Give the head weights with which logits and box outputs spread, and hence no two scores are nearly equal."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.bbox_head.named_parameters():
        if parameter.dim() > 1:
            std = 1.2 / math.sqrt(parameter[0].numel())
            parameter.data = torch.randn(parameter.shape, generator=generator) * std
        elif name.endswith('cls.bias'):
            parameter.data.fill_(-1.0)
    return model.eval()


def config(root: Path, name: str, size: int = SIZE) -> Config:
    """A shipped config, shrunk."""
    mini = Mini(size=size, channels=64, stacked_convs=1, batch_size=2)
    return shrink(Config.fromfile(root / 'configs' / CONFIGS[name]), mini)


def detector_config(head):
    """A small detector of MMDetection with this head."""
    return Config(
        dict(
            model=dict(
                type='SingleStageDetector',
                backbone=dict(
                    type='ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch'
                ),
                neck=dict(
                    type='FPN',
                    in_channels=[8, 16, 32, 64],
                    out_channels=16,
                    start_level=1,
                    add_extra_convs='on_output',
                    num_outs=len(head.get('strides') or head.anchor_generator.strides),
                ),
                bbox_head={key: value for key, value in head.items() if key not in ('train_cfg', 'test_cfg')},
                train_cfg=head.get('train_cfg'),
                test_cfg=ConfigDict(TEST_CFG),
            )
        )
    )


@pytest.fixture(scope='session')
def detectors(root):
    """Detector by the names of ``CONFIGS``."""
    made = {}

    def get(name):
        if name not in made:
            register_all_modules(init_default_scope=True)  # a fixture of a file comes before those of a test
            cfg = config(root, name)
            made[name] = Detector(randomize(MODELS.build(cfg.model)), cfg, tuple('abc'))
        return made[name]

    return get


@pytest.fixture(scope='session')
def exported(detectors):
    """Graph, ONNX model and session of a detector, by its name and the settings of the export."""
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    from mmdet_gfl.export import checking, exporting, metadata, writing

    made = {}

    def get(name, **options):
        key = (name, *sorted(options.items()))
        if key not in made:
            settings = exporting.Settings(**options)
            graph, facts = exporting.make_graph(detectors(name), settings)
            shape = settings.shape or metadata.input_shape(facts)
            model = writing.to_onnx(graph, shape, settings.dynamic, settings.opset, metadata.encoded(facts))
            made[key] = graph, model, checking.open_session(model)
        return made[key]

    return get
