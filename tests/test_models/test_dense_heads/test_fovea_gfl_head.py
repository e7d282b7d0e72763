"""FoveaGFLHead: without a quality and with Dirac boxes MMDetection's FoveaHead."""

import pytest
import torch
from cases import (
    assert_host_detects_the_same,
    assert_host_trains_the_same,
    assert_state_dicts_fit,
    build,
    features,
    host_config,
    metas,
    objects,
    positives_of,
)
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import nn

from mmdet_gfl.models.task_modules import Locations

SIZE = (160, 224)


@pytest.mark.agreement
@pytest.mark.parametrize(
    'changes',
    [
        dict(loss_bbox=dict(type='L1Loss', loss_weight=2.0)),
        dict(base_edge_list=[12, 40, 64, 100, 300]),
        dict(sigma=0.7),
        dict(num_classes=1),
    ],
    ids=['l1', 'base-edges', 'sigma', 'one-class'],
)
def test_losses_and_gradients_of_other_settings(changes):
    assert_host_trains_the_same('Fovea', SIZE, [6, 2], **changes)
    assert_host_detects_the_same('Fovea', SIZE, **changes)


@pytest.mark.agreement
def test_foveabox_does_not_use_ignored_regions():
    ignored = [InstanceData(bboxes=torch.tensor([[0.0, 0.0, 150.0, 120.0]])), InstanceData(bboxes=torch.zeros(0, 4))]
    assert_host_trains_the_same('Fovea', SIZE, [6, 3], ignored)


def test_encode_and_decode_are_inverse():
    # Within 1/16 to 16 base edges; level by level, with base edges that are no fixed multiple of the stride.
    head = MODELS.build(host_config('Fovea', 'NoQuality', 'dirac', base_edge_list=[12, 40, 64, 100, 300]))
    strides = torch.tensor([8.0, 16, 32, 64, 128]).repeat(10)
    locations = Locations.of_priors(torch.rand(50, 2) * 300, strides)
    bbox_pred = (torch.rand(50, 4) * 2 - 1) * 2.7
    boxes = head.host_coder.decode(bbox_pred, locations)
    torch.testing.assert_close(head.host_coder.encode(boxes, locations), bbox_pred, rtol=1e-3, atol=1e-3)
    edges = torch.tensor([12.0, 40, 64, 100, 300]).repeat(10)
    torch.testing.assert_close(
        boxes[:, 2] - locations.centers[:, 0], bbox_pred[:, 2].exp() * edges, rtol=1e-4, atol=1e-3
    )


def test_quality_is_measured_against_the_object_itself():
    # 620 px wide on a level whose base edge of 16 allows 256 px per side: the clamped target is not the object.
    head = build(host_config('Fovea', 'JointQuality', 'dirac', scale_ranges=((1, 1e4),) * 5))
    feats = features((64, 640), 1)
    gts = [InstanceData(bboxes=torch.tensor([[10.0, 20, 630, 44]]), labels=torch.tensor([1]))]
    targets, (_, bbox_pred) = positives_of(head, (64, 640), gts, feats)
    first = targets.locations.strides == 8
    assert first.any() and (targets.gt_bboxes == gts[0].bboxes).all()
    coder = head.host_coder
    clamped = coder.decode(coder.encode(targets.gt_bboxes, targets.locations), targets.locations)
    assert (bbox_overlaps(clamped, targets.gt_bboxes, is_aligned=True)[first] < 0.99).all()
    losses = head.loss_by_feat(*head(feats), gts, metas((64, 640), 1))
    boxes = coder.decode(bbox_pred[targets.pos.flat_inds], targets.locations)
    ious = bbox_overlaps(boxes, targets.gt_bboxes, is_aligned=True)
    torch.testing.assert_close(losses['pos_iou'], ious.mean())


@pytest.mark.parametrize('box', ['general', 'dfl', 'gaussian'])
def test_with_deform_needs_dirac_boxes(box):
    with pytest.raises(ValueError, match=r'with_deform=True.*(General|Gaussian)Box.*DiracBox.*with_deform=False'):
        MODELS.build(host_config('Fovea', box=box, with_deform=True))


class OffsetConv(nn.Module):
    """Replaces the deformable convolution, which needs compiled operators: it too takes features and offsets."""

    def __init__(self, in_channels, out_channels, kernel_size, padding, deform_groups):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, x, offset):
        return self.conv(x) + offset.mean(dim=1, keepdim=True).tanh()


@pytest.mark.agreement
def test_losses_and_gradients_with_deform(monkeypatch):
    monkeypatch.setattr('mmdet.models.dense_heads.fovea_head.DeformConv2d', OffsetConv)
    assert_state_dicts_fit('Fovea', with_deform=True)
    assert_host_trains_the_same('Fovea', SIZE, [6, 2], with_deform=True)
    assert_host_detects_the_same('Fovea', SIZE, with_deform=True)


def test_strides_that_do_not_ascend_raise():
    with pytest.raises(ValueError, match=r'strides=\[8, 16, 32, 64, 64\].*ascend'):
        MODELS.build(host_config('Fovea', strides=[8, 16, 32, 64, 64]))


@pytest.mark.parametrize('box', ['dirac', 'general'])
def test_normalizers_by_hand(box):
    # Positives and images for the classes, positives for boxes that weigh 1.
    head = build(host_config('Fovea', 'NoQuality', box))
    feats, gts = features(SIZE, 2), objects([4, 0], SIZE)
    targets, (logits, bbox_pred) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    summed = head.loss_cls(logits, targets.dense_labels(5), reduction_override='sum')
    torch.testing.assert_close(losses['loss_cls'], summed / (len(targets.pos) + 2))
    if box == 'general':
        boxes = head.box.decode(bbox_pred[targets.pos.flat_inds], targets.locations, head)
        torch.testing.assert_close(
            losses['loss_bbox'], head.loss_bbox(boxes, targets.gt_bboxes, reduction_override='mean')
        )


def test_a_gaussian_box_starts_at_the_base_edge():
    head = MODELS.build(host_config('Fovea', box='gaussian'))
    for _ in range(2):
        start = head.conv_reg.bias.detach().reshape(4, 2)
        assert start[:, 0].tolist() == [2.0] * 4 and start[:, 1].tolist() == [0.0] * 4
        head.init_weights()  # whose bias is 0
