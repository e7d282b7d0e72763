"""FCOSGFLHead: with a centerness branch and Dirac boxes MMDetection's FCOSHead, in each of its variants."""

import itertools

import pytest
import torch
from cases import (
    assert_host_detects_the_same,
    assert_host_trains_the_same,
    build,
    features,
    host_config,
    metas,
    objects,
    positives_of,
)
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import Locations

SIZE = (160, 224)
SWITCHES = ('norm_on_bbox', 'centerness_on_reg', 'center_sampling')
VARIANTS = [dict(zip(SWITCHES, values)) for values in itertools.product([False, True], repeat=3)]


@pytest.mark.agreement
@pytest.mark.parametrize('variant', VARIANTS, ids=lambda v: '-'.join(k for k in v if v[k]) or 'plain')
def test_variants(variant):
    assert_host_trains_the_same('FCOS', SIZE, [6, 2], **variant)
    assert_host_detects_the_same('FCOS', SIZE, **variant)


@pytest.mark.agreement
@pytest.mark.parametrize(
    'changes',
    [
        dict(loss_bbox=dict(type='IoULoss', loss_weight=1.5)),
        dict(loss_bbox=dict(type='DIoULoss'), norm_on_bbox=True),
        dict(num_classes=1),
        dict(regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 128), (128, 1e8))),
    ],
    ids=['iou', 'diou-in-strides', 'one-class', 'ranges'],
)
def test_losses_and_gradients_of_other_settings(changes):
    assert_host_trains_the_same('FCOS', SIZE, [6, 2], **changes)


@pytest.mark.agreement
def test_fcos_does_not_use_ignored_regions():
    ignored = [InstanceData(bboxes=torch.tensor([[0.0, 0.0, 150.0, 120.0]])), InstanceData(bboxes=torch.zeros(0, 4))]
    assert_host_trains_the_same('FCOS', SIZE, [6, 3], ignored)


@pytest.mark.parametrize('variant', VARIANTS[::4], ids=['pixels', 'strides'])
@pytest.mark.parametrize('training', [True, False])
def test_encode_and_decode_are_inverse(variant, training):
    head = MODELS.build(host_config('FCOS', 'NoQuality', 'dirac', **variant)).train(training)
    points = torch.rand(50, 2) * 300
    locations = Locations.of_priors(points, torch.tensor([8.0, 16.0] * 25))
    bbox_pred = torch.rand(50, 4) * 10
    coder = head.host_coder
    boxes = coder.decode(bbox_pred, locations)
    torch.testing.assert_close(coder.encode(boxes, locations), bbox_pred, rtol=1e-4, atol=1e-4)
    unit = locations.strides if variant['norm_on_bbox'] and training else torch.ones(50)
    torch.testing.assert_close(boxes[:, 2] - points[:, 0], bbox_pred[:, 2] * unit, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('box', ['gaussian', 'dfl'])
@pytest.mark.parametrize('norm_on_bbox', [False, True])
def test_distributions_are_in_strides_with_or_without_norm_on_bbox(box, norm_on_bbox):
    head = build(host_config('FCOS', box=box, norm_on_bbox=norm_on_bbox))
    other = build(host_config('FCOS', box=box, norm_on_bbox=not norm_on_bbox))
    feats, gts = features(SIZE, 1), objects([4], SIZE)
    outs, in_eval = head(feats), head.eval()(feats)
    assert min(level.min() for level in outs[1]) < 0  # neither clamped nor an exponential
    for one, two in zip(outs[1], in_eval[1]):
        assert torch.equal(one, two)
    expected = other.loss_by_feat(*other(feats), gts, metas(SIZE, 1))
    for key, value in head.loss_by_feat(*outs, gts, metas(SIZE, 1)).items():
        assert value == expected[key], key


@pytest.mark.parametrize('centerness_on_reg', [False, True])
def test_centerness_on_reg_places_the_branch(centerness_on_reg):
    # With Dirac boxes MMDetection's forward is run; with other boxes the branch gives the same from the same weights.
    changes = dict(centerness_on_reg=centerness_on_reg)
    dirac = build(host_config('FCOS', 'IoUBranch', 'dirac', **changes))
    general = build(host_config('FCOS', 'IoUBranch', 'general', **changes))
    state = {key: value for key, value in dirac.state_dict().items() if 'conv_reg' not in key}
    assert set(general.load_state_dict(state, strict=False).missing_keys) <= {
        'conv_reg.weight', 'conv_reg.bias', 'integral.project',
    }  # fmt: skip
    feats = features(SIZE, 1)
    for one, two in zip(dirac(feats)[2], general(feats)[2], strict=True):
        assert torch.equal(one, two)


def test_iou_branch_keeps_a_box_gradient_at_initialisation():
    # Most positives have IoU 0 at initialisation; weighted by it, the box loss would have no gradient.
    head = MODELS.build(host_config('FCOS', 'IoUBranch', 'dirac'))
    head.init_weights()
    feats, gts = features(SIZE, 2), objects([4, 4], SIZE)
    targets, (_, bbox_pred, _) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    assert losses['pos_iou'] < 0.01
    boxes = head.host_coder.decode(bbox_pred[targets.pos.flat_inds], targets.locations)
    torch.testing.assert_close(losses['loss_bbox'], head.loss_bbox(boxes, targets.gt_bboxes, reduction_override='mean'))
    (grad,) = torch.autograd.grad(losses['loss_bbox'], [head.conv_reg.weight])
    assert losses['loss_bbox'] > 0.9 and grad.abs().max() > 1e-3


def test_normalizers_by_hand():
    # One empty image counts nothing here, and no quality weighs every positive 1.
    head = build(host_config('FCOS', 'NoQuality', 'general'))
    feats, gts = features(SIZE, 2), objects([4, 0], SIZE)
    targets, (logits, bbox_pred) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    summed = head.loss_cls(logits, targets.dense_labels(5), reduction_override='sum')
    torch.testing.assert_close(losses['loss_cls'], summed / len(targets.pos))
    boxes = head.box.decode(bbox_pred[targets.pos.flat_inds], targets.locations, head)
    torch.testing.assert_close(losses['loss_bbox'], head.loss_bbox(boxes, targets.gt_bboxes, reduction_override='mean'))
    nothing = head.loss_by_feat(*head(feats), objects([0, 0], SIZE), metas(SIZE, 2))
    all_background = torch.full_like(targets.dense_labels(5), 5)
    expected = head.loss_cls(logits, all_background, reduction_override='sum')  # divided by 1
    torch.testing.assert_close(nothing['loss_cls'], expected)


@pytest.mark.parametrize('norm_on_bbox', [False, True])
def test_the_unit_of_an_elementwise_box_loss(norm_on_bbox):
    # MMDetection's FCOS cannot take one; the unit is that of its boxes: strides with norm_on_bbox, else pixels.
    loss = dict(type='L1Loss', loss_weight=1.0)
    head = build(host_config('FCOS', 'NoQuality', 'dirac', norm_on_bbox=norm_on_bbox, loss_bbox=loss))
    feats, gts = features(SIZE, 1), objects([4], SIZE)
    targets, (_, bbox_pred) = positives_of(head, SIZE, gts, feats)
    centers = targets.locations.centers
    distances = torch.cat((centers - targets.gt_bboxes[:, :2], targets.gt_bboxes[:, 2:] - centers), dim=1)
    unit = targets.locations.strides[:, None] if norm_on_bbox else 1.0
    found = head.loss_by_feat(*head(feats), gts, metas(SIZE, 1))['loss_bbox']
    expected = (bbox_pred[targets.pos.flat_inds] - distances / unit).abs().sum() / len(targets.pos)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_a_gaussian_box_starts_at_four_strides():
    head = MODELS.build(host_config('FCOS', box='gaussian'))
    for _ in range(2):
        start = head.conv_reg.bias.detach().reshape(4, 2)
        assert start[:, 0].tolist() == [4.0] * 4 and start[:, 1].tolist() == [0.0] * 4
        head.init_weights()  # whose bias is 0
