"""Assignment on the grid or by MMDetection, with the same targets; memory layouts, kept memory, and own losses."""

import pytest
import torch
from cases import (
    assert_same_training,
    build,
    featmap_sizes,
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
from mmdet_gfl.models.losses import QualityFocalLoss

SIZE = (160, 224)
ATSS = dict(type='ATSSAssigner', topk=9)


def atss(assigner=ATSS, border=-1, **changes):
    train_cfg = dict(assigner=assigner, allowed_border=border, pos_weight=-1)
    return MODELS.build(host_config('ATSS', **dict(changes, train_cfg=train_cfg)))


def on_grid_with(head, num_ignored=None):
    """``on_grid`` for a batch with so many ignored regions in its images, or none at all."""
    ignored = num_ignored and [InstanceData(bboxes=torch.zeros(count, 4)) for count in num_ignored]
    num_images = len(num_ignored or [0])
    sizes = [(4, 4)] * head.prior_generator.num_levels
    return head.on_grid(head.assignment_batch(sizes, objects([1] * num_images, SIZE), metas(SIZE, num_images), ignored))


def batch_of(head, host, counts, pads=None):
    """A batch of images with ``counts`` objects each, padded to sizes of their own."""
    images = metas(SIZE, len(counts))
    for meta, pad in zip(images, pads or []):
        meta['pad_shape'] = pad
    sizes = featmap_sizes(host_features(host, SIZE, 1))
    return head.assignment_batch(sizes, objects(counts, SIZE), images)


def assert_same_targets(found, expected):
    """Targets on the grid, and those of MMDetection's assignment, whose label weights are dense."""
    assert torch.equal(found.pos.flat_inds, expected.pos.flat_inds)
    for name in ('labels', 'gt_bboxes', 'avg_factor', 'num_images'):
        assert torch.equal(torch.as_tensor(getattr(found, name)), torch.as_tensor(getattr(expected, name))), name
    for one, other in zip(found.locations, expected.locations):
        assert torch.equal(one, other)
    weights = torch.ones(found.pos.index.total) if found.label_weights is None else found.label_weights
    assert torch.equal(weights, expected.label_weights) and expected.label_weights is not None


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
def test_heads_that_assign_on_the_grid(head, on_grid):
    assert on_grid_with(head(), [1, 0]) == on_grid


def test_ignored_regions_need_mmdetections_assigner_only_if_there_are_any():
    head = atss(dict(ATSS, ignore_iof_thr=0.5))
    assert on_grid_with(head) and on_grid_with(head, [0])


@pytest.mark.parametrize('name', ['get_targets', '_get_targets_single', 'get_anchors', 'get_num_level_anchors_inside'])
def test_an_overridden_assignment_is_used(name):
    head = atss()
    head.__class__ = type('Own', (ATSSGFLHead,), {name: lambda self, *args, **kwargs: None})
    assert not on_grid_with(head)


@pytest.mark.parametrize('pads', [[(160, 224)] * 3, [(160, 224), (100, 130), (32, 224)]], ids=['whole', 'padded'])
@pytest.mark.parametrize('pos_weight', [-1, 2.5])
@pytest.mark.parametrize('counts', [[7, 0, 30], [0, 0, 0]], ids=str)
def test_targets_on_the_grid_equal_those_of_mmdetections_assignment(pads, pos_weight, counts):
    head = MODELS.build(host_config('ATSS'))
    head.train_cfg.pos_weight = pos_weight
    batch = batch_of(head, 'ATSS', counts, pads)
    found = head.targets(batch)
    assert_same_targets(found, head.stock_targets(batch))
    assert (found.label_weights is None) == (pads[1] == SIZE and pos_weight < 0)


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
def test_heads_that_assign_by_iou_on_the_grid(host, changes, on_grid):
    if changes.get('type'):
        head = by_max_iou(host)
        head.assigner = TASK_UTILS.build(changes)
    else:
        head = by_max_iou(host, **changes)
    assert on_grid_with(head, [1, 0]) == on_grid


@pytest.mark.parametrize('name', ['get_targets', '_get_targets_single', 'get_anchors'])
@pytest.mark.parametrize('kind', [RetinaGFLHead, SSDGFLHead])
def test_an_overridden_assignment_by_iou_is_used(kind, name):
    head = by_max_iou('Retina' if kind is RetinaGFLHead else 'SSD')
    assert on_grid_with(head)
    own = {name: lambda self, *args, **kwargs: None}
    head.__class__ = type('Own', (kind,), own)
    assert not on_grid_with(head)
    head.__class__ = type('OfAnotherStockHead', (kind,), own | dict(stock_head=type('Stock', (kind.stock_head,), own)))
    assert not on_grid_with(head)


@pytest.mark.parametrize('pads', [[(160, 224)] * 3, [(160, 224), (100, 130), (32, 224)]], ids=['whole', 'padded'])
@pytest.mark.parametrize('pos_weight', [-1, 2.5])
@pytest.mark.parametrize('counts', [[7, 0, 30], [0, 0, 0]], ids=str)
@pytest.mark.parametrize(
    'host, rules',
    [('Retina', {}), ('SSD', dict(neg_iou_thr=0.5, gt_max_assign_all=False))],
    ids=['Retina', 'SSD'],
)
def test_targets_by_iou_on_the_grid_equal_those_of_mmdetections_assignment(host, rules, pads, pos_weight, counts):
    head = by_max_iou(host, **rules)
    head.train_cfg.pos_weight = pos_weight
    batch = batch_of(head, host, counts, pads)
    found = head.targets(batch)
    assert_same_targets(found, head.stock_targets(batch))
    assert (found.label_weights is None) == (host == 'SSD' and pads[1] == SIZE and pos_weight < 0)


@pytest.mark.agreement
@pytest.mark.parametrize('host', ['Retina', 'SSD'])
def test_images_padded_differently_train_by_iou_as_in_mmdetection(host):
    ours, theirs = pair(host)
    images = metas(SIZE, 2)
    images[1]['pad_shape'] = images[1]['img_shape'] = (96, 130)
    assert on_grid_with(ours)
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
    """Hardly more than the class logits of 80 classes; MMDetection keeps five times as many."""
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
class OwnOverlaps:
    """Calculates as MMDetection's, and has none of its attributes."""

    def __call__(self, *args, **kwargs):
        return BboxOverlaps2D()(*args, **kwargs)


def test_an_own_iou_calculator_is_assigned_by_mmdetection():
    head = atss(dict(ATSS, iou_calculator=dict(type='OwnOverlaps')))
    assert not on_grid_with(head)
    outs = head(host_features('ATSS', SIZE, 1))
    assert totals(head.loss_by_feat(*outs, objects([2], SIZE), metas(SIZE, 1)))['loss_cls'] > 0


@MODELS.register_module(force=True)
class HalvedQualityFocalLoss(QualityFocalLoss):
    """A user's change to the formula."""

    def elementwise(self, *args, **kwargs):
        return super().elementwise(*args, **kwargs) * 0.5


def test_a_subclass_of_the_loss_is_called():
    losses = []
    for name in ('mmdet_gfl.QualityFocalLoss', 'HalvedQualityFocalLoss'):
        quality = dict(type='mmdet_gfl.JointQuality', loss_cls=dict(type=name, beta=2.0))
        cfg = host_config('ATSS')
        cfg.update(quality=quality, loss_cls=None)
        head = build(cfg)
        outs = head(host_features('ATSS', SIZE, 1))
        losses.append(totals(head.loss_by_feat(*outs, objects([2], SIZE), metas(SIZE, 1)))['loss_cls'])
    torch.testing.assert_close(losses[1], 0.5 * losses[0])
