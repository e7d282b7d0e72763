"""A row shrunk stays the row it was."""

import copy
import re
from functools import cache

import pytest
import torch
from cases import covering
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_gfl.benchmark.mini import Mini, shrink
from mmdet_gfl.shipped_configs import CONFIG_DIR

CONFIGS = sorted(str(file.relative_to(CONFIG_DIR)) for file in CONFIG_DIR.glob('[!_]*/*.py'))
SOME = 'gfl/gfl_r50_fpn_1x_coco.py'
#: What a mini run may change of a head.
FREE = {'num_classes', 'in_channels', 'feat_channels', 'stacked_convs'}


@cache
def row_of(name):
    """A row as the paper has it, read once: nothing changes it."""
    return Config.fromfile(CONFIG_DIR / name)


def head_of(cfg):
    return {key: value for key, value in cfg.model.bbox_head.to_dict().items() if key not in FREE}


@pytest.mark.parametrize('name', CONFIGS)
def test_arguments_of_the_row_are_kept(name):
    row = row_of(name)
    before = copy.deepcopy(row.to_dict())
    small = shrink(row, Mini(size=96, epochs=4, lr=2e-3), seed=7)
    assert row.to_dict() == before
    kept, own = head_of(small), head_of(row)
    if name.startswith('ssd'):  # a small input has anchors of its own
        assert kept.pop('anchor_generator')['min_sizes'] == [10, 24, 48, 72] and own.pop('anchor_generator')
    if name.startswith('rtmdet'):
        assert kept.pop('norm_cfg')['type'] == 'BN' and own.pop('norm_cfg')['type'] == 'SyncBN'
    assert kept == own
    assert all(small.model.get(key) == row.model.get(key) for key in ('train_cfg', 'test_cfg', 'type'))
    assert small.model.test_cfg.max_per_img in (100, 200, 300)
    address = 'shapes://train=800/val=250/width=96/height=96/clutter=0.0/classes=ellipse+rectangle+star/'
    assert small.train_dataloader.dataset.data_root == small.val_dataloader.dataset.data_root == address
    assert small.val_evaluator.ann_file == f'{address}annotations/instances_val.json'
    assert small.train_cfg.max_epochs == 4 and small.param_scheduler[1].end == 400
    assert small.optim_wrapper.optimizer.lr == 2e-3 and small.randomness.seed == 7
    assert [s.scale for s in small.train_dataloader.dataset.pipeline if s.type == 'Resize'] == [(96, 96)]


def test_rtmdet_leaves_its_schedule_and_synchronization_behind():
    row = row_of('rtmdet/rtmdet_l_8xb32-300e_coco.py')
    small = shrink(row)
    assert [hook.type for hook in row.custom_hooks[2:]] == ['EMAHook', 'PipelineSwitchHook']
    assert small.custom_hooks == row.custom_hooks[:2]
    assert 'SyncBN' not in str(small.model) and small.model.use_syncbn is False
    assert small.model.neck.type == 'CSPNeXtPAFPN' and 'dynamic_intervals' not in small.train_cfg
    features = MODELS.build(small.model).extract_feat(torch.zeros(1, 3, 160, 160))
    assert [tuple(level.shape[1:]) for level in features] == [(64, 20, 20), (64, 10, 10), (64, 5, 5)]


def test_the_last_classes_are_rare():
    small = shrink(row_of(SOME), Mini(rare=1))
    address = small.train_dataloader.dataset.data_root
    assert address.endswith('classes=ellipse+rectangle+star/rare=star/')
    assert small.val_evaluator.classwise and not shrink(row_of(SOME)).val_evaluator.classwise
    assert address == small.val_dataloader.dataset.data_root and small.val_evaluator.ann_file.startswith(address)


def test_averaged_weights_are_a_hook_of_mmengine():
    row = row_of(SOME)
    hook = dict(type='EMAHook', momentum=0.01, update_buffers=True)
    assert shrink(row, Mini(ema=0.01)).custom_hooks == [*shrink(row).custom_hooks, hook]


SIZE = 64
#: The first config of each model that has been trained here; models that differ in numbers alone (a beta, a number of
#: bins) have the same parts.
TRAINED: dict[str, str] = {}


@cache
def rows_that_learn():
    """Rows with each head, quality and box: that they learn is seen after some steps."""
    heads = {name: row_of(name).model.bbox_head for name in CONFIGS}
    kinds = {name: tuple(head.get(key, {}).get('type') for key in ('quality', 'box')) for name, head in heads.items()}
    points = {(heads[name].type, *kinds[name]): name for name in reversed(CONFIGS)}
    return {points[point] for point in covering(points, together=1)}


@pytest.mark.parametrize('name', CONFIGS)
def test_it_trains_and_every_parameter_learns(name):
    small = shrink(row_of(name), Mini(size=SIZE, channels=32, stacked_convs=1))
    parts = re.sub(r'-?\b\d[\d.e-]*', 'N', repr(small.model.to_dict()))
    if TRAINED.setdefault(parts, name) != name:
        pytest.skip(f'as a mini run it has the parts of {TRAINED[parts]}')
    model = MODELS.build(small.model)
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    images, samples = batch(SIZE)
    losses, boxes, ious = [], [], []
    quality = type(model.bbox_head.quality).__name__
    for _ in range(12 if name in rows_that_learn() else 1):
        loss, parts = model.parse_losses(model(images, samples, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            named = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
            assert [key for key, grad in named.items() if grad is None] == []
        optimizer.step()
        losses.append(loss.item())
        boxes.append(parts['loss_bbox'].item())
        ious.append(float(parts['pos_iou']))
    if len(losses) > 1 and quality in ('JointQuality', 'DistributionGuidedQuality', 'AssignedQuality'):
        # Scores or IoUs weigh the boxes and are the target of a joint score: the losses rise with them at first.
        assert ious[-1] > ious[0] + 0.2
    elif len(losses) > 1:
        assert boxes[-1] < 0.95 * boxes[0]
        assert losses[-1] < 0.9 * losses[0]
    model.eval()
    with torch.no_grad():
        found = model(images, samples, mode='predict')
    assert len(found) == 3 and all(len(sample.pred_instances) <= 300 for sample in found)


def batch(size):
    """Three images, the last without an object."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    samples = []
    for count in (2, 1, 0):
        sample = DetDataSample(
            metainfo=dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), (size, size))
        )
        sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
        boxes = torch.tensor([[0.08, 0.1, 0.47, 0.55], [0.31, 0.24, 0.94, 0.92]])[:count] * size
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 2])[:count])
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return torch.randn(3, 3, size, size), samples
