"""Every config of the paper's tables, and GFL and GFLv2 on each host: training, testing, what is built, documentation.

The tables below are written out by hand from the paper and from MMDetection's defaults for each host; the configs are
held against them value by value.
"""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_gfl import shipped_configs

CONFIGS = Path(__file__).parents[1] / 'configs'
SHARED_TABLES = CONFIGS.parents[1] / 'shared' / 'paper_tables.yml'
#: Not rows of the paper: tests/test_released_models.py, tests/test_gflv2_models.py and tests/test_rtmdet_configs.py.
RELEASED = re.compile(r'gfl/gfl_.*_ms-2x_coco|gflv2/gflv2_.*_coco|rtmdet/rtmdet_.*_coco')
#: Tables that are not the paper's.
GFLV2_TABLES = ('gflv2', 'gflv2-hosts')
RTMDET_TABLES = ('rtmdet', 'rtmdet-l')
NAMES = [name for name in shipped_configs.names() if name.endswith('_coco') and not RELEASED.fullmatch(name)]


class Row(NamedTuple):
    """Meaning of a config. β only with joint quality; n, Δ and the weight of DFL only with General boxes."""

    settings: str  # key of SETTINGS
    head: str
    quality: str
    box: str
    beta: float | None = None
    n: int | None = None
    delta: float | None = None
    dfl: float | None = None
    giou: float | None = None  # weight, where the box loss is GIoU
    tables: tuple[str, ...] = ()  # table and label of each row of the paper


def atss(quality: str, box: str, *tables: str, head: str = 'ATSSGFLHead', giou: float | None = 2.0, **rest: Any) -> Row:
    return Row('atss', head, quality, box, giou=giou, tables=tables, **rest)


def fcos(quality: str, box: str, *tables: str, giou: float | None = 1.0, **rest: Any) -> Row:
    return Row('fcos', 'FCOSGFLHead', quality, box, giou=giou, tables=tables, **rest)


GFL = dict(beta=2.0, n=16, delta=1.0, dfl=0.25)
DFL = dict(n=16, delta=1.0, dfl=0.25)
GENERAL = dict(n=16, delta=1.0)  # by its integral alone
JOINT, NONE, CENTERNESS, GUIDED = 'JointQuality', 'NoQuality', 'CenternessBranch', 'DistributionGuidedQuality'
ROWS: dict[str, Row] = {
    # Table 1a, 1c and 2a on ATSS
    'atss/atss_r50_fpn_no-quality_1x_coco': atss(NONE, 'DiracBox', '1a ATSS, w/o quality branch'),
    'atss/atss_r50_fpn_1x_coco': atss(
        CENTERNESS, 'DiracBox', '1a ATSS, centerness-branch', '2a ATSS, Dirac delta', '3 baseline'
    ),
    'atss/atss_r50_fpn_iou-branch_1x_coco': atss('IoUBranch', 'DiracBox', '1a ATSS, IoU-branch'),
    'atss/atss_r50_fpn_centerness-guided_1x_coco': atss('CenternessGuided', 'DiracBox', '1a ATSS, centerness-guided'),
    'atss/atss_r50_fpn_iou-guided_1x_coco': atss('IoUGuided', 'DiracBox', '1a ATSS, IoU-guided'),
    'atss/atss_r50_fpn_joint_1x_coco': atss(
        JOINT, 'DiracBox', '1a ATSS, joint w/ QFL', '1c beta = 2', '3 QFL', beta=2.0
    ),
    'atss/atss_r50_fpn_joint-beta0_1x_coco': atss(JOINT, 'DiracBox', '1c beta = 0', beta=0.0),
    'atss/atss_r50_fpn_joint-beta1_1x_coco': atss(JOINT, 'DiracBox', '1c beta = 1', beta=1.0),
    'atss/atss_r50_fpn_joint-beta2.5_1x_coco': atss(JOINT, 'DiracBox', '1c beta = 2.5', beta=2.5),
    'atss/atss_r50_fpn_joint-beta4_1x_coco': atss(JOINT, 'DiracBox', '1c beta = 4', beta=4.0),
    'atss/atss_r50_fpn_gaussian_1x_coco': atss(CENTERNESS, 'GaussianBox', '2a ATSS, Gaussian', giou=None),
    'atss/atss_r50_fpn_general_1x_coco': atss(CENTERNESS, 'GeneralBox', '2a ATSS, General', **GENERAL),
    'atss/atss_r50_fpn_general-dfl_1x_coco': atss(CENTERNESS, 'GeneralBox', '2a ATSS, General w/ DFL', '3 DFL', **DFL),
    'atss/atss_r50_fpn_gflv2_1x_coco': atss(GUIDED, 'GeneralBox', **GFL),
    # Table 2b, 2c and 3: ATSS with GFL
    'gfl/gfl_r50_fpn_1x_coco': atss(
        JOINT, 'GeneralBox', '2b n = 16', '2c delta = 1', '3 QFL + DFL (GFL)', head='GFLHead', **GFL
    ),
    'gfl/gfl_r50_fpn_n12_1x_coco': atss(JOINT, 'GeneralBox', '2b n = 12', head='GFLHead', **GFL | dict(n=12)),
    'gfl/gfl_r50_fpn_n14_1x_coco': atss(JOINT, 'GeneralBox', '2b n = 14', head='GFLHead', **GFL | dict(n=14)),
    'gfl/gfl_r50_fpn_n18_1x_coco': atss(JOINT, 'GeneralBox', '2b n = 18', head='GFLHead', **GFL | dict(n=18)),
    'gfl/gfl_r50_fpn_delta0.5_1x_coco': atss(
        JOINT, 'GeneralBox', '2c delta = 0.5', head='GFLHead', **GFL | {'delta': 0.5}
    ),
    'gfl/gfl_r50_fpn_delta2_1x_coco': atss(JOINT, 'GeneralBox', '2c delta = 2', head='GFLHead', **GFL | {'delta': 2.0}),
    'gfl/gfl_r50_fpn_delta4_1x_coco': atss(JOINT, 'GeneralBox', '2c delta = 4', head='GFLHead', **GFL | {'delta': 4.0}),
    # Table 1a and 2a on FCOS; GFL, GFLv2
    'fcos/fcos_r50-caffe_fpn_no-quality_1x_coco': fcos(NONE, 'DiracBox', '1a FCOS, w/o quality branch'),
    'fcos/fcos_r50-caffe_fpn_1x_coco': fcos(
        CENTERNESS, 'DiracBox', '1a FCOS, centerness-branch', '2a FCOS, Dirac delta'
    ),
    'fcos/fcos_r50-caffe_fpn_iou-branch_1x_coco': fcos('IoUBranch', 'DiracBox', '1a FCOS, IoU-branch'),
    'fcos/fcos_r50-caffe_fpn_centerness-guided_1x_coco': fcos(
        'CenternessGuided', 'DiracBox', '1a FCOS, centerness-guided'
    ),
    'fcos/fcos_r50-caffe_fpn_iou-guided_1x_coco': fcos('IoUGuided', 'DiracBox', '1a FCOS, IoU-guided'),
    'fcos/fcos_r50-caffe_fpn_joint_1x_coco': fcos(JOINT, 'DiracBox', '1a FCOS, joint w/ QFL', beta=2.0),
    'fcos/fcos_r50-caffe_fpn_gaussian_1x_coco': fcos(CENTERNESS, 'GaussianBox', '2a FCOS, Gaussian', giou=None),
    'fcos/fcos_r50-caffe_fpn_general_1x_coco': fcos(CENTERNESS, 'GeneralBox', '2a FCOS, General', **GENERAL),
    'fcos/fcos_r50-caffe_fpn_general-dfl_1x_coco': fcos(CENTERNESS, 'GeneralBox', '2a FCOS, General w/ DFL', **DFL),
    'fcos/fcos_r50-caffe_fpn_gfl_1x_coco': fcos(JOINT, 'GeneralBox', giou=2.0, **GFL),
    'fcos/fcos_r50-caffe_fpn_gflv2_1x_coco': fcos(GUIDED, 'GeneralBox', giou=2.0, **GFL),
    # Table 1b; GFL, GFLv2
    'retinanet/retinanet_r50_fpn_1x_coco': Row(
        'retinanet', 'RetinaGFLHead', NONE, 'DiracBox', tables=('1b RetinaNet',)
    ),
    'retinanet/retinanet_r50_fpn_joint_1x_coco': Row(
        'retinanet', 'RetinaGFLHead', JOINT, 'DiracBox', beta=2.0, tables=('1b RetinaNet + joint w/ QFL',)
    ),
    'retinanet/retinanet_r50_fpn_gfl_1x_coco': Row('retinanet', 'RetinaGFLHead', JOINT, 'GeneralBox', giou=2.0, **GFL),
    'retinanet/retinanet_r50_fpn_gflv2_1x_coco': Row(
        'retinanet', 'RetinaGFLHead', GUIDED, 'GeneralBox', giou=2.0, **GFL
    ),
    'foveabox/fovea_r50_fpn_4xb4-1x_coco': Row('foveabox', 'FoveaGFLHead', NONE, 'DiracBox', tables=('1b FoveaBox',)),
    'foveabox/fovea_r50_fpn_joint_4xb4-1x_coco': Row(
        'foveabox', 'FoveaGFLHead', JOINT, 'DiracBox', beta=2.0, tables=('1b FoveaBox + joint w/ QFL',)
    ),
    'foveabox/fovea_r50_fpn_gfl_4xb4-1x_coco': Row('foveabox', 'FoveaGFLHead', JOINT, 'GeneralBox', giou=2.0, **GFL),
    'foveabox/fovea_r50_fpn_gflv2_4xb4-1x_coco': Row('foveabox', 'FoveaGFLHead', GUIDED, 'GeneralBox', giou=2.0, **GFL),
    'ssd/ssd512_coco': Row('ssd512', 'SSDGFLHead', NONE, 'DiracBox', tables=('1b SSD512',)),
    'ssd/ssd512_joint_coco': Row(
        'ssd512', 'SSDGFLHead', JOINT, 'DiracBox', beta=2.0, tables=('1b SSD512 + joint w/ QFL',)
    ),
    'ssd/ssd512_gfl_coco': Row('ssd512', 'SSDGFLHead', JOINT, 'GeneralBox', giou=2.0, **GFL),
    'ssd/ssd512_gflv2_coco': Row('ssd512', 'SSDGFLHead', GUIDED, 'GeneralBox', giou=2.0, **GFL),
    'ssd/ssd300_gfl_coco': Row('ssd300', 'SSDGFLHead', JOINT, 'GeneralBox', giou=2.0, **GFL),
}
EXTRA = {name for name, row in ROWS.items() if not row.tables}

# Settings of training and testing -----------------------------------------------------------------------------------

ATSS: dict[str, Any] = {
    'optimizer': ('SGD', 0.01, 0.9, 1e-4),  # lr, momentum, weight decay
    'bias lr x, decay x': (None, None),
    'clip_grad': (35, 2),
    'lr is for a batch of': 16,
    'lr is scaled': True,
    'gpus x images': (8, 2),
    'epochs': 12,
    'repeats': 1,
    'steps': ([8, 11], 0.1, True),
    'warm-up': ('LinearLR', 0, 500, False, 0.001),
    'train scale': ((1333, 800), True),  # (longer, shorter) side at most; ratio kept
    'test scale': ((1333, 800), True),
    'augmentation': ['RandomFlip'],
    'grouped by aspect ratio': True,
    'trains on': ('annotations/instances_train2017.json', 'train2017/', True, 32),
    'tests on': ('annotations/instances_val2017.json', 'val2017/'),
    'score_thr': 0.05,
    'nms_pre': 1000,
    'nms': dict(type='nms', iou_threshold=0.6),
    'max_per_img': 100,
    'backbone': ('ResNet', 50, 'pytorch', 'torchvision://resnet50'),
    'batch norm': (1, True, True),  # frozen stages, in eval mode, learns
    'neck': ('FPN', 'on_output', 1, 5, False),
    'pixels': ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True, 32),
    'classes': 80,
}
CAFFE = {
    'backbone': ('ResNet', 50, 'caffe', 'open-mmlab://detectron2/resnet50_caffe'),
    'batch norm': (1, True, False),
    'neck': ('FPN', 'on_output', 1, 5, True),
    'pixels': ([103.530, 116.280, 123.675], [1.0, 1.0, 1.0], False, 32),
}
SSD300 = ATSS | {
    'optimizer': ('SGD', 2e-3, 0.9, 5e-4),
    'lr is for a batch of': 64,
    'gpus x images': (8, 8),
    'epochs': 24,
    'repeats': 5,
    'steps': ([16, 22], 0.1, True),
    'train scale': ((300, 300), False),
    'test scale': ((300, 300), False),
    'augmentation': ['Expand', 'MinIoURandomCrop', 'RandomFlip', 'PhotoMetricDistortion'],
    'grouped by aspect ratio': False,
    'score_thr': 0.02,
    'nms': dict(type='nms', iou_threshold=0.45),
    'max_per_img': 200,
    'backbone': ('SSDVGG', 16, None, 'open-mmlab://vgg16_caffe'),
    'batch norm': (None, None, None),
    'neck': ('SSDNeck', None, None, 6, None),
    'pixels': ([123.675, 116.28, 103.53], [1, 1, 1], True, 1),
}
NMS_AT_HALF = {'nms': dict(type='nms', iou_threshold=0.5), 'neck': ('FPN', 'on_input', 1, 5, False)}
SETTINGS: dict[str, dict[str, Any]] = {
    'atss': ATSS,
    # MMDetection's FCOS warms up from a third of the lr, and its biases learn at twice the lr without weight decay.
    'fcos': ATSS | CAFFE | {'bias lr x, decay x': (2.0, 0.0), 'warm-up': ('LinearLR', 0, 500, False, 1 / 3)},
    'retinanet': ATSS | NMS_AT_HALF,
    'foveabox': ATSS | NMS_AT_HALF | {'gpus x images': (4, 4)},
    'ssd300': SSD300,
    'ssd512': SSD300
    | {'train scale': ((512, 512), False), 'test scale': ((512, 512), False), 'neck': ('SSDNeck', None, None, 7, None)},
}
#: γ and α of the focal loss, where labels are one-hot.
FOCAL = dict(atss=(2.0, 0.25), fcos=(2.0, 0.25), retinanet=(2.0, 0.25), foveabox=(1.5, 0.4))
#: The box loss of a Dirac box: its class, weight, β.
BOX_LOSS = dict(
    atss=('GIoULoss', 2.0, None),
    fcos=('GIoULoss', 1.0, None),
    retinanet=('L1Loss', 1.0, None),
    foveabox=('SmoothL1Loss', 1.0, 0.11),
    ssd512=('SmoothL1Loss', 1.0, 1.0),
)
#: Sizes of the feature maps, for images of 128 px and of SSD's own.
LEVELS = dict(
    dict.fromkeys(('atss', 'fcos', 'retinanet', 'foveabox'), [16, 8, 4, 2, 1]),
    ssd300=[38, 19, 10, 5, 3, 1],
    ssd512=[64, 32, 16, 8, 4, 2, 1],
)
#: The MMDetection config of a host: what the rows change is not in question, the rest is.
STOCK = dict(
    atss='atss/atss_r50_fpn_1x_coco',
    fcos='fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco',
    retinanet='retinanet/retinanet_r50_fpn_1x_coco',
    foveabox='foveabox/fovea_r50_fpn_4xb4-1x_coco',
    ssd300='ssd/ssd300_coco',
    ssd512='ssd/ssd512_coco',
)
BASELINES = dict(
    atss='atss/atss_r50_fpn_1x_coco',
    fcos='fcos/fcos_r50-caffe_fpn_1x_coco',
    retinanet='retinanet/retinanet_r50_fpn_1x_coco',
    foveabox='foveabox/fovea_r50_fpn_4xb4-1x_coco',
    ssd512='ssd/ssd512_coco',
)


@cache
def _load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py', import_custom_modules=False)


def load(name: str) -> Config:
    return copy.deepcopy(_load(name))  # Config.copy would share what is inside


@cache
def all_tables() -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / 'paper_tables.yml').read_text())


def paper_tables() -> dict[str, Any]:
    """The tables of GFL's paper, without those of GFLv2 and RTMDet."""
    return {key: table for key, table in all_tables().items() if key not in GFLV2_TABLES + RTMDET_TABLES}


def rows_of(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Tables and rows of a config in the paper."""
    return [
        (key, row) for key, table in paper_tables().items() for row in table['rows'] if row['config'] == f'{name}.py'
    ]


# Tables -------------------------------------------------------------------------------------------------------------


def test_the_tables_are_the_papers() -> None:
    if not SHARED_TABLES.is_file():
        pytest.skip(f"no table of the paper's numbers beside the checkout: {SHARED_TABLES} is absent")
    paper = yaml.safe_load(SHARED_TABLES.read_text())
    assert list(all_tables()) == [*paper, *GFLV2_TABLES, *RTMDET_TABLES]  # the last are not in the paper
    config_of: dict[str, str] = {}
    for key, table in paper.items():
        ours = paper_tables()[key]
        assert ours['title'] == table['title']
        assert [(row['label'], row['paper']) for row in ours['rows']] == [
            (row['label'], row['paper']) for row in table['rows']
        ]
        for our, their in zip(ours['rows'], table['rows']):
            assert config_of.setdefault(their['run'], our['config']) == our['config'], their['run']
    assert len(set(config_of.values())) == len(config_of), 'two runs with one config'
    assert config_of['atss/joint/general-dfl'] == 'gfl/gfl_r50_fpn_1x_coco.py'


def test_43_rows_and_35_configs() -> None:
    rows = [row for table in paper_tables().values() for row in table['rows']]
    assert {key: len(table['rows']) for key, table in paper_tables().items()} == {
        **{'1a': 12, '1b': 6, '1c': 5},
        **{'2a': 8, '2b': 4, '2c': 4, '3': 4},
    }
    assert len(rows) == 43
    assert len({row['config'] for row in rows}) == 35
    assert all(set(row) == {'config', 'label', 'paper'} for row in rows)
    for config in {row['config'] for row in rows}:
        numbers = [row['paper'] for row in rows if row['config'] == config]
        assert len({(paper['AP'], paper['AP50'], paper['AP75']) for paper in numbers}) == 1, f'{config}: one training'


def test_the_tables_of_gflv2() -> None:
    """Each row of a released model has its own number, and each host stands with GFL and GFLv2 and without any."""
    models, hosts = (all_tables()[key]['rows'] for key in GFLV2_TABLES)
    for folder in ('gfl', 'gflv2'):
        entries = yaml.safe_load((CONFIGS / folder / 'metafile.yml').read_text())['Models']
        quoted = {
            model['Config'].removeprefix('configs/'): model['Results'][0]['Metrics']['box AP'] for model in entries
        }
        found = {row['config']: row['paper'] for row in models if row['config'].startswith(f'{folder}/')}
        assert found and found == {config: {'AP': quoted[config]} for config in found}
        assert folder == 'gfl' or set(found) == set(quoted)
    assert all(row['label'].endswith(f', {row["group"]}') for row in models)
    assert not any('paper' in row for row in hosts)
    pairs = [(before['config'], after['config']) for before, after in zip(hosts[::2], hosts[1::2])]
    assert {after.removesuffix('.py') for _, after in pairs} == {n for n, row in ROWS.items() if row.quality == GUIDED}
    for before, after in pairs:
        (old, new) = (ROWS[config.removesuffix('.py')] for config in (before, after))
        same_host = old._replace(head=new.head) if old.head == 'GFLHead' else old  # GFL's own head is on ATSS
        assert same_host._replace(quality=GUIDED, tables=()) == new


def test_each_config_stands_in_its_tables_and_in_this_files() -> None:
    assert set(NAMES) == set(ROWS)
    for name, row in ROWS.items():
        assert tuple(f'{key} {entry["label"]}' for key, entry in rows_of(name)) == row.tables, name


# Settings -----------------------------------------------------------------------------------------------------------


def settings(cfg: Config) -> dict[str, Any]:
    """The entries of :data:`SETTINGS`, read from a config."""
    optim, model, loader = cfg.optim_wrapper, cfg.model, cfg.train_dataloader
    paramwise = optim.get('paramwise_cfg', {})
    warm_up, steps = cfg.param_scheduler
    repeated = loader.dataset.type == 'RepeatDataset'
    data = loader.dataset.dataset if repeated else loader.dataset
    backbone, neck, pixels = model.backbone, model.neck, model.data_preprocessor
    train, test = ({step.type: step for step in pipeline} for pipeline in (data.pipeline, detection_data(cfg).pipeline))
    return {
        'optimizer': tuple(optim.optimizer[key] for key in ('type', 'lr', 'momentum', 'weight_decay')),
        'bias lr x, decay x': (paramwise.get('bias_lr_mult'), paramwise.get('bias_decay_mult')),
        'clip_grad': (optim.clip_grad.max_norm, optim.clip_grad.norm_type),
        'lr is for a batch of': cfg.auto_scale_lr.base_batch_size,
        'lr is scaled': cfg.auto_scale_lr.enable,
        'gpus x images': (cfg.auto_scale_lr.base_batch_size / loader.batch_size, loader.batch_size),
        'epochs': cfg.train_cfg.max_epochs if steps.end == cfg.train_cfg.max_epochs else 'not those of the schedule',
        'repeats': loader.dataset.times if repeated else 1,
        'steps': (steps.milestones, steps.gamma, steps.by_epoch),
        'warm-up': (warm_up.type, warm_up.begin, warm_up.end, warm_up.by_epoch, warm_up.start_factor),
        'train scale': (train['Resize'].scale, train['Resize'].keep_ratio),
        'test scale': (test['Resize'].scale, test['Resize'].keep_ratio),
        'augmentation': [name for name in train if name not in (*test, 'LoadImageFromFile')],
        'grouped by aspect ratio': (loader.batch_sampler or {}).get('type') == 'AspectRatioBatchSampler',
        'trains on': (data.ann_file, data.data_prefix.img, data.filter_cfg.filter_empty_gt, data.filter_cfg.min_size),
        'tests on': (detection_data(cfg).ann_file, detection_data(cfg).data_prefix.img),
        **{key: model.test_cfg[key] for key in ('score_thr', 'nms_pre', 'nms', 'max_per_img')},
        'backbone': (backbone.type, backbone.depth, backbone.get('style'), backbone.init_cfg.checkpoint),
        'batch norm': (
            backbone.get('frozen_stages'),
            backbone.get('norm_eval'),
            backbone.get('norm_cfg', {}).get('requires_grad'),
        ),
        'neck': (
            neck.type,
            neck.get('add_extra_convs'),
            neck.get('start_level'),
            neck.get('num_outs', len(neck.in_channels) + len(neck.get('level_strides', []))),
            neck.get('relu_before_extra_convs', False) if neck.type == 'FPN' else None,
        ),
        'pixels': (pixels.mean, pixels.std, pixels.bgr_to_rgb, pixels.pad_size_divisor),
        'classes': model.bbox_head.num_classes,
    }


def detection_data(cfg: Config) -> Any:
    """The data set of test and validation, which are one."""
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.test_evaluator == cfg.val_evaluator
    assert cfg.test_evaluator.ann_file == cfg.data_root + cfg.test_dataloader.dataset.ann_file
    return cfg.test_dataloader.dataset


@pytest.mark.parametrize('name', ROWS)
def test_settings(name: str) -> None:
    assert settings(load(name)) == SETTINGS[ROWS[name].settings]


@pytest.mark.parametrize('name', ROWS)
def test_training_pipelines_prepare_boxes_in_order(name: str) -> None:
    data = load(name).train_dataloader.dataset
    steps = [step.type for step in (data.dataset if data.type == 'RepeatDataset' else data).pipeline]
    before, after = steps[: steps.index('Resize')], steps[steps.index('Resize') :]
    assert before[:2] == ['LoadImageFromFile', 'LoadAnnotations']
    assert after[1] == 'RandomFlip'
    assert after[-1] == 'PackDetInputs'


#: What a row is about, and the loss weights that the test of the built heads looks at.
AXES = ('type', 'quality', 'box', 'reg_max', 'delta', 'loss_cls', 'loss_bbox', 'loss_dfl')
COMPARED = ('train_cfg', 'param_scheduler', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator')


def beside_the_axes(cfg: Config) -> dict[str, Any]:
    """Model, data, schedule and optimizer without what a row changes and what this package adds to every config."""
    cfg = cfg.to_dict()
    head = {key: value for key, value in cfg['model'].pop('bbox_head').items() if key not in AXES}
    optim = {key: value for key, value in cfg['optim_wrapper'].items() if key != 'clip_grad'}
    return dict({key: cfg[key] for key in COMPARED}, model=cfg['model'], head=head, optim_wrapper=optim)


@pytest.mark.parametrize('name', ROWS)
def test_all_else_is_mmdetections(name: str) -> None:
    import mmdet

    row = ROWS[name]
    stock = 'gfl/gfl_r50_fpn_1x_coco' if row.head == 'GFLHead' else STOCK[row.settings]
    theirs = beside_the_axes(Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / f'{stock}.py'))
    ours = beside_the_axes(load(name))
    if name.startswith('gfl/'):  # MMDetection's GFL and ATSS are one class under two names
        theirs['model']['type'] = ours['model']['type']
    assert ours == theirs


@pytest.mark.parametrize('host', BASELINES)
def test_a_baseline_has_the_losses_of_mmdetection(host: str) -> None:
    import mmdet

    stock = Config.fromfile(Path(mmdet.__file__).parent / '.mim' / 'configs' / f'{STOCK[host]}.py').model.bbox_head
    ours = load(BASELINES[host]).model.bbox_head
    axes = ('type', 'quality', 'box')
    assert {k: v for k, v in ours.items() if k not in axes} == {k: v for k, v in stock.items() if k not in axes}
    assert ours.type == 'mmdet_gfl.' + stock.type.replace('Head', 'GFLHead')


# What is built ------------------------------------------------------------------------------------------------------


def narrow_head(name: str) -> nn.Module:
    """The head of a config, 32 channels wide."""
    model = load(name).model
    head = dict(model.bbox_head, train_cfg=model.get('train_cfg'), test_cfg=model.test_cfg)
    if isinstance(head['in_channels'], (list, tuple)):
        head['in_channels'] = (32,) * len(head['in_channels'])
    else:
        head.update(in_channels=32, feat_channels=32)
    return MODELS.build(head)


@pytest.mark.parametrize('name', ROWS)
def test_head(name: str) -> None:
    row, head = ROWS[name], narrow_head(name)
    assert (type(head).__name__, type(head.quality).__name__, type(head.box).__name__) == row[1:4]
    assert type(head).__module__.startswith('mmdet_gfl.')
    assert head.quality.box_weight == 'auto'
    assert_class_loss(head, row)
    assert_box_losses(head, row)
    assert_layers(head, row)


def assert_class_loss(head: nn.Module, row: Row) -> None:
    loss = head.loss_cls
    assert loss.loss_weight == 1.0
    if row.quality in (JOINT, GUIDED):
        assert type(loss).__module__.startswith('mmdet_gfl.')
        assert (type(loss).__name__, loss.beta, loss.use_sigmoid) == ('QualityFocalLoss', row.beta, True)
    elif row.settings == 'ssd512':
        assert (type(loss).__name__, loss.use_sigmoid) == ('CrossEntropyLoss', False)
    else:
        assert (type(loss).__name__, loss.gamma, loss.alpha) == ('FocalLoss', *FOCAL[row.settings])
    if head.quality.branch:
        branch = head.loss_centerness
        assert (type(branch).__name__, branch.use_sigmoid, branch.loss_weight) == ('CrossEntropyLoss', True, 1.0)


def assert_box_losses(head: nn.Module, row: Row) -> None:
    loss = head.loss_bbox
    found = (type(loss).__name__, loss.loss_weight, getattr(loss, 'beta', None))
    if row.box == 'DiracBox':
        assert found == BOX_LOSS[row.settings]
        assert row.giou in (None, found[1])
    elif row.box == 'GaussianBox':
        assert found == ('GaussianNLLLoss', 1.0, None)
    else:
        assert found == ('GIoULoss', row.giou, None)
        assert (head.box.reg_max, head.box.delta) == (row.n, row.delta)
        assert (head.integral.reg_max, head.integral.delta) == (row.n, row.delta)
    dfl = getattr(head, 'loss_dfl', None)
    assert (dfl and dfl.loss_weight) == row.dfl
    assert dfl is None or type(dfl).__module__.startswith('mmdet_gfl.')


def assert_layers(head: nn.Module, row: Row) -> None:
    outputs = {'DiracBox': 1, 'GaussianBox': 2, 'GeneralBox': (row.n or 0) + 1}[row.box]
    if row.settings.startswith('ssd'):
        classes, sides = ([convs[-1] for convs in layers] for layers in (head.cls_convs, head.reg_convs))
        priors = [4, 6, 6, 6, 6, 4, 4] if row.settings == 'ssd512' else [4, 6, 6, 6, 4, 4]
        scores = 80 if row.quality in (JOINT, GUIDED) else 81
    else:
        classes, sides = [getattr(head, head.cls_name)], [getattr(head, head.reg_name)]
        priors, scores = [9 if row.settings == 'retinanet' else 1], 80
        branch = getattr(head, head.quality_name)
        assert isinstance(branch, nn.Conv2d) == (row.quality in (CENTERNESS, 'IoUBranch'))
    assert [conv.out_channels for conv in classes] == [count * scores for count in priors]
    assert [conv.out_channels for conv in sides] == [count * 4 * outputs for count in priors]
    assert reg_conf(head) == (GFLV2_LAYERS if row.quality == GUIDED else {})


#: The network of GFLv2, on every host: 4 probabilities and their mean per side, 64 channels, one quality.
GFLV2_LAYERS = {'0.weight': (64, 20, 1, 1), '0.bias': (64,), '2.weight': (1, 64, 1, 1), '2.bias': (1,)}


def reg_conf(head: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of what GFLv2 adds to a head's state dict."""
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    return {key.removeprefix('reg_conf.'): shape for key, shape in shapes.items() if key.startswith('reg_conf.')}


@pytest.mark.parametrize('name', ROWS)
def test_a_config_names_no_loss_that_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for module in ('quality.joint', 'dense_heads.dense_gfl_mixin'):
        monkeypatch.setattr(f'mmdet_gfl.models.{module}.print_log', lambda message, **kwargs: said.append(message))
    narrow_head(name)
    # A child config cannot take a key away, and a head without loss_bbox is no head of MMDetection.
    assert [message.split(' is superseded by ')[0] for message in said] == (
        ['bbox_head.loss_bbox=GIoULoss'] if ROWS[name].box == 'GaussianBox' else []
    )


@pytest.mark.parametrize('host', SETTINGS)
def test_detector(host: str) -> None:
    model = load({**BASELINES, 'ssd300': 'ssd/ssd300_gfl_coco'}[host]).model
    model.backbone.init_cfg = None
    side = {'ssd300': 300, 'ssd512': 512}.get(host, 128)
    with torch.device('meta'), torch.no_grad():  # shapes are all that is looked at
        detector = MODELS.build(model).eval().to('meta')  # the layer of SSD's neck lies elsewhere
        scores, sides, *_ = detector(torch.zeros(1, 3, side, side), mode='tensor')
    assert [tuple(level.shape[-2:]) for level in scores] == [(size, size) for size in LEVELS[host]]
    assert [level.shape[-2:] for level in sides] == [level.shape[-2:] for level in scores]


# Names, comments, metafiles -----------------------------------------------------------------------------------------


def test_names() -> None:
    basenames = [name.rpartition('/')[2] for name in shipped_configs.names()]
    assert len(set(basenames)) == len(basenames)
    for name in ROWS:
        assert re.fullmatch(
            r'(gfl|atss|fcos|retinanet|fovea)_r50(-caffe)?_fpn(_[a-z-]+[0-9.]*)?_(4xb4-)?1x_coco|'
            r'ssd(300|512)(_[a-z]+2?)?_coco',
            name.rpartition('/')[2],
        )


@pytest.mark.parametrize('name', ROWS)
def test_first_comment_names_the_rows(name: str) -> None:
    lines = (CONFIGS / f'{name}.py').read_text().splitlines()
    count = next(index for index, line in enumerate(lines) if not line.startswith('#'))
    comment = ' '.join(line.removeprefix('# ') for line in lines[:count])
    named = re.findall(r'(?:table |, )(\d[abc]?) "([^"]+)"', comment)
    assert tuple(f'{key} {label}' for key, label in named) == ROWS[name].tables
    assert ('Not in the paper' in comment) == (name in EXTRA)


def test_nothing_is_inherited_from_a_package() -> None:
    for path in CONFIGS.rglob('*.py'):
        assert '::' not in path.read_text(), path


@pytest.mark.parametrize('folder', sorted({name.partition('/')[0] for name in ROWS}))
def test_metafile(folder: str) -> None:
    metafile = yaml.safe_load((CONFIGS / folder / 'metafile.yml').read_text())
    (collection,) = metafile['Collections']
    assert (CONFIGS.parent / collection['README']).samefile(CONFIGS / folder / 'README.md')
    models = {model['Config'].removeprefix('configs/').removesuffix('.py'): model for model in metafile['Models']}
    models = {name: model for name, model in models.items() if not RELEASED.fullmatch(name)}
    assert set(models) == {name for name in ROWS if name.startswith(f'{folder}/')}
    for name, model in models.items():
        assert model['Name'] == name.rpartition('/')[2]
        assert model['In Collection'] == collection['Name']
        assert model['Metadata']['Epochs'] == SETTINGS[ROWS[name].settings]['epochs']
        rows = rows_of(name)
        assert ('Results' in model) == bool(rows), 'without a row of the paper there is no number to quote'
        if rows:
            assert model['Results'][0]['Metrics'] == {'box AP': rows[0][1]['paper']['AP']}
            quoted = model['Metadata']['Quoted From']
            assert re.fullmatch(r'arXiv:2006.04388, tables? (.*)', quoted)[1] == ', '.join(key for key, _ in rows)


WORDS = {
    'JointQuality': 'joint (QFL)',
    'DistributionGuidedQuality': 'distribution guided (GFLv2)',
    'NoQuality': 'none',
    'CenternessBranch': 'centerness branch',
    'IoUBranch': 'IoU branch',
    'CenternessGuided': 'centerness guided',
    'IoUGuided': 'IoU guided',
    'DiracBox': 'Dirac delta',
    'GaussianBox': 'Gaussian',
}


@pytest.mark.parametrize('folder', sorted({name.partition('/')[0] for name in ROWS}))
def test_readme_lists_the_configs(folder: str) -> None:
    text = (CONFIGS / folder / 'README.md').read_text()
    assert 'quoted from the paper' in text
    cells = [[cell.strip() for cell in line.strip('| ').split('|')] for line in text.splitlines() if '](./' in line]
    table = {cell[0]: cell[1:] for cell in cells if len(cell) == 5}
    assert table == {link(name): readme_row(name) for name in ROWS if name.startswith(f'{folder}/')}


def link(name: str) -> str:
    basename = name.rpartition('/')[2]
    return f'[{basename}](./{basename}.py)'


def readme_row(name: str) -> list[str]:
    """Quality, box side, AP of the paper, tables."""
    row, rows = ROWS[name], rows_of(name)
    quality = WORDS[row.quality] + ('' if row.beta in (None, 2.0) else f', β = {row.beta:g}')
    box = WORDS.get(row.box) or ('General w/ DFL' if row.dfl else 'General')
    box += '' if row.n in (None, 16) else f', n = {row.n}'
    box += '' if row.delta in (None, 1.0) else f', Δ = {row.delta:g}'
    if not rows:
        return [quality, box, '–', 'not in the paper']
    return [quality, box, f'{rows[0][1]["paper"]["AP"]:.1f}', ', '.join(key for key, _ in rows)]
