"""RTMDet's hosts: with the assigned quality and Dirac boxes MMDetection's heads; else their parts by hand."""

import pytest
import torch
from cases import (
    BASELINES,
    BOXES,
    DYNAMIC_HOSTS,
    assert_host_trains_the_same,
    assert_same_training,
    assert_state_dicts_fit,
    build,
    host_config,
    host_features,
    metas,
    objects,
    pair,
    positives_of,
    shipped_head,
    stock_config,
    totals,
)
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.task_modules.assigners import DynamicSoftLabelAssigner
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet_gfl.registry import registered_hosts

SIZE = (160, 224)
SOFT_LABEL = dict(type='DynamicSoftLabelAssigner', topk=13)


@MODELS.register_module()
class PlainQualityFocalLoss(QualityFocalLoss):
    """A loss that nothing can be known of, so that it is computed by itself."""


@TASK_UTILS.register_module()
class OwnAssigner(DynamicSoftLabelAssigner):
    """Measures the square of the IoU, and leaves out every third location, and ignored regions, of the background."""

    def assign(self, predictions, objects, ignored=None):
        result = super().assign(predictions, objects, ignored)
        result.max_overlaps = result.max_overlaps**2
        background = result.gt_inds == 0
        result.gt_inds[background & (torch.arange(len(background)) % 3 == 0)] = -1
        for x1, y1, x2, y2 in ignored.bboxes if ignored is not None else ():
            x, y = predictions.priors[:, 0], predictions.priors[:, 1]
            result.gt_inds[background & (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)] = -1
        return result


def iou_of(outputs, targets, head):
    """IoU of the positives' decoded boxes and their objects, by MMDetection."""
    boxes = head.box.decode(outputs[targets.pos.flat_inds], targets.locations, head)
    return bbox_overlaps(boxes, targets.gt_bboxes, is_aligned=True).detach()


def losses_of(head, host, counts):
    """Targets, flat logits and box outputs, and losses of a batch."""
    feats, gts = host_features(host, SIZE, len(counts)), objects(counts, SIZE)
    targets, (logits, outputs, *_) = positives_of(head, SIZE, gts, feats)
    return targets, logits, outputs, head.loss_by_feat(*head(feats), gts, metas(SIZE, len(counts)))


# MMDetection's heads ------------------------------------------------------------------------------------------------

SETTINGS = [
    ('RTMDet', dict()),
    ('RTMDet', dict(with_objectness=False)),
    ('RTMDet', dict(pred_kernel_size=1)),
    ('RTMDetSepBN', dict()),
    ('RTMDetSepBN', dict(with_objectness=True)),
    ('RTMDetSepBN', dict(exp_on_reg=False)),
    ('RTMDetSepBN', dict(share_conv=False)),
    ('RTMDetSepBN', dict(share_conv=False, use_depthwise=True)),
    ('RTMDetSepBN', dict(pred_kernel_size=3, stacked_convs=2)),
    ('RTMDetSepBN', dict(norm_cfg=dict(type='BN', momentum=0.03, eps=0.001), act_cfg=dict(type='SiLU', inplace=True))),
]


def named_setting(value):
    return value if isinstance(value, str) else '-'.join(value) or 'plain'


@pytest.mark.agreement
@pytest.mark.parametrize('host, changes', SETTINGS, ids=named_setting)
def test_state_dicts_fit_both_ways(host, changes):
    assert_state_dicts_fit(host, **changes)


@pytest.mark.agreement
@pytest.mark.parametrize('host, changes', SETTINGS, ids=named_setting)
def test_losses_and_gradients_of_settings(host, changes):
    assert_host_trains_the_same(host, SIZE, [6, 2], **changes)


@pytest.mark.agreement
@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
@pytest.mark.parametrize(
    'changes',
    [
        dict(loss_bbox=dict(type='DIoULoss', loss_weight=1.5)),
        dict(loss_cls=dict(type='mmdet_gfl.QualityFocalLoss', use_sigmoid=True, beta=1.0, loss_weight=0.5)),
        dict(loss_cls=dict(type='PlainQualityFocalLoss', use_sigmoid=True)),
        dict(num_classes=1),
        dict(train_cfg=dict(assigner=dict(SOFT_LABEL, topk=5, iou_weight=1.0), allowed_border=-1, pos_weight=2.0)),
        dict(train_cfg=dict(assigner=SOFT_LABEL, allowed_border=0, pos_weight=-1)),
        dict(train_cfg=dict(assigner=dict(type='OwnAssigner'), allowed_border=-1, pos_weight=-1)),
    ],
    ids=['diou', 'our-qfl', 'unknown-loss', 'one-class', 'pos_weight', 'allowed_border', 'own-assigner'],
)
def test_losses_and_gradients_of_other_losses_and_assigners(host, changes):
    assert_host_trains_the_same(host, SIZE, [6, 2], **changes)


@pytest.mark.agreement
@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
@pytest.mark.parametrize('assigner', ['DynamicSoftLabelAssigner', 'OwnAssigner'])
@pytest.mark.parametrize('allowed_border', [-1, 0])
def test_losses_and_gradients_of_padded_images_with_ignore_regions(host, allowed_border, assigner):
    # Images smaller than the batch: locations in the padding have no weight in the class loss. RTMDet's assigner does
    # not look at ignored regions; one of a user's own may.
    train_cfg = dict(assigner=dict(type=assigner), allowed_border=allowed_border, pos_weight=-1)
    ours, theirs = pair(host, train_cfg=train_cfg)
    gts = objects([6, 3], (96, 130))
    images = [dict(meta, img_shape=(96, 130), pad_shape=(96, 130)) for meta in metas(SIZE, 2)]
    ignored = [InstanceData(bboxes=torch.tensor([[0.0, 0.0, 150.0, 120.0]])), InstanceData(bboxes=torch.zeros(0, 4))]
    feats = host_features(host, SIZE, 2, requires_grad=True)
    assert_same_training(ours, theirs, feats, gts, images, ignored)
    batch = ours.assignment_batch([level.shape[-2:] for level in feats], gts, images, ignored, *ours(feats))
    inside = 2 * (12 * 17 + 6 * 9 + 3 * 5)
    weights = ours.targets(batch).label_weights.sum()
    assert weights == inside if assigner == 'DynamicSoftLabelAssigner' else 0 < weights < inside / 2


@pytest.mark.agreement
@pytest.mark.parametrize('host, changes', SETTINGS, ids=named_setting)
def test_stock_forward_is_the_same(host, changes):
    ours, theirs = pair(host, **changes)
    for training in (True, False):
        feats = host_features(host, SIZE, 2)
        for our, their in zip(ours.train(training)(feats), theirs.train(training)(feats), strict=True):
            assert all(torch.equal(one, two) for one, two in zip(our, their, strict=True))


@pytest.mark.agreement
@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_it_starts_as_mmdetections(host):
    for changes in (dict(), dict(with_objectness=True)):
        ours, theirs = pair(host, **changes)
        for head in (ours, theirs):
            torch.manual_seed(0)
            head.init_weights()
        for name, value in theirs.state_dict().items():
            assert torch.equal(value, ours.state_dict()[name]), name


# Other boxes and qualities ------------------------------------------------------------------------------------------

NARROW = dict(in_channels=32, feat_channels=32, stacked_convs=1, norm_cfg=dict(type='BN'))


@pytest.mark.parametrize('name, exp_on_reg', [('l', True), ('tiny', False)])
def test_a_stock_config_with_another_type_has_general_boxes(name, exp_on_reg):
    cfg = shipped_head(f'rtmdet/rtmdet_{name}_8xb32-300e_coco.py', 'mmdet_gfl.RTMDetSepBNGFLHead', **NARROW)
    assert cfg.num_classes == 80 and cfg.exp_on_reg == exp_on_reg
    head = MODELS.build(cfg)
    head.init_weights()
    assert type(head.quality).__name__ == 'AssignedQuality' and type(head.loss_cls) is QualityFocalLoss
    assert type(head.box).__name__ == 'GeneralBox' and head.box.reg_max == 16
    assert type(head.loss_bbox).__name__ == 'GIoULoss' and head.loss_bbox.loss_weight == 2.0
    assert type(head.loss_dfl).__name__ == 'DistributionFocalLoss' and head.loss_dfl.loss_weight == 0.25
    generator = torch.Generator().manual_seed(2)
    feats = [torch.randn(2, 32, -(-160 // s), -(-224 // s), generator=generator) for s in (8, 16, 32)]
    losses = head.loss_by_feat(*head(feats), objects([4, 0], SIZE, 80), metas(SIZE, 2))
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_dfl', 'pos_iou', 'clipped_share'}
    # The first class scores are 0.01 and the first distributions flat: log 17, a quarter of it, the side's mean.
    torch.testing.assert_close(head(feats)[0][0].sigmoid().mean(), torch.tensor(0.01), rtol=0.5, atol=0)
    assert 0 < losses['loss_dfl'] < 0.25 * 3 and 0 < losses['loss_bbox'] < 4 and losses['pos_iou'] > 0.1
    head.eval()
    head.test_cfg.score_thr = 0.0
    with torch.no_grad():
        found = head.predict_by_feat(*head(feats), batch_img_metas=metas(SIZE, 2))
    assert all(0 < len(result) <= head.test_cfg.max_per_img for result in found)


@pytest.mark.parametrize('box', BOXES)
@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_the_assigner_looks_at_the_boxes_as_they_are_decoded(host, box):
    head = build(host_config(host, 'AssignedQuality', box))
    targets, _, outputs, losses = losses_of(head, host, [4, 3])
    assert len(targets.pos) > 5 and targets.quality.max() > 0.1
    torch.testing.assert_close(targets.quality, iou_of(outputs, targets, head))
    torch.testing.assert_close(losses['pos_iou'], targets.quality.mean())
    # And at the logits: with the same boxes and other logits other locations are matched.
    logits, boxes = head(host_features(host, SIZE, 2))
    logits = [torch.randn_like(level) * 5 for level in logits]
    sizes = [level.shape[-2:] for level in logits]
    batch = head.assignment_batch(sizes, objects([4, 3], SIZE), metas(SIZE, 2), None, logits, boxes)
    assert not torch.equal(head.targets(batch).dense_labels(5), targets.dense_labels(5))


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
@pytest.mark.parametrize('box', ['dirac', 'general'])
def test_joint_quality_has_the_same_class_target_and_weights_boxes_by_the_score(host, box):
    joint, assigned = (build(host_config(host, quality, box)) for quality in ('JointQuality', 'AssignedQuality'))
    targets, logits, outputs, losses = losses_of(joint, host, [4, 3])
    torch.testing.assert_close(losses['loss_cls'], losses_of(assigned, host, [4, 3])[3]['loss_cls'], rtol=1e-5, atol=0)
    scores = logits[targets.pos.flat_inds].sigmoid().amax(1)
    boxes = joint.box.decode(outputs[targets.pos.flat_inds], targets.locations, joint)
    each = joint.loss_bbox(boxes, targets.gt_bboxes, reduction_override='none')
    assert scores.sum() > 1
    torch.testing.assert_close(losses['loss_bbox'], (each * scores).sum() / scores.sum())


def test_normalizers_by_hand():
    # Soft labels divide the class loss by the sum of their qualities, hard ones by their positives, each at least 1.
    for quality in ('AssignedQuality', 'IoUBranch'):
        head = build(host_config('RTMDet', quality, 'general'))
        targets, logits, outputs, losses = losses_of(head, 'RTMDet', [4, 0])
        measured = iou_of(outputs, targets, head)
        soft = torch.zeros(len(logits)).index_put((targets.pos.flat_inds,), measured)
        labels = targets.dense_labels(5)
        target = (labels, soft) if quality == 'AssignedQuality' else labels
        summed = head.loss_cls(logits, target, reduction_override='sum')
        divisor = measured.sum() if quality == 'AssignedQuality' else len(measured)
        assert divisor > 1
        torch.testing.assert_close(losses['loss_cls'], summed / divisor)
        weights = measured if quality == 'AssignedQuality' else torch.ones(len(measured))
        boxes = head.box.decode(outputs[targets.pos.flat_inds], targets.locations, head)
        each = head.loss_bbox(boxes, targets.gt_bboxes, reduction_override='none')
        torch.testing.assert_close(losses['loss_bbox'], (each * weights).sum() / weights.sum())


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
@pytest.mark.parametrize('box', BOXES)
def test_images_without_objects(host, box):
    # Both normalisers are 1: the class loss is the sum over all locations, and the boxes cost nothing.
    head = build(host_config(host, 'AssignedQuality', box))
    targets, logits, _, losses = losses_of(head, host, [0, 0])
    assert losses['loss_bbox'] == 0 and losses['pos_iou'] == 0 and len(targets.pos) == 0
    background = (torch.full((len(logits),), 5), torch.zeros(len(logits)))
    torch.testing.assert_close(losses['loss_cls'], head.loss_cls(logits, background, reduction_override='sum'))
    sum(totals(losses).values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_boxes_other_than_dirac_do_not_go_through_the_exponential():
    head = build(host_config('RTMDet', box='dfl'))
    head.scales[1].scale.data.fill_(0.5)
    feats = host_features('RTMDet', SIZE, 1)
    outputs = head.rtm_reg(head.towers(feats[1])[1])
    torch.testing.assert_close(head(feats)[1][1], 0.5 * outputs)
    head = build(host_config('RTMDetSepBN', box='gaussian'))
    feat = feats[2]
    for conv in head.reg_convs[2]:
        feat = conv(feat)
    torch.testing.assert_close(head(feats)[1][2], head.rtm_reg[2](feat))


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_a_gaussian_box_starts_at_one_stride(host):
    head = MODELS.build(host_config(host, box='gaussian'))
    for _ in range(2):
        for layer in [head.rtm_reg] if host == 'RTMDet' else head.rtm_reg:
            start = layer.bias.detach().reshape(4, 2)
            assert start[:, 0].tolist() == [1.0] * 4 and start[:, 1].tolist() == [0.0] * 4
        head.init_weights()  # whose bias is 0


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_a_general_box_starts_at_one_stride(host):
    head = MODELS.build(host_config(host, box='dfl'))
    for _ in range(2):
        for layer in [head.rtm_reg] if host == 'RTMDet' else head.rtm_reg:
            torch.testing.assert_close(head.integral(layer.bias[None]), torch.ones(1, 4))
        head.init_weights()  # whose bias is 0, a mean of 8 strides


def test_encode_and_decode_are_inverse():
    head = build(host_config('RTMDet', 'AssignedQuality', 'dirac'))
    targets, *_ = losses_of(head, 'RTMDet', [5])
    boxes = torch.rand(len(targets.pos), 4) * 200
    coder = head.host_coder
    torch.testing.assert_close(coder.decode(coder.encode(boxes, targets.locations), targets.locations), boxes)


@pytest.mark.parametrize('what', ['stats', 'full'])
@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_statistics_of_detections(host, what):
    head = build(host_config(host, test_cfg=dict(stock_config(host).test_cfg, with_distribution=what))).eval()
    with torch.no_grad():
        found = head.predict_by_feat(*head(host_features(host, SIZE, 1)), batch_img_metas=metas(SIZE, 1))[0]
    assert len(found) > 20 and (found.bbox_std > 0).all()
    # RTMDet's points lie on the corners of their cells (offset 0).
    assert (found.bbox_location % 8 == 0).all() and found.bbox_location.min() == 0
    mean = torch.cat((found.bbox_location - found.bbox_mean[:, :2], found.bbox_location + found.bbox_mean[:, 2:]), 1)
    inside = mean.clamp(min=0).minimum(torch.tensor([SIZE[1], SIZE[0]] * 2))
    torch.testing.assert_close(inside, found.bboxes, rtol=0, atol=1e-3)
    if what == 'full':
        bins = found.bbox_step[..., None] * torch.arange(17.0)
        torch.testing.assert_close((found.bbox_distribution * bins).sum(-1), found.bbox_mean, rtol=1e-4, atol=1e-3)


# Precision ----------------------------------------------------------------------------------------------------------


def test_objectness_is_finite_in_half_precision():
    # In float16 the score 0.9999 is 1, and the inverse of the sigmoid 1 / 1e-5, which is above what float16 holds.
    head = build(host_config('RTMDet')).eval()
    for layer in (head.rtm_cls, head.rtm_obj):
        layer.weight.data.zero_()
        layer.bias.data.fill_(12.0)
    logits = head.half()([level.half() for level in host_features('RTMDet', SIZE, 1)])[0]
    torch.testing.assert_close(logits[0], torch.full_like(logits[0], 11.5), rtol=0.02, atol=0)


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_losses_in_inference_mode(host):
    head = build(host_config(host))
    feats, gts, images = host_features(host, SIZE, 2), objects([4, 0], SIZE), metas(SIZE, 2)
    found = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found.append(totals(head.loss_by_feat(*head(feats), gts, images)))
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key]), key


# Distribution-guided quality ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
@pytest.mark.parametrize('with_objectness', [False, True])
def test_distribution_guided_scores(host, with_objectness):
    # GFLv2's product, whatever stands for the class score: with an objectness, the geometric mean of the two.
    head = build(host_config(host, 'DistributionGuidedQuality', with_objectness=with_objectness))
    seen = {}
    head.reg_conf.register_forward_hook(lambda _, inputs, output: seen.setdefault('guide', []).append(output))
    feats = host_features(host, SIZE, 2)
    logits, boxes = head(feats)
    plain = build(host_config(host, 'AssignedQuality', with_objectness=with_objectness))
    plain.load_state_dict(head.state_dict(), strict=False)
    for level, (own, alone) in enumerate(zip(logits, plain(feats)[0])):
        product = alone.sigmoid() * seen['guide'][level].sigmoid()
        torch.testing.assert_close(own.sigmoid(), product, rtol=1e-5, atol=1e-7)
        probabilities = boxes[level].unflatten(1, (4, 17)).softmax(2).topk(4, dim=2).values
        statistics = torch.cat((probabilities, probabilities.mean(2, keepdim=True)), 2).flatten(1, 2)
        torch.testing.assert_close(head.reg_conf(statistics), seen['guide'][level])


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_distribution_guided_quality_trains(host):
    # Joint: the IoU is learned, the score weights the boxes; every parameter gets a gradient, also without objects.
    for counts in ([4, 0], [0, 0]):
        head = build(host_config(host, 'DistributionGuidedQuality'))
        targets, _, outputs, losses = losses_of(head, host, counts)
        torch.testing.assert_close(targets.quality, iou_of(outputs, targets, head))
        sum(totals(losses).values()).backward()
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert head.reg_conf[2].weight.grad.abs().max() > 0
    head.init_weights()
    for layer in (head.reg_conf[0], head.reg_conf[2]):
        assert layer.weight.std() < 0.02 and layer.bias.abs().max() == 0


def test_distribution_guided_quality_needs_general_boxes():
    with pytest.raises(ValueError, match=r"DistributionGuidedQuality needs the distribution.*GeneralBox'"):
        MODELS.build(host_config('RTMDetSepBN', 'DistributionGuidedQuality', 'dirac'))


# What is refused, and what is called --------------------------------------------------------------------------------


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_priors_and_coders_that_cannot_be_are_refused(host):
    for key, accepted in (('anchor_generator', 'MlvlPointGenerator'), ('bbox_coder', 'DistancePointBBoxCoder')):
        cfg = host_config(host)
        cfg.pop(key)  # MMDetection's default is for anchors
        with pytest.raises(ValueError, match=rf"bbox_head.{key}=.*{host}GFLHead.*type='{accepted}'"):
            MODELS.build(cfg)


def test_hard_labels_need_their_loss():
    with pytest.raises(ValueError, match=r'loss_cls=QualityFocalLoss.*NoQuality has one-hot labels.*FocalLoss'):
        MODELS.build(host_config('RTMDet', 'NoQuality', loss_cls=stock_config('RTMDet').loss_cls))


def test_images_too_small_for_allowed_border_are_named():
    head = build(host_config('RTMDet', train_cfg=dict(assigner=SOFT_LABEL, allowed_border=0, pos_weight=-1)))
    free = build(host_config('RTMDet'))
    assert (
        free.loss_by_feat(*free(host_features('RTMDet', (4, 4), 1)), objects([1], (4, 4)), metas((4, 4), 1))['loss_cls']
        > 0
    )
    for size, valid in (((9, 40), True), ((8, 40), False)):
        outs = head(host_features('RTMDet', size, 2))
        if valid:
            assert head.loss_by_feat(*outs, objects([1, 1], size), metas(size, 2))['loss_cls'] > 0
        else:
            with pytest.raises(ValueError, match=r'allowed_border=0 .*image of 8 pixels.*allowed_border=-1'):
                head.loss_by_feat(*outs, objects([1, 1], size), metas(size, 2))


def test_a_user_defined_assignment_is_called():
    from mmdet_gfl.models.dense_heads.rtmdet_gfl_head import RTMDetGFLHead

    class Nothing(RTMDetGFLHead):
        def get_targets(self, *args, **kwargs):
            anchors, labels, *rest = super().get_targets(*args, **kwargs)
            return anchors, [torch.full_like(level, self.num_classes) for level in labels], *rest

    head = Nothing(**{key: value for key, value in host_config('RTMDet').items() if key != 'type'})
    targets, *_, losses = losses_of(head, 'RTMDet', [4])
    assert len(targets.pos) == 0 and losses['loss_bbox'] == 0


def test_static_batches_have_no_predictions():
    head = build(host_config('RTMDet'))
    sizes = [level.shape[-2:] for level in host_features('RTMDet', SIZE, 1)]
    with pytest.raises(ValueError, match='depends on predictions.*assignment_batch'):
        head.targets(head.assignment_batch(sizes, objects([1], SIZE), metas(SIZE, 1)))


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_calls_of_the_registry(host):
    head = registered_hosts()[f'{host}GFLHead']
    assert head.stock_head is MODELS.get(f'{host}Head') and head.baseline_quality == BASELINES[host]


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_building_without_memory(host):
    with torch.device('meta'):
        assert all(parameter.is_meta for parameter in MODELS.build(ConfigDict(host_config(host))).parameters())
