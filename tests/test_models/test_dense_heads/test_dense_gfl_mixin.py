"""The shared loss steps: empty images, clipped distances, infinities, half precision, broken input, arguments."""

import copy
import logging
import math

import pytest
import torch
from cases import build, features, flat_rows, gfl_config, metas, objects, totals
from mmdet.models.dense_heads import ATSSHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData

from mmdet_gfl.models.dense_heads import ATSSGFLHead
from mmdet_gfl.models.dense_heads.clipping_monitor import ClippingMonitor
from mmdet_gfl.models.quality import joint

SIZE = (160, 224)


def backward(head, outs, gts, images=None):
    """Losses, with their gradients in the head's parameters."""
    losses = head.loss_by_feat(*outs, gts, images or metas(SIZE, len(gts)))
    sum(totals(losses).values()).backward()
    return losses


# Targets ------------------------------------------------------------------------------------------------------------


def test_class_target_is_the_iou_of_the_box_decoded_as_at_test_time(monkeypatch):
    head = build(gfl_config()).eval()
    seen = {}
    monkeypatch.setattr(joint, 'classification_loss', lambda *args: seen.update(args=args) or args[1].flatten().sum())
    gts, images = objects([4], SIZE), metas(SIZE, 1)
    outs = head(features(SIZE, 1))
    head.loss_by_feat(*outs, gts, images)
    _, logits, pos, labels, quality, *_ = seen['args']
    assert len(pos) > 10

    # Every location as a detection: no threshold, no clipping, no NMS.
    head.bbox_coder.clip_border = False
    cfg = copy.deepcopy(head.test_cfg)
    cfg.update(score_thr=-1.0, nms_pre=100000)
    found = head.predict_by_feat(*outs, batch_img_metas=images, cfg=cfg, with_nms=False)[0]
    scores = logits.flatten().sigmoid()[pos.flat_inds]
    for index in range(len(pos)):
        box = found.bboxes[(found.scores[:, None] == scores[index]).any(dim=1)][0]
        ious = bbox_overlaps(box[None], gts[0].bboxes[gts[0].labels == labels[index]])
        assert torch.isclose(ious, quality[index], atol=1e-5).any()


def test_pos_iou_is_logged_and_not_summed():
    head = build(gfl_config())
    losses = head.loss_by_feat(*head(features(SIZE, 2)), objects([4, 2], SIZE), metas(SIZE, 2))
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_dfl', 'pos_iou', 'clipped_share'}
    assert 0 < losses['pos_iou'] < 1 and not losses['pos_iou'].requires_grad
    empty = head.loss_by_feat(*head(features(SIZE, 1)), objects([0], SIZE), metas(SIZE, 1))
    assert empty['pos_iou'] == 0 and empty['clipped_share'] == 0


def test_the_class_loss_has_no_gradient_to_the_boxes():
    head = build(gfl_config())
    scores, boxes = head(features(SIZE, 1))
    loss = head.loss_by_feat(scores, boxes, objects([4], SIZE), metas(SIZE, 1))
    assert all(
        grad is None for grad in torch.autograd.grad(loss['loss_cls'], boxes, retain_graph=True, allow_unused=True)
    )
    grads = torch.autograd.grad(loss['loss_bbox'] + loss['loss_dfl'], scores, allow_unused=True)
    assert all(grad is None or grad.abs().max() == 0 for grad in grads)


# Distances beyond reg_max -------------------------------------------------------------------------------------------


def one_object(box):
    return [InstanceData(bboxes=torch.tensor([box]), labels=torch.tensor([1]))]


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if 'clipped' in r.getMessage()]


@pytest.fixture
def log(caplog, request):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance(request.node.name)  # the latest one is what print_log finds
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_one_warning_of_clipping(log):
    head = build(gfl_config(reg_max=2)).train()
    outs = head(features(SIZE, 1))
    for _ in range(3):
        head.loss_by_feat(*outs, one_object([5.0, 5.0, 215.0, 155.0]), metas(SIZE, 1))
    messages = warnings_of(log)
    assert len(messages) == 1
    assert 'reg_max' in messages[0] and '2 strides' in messages[0] and log.records[-1].levelno == logging.WARNING


def test_no_warning_without_clipping(log):
    head = build(gfl_config(reg_max=16)).train()
    outs = head(features(SIZE, 1))
    for _ in range(3):
        head.loss_by_feat(*outs, one_object([5.0, 5.0, 215.0, 155.0]), metas(SIZE, 1))
    assert warnings_of(log) == []


@pytest.mark.parametrize('clipped, warns', [(0, False), (4, False), (5, True)])
def test_the_limit_of_the_warning_is_a_thousandth(log, clipped, warns):
    monitor = ClippingMonitor()
    monitor.update(torch.tensor(clipped / 4000), 1000, 16.0)  # 1000 positives have 4000 sides
    assert bool(warnings_of(log)) == warns


def test_the_share_is_that_of_all_steps_so_far(log):
    monitor = ClippingMonitor()
    monitor.update(torch.tensor(0.0), 1000, 16.0)
    monitor.update(torch.tensor(6 / 4000), 1000, 16.0)  # 6 of 8000
    assert warnings_of(log) == []
    monitor.update(torch.tensor(7 / 4000), 1000, 16.0)  # 13 of 12000
    assert len(warnings_of(log)) == 1


# Images without objects, infinities --------------------------------------------------------------------------------


@pytest.mark.parametrize('counts', [[0], [0, 0], [0, 3]], ids=str)
def test_images_without_objects_give_every_parameter_a_gradient(counts):
    head = build(gfl_config())
    backward(head, head(features(SIZE, len(counts))), objects(counts, SIZE))
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    if sum(counts) == 0:
        assert head.gfl_reg.weight.grad.abs().max() == 0 and head.gfl_cls.weight.grad.abs().max() > 0


def test_objects_without_area_or_off_the_image_have_no_positives():
    head = build(gfl_config())
    boxes = torch.tensor([[50.0, 50, 50, 50], [20, 90, 120, 90], [-90, -90, -10, -10], [500, 500, 600, 600]])
    gts = [InstanceData(bboxes=boxes, labels=torch.zeros(4, dtype=torch.long))]
    outs = head(features(SIZE, 1))
    losses = backward(head, outs, gts)
    assert losses['loss_bbox'] == 0 and torch.isfinite(losses['loss_cls'])
    without = head.loss_by_feat(*outs, objects([0], SIZE), metas(SIZE, 1))
    assert losses['loss_cls'] == without['loss_cls']


@pytest.mark.parametrize('where', ['class', 'box'])
def test_one_infinite_output_without_positives_gives_finite_losses(where):
    head = build(gfl_config())
    scores, boxes = (list(levels) for levels in head(features(SIZE, 1)))
    bad = torch.zeros_like((scores if where == 'class' else boxes)[0])
    bad[0, 0, 0, 0] = -math.inf
    if where == 'class':
        scores[0] = scores[0] + bad
    else:
        boxes[0] = boxes[0] + bad
    losses = backward(head, (scores, boxes), objects([0], SIZE))
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


# Half precision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('counts', [[4, 2], [0, 0]], ids=str)
def test_losses_under_autocast(dtype, counts):
    head = build(gfl_config())
    feats, gts, images = features(SIZE, 2), objects(counts, SIZE), metas(SIZE, 2)
    exact = head.loss_by_feat(*head(feats), gts, images)
    with torch.autocast('cpu', dtype=dtype):
        outs = head(feats)
        assert outs[0][0].dtype == dtype
        losses = head.loss_by_feat(*outs, gts, images)
    sum(totals(losses).values()).backward()
    for key, value in totals(losses).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[key], rtol=0.1, atol=1e-3)
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in head.parameters())


def test_losses_are_called_with_autocast_off(monkeypatch):
    """A user's own loss may multiply matrices, which autocast would do in half precision."""
    head = build(gfl_config())
    head.loss_cls.__class__ = type('OwnLoss', (type(head.loss_cls),), {})  # which is not fused
    seen = []
    one = torch.ones(1, 1)
    for loss in (head.loss_cls, head.loss_bbox, head.loss_dfl):
        forward = loss.forward
        monkeypatch.setattr(loss, 'forward', lambda *a, f=forward, **k: seen.append((one @ one).dtype) or f(*a, **k))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        head.loss_by_feat(*head(features(SIZE, 1)), objects([3], SIZE), metas(SIZE, 1))
        assert (one @ one).dtype == torch.bfloat16
    assert seen == [torch.float32] * 3


def test_the_loss_steps_are_float32_for_half_precision():
    head = build(gfl_config())
    gts, images = objects([4], SIZE), metas(SIZE, 1)
    halves = [[level.detach().half() for level in levels] for levels in head(features(SIZE, 1))]
    in_half = head.loss_by_feat(*halves, gts, images)
    in_float = head.loss_by_feat(*[[level.float() for level in levels] for levels in halves], gts, images)
    for key, value in in_float.items():
        assert in_half[key] == value, key


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_inference(dtype):
    head = build(gfl_config(test_cfg=dict(gfl_config().test_cfg, with_distribution='full'))).eval()
    feats, images = features(SIZE, 1), metas(SIZE, 1)
    half = copy.deepcopy(head).to(dtype)
    outs = half([level.to(dtype) for level in feats])
    found = half.predict_by_feat(*outs, batch_img_metas=images)[0]
    same = head.predict_by_feat(*[[o.float() for o in level] for level in outs], batch_img_metas=images)[0]
    assert len(found) > 10 and found.bboxes.dtype == torch.float32
    # Decoding is in float32: the only rounding is that of the half outputs.
    torch.testing.assert_close(found.bboxes, same.bboxes, rtol=1e-3, atol=0.05)


# Distributions in the results ---------------------------------------------------------------------------------------


def test_statistics_of_each_side():
    scale = (0.5, 0.8)
    cfg = dict(gfl_config().test_cfg, with_distribution='full')
    head = build(gfl_config(test_cfg=cfg, bbox_coder=dict(type='DistancePointBBoxCoder', clip_border=False))).eval()
    outs = head(features(SIZE, 1))
    found = head.predict_by_feat(*outs, batch_img_metas=metas(SIZE, 1, scale), rescale=True)[0]
    plain = build(gfl_config(bbox_coder=dict(type='DistancePointBBoxCoder', clip_border=False))).eval()
    expected = plain.predict_by_feat(*outs, batch_img_metas=metas(SIZE, 1, scale), rescale=True)[0]
    assert torch.equal(found.bboxes, expected.bboxes) and 'bbox_mean' not in expected

    count = len(found)
    assert count > 10
    assert found.bbox_mean.shape == found.bbox_std.shape == found.bbox_step.shape == (count, 4)
    assert found.bbox_distribution.shape == (count, 4, 17)
    p, step = found.bbox_distribution.double(), found.bbox_step.double()
    pixels = torch.arange(17, dtype=torch.float64) * step[..., None]
    mean = (p * pixels).sum(-1)
    std = (p * (pixels - mean[..., None]) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(found.bbox_mean.double(), mean, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.bbox_std.double(), std, rtol=1e-3, atol=1e-3)
    # l + r and t + b are the box, in pixels of the returned image, which is 1 / scale of the network's input.
    size = found.bboxes[:, 2:] - found.bboxes[:, :2]
    torch.testing.assert_close(found.bbox_mean[:, :2] + found.bbox_mean[:, 2:], size, rtol=1e-4, atol=1e-2)
    strides = {8.0, 16.0, 32.0, 64.0, 128.0}
    assert {round(v, 3) for v in (step[:, 0] * scale[0]).tolist()} <= strides
    assert {round(v, 3) for v in (step[:, 1] * scale[1]).tolist()} <= strides


def test_stats_have_no_probabilities():
    cfg = dict(gfl_config().test_cfg, with_distribution='stats')
    head = build(gfl_config(test_cfg=cfg)).eval()
    found = head.predict_by_feat(*head(features(SIZE, 1)), batch_img_metas=metas(SIZE, 1))[0]
    assert set(found.keys()) == {'bboxes', 'scores', 'labels', 'bbox_location', 'bbox_mean', 'bbox_std'}


def test_statistics_of_no_detection():
    cfg = dict(gfl_config().test_cfg, with_distribution='full', score_thr=0.99999)
    head = build(gfl_config(test_cfg=cfg)).eval()
    head.gfl_cls.bias.data.fill_(-100.0)
    found = head.predict_by_feat(*head(features(SIZE, 1)), batch_img_metas=metas(SIZE, 1))[0]
    assert len(found) == 0 and found.bbox_mean.shape == (0, 4) and found.bbox_distribution.shape == (0, 4, 17)
    assert found.bbox_location.shape == (0, 2) and found.bbox_std.shape == found.bbox_step.shape == (0, 4)


# Broken input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('value', [math.nan, math.inf, -1e30])
def test_a_broken_box_is_named_with_its_image(value):
    head = build(gfl_config())
    gts = objects([2, 3], SIZE)
    gts[1].bboxes[2, 0] = value
    with pytest.raises(ValueError, match=r'image-1\.jpg: box 2 of 3 .*finite, below'):
        head.loss_by_feat(*head(features(SIZE, 2)), gts, metas(SIZE, 2))


@pytest.mark.parametrize('label', [5, -1])
def test_a_label_outside_the_classes_is_named(label):
    head = build(gfl_config())
    gts = objects([3], SIZE)
    gts[0].labels[1] = label
    with pytest.raises(ValueError, match=rf'image-0\.jpg: label {label} .*num_classes=5'):
        head.loss_by_feat(*head(features(SIZE, 1)), gts, metas(SIZE, 1))


@pytest.mark.parametrize(
    'key, value, words',
    [
        ('quality', dict(type='JointQualty'), 'quality.type.*did you mean mmdet_gfl.JointQuality'),
        ('quality', dict(type='mmdet_gfl.GeneralBox'), 'quality.type.*accepted: .*JointQuality'),
        ('quality', 'joint', "quality needs dict.*'joint'"),
        ('quality', dict(type='mmdet_gfl.JointQuality', beta=2), 'quality.*beta'),
        ('quality', dict(type='mmdet_gfl.JointQuality', box_weight='iou'), "box_weight='iou'.*auto, quality"),
        ('box', dict(type='mmdet_gfl.GenralBox'), 'did you mean mmdet_gfl.GeneralBox'),
        ('box', dict(type='mmdet_gfl.GeneralBox', delta=0), 'delta'),
        ('box', dict(type='mmdet_gfl.GeneralBox', reg_max=1.5), 'reg_max'),
    ],
)
def test_a_wrong_axis_is_named(key, value, words):
    cfg = atss_config(**{key: value})
    with pytest.raises(ValueError, match=words):
        MODELS.build(cfg)


def atss_config(**changes):
    cfg = gfl_config('mmdet_gfl.ATSSGFLHead', **changes)
    for name in ('loss_dfl', 'reg_max'):
        cfg.pop(name)
    return cfg


# Qualities and boxes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('delta', [1.0, 0.5])
def test_atss_is_full_gfl_by_default(delta):
    box = {} if delta == 1 else dict(box=dict(type='mmdet_gfl.GeneralBox', delta=delta))
    plane = MODELS.build(atss_config(**box))
    corner = build(gfl_config(delta=delta))
    assert corner.box.delta == delta
    names = dict(gfl_cls='atss_cls', gfl_reg='atss_reg')
    state = {'.'.join(names.get(part, part) for part in key.split('.')): v for key, v in corner.state_dict().items()}
    plane.load_state_dict(state, strict=True)
    feats, gts, images = features(SIZE, 2), objects([4, 2], SIZE), metas(SIZE, 2)
    expected = corner.loss_by_feat(*corner(feats), gts, images)
    for key, value in plane.loss_by_feat(*plane(feats), gts, images).items():
        assert value == expected[key], key


def test_a_one_hot_loss_is_superseded_with_one_line_unless_it_is_the_stock_one(caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('superseded-test')
    logger.addHandler(caplog.handler)
    stock = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
    for loss in (dict(type='CrossEntropyLoss', use_sigmoid=True), stock, dict(stock, gamma=1.5, alpha=0.4)):
        head = MODELS.build(atss_config(loss_cls=loss))
        assert type(head.loss_cls).__name__ == 'QualityFocalLoss'
    MODELS.build(atss_config(loss_cls=dict(stock, gamma=4.0)))
    logger.removeHandler(caplog.handler)
    messages = [r.getMessage() for r in caplog.records if 'superseded' in r.getMessage()]
    assert len(messages) == 2 and 'bbox_head.loss_cls=CrossEntropyLoss is superseded' in messages[0]
    assert 'bbox_head.loss_cls=FocalLoss is superseded' in messages[1]


@pytest.mark.parametrize('weight', ['quality', 'score', 'uniform'])
def test_options_of_box_weight(weight):
    quality = dict(type='mmdet_gfl.JointQuality', box_weight=weight)
    head = build(atss_config(quality=quality))
    auto = build(atss_config())
    feats, gts, images = features(SIZE, 1), objects([4], SIZE), metas(SIZE, 1)
    loss = head.loss_by_feat(*head(feats), gts, images)['loss_bbox']
    default = auto.loss_by_feat(*auto(feats), gts, images)['loss_bbox']
    assert (loss == default) == (weight == 'score')


@pytest.mark.parametrize('delta', [0.5, 2.0])
def test_delta_scales_the_largest_distance_and_the_bins(delta):
    one, other = build(atss_config()), build(atss_config(box=dict(type='mmdet_gfl.GeneralBox', delta=delta)))
    outs = one(features(SIZE, 1))
    bbox_pred = flat_rows(outs[1], 68)
    torch.testing.assert_close(other.integral(bbox_pred), delta * one.integral(bbox_pred))
    assert torch.equal(other.integral.project, torch.arange(17.0))
    assert other.box.max_distance == 16 * delta


def test_general_box_without_dfl():
    head = build(atss_config(box=dict(type='mmdet_gfl.GeneralBox', loss_dfl=None)))
    losses = head.loss_by_feat(*head(features(SIZE, 1)), objects([4], SIZE), metas(SIZE, 1))
    assert 'loss_dfl' not in losses and losses['loss_bbox'] > 0 and not hasattr(head, 'loss_dfl')


# Arguments and overrides --------------------------------------------------------------------------------------------


def test_wrong_arguments_of_the_loss_raise():
    head = build(gfl_config())
    outs, gts, images = head(features(SIZE, 1)), objects([2], SIZE), metas(SIZE, 1)
    with pytest.raises(TypeError, match='bogus'):
        head.loss_by_feat(*outs, gts, images, bogus=3)
    with pytest.raises(TypeError, match='positional'):
        head.loss_by_feat(*outs, gts, images, None, None)
    with pytest.raises(TypeError, match='batch_img_metas'):
        head.loss_by_feat(*outs, gts)


@pytest.mark.parametrize('name', ['loss', 'predict'])
def test_a_step_of_the_host_that_would_never_be_called_raises(name):
    def step(self, prompts):
        return prompts

    host = type('PromptedHead', (ATSSHead,), {name: step})
    with pytest.raises(
        TypeError, match=rf'Ours: PromptedHead\.{name} would never.* write {name} = PromptedHead\.{name} in'
    ):
        type('Ours', (ATSSGFLHead, host), {})
    taken = type('Ours', (ATSSGFLHead, host), {name: step})
    assert getattr(taken, name) is step


@pytest.mark.parametrize('name', ['loss_by_feat_single', '_predict_by_feat_single'])
def test_an_override_that_would_never_be_called_raises(name):
    with pytest.raises(TypeError, match=f'Distilled.{name} would never be called.*Override'):
        type('Distilled', (type(MODELS.build(gfl_config())),), {name: lambda self: None})


def test_a_superseded_box_loss_is_logged(log):
    MODELS.build(atss_config(loss_bbox=dict(type='SmoothL1Loss')))
    messages = [r.getMessage() for r in log.records if 'superseded' in r.getMessage() and 'loss_bbox' in r.getMessage()]
    assert len(messages) == 1 and 'SmoothL1Loss' in messages[0] and 'GIoULoss' in messages[0]
    log.clear()
    MODELS.build(atss_config(loss_bbox=dict(type='DIoULoss')))
    assert not [r for r in log.records if 'loss_bbox' in r.getMessage()]


def test_float64_stays():
    head = build(gfl_config()).double()
    feats = [level.double() for level in features(SIZE, 1)]
    scores, boxes = head(feats)
    boxes = [level.double() for level in boxes]  # the scale of MMDetection's heads makes them float32
    losses = head.loss_by_feat(scores, boxes, objects([3], SIZE), metas(SIZE, 1))
    assert losses['loss_cls'].dtype == torch.float64
