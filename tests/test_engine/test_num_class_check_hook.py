"""The hook compares class counts, and leaves detectors alone that see one class whatever the data has."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.models.detectors import RPN
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from torch import nn

from mmdet_gfl.engine import launch
from mmdet_gfl.engine.hooks import NumClassCheckHook
from mmdet_gfl.engine.hooks.num_class_check_hook import check_num_classes

CLASSES = ('cat', 'dog', 'bird')


class Part(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes


def detector(**parts):
    model = nn.Module()
    for name, num_classes in parts.items():
        model.add_module(name, Part(num_classes))
    return model


def data_set(*classes):
    return SimpleNamespace(metainfo=dict(classes=classes))


@pytest.mark.parametrize('wrapped', [False, True])
def test_another_number_is_named(wrapped):
    model = detector(bbox_head=80)
    if wrapped:
        inner, model = model, nn.Module()
        model.module = inner
    words = (
        r'^model\.bbox_head\.num_classes=80, but the data set of val_dataloader\.dataset has 3 classes; '
        r'set num_classes=3, or val_dataloader\.dataset\.metainfo\.classes$'
    )
    runner = SimpleNamespace(model=model, val_dataloader=SimpleNamespace(dataset=data_set(*CLASSES)))
    with pytest.raises(ValueError, match=words):
        NumClassCheckHook().before_val_epoch(runner)


def test_a_class_without_its_comma():
    dataset = SimpleNamespace(metainfo=dict(classes='cat'))
    with pytest.raises(ValueError, match=r"metainfo\.classes='cat' is one text; a single class is \('cat',\)"):
        check_num_classes(detector(bbox_head=3), dataset, 'train_dataloader.dataset')


@DATASETS.register_module(force=True)
class AnimalsOfOneImage(BaseDataset):
    METAINFO = dict(classes=CLASSES)

    def load_data_list(self):
        instances = [dict(bbox=[4, 4, 40, 40], bbox_label=2, ignore_flag=0)]
        return [dict(img_id=0, img_path=self.ann_file, height=64, width=64, instances=instances)]


def test_a_class_agnostic_rpn_trains_with_the_shipped_hooks(tmp_path, root):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((64, 64, 3), np.uint8))
    anchors = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8])
    head = dict(type='mmdet_gfl.GFLHead', num_classes=1, in_channels=8, feat_channels=32, stacked_convs=1)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    pipeline.append(dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')))
    dataset = dict(type='AnimalsOfOneImage', ann_file=str(tmp_path / 'a.png'), pipeline=pipeline)
    cfg = Config.fromfile(root / 'configs' / '_base_' / 'default_runtime.py')
    cfg.merge_from_dict(
        dict(
            work_dir=str(tmp_path / 'work'),
            launcher='none',
            experiment_name='rpn',
            model=dict(
                type='RPN',
                data_preprocessor=dict(type='DetDataPreprocessor'),
                backbone=dict(type='ResNet', depth=18, base_channels=4, num_stages=2, out_indices=(1,),
                              strides=(1, 2), dilations=(1, 1)),
                neck=None,
                rpn_head=dict(head, anchor_generator=anchors),
                train_cfg=dict(rpn=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1)),
                test_cfg=dict(rpn=None),
            ),
            train_dataloader=dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                                  dataset=dataset),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
    )  # fmt: skip
    assert {'mmdet_gfl.NumClassCheckHook', 'mmdet_gfl.CheckGroundTruthHook'} <= {hook.type for hook in cfg.custom_hooks}
    runner = Runner.from_cfg(cfg)
    before = {name: value.clone() for name, value in runner.model.named_parameters()}
    launch.observe(runner, 'train')
    launch.run(runner.train, cfg)
    assert isinstance(runner.model, RPN) and runner.iter == 1
    assert any(not torch.equal(value, before[name]) for name, value in runner.model.named_parameters())
