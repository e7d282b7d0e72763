"""A row on a tenth of COCO stays the row it was."""

import copy
import json

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config

from mmdet_gfl.benchmark import small
from mmdet_gfl.benchmark.presets import Preset, choose
from mmdet_gfl.benchmark.rows import RowError
from mmdet_gfl.shipped_configs import CONFIG_DIR

CONFIGS = sorted(str(file.relative_to(CONFIG_DIR)) for file in CONFIG_DIR.glob('[!_]*/*.py'))
GFL, SSD, RTMDET = 'gfl/gfl_r50_fpn_1x_coco.py', 'ssd/ssd512_gfl_coco.py', 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
#: What the preset may change of a head.
FREE = {'num_classes', 'in_channels', 'feat_channels', 'stacked_convs', 'norm_cfg', 'anchor_generator'}


@pytest.mark.parametrize('name', CONFIGS)
def test_arguments_of_the_row_are_kept(name):
    row = Config.fromfile(CONFIG_DIR / name)
    before = copy.deepcopy(row.to_dict())
    cfg = small.shrink(row, seed=3)
    assert row.to_dict() == before
    kept, own = (dict(c.model.bbox_head) for c in (cfg, row))
    assert {k: v for k, v in kept.items() if k not in FREE} == {k: v for k, v in own.items() if k not in FREE}
    assert kept['num_classes'] == 80
    if not name.startswith(('ssd', 'rtmdet')) and 'narrow' not in name:  # the widths of the paper
        assert kept == own
    assert all(cfg.model.get(key) == row.model.get(key) for key in ('train_cfg', 'test_cfg', 'type'))
    assert 'EMAHook' not in str(cfg.custom_hooks) and cfg.randomness.seed == 3
    assert cfg.default_hooks.checkpoint == dict(type='mmdet_gfl.SafeCheckpointHook', interval=1, max_keep_ckpts=1)


def test_data_and_schedule_are_those_of_the_paper_but_for_size():
    cfg, row = small.shrink(Config.fromfile(CONFIG_DIR / RTMDET)), Config.fromfile(CONFIG_DIR / GFL)
    assert cfg.param_scheduler == row.param_scheduler and cfg.optim_wrapper == row.optim_wrapper
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=12)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16) and cfg.train_dataloader.batch_size == 16
    data, paper = cfg.train_dataloader.dataset, row.train_dataloader.dataset
    assert data.type == 'mmdet_gfl.CocoSubset' and data.every == 10
    assert (data.data_root, data.ann_file, data.filter_cfg) == (paper.data_root, paper.ann_file, paper.filter_cfg)
    assert cfg.val_evaluator == row.val_evaluator and cfg.val_dataloader.dataset.type == 'CocoDataset'
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert [s.scale for s in loader.dataset.pipeline if s.type == 'Resize'] == [(640, 640)]


@pytest.mark.parametrize('name', [GFL, SSD, RTMDET])
def test_neck_and_head_fit_the_backbone(name):
    model = MODELS.build(small.shrink(Config.fromfile(CONFIG_DIR / name)).model)
    with torch.no_grad():
        levels = model(torch.zeros(1, 3, 128, 128), mode='tensor')[0]
    strides = [8, 16, 32] if name == RTMDET else [8, 16, 32, 64] if name == SSD else [8, 16, 32, 64, 128]
    assert [level.shape[-1] for level in levels] == [128 // stride for stride in strides]


@pytest.mark.parametrize('name', [GFL, SSD, RTMDET])
def test_the_backbone_is_that_of_imagenet_with_its_images(name):
    model = small.shrink(Config.fromfile(CONFIG_DIR / name)).model
    backbone = model.backbone
    assert (backbone.type, backbone.depth, backbone.init_cfg.checkpoint) == ('ResNet', 18, 'torchvision://resnet18')
    assert backbone.norm_eval and backbone.frozen_stages == 1  # its norms keep ImageNet's statistics
    images = model.data_preprocessor
    assert images.bgr_to_rgb and images.mean == [123.675, 116.28, 103.53] and images.std == [58.395, 57.12, 57.375]


def test_the_images_are_chosen_by_id(tmp_path):
    images = [dict(id=i, file_name=f'{i}.jpg', width=64, height=64) for i in (7, 20, 9, 10, 30, 101, 40)]
    boxes = [
        dict(id=k, image_id=i['id'], category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
        for k, i in enumerate(images, 1)
    ]
    boxes = [box for box in boxes if box['image_id'] != 30]  # without an object
    file = dict(images=images, annotations=boxes, categories=[dict(id=1, name='person')])
    (tmp_path / 'ann.json').write_text(json.dumps(file))
    data = dict(ann_file=str(tmp_path / 'ann.json'), data_prefix=dict(img=''), pipeline=[])
    data['metainfo'] = dict(classes=('person',))

    def ids(**arguments):
        dataset = DATASETS.build(dict(type='mmdet_gfl.CocoSubset', **data, **arguments))
        return [dataset.get_data_info(index)['img_id'] for index in range(len(dataset))]

    assert ids(every=10) == [20, 10, 30, 40]
    assert ids(every=10, filter_cfg=dict(filter_empty_gt=True)) == [20, 10, 40]
    assert ids(every=1) == [7, 20, 9, 10, 30, 101, 40]
    for every in (0, 2.5, '10'):
        with pytest.raises(ValueError, match='every=.*give an integer from 1 up'):
            ids(every=every)


def test_the_batch_is_shared_out_or_given():
    two, one, given = Preset('small', 2), Preset('small', 1), Preset('small', 1, batch_size=4)
    assert [p.config(GFL, 0).train_dataloader.batch_size for p in (two, one, given)] == [8, 16, 4]
    assert two.sizes() == one.sizes() == Preset('small', 4, batch_size=4).sizes() != given.sizes()
    with pytest.raises(RowError, match='--gpus 3 does not divide the batch of 16 images of the small preset'):
        Preset('small', 3).config(GFL, 0)


def test_choosing():
    assert choose('small', None, None, {}, None, devices=0) == Preset('small', 1)
    assert choose('small', 2, 4, {}, None, devices=2) == Preset('small', 2, batch_size=4)
    with pytest.raises(RowError, match='size: sizes of the mini preset; --preset small takes --cfg-options'):
        choose('small', None, None, dict(size=64), None, devices=1)
    with pytest.raises(
        RowError, match='a row of --preset small takes 4 GPUs, and this machine has 2; .*data is missing'
    ):
        choose('small', 4, None, {}, None, 2, [GFL])
