"""``tools/train.py`` on small sets of many formats: what no training can use is one sentence, and what trains does."""

# ruff: noqa: E501

import json
import runpy
import sys
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmdet_gfl.engine.launch import UserError

SIZE = dict(width=90, height=72)
BOX = (10, 12, 60, 58)
LOAD = """
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(96, 96), keep_ratio=True), dict(type='PackDetInputs')]
"""


@pytest.fixture
def place(root, tmp_path, monkeypatch):
    """A folder with three images, in which the tool runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(root / 'configs')
    for folder in ('images', 'JPEGImages', 'event'):
        (tmp_path / folder).mkdir()
        for name in 'abc':
            cv2.imwrite(str(tmp_path / folder / f'{name}.jpg'), np.full((72, 90, 3), 90, np.uint8))
    return tmp_path


def train(place, root, monkeypatch, dataset, classes=('cat', 'dog'), extra=''):
    """Train an epoch on a data set, given as code."""
    (place / 'config.py').write_text(
        f"_base_ = './configs/gfl/gfl_r50_fpn_1x_coco.py'\nclasses = {classes!r}\n{LOAD}\n"
        f'train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, batch_sampler=None,\n'
        f'    dataset=dict(_delete_=True, **{dataset}))\n'
        'model = dict(backbone=dict(depth=18, base_channels=8, init_cfg=None),\n'
        '    neck=dict(in_channels=[8, 16, 32, 64], out_channels=64),\n'
        '    bbox_head=dict(num_classes=len(classes), in_channels=64, feat_channels=64, stacked_convs=1))\n'
        'train_cfg = dict(max_epochs=1)\n'
        'val_dataloader = None\nval_cfg = None\nval_evaluator = None\n'
        f"default_hooks = dict(checkpoint=dict(interval=-1))\nlog_level = 'WARNING'\n{extra}\n"
    )
    monkeypatch.setattr(sys, 'argv', ['train.py', 'config.py', '--work-dir', 'work'])
    runpy.run_path(str(root / 'tools' / 'train.py'), run_name='__main__')


def coco(place, categories=('cat', 'dog'), **changes):
    x, y, x2, y2 = BOX
    box = dict(bbox=[x, y, x2 - x, y2 - y], area=(x2 - x) * (y2 - y), iscrowd=0)
    annotations = [dict(box, id=i + 1, image_id=i + 1, category_id=i % len(categories) + 1) for i in range(3)]
    content = dict(
        images=[dict(id=i + 1, file_name=f'{image}.jpg', **SIZE) for i, image in enumerate('abc')],
        categories=[dict(id=i + 1, name=category) for i, category in enumerate(categories)],
        annotations=[entry | changes for entry in annotations],
    )
    (place / 'train.json').write_text(json.dumps(content))
    return "dict(type='CocoDataset', ann_file='train.json', data_prefix=dict(img='images'), metainfo=dict(classes=classes), pipeline=load)"


def voc(place, names=('cat', 'dog', 'cat'), boxes=(BOX, BOX, BOX), kind='VOCDataset', prefix='sub_data_root', **fields):
    (place / 'Annotations').mkdir(exist_ok=True)
    (place / 'list.txt').write_text('a\nb\nc\n')
    for image, name, box in zip('abc', names, boxes):
        tree = ElementTree.Element('annotation')
        ElementTree.SubElement(tree, 'folder').text = 'event'
        size, entry = ElementTree.SubElement(tree, 'size'), ElementTree.SubElement(tree, 'object')
        bndbox = ElementTree.SubElement(entry, 'bndbox')
        sides = zip(('xmin', 'ymin', 'xmax', 'ymax'), box)
        for parent, values in ((size, SIZE.items()), (entry, dict(fields, name=name).items()), (bndbox, sides)):
            for key, value in values:
                ElementTree.SubElement(parent, key).text = str(value)
        ElementTree.ElementTree(tree).write(place / 'Annotations' / f'{image}.xml')
    return f"dict(type='{kind}', ann_file='list.txt', data_prefix=dict({prefix}=''), metainfo=dict(classes=classes), pipeline=load)"


def crowd(place, *boxes):
    lines = [
        json.dumps(dict(ID=image, gtboxes=[dict(tag='person', fbox=box, hbox=box, vbox=box) for box in boxes]))
        for image in 'abc'
    ]
    (place / 'train.odgt').write_text('\n'.join(lines))
    return "dict(type='CrowdHumanDataset', data_root='', ann_file='train.odgt', data_prefix=dict(img='images'), pipeline=load)"


def wrapped(kind, inner, **other):
    return f"dict(type='{kind}', dataset={inner}, {', '.join(f'{key}={value!r}' for key, value in other.items())})"


REVERSED = (60, 58, 10, 12)


@pytest.mark.slow
@pytest.mark.parametrize(
    'make',
    [
        coco,
        voc,
        lambda place: wrapped('ClassBalancedDataset', coco(place), oversample_thr=0.1),
        lambda place: f"dict(type='ConcatDataset', datasets=[{voc(place)}, {coco(place)}])",
        lambda place: voc(place, ('cat', 'dog', 'dog'), kind='WIDERFaceDataset', prefix='img'),
    ],
    ids=['coco', 'voc', 'balanced', 'concat', 'wider'],
)
def test_configs_that_train(place, root, monkeypatch, make):
    train(place, root, monkeypatch, make(place))


@pytest.mark.slow
def test_crowd_human_trains(place, root, monkeypatch):
    train(place, root, monkeypatch, crowd(place, [10, 12, 50, 40]), ('person',))


@pytest.mark.slow
@pytest.mark.parametrize(
    'make, words, classes',
    [
        (lambda p: voc(p, boxes=(BOX, REVERSED, BOX)), r'1 of the 3 boxes are not .*object 0 of .*b\.xml', 'two'),
        (lambda p: voc(p, difficult='Unspecified'), r"a\.xml cannot be read .*int\(\) with base 10: 'Unspecified'", 'two'),
        (
            lambda p: voc(p, boxes=(BOX, BOX, REVERSED), kind='WIDERFaceDataset', prefix='img'),
            r'object 0 of .*c\.xml is \[60\.0, 58\.0, 10\.0, 12\.0\]',
            'two',
        ),
        (lambda p: voc(p, boxes=[(0.1, 0.1, 0.5, 0.6)] * 3), 'all 3 objects are left out: 3 marked .* without an area', 'two'),
        (lambda p: wrapped('RepeatDataset', voc(p, ['Cat'] * 3), times=2), "left out: 3 of classes .*such as 'Cat'", 'two'),
        (lambda p: coco(p, bbox=[0.1, 0.1, 0.5, 0.6]), 'all 3 objects .*narrower or lower than 1 pixel', 'two'),
        (lambda p: wrapped('ClassBalancedDataset', coco(p, area=0), oversample_thr=0.1), 'without an area', 'two'),
        (lambda p: coco(p, iscrowd='0'), 'all 3 objects are left out: 3 marked to be ignored', 'two'),
        (lambda p: coco(p, image_id='1'), "of images that the file does not list, such as image_id='1' where", 'two'),
        (
            lambda p: f"dict(type='ConcatDataset', datasets=[{coco(p)}, {voc(p, boxes=[REVERSED] * 3)}])",
            r'^train_dataloader\.dataset\.datasets\.1\.ann_file: 3 of the 3 boxes',
            'two',
        ),
        (lambda p: crowd(p, [0.1, 0.2, 0.5, 0.5]), '3 of the 3 boxes lie between 0 and 1', 'person'),
        (lambda p: crowd(p, [10, 12, 50, 40], [60, 12, -50, 40]), r'3 of the 6 boxes are not .*odgt, image images/a', 'person'),
        (lambda p: coco(p).replace("dict(img='images')", "'images'"), r"data_prefix=dict\(img='images'\)", 'two'),
    ],
)  # fmt: skip
def test_configs_that_cannot_train(place, root, monkeypatch, make, words, classes):
    names = dict(two=('cat', 'dog'), person=('person',))[classes]
    with pytest.raises(UserError, match=words) as error:
        train(place, root, monkeypatch, make(place), names)
    assert '\n' not in str(error.value)


@pytest.mark.slow
def test_a_proposal_network_trains_with_the_shipped_hooks(place, root, monkeypatch):
    rpn = """
from copy import deepcopy
_model = dict(type='RPN', rpn_head=dict(type='mmdet_gfl.GFLHead', num_classes=1, in_channels=64, feat_channels=64,
    stacked_convs=1, reg_max=16, loss_cls=dict(type='mmdet_gfl.QualityFocalLoss', use_sigmoid=True),
    loss_dfl=dict(type='mmdet_gfl.DistributionFocalLoss', loss_weight=0.25), loss_bbox=dict(type='GIoULoss'),
    anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
        strides=[8, 16, 32, 64, 128])),
    train_cfg=dict(_delete_=True, rpn=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1)),
    test_cfg=dict(_delete_=True, rpn=dict(nms_pre=10, max_per_img=10, nms=dict(type='nms', iou_threshold=0.7),
        min_bbox_size=0)))
model.pop('bbox_head')
model.update(_model)
model = dict(_delete_=True, data_preprocessor=_base_.model.data_preprocessor, backbone=dict(_base_.model.backbone,
    **model['backbone']), neck=dict(_base_.model.neck, **model['neck']), type='RPN', rpn_head=model['rpn_head'],
    train_cfg=dict(rpn=model['train_cfg']['rpn']), test_cfg=dict(rpn=model['test_cfg']['rpn']))
"""
    train(place, root, monkeypatch, coco(place), extra=rpn)
    hooks = [hook.type for hook in Config.fromfile(place / 'work' / 'config.py').custom_hooks]
    assert {'mmdet_gfl.NumClassCheckHook', 'mmdet_gfl.CheckGroundTruthHook'} <= set(hooks)


PURE = """
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmcv.transforms import LoadImageFromFile
from mmdet.models.backbones import ResNet
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.detectors import GFL
from mmdet.models.losses import GIoULoss
from mmdet.models.necks import FPN
from mmdet.models.task_modules import ATSSAssigner, AnchorGenerator
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from torch.optim import SGD

from mmdet_gfl.engine.hooks import CheckGroundTruthHook, NumClassCheckHook
from mmdet_gfl.models.dense_heads import GFLHead
from mmdet_gfl.models.losses import DistributionFocalLoss, QualityFocalLoss

default_scope = 'mmdet'
model = dict(
    type=GFL,
    data_preprocessor=dict(type=DetDataPreprocessor, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18, base_channels=8, out_indices=(1, 2, 3)),
    neck=dict(type=FPN, in_channels=[16, 32, 64], out_channels=32, num_outs=3),
    bbox_head=dict(
        type=GFLHead, num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1, norm_cfg=None,
        anchor_generator=dict(type=AnchorGenerator, ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
                              strides=[8, 16, 32]),
        loss_cls=dict(type=QualityFocalLoss), loss_dfl=dict(type=DistributionFocalLoss), loss_bbox=dict(type=GIoULoss),
    ),
    train_cfg=dict(assigner=dict(type=ATSSAssigner, topk=9), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=10, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=10),
)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(
        type=CocoDataset, ann_file='train.json', data_prefix=dict(img='images'), metainfo=dict(classes=('cat', 'dog')),
        pipeline=[dict(type=LoadImageFromFile), dict(type=LoadAnnotations, with_bbox=True),
                  dict(type=Resize, scale=(96, 96), keep_ratio=True), dict(type=PackDetInputs)],
    ),
)
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.001))
custom_hooks = [dict(type=NumClassCheckHook), dict(type=CheckGroundTruthHook)]
log_level = 'WARNING'
"""


@pytest.mark.slow
def test_a_pure_python_config_and_what_the_runner_writes_of_it(place, root, monkeypatch):
    coco(place)
    (place / 'pure.py').write_text(PURE)
    for config, work in (('pure.py', 'first'), ('first/pure.py', 'second')):
        monkeypatch.setattr(sys, 'argv', ['train.py', config, '--work-dir', work])
        runpy.run_path(str(root / 'tools' / 'train.py'), run_name='__main__')
        assert (place / work / 'epoch_1.pth').is_file()
    written = Config.fromfile(place / 'first' / 'pure.py')
    assert written.model.bbox_head.type == 'mmdet_gfl.models.dense_heads.GFLHead'
    assert written.train_dataloader.dataset.type == 'mmdet.datasets.CocoDataset'
    coco(place, area=0)
    with pytest.raises(UserError, match='nothing to learn.*without an area'):
        runpy.run_path(str(root / 'tools' / 'train.py'), run_name='__main__')
