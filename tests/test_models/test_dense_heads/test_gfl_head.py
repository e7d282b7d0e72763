"""GFLHead against MMDetection's GFLHead: state dicts, losses, gradients, detections."""

import copy
import inspect

import pytest
import torch
from cases import (
    assert_same_detections,
    assert_same_training,
    build,
    features,
    gfl_config,
    metas,
    objects,
    totals,
)
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

pytestmark = pytest.mark.agreement


def pair(ours_inside: bool = True, **changes):
    """Our head and MMDetection's with the same weights; ``ours_inside``: whose losses our head holds."""
    theirs = build(gfl_config('GFLHead', ours=False, **changes))
    ours = MODELS.build(gfl_config(ours=ours_inside, **changes))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def test_arguments_and_defaults_are_mmdetections():
    ours, theirs = (inspect.signature(MODELS.get(name)).parameters for name in ('mmdet_gfl.GFLHead', 'GFLHead'))
    assert [*ours] == [*(name for name in theirs if name != 'kwargs'), 'delta', 'kwargs'] and ours['delta'].default == 1
    for name, parameter in theirs.items():
        assert ours[name].kind == parameter.kind, name
        own = copy.deepcopy(ours[name].default)
        if name == 'loss_dfl':
            own['type'] = own['type'].removeprefix('mmdet_gfl.')
        assert own == parameter.default, name


@pytest.mark.parametrize('reg_max', [7, 16])
def test_state_dicts_fit_both_ways(reg_max):
    ours, theirs = build(gfl_config(reg_max=reg_max)), MODELS.build(gfl_config('GFLHead', ours=False, reg_max=reg_max))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name
    ours, theirs = pair(reg_max=reg_max)
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_a_training_resumes_in_the_other_head():
    """Optimizers number their states by the order of the parameters, so it is MMDetection's."""
    ours, theirs = pair()
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    size = (128, 128)
    feats, gts, images = features(size, 1), objects([3], size), metas(size, 1)
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9) for head in (theirs, ours)]

    def step(head, optimizer):
        optimizer.zero_grad()
        sum(value.sum() for value in totals(head.loss_by_feat(*head(feats), gts, images)).values()).backward()
        optimizer.step()

    step(theirs, optimizers[0])
    ours.load_state_dict(theirs.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for head, optimizer in zip((theirs, ours), optimizers):
        step(head, optimizer)
    for (name, our), their in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f'{name}: {m}')


@pytest.mark.parametrize('ours_inside', [True, False], ids=['our-losses', 'their-losses'])
@pytest.mark.parametrize('counts', [[3], [5, 0], [0, 0], [20, 1, 7]], ids=str)
@pytest.mark.parametrize('size', [(128, 128), (160, 224), (200, 333), (64, 32)], ids=str)
def test_losses_and_gradients(size, counts, ours_inside):
    ours, theirs = pair(ours_inside)
    feats = features(size, len(counts), requires_grad=True)
    assert_same_training(ours, theirs, feats, objects(counts, size), metas(size, len(counts)))


@pytest.mark.parametrize(
    'changes',
    [
        dict(reg_max=7),
        dict(reg_max=4),
        dict(loss_bbox=dict(type='DIoULoss', loss_weight=1.5)),
        dict(train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=4), allowed_border=0, pos_weight=2.0)),
        dict(num_classes=1),
    ],
    ids=['reg_max-7', 'reg_max-4-clips', 'diou', 'allowed_border-and-pos_weight', 'one-class'],
)
def test_losses_and_gradients_of_other_settings(changes):
    ours, theirs = pair(**changes)
    size, counts = (160, 224), [6, 2]
    feats = features(size, 2, requires_grad=True)
    gts = objects(counts, size, changes.get('num_classes', 5))
    assert_same_training(ours, theirs, feats, gts, metas(size, 2))


def test_the_sum_of_the_weights_is_at_least_1():
    """Early in a training the scores that weigh the boxes add up to less than 1; both heads divide by 1 then."""
    ours, theirs = pair()
    for head in (ours, theirs):
        head.gfl_cls.weight.data.zero_()
        head.gfl_cls.bias.data.fill_(-7.0)  # a score of 0.0009
    size = (160, 224)
    feats, gts, images = features(size, 2, requires_grad=True), objects([3, 2], size), metas(size, 2)
    assert_same_training(ours, theirs, feats, gts, images)
    assert totals(ours.loss_by_feat(*ours(feats), gts, images))['loss_bbox'] < 0.2


def test_losses_and_gradients_with_ignore_regions():
    train_cfg = dict(assigner=dict(type='ATSSAssigner', topk=9, ignore_iof_thr=0.5), allowed_border=-1, pos_weight=-1)
    ours, theirs = pair(train_cfg=train_cfg)
    size = (160, 224)
    feats = features(size, 2, requires_grad=True)
    ignored = [InstanceData(bboxes=torch.tensor([[0.0, 0.0, 150.0, 120.0]])), InstanceData(bboxes=torch.zeros(0, 4))]
    gts, images = objects([6, 3], size), metas(size, 2)
    assert_same_training(ours, theirs, feats, gts, images, ignored)
    with_regions = ours.loss_by_feat(*ours(feats), gts, images, ignored)['loss_cls']
    assert with_regions != ours.loss_by_feat(*ours(feats), gts, images)['loss_cls']


def test_losses_by_name_of_the_arguments():
    ours, _ = pair()
    size = (128, 128)
    feats, gts, images = features(size, 1), objects([3], size), metas(size, 1)
    scores, boxes = ours(feats)
    by_position = ours.loss_by_feat(scores, boxes, gts, images)
    by_name = ours.loss_by_feat(cls_scores=scores, bbox_preds=boxes, batch_gt_instances=gts, batch_img_metas=images)
    assert by_position == by_name


@pytest.mark.parametrize('rescale', [False, True])
@pytest.mark.parametrize('size', [(128, 128), (200, 333)], ids=str)
def test_detections(size, rescale):
    ours, theirs = (head.eval() for head in pair())
    outs = ours(features(size, 2))
    images = metas(size, 2, scale=(0.5, 0.8))
    assert_same_detections(
        ours.predict_by_feat(*outs, batch_img_metas=images, rescale=rescale),
        theirs.predict_by_feat(*outs, batch_img_metas=images, rescale=rescale),
        least=50,
    )


@pytest.mark.parametrize(
    'changes',
    [
        dict(nms_pre=20),
        dict(score_thr=0.9),
        dict(score_thr=0.0, nms_pre=300),
        dict(max_per_img=3),
        dict(min_bbox_size=30),
        dict(nms=dict(type='soft_nms', iou_threshold=0.5)),
    ],
    ids=str,
)
def test_detections_of_other_settings(changes):
    ours, theirs = (head.eval() for head in pair())
    size = (160, 224)
    outs = ours(features(size, 2))
    cfg = copy.deepcopy(theirs.test_cfg)
    cfg.update(changes)
    images = metas(size, 2)
    assert_same_detections(
        ours.predict_by_feat(*outs, batch_img_metas=images, cfg=cfg),
        theirs.predict_by_feat(*outs, batch_img_metas=images, cfg=cfg),
        least=3,
    )


def test_detections_before_nms():
    ours, theirs = (head.eval() for head in pair())
    outs, images = ours(features((128, 128), 1)), metas((128, 128), 1)
    assert_same_detections(
        ours.predict_by_feat(*outs, batch_img_metas=images, with_nms=False),
        theirs.predict_by_feat(*outs, batch_img_metas=images, with_nms=False),
        least=50,
    )


def test_clip_border_of_the_coder():
    coder = dict(type='DistancePointBBoxCoder', clip_border=False)
    ours, theirs = (head.eval() for head in pair(bbox_coder=coder))
    outs, images = ours(features((128, 128), 1)), metas((128, 128), 1)
    found = ours.predict_by_feat(*outs, batch_img_metas=images)
    assert_same_detections(found, theirs.predict_by_feat(*outs, batch_img_metas=images), least=10)
    assert found[0].bboxes.min() < 0


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(quality=dict(type='mmdet_gfl.JointQuality')), 'ATSSGFLHead'),
        (dict(box=dict(type='mmdet_gfl.GeneralBox')), 'ATSSGFLHead'),
        (dict(bbox_coder=dict(type='DeltaXYWHBBoxCoder')), 'DistancePointBBoxCoder'),
        (dict(bbox_coder=None), 'DistancePointBBoxCoder'),
        (dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)), r'\(labels, qualities\).*QualityFocalLoss'),
        (dict(reg_max=0), 'reg_max'),
        (dict(test_cfg=dict(with_distribution='all')), "'all'.*'stats'.*'full'"),
    ],
    ids=['quality', 'box', 'bbox_coder', 'no-coder', 'loss_cls', 'reg_max', 'with_distribution'],
)
def test_arguments_that_do_not_fit_raise(changes, words):
    with pytest.raises(ValueError, match=words):
        MODELS.build(gfl_config(**changes))


def test_two_anchors_per_location_raise():
    generator = dict(type='AnchorGenerator', ratios=[0.5, 1.0], scales=[8], strides=[8, 16, 32, 64, 128])
    with pytest.raises(ValueError, match='anchor_generator makes 2 anchors'):
        MODELS.build(gfl_config(anchor_generator=generator))


def test_class_channels_without_use_sigmoid_in_the_config():
    loss = dict(type='mmdet_gfl.QualityFocalLoss', beta=2.0)  # MMDetection would add a background channel
    assert MODELS.build(gfl_config(loss_cls=loss)).gfl_cls.out_channels == 5


def test_loss_cls_may_be_left_out():
    cfg = gfl_config()
    del cfg['loss_cls'], cfg['loss_bbox']
    head = MODELS.build(cfg)
    assert type(head.loss_cls).__module__.startswith('mmdet_gfl') and head.loss_cls.beta == 2.0
    assert type(head.loss_bbox).__name__ == 'GIoULoss' and head.loss_bbox.loss_weight == 2.0


def test_the_coder_may_be_named_by_its_class():
    from mmdet.models.task_modules.coders import DistancePointBBoxCoder

    assert MODELS.build(gfl_config(bbox_coder=dict(type=DistancePointBBoxCoder))).reg_max == 16
