"""SSDGFLHead: without a quality and with Dirac boxes MMDetection's SSDHead; joint quality with sigmoids."""

import pytest
import torch
from cases import (
    assert_host_detects_the_same,
    assert_host_trains_the_same,
    assert_state_dicts_fit,
    build,
    host_config,
    host_features,
    metas,
    objects,
    pair,
    positives_of,
    stock_config,
)
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_gfl import shipped_configs

SIZE = (160, 224)


@pytest.mark.agreement
@pytest.mark.parametrize(
    'changes', [{}, dict(stacked_convs=1, feat_channels=8, use_depthwise=True, norm_cfg=dict(type='BN'))], ids=str
)
def test_state_dicts_fit_both_ways(changes):
    assert_state_dicts_fit('SSD', **changes)


def train_cfg(ratio=3, beta=1.0, **changes):
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, ignore_iof_thr=-1)
    assigner.update(changes)
    return dict(assigner=assigner, allowed_border=-1, pos_weight=-1, smoothl1_beta=beta, neg_pos_ratio=ratio)


@pytest.mark.agreement
@pytest.mark.parametrize(
    'changes',
    [
        dict(train_cfg=train_cfg(ratio=1, beta=0.2)),
        dict(train_cfg=train_cfg(ratio=1000)),
        dict(train_cfg=train_cfg(gt_max_assign_all=False, pos_iou_thr=0.4, neg_iou_thr=0.3)),
        dict(train_cfg=dict(train_cfg(), allowed_border=0, pos_weight=2.0)),
        dict(reg_decoded_bbox=True),
        dict(num_classes=1),
    ],
    ids=['ratio-and-beta', 'all-negatives', 'assigner', 'allowed_border-and-pos_weight', 'decoded', 'one-class'],
)
def test_losses_and_gradients_of_other_settings(changes):
    assert_host_trains_the_same('SSD', SIZE, [6, 2], **changes)


@pytest.mark.agreement
def test_losses_and_gradients_with_ignore_regions():
    ignored = [InstanceData(bboxes=torch.tensor([[0.0, 0.0, 150.0, 120.0]])), InstanceData(bboxes=torch.zeros(0, 4))]
    assert_host_trains_the_same('SSD', SIZE, [6, 3], ignored, train_cfg=train_cfg(ignore_iof_thr=0.5))


@pytest.mark.agreement
def test_ssd300_trains_and_detects_as_mmdetections():
    size = (300, 300)
    levels = [level.shape[-2:].numel() for level in host_features('SSD', size, 1)]
    anchors = build(stock_config('SSD')).prior_generator.num_base_priors
    assert sum(cells * each for cells, each in zip(levels, anchors, strict=True)) == 8732  # as the paper on SSD counts
    assert_host_trains_the_same('SSD', size, [4, 0])
    assert_host_detects_the_same('SSD', size)


def test_it_predicts_without_a_train_cfg():
    head = build(host_config('SSD', 'NoQuality', 'dirac', train_cfg=None)).eval()
    found = head.predict_by_feat(*head(host_features('SSD', SIZE, 1)), batch_img_metas=metas(SIZE, 1))[0]
    assert len(found) > 10 and found.labels.max() < 5


def test_background_is_mined_per_image():
    # Hard background of the empty image is not mined for the positives of the other.
    head = build(host_config('SSD', 'NoQuality', 'dirac'))
    feats, gts = host_features('SSD', SIZE, 2), objects([3, 0], SIZE)
    scores, boxes = head(feats)
    harder = [level + torch.tensor([0.0, 50.0]).view(2, 1, 1, 1) * torch.randn(level.shape) for level in scores]
    plain = head.loss_by_feat(scores, boxes, gts, metas(SIZE, 2))
    assert head.loss_by_feat(harder, boxes, gts, metas(SIZE, 2))['loss_cls'] == plain['loss_cls']


@pytest.mark.parametrize('box', ['dirac', 'dfl'])
def test_joint_quality_has_c_sigmoids_that_start_at_a_hundredth(box):
    head = MODELS.build(host_config('SSD', 'JointQuality', box))
    assert head.cls_out_channels == 5 and head.use_sigmoid_cls
    for _ in range(2):
        for convs, anchors in zip(head.cls_convs, head.num_base_priors):
            assert convs[-1].out_channels == 5 * anchors
            torch.testing.assert_close(convs[-1].bias.sigmoid(), torch.full((5 * anchors,), 0.01))
        head.init_weights()  # whose bias is 0
    feats, gts = host_features('SSD', SIZE, 2), objects([4, 2], SIZE)
    small = [level * 0.01 for level in feats]
    assert head.loss_by_feat(*head(small), gts, metas(SIZE, 2))['loss_cls'] < 5


def test_joint_quality_by_hand():
    head = build(host_config('SSD', 'JointQuality', 'dirac'))
    feats, gts = host_features('SSD', SIZE, 2), objects([4, 0], SIZE)
    targets, (logits, bbox_pred) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    pos, priors = targets.pos.flat_inds, targets.locations.priors
    target = head.bbox_coder.encode(priors, targets.gt_bboxes)
    smooth = torch.nn.functional.smooth_l1_loss(bbox_pred[pos], target, reduction='sum')
    torch.testing.assert_close(losses['loss_bbox'], smooth / (len(pos) + 1))
    quality = torch.zeros(len(logits))
    quality[pos] = bbox_overlaps(head.bbox_coder.decode(priors, bbox_pred[pos]), targets.gt_bboxes, is_aligned=True)
    summed = head.loss_cls(logits, (targets.dense_labels(5), quality), reduction_override='sum')  # nothing is mined
    torch.testing.assert_close(losses['loss_cls'], summed / (len(pos) + 1))


def test_mined_background_by_hand():
    # Of one image with P positives the 3 P background anchors of the largest losses, wherever their level.
    head = build(host_config('SSD', 'NoQuality', 'dirac'))
    feats, gts = host_features('SSD', SIZE, 1), objects([1], SIZE)
    targets, (logits, _) = positives_of(head, SIZE, gts, feats)
    each = torch.nn.functional.cross_entropy(logits, targets.dense_labels(5), reduction='none')
    positive = targets.dense_labels(5) < 5
    hardest = each[~positive].topk(3 * len(targets.pos)).values
    expected = (each[positive].sum() + hardest.sum()) / len(targets.pos)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 1))
    assert len(targets.pos) > 0 and len(hardest) < (~positive).sum()
    torch.testing.assert_close(losses['loss_cls'], expected)


@pytest.mark.parametrize('quality', ['CenternessBranch', 'IoUBranch', 'CenternessGuided', 'IoUGuided'])
def test_other_qualities_raise(quality):
    with pytest.raises(ValueError, match=rf'quality={quality}.*SSD.*JointQuality.*NoQuality'):
        MODELS.build(host_config('SSD', quality, 'dirac'))


def test_a_class_loss_without_joint_quality_raises():
    with pytest.raises(ValueError, match=r'loss_cls.*SSD.*JointQuality'):
        MODELS.build(host_config('SSD', 'NoQuality', 'dirac', loss_cls=dict(type='FocalLoss', use_sigmoid=True)))


def test_a_gaussian_box_starts_at_half_its_anchor():
    head = MODELS.build(host_config('SSD', box='gaussian'))
    stock = MODELS.build(stock_config('SSD'))
    for _ in range(2):
        for level, convs in enumerate(head.reg_convs):
            anchors = stock.prior_generator.base_anchors[level]
            start = convs[-1].bias.detach().reshape(-1, 4, 2)
            stride = stock.prior_generator.strides[level][0]
            torch.testing.assert_close(start[:, 0, 0], (anchors[:, 2] - anchors[:, 0]) / 2 / stride)
            torch.testing.assert_close(start[:, 3, 0], (anchors[:, 3] - anchors[:, 1]) / 2 / stride)
            assert (start[..., 1] == 0).all()
        head.init_weights()  # whose bias is 0


def test_the_baseline_has_no_branch():
    one, _ = pair('SSD')
    assert not hasattr(one, 'loss_centerness') and not any('centerness' in name for name in one.state_dict())


# The shipped configs at their own size ------------------------------------------------------------------------------


def narrow_detector(name):
    """The detector of a config with few channels: a ResNet whose two levels have the sizes of VGG's."""
    model = Config.fromfile(shipped_configs.find(name)).model
    widths = (8, 16, *[16] * (len(model.neck.out_channels) - 2))
    model.backbone = dict(
        type='ResNet',
        depth=18,
        base_channels=4,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        norm_eval=False,
    )
    model.neck.update(in_channels=widths[:2], out_channels=widths)
    model.bbox_head.in_channels = widths
    return MODELS.build(model)


def images_of(size, counts):
    """Noise images of size x size px with their objects, as a detector takes them."""
    samples = [
        DetDataSample(gt_instances=gt, metainfo=dict(meta, batch_input_shape=(size, size)))
        for gt, meta in zip(objects(counts, (size, size), 80), metas((size, size), len(counts)))
    ]
    return torch.randn(len(counts), 3, size, size), samples


@pytest.mark.parametrize('name', [name for name in shipped_configs.names() if name.startswith('ssd/')])
def test_a_shipped_config_trains_and_detects_at_its_own_size(name):
    model, size = narrow_detector(name), 300 if '300' in name else 512
    model.init_weights()
    data = images_of(size, [4, 0])
    sides = sum(level[0].numel() for level in model(*data, mode='tensor')[1])
    assert sides == {300: 8732, 512: 24564}[size] * 4 * model.bbox_head.box.channels  # SSD's numbers of anchors
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
    losses = []
    for step in range(4):
        parts = model(*data, mode='loss')
        total, _ = model.parse_losses(parts)
        optimizer.zero_grad()
        total.backward()
        if step == 0:
            missing = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
            assert missing == []
        optimizer.step()
        # The target of a joint score is the IoU: it rises while the boxes get better, and the class loss with it.
        losses.append((total if name == 'ssd/ssd512_coco' else parts['loss_bbox']).item())
    assert losses[-1] < 0.95 * losses[0], losses

    optimizer.zero_grad()
    empty, _ = model.parse_losses(model(*images_of(size, [0]), mode='loss'))
    empty.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)

    model.eval()
    model.bbox_head.test_cfg.score_thr = 0.0
    with torch.no_grad():
        found = model(*data, mode='predict')
    assert all(0 < len(result.pred_instances) <= 200 for result in found)
