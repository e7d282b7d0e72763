"""When a head leaves MMDetection's way, when it does not, and what it keeps."""

import pytest
import torch
from cases import (
    assert_same_training,
    build,
    features,
    gfl_config,
    host_config,
    host_features,
    metas,
    objects,
    pair,
    totals,
)
from mmdet.models.task_modules import BboxOverlaps2D
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData

from mmdet_gfl.models.dense_heads import ATSSGFLHead, RetinaGFLHead, SSDGFLHead
from mmdet_gfl.models.dense_heads.anchor_gfl_mixin import AnchorGFLMixin
from mmdet_gfl.models.losses import QualityFocalLoss

SIZE = (160, 224)
ATSS = dict(type='ATSSAssigner', topk=9)


def atss(assigner=ATSS, border=-1, **changes):
    train_cfg = dict(assigner=assigner, allowed_border=border, pos_weight=-1)
    return MODELS.build(host_config('ATSS', **dict(changes, train_cfg=train_cfg)))


def anchors(**changes):
    return dict(type='AnchorGenerator', octave_base_scale=8, strides=[8, 16, 32, 64, 128], **changes)


@pytest.mark.parametrize(
    'head, on_grid',
    [
        (lambda: atss(), True),
        (lambda: atss(dict(ATSS, ignore_iof_thr=0.5)), False),
        (lambda: atss(dict(ATSS, iou_calculator=dict(type='BboxOverlaps2D', scale=2.0))), False),
        (lambda: atss(border=0), False),
        (lambda: atss(anchor_generator=anchors(ratios=[0.5, 1.0], scales_per_octave=1)), False),
        (lambda: atss(anchor_generator=anchors(ratios=[0.5], scales_per_octave=1)), True),
    ],
    ids=['plain', 'ignores', 'iou_calculator', 'allowed_border', 'two-anchors', 'another-ratio'],
)
def test_which_heads_assign_on_the_grid(head, on_grid):
    regions = [InstanceData(bboxes=torch.zeros(1, 4)), InstanceData(bboxes=torch.zeros(0, 4))]
    assert head().on_grid(regions) == on_grid


def test_ignored_regions_need_mmdetections_assigner_only_if_there_are_any():
    head = atss(dict(ATSS, ignore_iof_thr=0.5))
    assert head.on_grid(None) and head.on_grid([InstanceData(bboxes=torch.zeros(0, 4))])


@pytest.mark.parametrize('name', ['get_targets', '_get_targets_single', 'get_anchors'])
def test_an_overridden_assignment_is_used(name):
    head = atss()
    head.__class__ = type('Own', (ATSSGFLHead,), {name: lambda self, *args, **kwargs: None})
    assert not head.on_grid(None)


@pytest.mark.parametrize('pads', [[(160, 224)] * 3, [(160, 224), (100, 130), (32, 224)]], ids=['whole', 'padded'])
@pytest.mark.parametrize('pos_weight', [-1, 2.5])
@pytest.mark.parametrize('counts', [[7, 0, 30], [0, 0, 0]], ids=str)
def test_targets_on_the_grid_are_those_of_the_plain_way(pads, pos_weight, counts):
    head = MODELS.build(host_config('ATSS'))
    head.train_cfg.pos_weight = pos_weight
    sizes = [tuple(level.shape[-2:]) for level in features(SIZE, 1)]
    gts, images = objects(counts, SIZE), metas(SIZE, 3)
    for meta, pad in zip(images, pads):
        meta['pad_shape'] = pad
    found = head.targets(sizes, gts, images, None)
    plain = AnchorGFLMixin.targets(head, sizes, gts, images, None)
    for name in ('labels', 'label_weights', 'pos', 'gt', 'avg_factor', 'num_images'):
        assert torch.equal(torch.as_tensor(getattr(found, name)), torch.as_tensor(getattr(plain, name))), name
    for one, other in zip(found.at, plain.at):
        assert torch.equal(one, other)
    assert found.all_count == (pads[1] == SIZE and pos_weight < 0)


MAX_IOU = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, ignore_iof_thr=-1)


def by_max_iou(host, border=-1, sampler='PseudoSampler', **changes):
    train_cfg = dict(assigner=dict(MAX_IOU, **changes), allowed_border=border, pos_weight=-1, neg_pos_ratio=3)
    if sampler:
        train_cfg['sampler'] = dict(type=sampler, num=256, pos_fraction=0.5)
    return MODELS.build(host_config(host, train_cfg=train_cfg))


@pytest.mark.parametrize('host', ['Retina', 'SSD'])
@pytest.mark.parametrize(
    'changes, on_grid',
    [
        ({}, True),
        (dict(sampler=None), True),
        (dict(gt_max_assign_all=False, neg_iou_thr=0.5), True),
        (dict(match_low_quality=False), True),
        (dict(gpu_assign_thr=10), True),
        (dict(neg_iou_thr=(0.1, 0.4)), False),
        (dict(ignore_iof_thr=0.5), False),
        (dict(iou_calculator=dict(type='BboxOverlaps2D', dtype='fp16')), False),
        (dict(perm_repeat_gt_cfg=dict(iou_thr=0.7)), False),
        (dict(border=0), False),
        (dict(sampler='RandomSampler'), False),
        (dict(type='ATSSAssigner', topk=9), False),
    ],
    ids=str,
)
def test_which_heads_assign_by_iou_on_the_grid(host, changes, on_grid):
    if changes.get('type'):
        head = by_max_iou(host)
        head.assigner = TASK_UTILS.build(changes)
    else:
        head = by_max_iou(host, **changes)
    assert head.on_grid([InstanceData(bboxes=torch.zeros(1, 4)), InstanceData(bboxes=torch.zeros(0, 4))]) == on_grid


@pytest.mark.parametrize('name', ['get_targets', '_get_targets_single', 'get_anchors'])
@pytest.mark.parametrize('kind', [RetinaGFLHead, SSDGFLHead])
def test_an_overridden_assignment_by_iou_is_used(kind, name):
    head = by_max_iou('Retina' if kind is RetinaGFLHead else 'SSD')
    assert head.on_grid(None)
    head.__class__ = type('Own', (kind,), {name: lambda self, *args, **kwargs: None})
    assert not head.on_grid(None)


@pytest.mark.parametrize('pads', [[(160, 224)] * 3, [(160, 224), (100, 130), (32, 224)]], ids=['whole', 'padded'])
@pytest.mark.parametrize('pos_weight', [-1, 2.5])
@pytest.mark.parametrize('counts', [[7, 0, 30], [0, 0, 0]], ids=str)
@pytest.mark.parametrize(
    'host, rules',
    [('Retina', {}), ('SSD', dict(neg_iou_thr=0.5, gt_max_assign_all=False))],
    ids=['Retina', 'SSD'],
)
def test_targets_by_iou_on_the_grid_are_those_of_the_plain_way(host, rules, pads, pos_weight, counts):
    head = by_max_iou(host, **rules)
    head.train_cfg.pos_weight = pos_weight
    sizes = [tuple(level.shape[-2:]) for level in host_features(host, SIZE, 1)]
    gts, images = objects(counts, SIZE), metas(SIZE, 3)
    for meta, pad in zip(images, pads):
        meta['pad_shape'] = pad
    found = head.targets(sizes, gts, images, None)
    plain = AnchorGFLMixin.targets(head, sizes, gts, images, None)
    for name in ('labels', 'label_weights', 'pos', 'gt', 'avg_factor', 'num_images'):
        assert torch.equal(torch.as_tensor(getattr(found, name)), torch.as_tensor(getattr(plain, name))), name
    for one, other in zip(found.at, plain.at):
        assert torch.equal(one, other)
    assert found.all_count == (host == 'SSD' and pads[1] == SIZE and pos_weight < 0)


@pytest.mark.agreement
@pytest.mark.parametrize('host', ['Retina', 'SSD'])
def test_images_padded_differently_train_by_iou_as_in_mmdetection(host):
    ours, theirs = pair(host)
    images = metas(SIZE, 2)
    images[1]['pad_shape'] = images[1]['img_shape'] = (96, 130)
    assert ours.on_grid(None)
    assert_same_training(ours, theirs, host_features(host, SIZE, 2, requires_grad=True), objects([5, 3], SIZE), images)


@pytest.mark.agreement
def test_images_padded_differently_train_as_in_mmdetection():
    ours, theirs = build(gfl_config()), build(gfl_config('GFLHead', ours=False))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = metas(SIZE, 2)
    images[1]['pad_shape'] = images[1]['img_shape'] = (96, 130)
    assert_same_training(ours, theirs, features(SIZE, 2, requires_grad=True), objects([5, 3], SIZE), images)


@pytest.mark.parametrize('host', ['ATSS', 'FCOS', 'Retina', 'Fovea', 'SSD'])
@pytest.mark.parametrize('quality', ['JointQuality', 'NoQuality'])
@pytest.mark.parametrize('form', ['channels-last', 'sliced'])
def test_losses_do_not_depend_on_strides(host, quality, form):
    head = build(host_config(host, quality))
    outs = head(host_features(host, SIZE, 2))
    other = [
        [
            level.to(memory_format=torch.channels_last)
            if form == 'channels-last'
            else torch.cat((level, level), dim=1)[:, : level.size(1)]
            for level in levels
        ]
        for levels in outs
    ]
    gts, images = objects([4, 0], SIZE), metas(SIZE, 2)
    expected = totals(head.loss_by_feat(*outs, gts, images))
    for key, value in totals(head.loss_by_feat(*other, gts, images)).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-7)


def test_bytes_kept_for_the_backward():
    """Of a whole loss, with 80 classes: hardly more than the class logits', of which MMDetection keeps five times."""
    head = MODELS.build(gfl_config(num_classes=80))
    size = (320, 320)
    outs = [[level.detach().requires_grad_() for level in levels] for levels in head(features(size, 2))]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    gts = objects([8, 8], size, 80)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = totals(head.loss_by_feat(*outs, gts, metas(size, 2)))
    logits = sum(4 * level.numel() for level in outs[0])
    assert logits <= sum(kept.values()) < 1.6 * logits and losses['loss_cls'] > 0


@TASK_UTILS.register_module(force=True)
class IoUOfTheUsersOwn:
    """Measures as MMDetection's, and has none of its attributes."""

    def __call__(self, *args, **kwargs):
        return BboxOverlaps2D()(*args, **kwargs)


def test_an_iou_calculator_of_ones_own_goes_mmdetections_way():
    head = atss(dict(ATSS, iou_calculator=dict(type='IoUOfTheUsersOwn')))
    assert not head.on_grid(None)
    outs = head(host_features('ATSS', SIZE, 1))
    assert totals(head.loss_by_feat(*outs, objects([2], SIZE), metas(SIZE, 1)))['loss_cls'] > 0


@MODELS.register_module(force=True)
class HalvedQualityFocalLoss(QualityFocalLoss):
    """A user's change to the formula."""

    def elementwise(self, *args, **kwargs):
        return super().elementwise(*args, **kwargs) * 0.5


def test_a_subclass_of_the_loss_computes_what_it_says():
    losses = []
    for name in ('mmdet_gfl.QualityFocalLoss', 'HalvedQualityFocalLoss'):
        quality = dict(type='mmdet_gfl.JointQuality', loss_cls=dict(type=name, beta=2.0))
        cfg = host_config('ATSS')
        cfg.update(quality=quality, loss_cls=None)
        head = build(cfg)
        outs = head(host_features('ATSS', SIZE, 1))
        losses.append(totals(head.loss_by_feat(*outs, objects([2], SIZE), metas(SIZE, 1)))['loss_cls'])
    torch.testing.assert_close(losses[1], 0.5 * losses[0])
