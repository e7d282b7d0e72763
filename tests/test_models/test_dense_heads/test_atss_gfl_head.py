"""ATSSGFLHead: with a centerness branch and Dirac boxes MMDetection's ATSSHead."""

import warnings

import pytest
import torch
from cases import (
    assert_host_trains_the_same,
    build,
    features,
    host_config,
    metas,
    objects,
    pair,
    positives_of,
)
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

SIZE = (160, 224)


def test_building_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        build(host_config('ATSS'))


@pytest.mark.agreement
@pytest.mark.parametrize(
    'changes',
    [
        dict(loss_bbox=dict(type='DIoULoss', loss_weight=1.5)),
        dict(train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=4), allowed_border=0, pos_weight=2.0)),
        dict(num_classes=1),
        dict(pred_kernel_size=1),
    ],
    ids=['diou', 'allowed_border-and-pos_weight', 'one-class', 'pred_kernel_size'],
)
def test_losses_and_gradients_of_other_settings(changes):
    assert_host_trains_the_same('ATSS', SIZE, [6, 2], **changes)


@pytest.mark.agreement
def test_losses_and_gradients_with_ignore_regions():
    train_cfg = dict(assigner=dict(type='ATSSAssigner', topk=9, ignore_iof_thr=0.5), allowed_border=-1, pos_weight=-1)
    ignored = [InstanceData(bboxes=torch.tensor([[0.0, 0.0, 150.0, 120.0]])), InstanceData(bboxes=torch.zeros(0, 4))]
    assert_host_trains_the_same('ATSS', SIZE, [6, 3], ignored, train_cfg=train_cfg)


@pytest.mark.agreement
def test_arguments_by_name_are_those_of_the_stock_head():
    ours, _ = pair('ATSS')
    gts, images = objects([3], SIZE), metas(SIZE, 1)
    scores, boxes, centernesses = ours(features(SIZE, 1))
    by_position = ours.loss_by_feat(scores, boxes, centernesses, gts, images)
    by_name = ours.loss_by_feat(
        cls_scores=scores,
        bbox_preds=boxes,
        centernesses=centernesses,
        batch_gt_instances=gts,
        batch_img_metas=images,
    )
    assert by_position == by_name and 'loss_centerness' in by_position


def test_normalizers_by_hand():
    # No quality: the class loss is divided by Σ max(1, positives), 1 more than the positives with one empty image; the
    # boxes weigh 1 each and are divided by the positives.
    head = build(host_config('ATSS', 'NoQuality', 'dirac'))
    feats, gts = features(SIZE, 2), objects([4, 0], SIZE)
    targets, (logits, bbox_pred) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    summed = head.loss_cls(logits, targets.dense_labels(5), reduction_override='sum')
    torch.testing.assert_close(losses['loss_cls'], summed / (len(targets.pos) + 1))
    boxes = head.bbox_coder.decode(targets.locations.priors, bbox_pred[targets.pos.flat_inds])
    torch.testing.assert_close(losses['loss_bbox'], head.loss_bbox(boxes, targets.gt_bboxes, reduction_override='mean'))


def test_a_gaussian_box_starts_at_half_the_anchor():
    head = MODELS.build(host_config('ATSS', box='gaussian'))
    for _ in range(2):
        start = head.atss_reg.bias.detach().reshape(4, 2)
        assert start[:, 0].tolist() == [4.0] * 4 and start[:, 1].tolist() == [0.0] * 4
        head.init_weights()  # whose bias is 0
