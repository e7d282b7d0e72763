"""RetinaGFLHead: without a quality and with Dirac boxes MMDetection's RetinaHead."""

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

from mmdet_gfl.models.task_modules import Positives

SIZE = (160, 224)


def max_iou(**changes):
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0, ignore_iof_thr=-1)
    assigner.update(changes)
    return dict(assigner=assigner, sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1)


@pytest.mark.agreement
@pytest.mark.parametrize(
    'changes',
    [
        dict(loss_bbox=dict(type='SmoothL1Loss', beta=0.11, loss_weight=2.0)),
        dict(loss_bbox=dict(type='GIoULoss', loss_weight=2.0), reg_decoded_bbox=True),
        dict(loss_bbox=dict(type='L1Loss'), reg_decoded_bbox=True),
        dict(train_cfg=dict(max_iou(), allowed_border=0, pos_weight=2.0)),
        dict(loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False)),
        dict(num_classes=1),
    ],
    ids=['smooth-l1', 'giou', 'l1-decoded', 'allowed_border-and-pos_weight', 'softmax', 'one-class'],
)
def test_losses_and_gradients_of_other_settings(changes):
    assert_host_trains_the_same('Retina', SIZE, [6, 2], **changes)
    if 'loss_cls' in changes:
        assert_host_detects_the_same('Retina', SIZE, **changes)


@pytest.mark.agreement
def test_losses_and_gradients_with_ignore_regions():
    ignored = [InstanceData(bboxes=torch.tensor([[0.0, 0.0, 150.0, 120.0]])), InstanceData(bboxes=torch.zeros(0, 4))]
    assert_host_trains_the_same('Retina', SIZE, [6, 3], ignored, train_cfg=max_iou(ignore_iof_thr=0.5))


@pytest.mark.agreement
def test_detections_of_another_coder_or_class_of_boxes():
    assert_host_detects_the_same('Retina', SIZE, bbox_coder=dict(type='LegacyDeltaXYWHBBoxCoder'))
    boxes = dict(host_config('Retina').anchor_generator, use_box_type=True)
    assert_host_detects_the_same('Retina', SIZE, anchor_generator=boxes)


def objects_beside_centers():
    """Three objects; the centres of some of their positives lie outside."""
    boxes = torch.tensor([[40.0, 41, 120, 75], [80.0, 60, 180, 140], [10.0, 45, 62, 62]])
    return [InstanceData(bboxes=boxes, labels=torch.tensor([0, 1, 2]))]


@pytest.mark.parametrize('box', ['dirac', 'gaussian', 'dfl'])
def test_positives_whose_centre_lies_outside_their_object(box):
    train_cfg = max_iou(pos_iou_thr=0.3, neg_iou_thr=0.2)
    head = build(host_config('Retina', 'CenternessBranch', box, train_cfg=train_cfg))
    feats, gts = features(SIZE, 1), objects_beside_centers()
    targets, (logits, bbox_pred, _) = positives_of(head, SIZE, gts, feats)
    sides = targets.locations.distances(targets.gt_bboxes)
    outside = (sides < 0).any(dim=1)
    assert 0 < outside.sum() < len(outside)
    bbox_pred = bbox_pred[targets.pos.flat_inds]
    boxes = head.box.decode(bbox_pred, targets.locations, head)
    positives = Positives(logits[targets.pos.flat_inds], boxes, targets)
    inside = (sides > 0).all(dim=1)
    assert (positives.centerness[outside] == 0).all() and (positives.centerness[inside] > 0).all()

    # Kept in the box loss: each of them alone has a gradient. Gaussian and DFL learn distance 0 on that side.
    weights, avg_factor = outside.float(), torch.tensor(1.0)
    bbox_pred = bbox_pred.detach().requires_grad_()
    boxes = head.box.decode(bbox_pred, targets.locations, head)
    losses = head.box.losses(bbox_pred, boxes, targets, weights, avg_factor, head)
    (grad,) = torch.autograd.grad(sum(v for k, v in losses.items() if 'loss' in k), [bbox_pred])
    assert (grad[outside].abs().amax(dim=1) > 0).all() and (grad[~outside] == 0).all()
    clamped = targets._replace(gt_bboxes=targets.locations.boxes(sides.clamp(min=0)))
    again = head.box.losses(bbox_pred, boxes, clamped, weights, avg_factor, head)
    key = dict(gaussian='loss_bbox', dfl='loss_dfl').get(box)
    if key:
        torch.testing.assert_close(losses[key], again[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'box, quality, weighted', [('dirac', 'CenternessBranch', False), ('general', 'JointQuality', True)]
)
def test_normalizers_by_hand(box, quality, weighted):
    # Σ max(1, positives) over the images for the classes and for boxes that weigh 1; weighted boxes: Σ of the weights.
    head = build(host_config('Retina', quality, box))
    feats, gts = features(SIZE, 2), objects([4, 0], SIZE)
    targets, (logits, bbox_pred, *_) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    count = len(targets.pos) + 1
    if not weighted:
        summed = head.loss_cls(logits, targets.dense_labels(5), targets.label_weights, reduction_override='sum')
        torch.testing.assert_close(losses['loss_cls'], summed / count)
        target = head.bbox_coder.encode(targets.locations.priors, targets.gt_bboxes)
        torch.testing.assert_close(losses['loss_bbox'], (bbox_pred[targets.pos.flat_inds] - target).abs().sum() / count)
    else:
        weights = logits[targets.pos.flat_inds].sigmoid().amax(1)
        boxes = head.box.decode(bbox_pred[targets.pos.flat_inds], targets.locations, head)
        each = head.loss_bbox(boxes, targets.gt_bboxes, reduction_override='none')
        assert weights.sum() > 1
        torch.testing.assert_close(losses['loss_bbox'], (weights * each).sum() / weights.sum())


def test_a_gaussian_box_starts_at_half_its_anchor():
    # The first scale is 4 strides: a square anchor's half is 2; 1:2 has sides of 4 · sqrt(2) and 4 / sqrt(2).
    head = MODELS.build(host_config('Retina', box='gaussian'))
    for _ in range(2):
        start = head.retina_reg.bias.detach().reshape(9, 4, 2)
        assert (start[..., 1] == 0).all()
        torch.testing.assert_close(start[3, :, 0], torch.full((4,), 2.0))  # ratio 1, first scale
        torch.testing.assert_close(start[0, :, 0], torch.tensor([8**0.5, 2**0.5] * 2))  # ratio 0.5: twice as wide
        head.init_weights()  # whose bias is 0
