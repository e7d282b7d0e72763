"""On every host: the plane of qualities and boxes, images without objects, precision, errors, MMDetection's configs."""

import copy
from itertools import combinations, product

import pytest
import torch
from cases import (
    BASELINES,
    BOXES,
    DYNAMIC_HOSTS,
    HOSTS,
    PAIRS_OF_PLANE,
    PLANE,
    assert_host_detects_the_same,
    assert_host_trains_the_same,
    assert_state_dicts_fit,
    build,
    covering,
    featmap_sizes,
    features,
    gfl_config,
    host_config,
    host_features,
    metas,
    named,
    objects,
    pair,
    part,
    positives_of,
    shipped_head,
    stock_config,
    totals,
)
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict

from mmdet_gfl.models.quality import joint
from mmdet_gfl.models.quality.joint import JointQuality
from mmdet_gfl.models.task_modules import AssignmentBatch, Locations
from mmdet_gfl.registry import MODELS as OUR_MODELS

SIZE = (96, 160)
STATIC_PLANE = [point for point in PLANE if point[0] in HOSTS]
BRANCH_NAMES = dict(ATSS='atss_centerness', FCOS='conv_centerness', Retina='retina_centerness', Fovea='conv_centerness')


def backward(head, feats, gts):
    """Losses, with their gradients in the head's parameters."""
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, len(gts)))
    sum(totals(losses).values()).sum().backward()
    return losses


# The plane ----------------------------------------------------------------------------------------------------------

#: Largest share of the first step's total loss that is left at the fifth.
LOSS_LEFT = dict(ATSS=0.4, FCOS=0.35, Fovea=0.5, Retina=0.7, RTMDet=0.2, RTMDetSepBN=0.75)
#: Of SSD, whose last layers take the features themselves, with its learning rate; GIoU alone hardly changes a flat
#: distribution.
LOSS_LEFT_OF_SSD = dict(dirac=(0.65, 1e-1), gaussian=(0.5, 1e-1), dfl=(0.8, 1e-1), general=(0.98, 10.0))


def test_the_points_hold_every_pair():
    for axes in combinations(range(3), 2):
        chosen, every = ({tuple(point[axis] for axis in axes) for point in of} for of in (PAIRS_OF_PLANE, PLANE))
        assert chosen == every
    assert len(PAIRS_OF_PLANE) < len(PLANE) / 3


@pytest.mark.parametrize('host, quality, box', PAIRS_OF_PLANE)
def test_points_of_the_plane_train_and_detect(host, quality, box):
    head = MODELS.build(host_config(host, quality, box))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.03)
    feats, gts = host_features(host, SIZE, 2), objects([3, 0], SIZE)
    left, lr = LOSS_LEFT_OF_SSD[box] if host == 'SSD' else (LOSS_LEFT[host], 1e-2)
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    totals_of_steps = []
    for _ in range(5):
        optimizer.zero_grad()
        losses = backward(head, feats, gts)
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        torch.nn.utils.clip_grad_norm_(head.parameters(), 10.0)
        totals_of_steps.append(float(sum(totals(losses).values()).detach()))
        optimizer.step()
    assert totals_of_steps[-1] < left * totals_of_steps[0]

    keys = {'loss_cls', 'loss_bbox', 'pos_iou'}
    keys |= {'loss_dfl'} if box == 'dfl' else set()
    keys |= {'clipped_share'} if box in ('general', 'dfl') else set()
    keys |= {dict(CenternessBranch='loss_centerness', IoUBranch='loss_iou').get(quality, 'pos_iou')}
    assert set(losses) == keys

    head.test_cfg.score_thr = 0.0
    with torch.no_grad():
        found = head.eval().predict_by_feat(*head(feats), batch_img_metas=metas(SIZE, 2))
    for result in found:
        assert len(result) > 0 and torch.isfinite(result.bboxes).all()
        assert (result.bboxes[:, 2:] >= result.bboxes[:, :2]).all() and result.bboxes.min() >= 0
        assert result.bboxes[:, 0::2].max() <= SIZE[1] and result.bboxes[:, 1::2].max() <= SIZE[0]


@pytest.mark.parametrize('host', HOSTS)
def test_the_default_is_full_gfl(host):
    head = MODELS.build(host_config(host))
    assert type(head.quality).__name__ == 'JointQuality' and type(head.loss_cls).__name__ == 'QualityFocalLoss'
    assert type(head.box).__name__ == 'GeneralBox' and type(head.loss_dfl).__name__ == 'DistributionFocalLoss'
    assert type(head.loss_bbox).__name__ == 'GIoULoss'
    assert head.loss_cls.beta == 2.0 and head.loss_dfl.loss_weight == 0.25 and head.box.reg_max == 16


def size_of(cfg):
    return sum(parameter.numel() for parameter in MODELS.build(cfg).parameters())


@pytest.mark.parametrize('host', HOSTS)
def test_joint_quality_adds_no_parameter(host):
    none, joint = size_of(host_config(host, 'NoQuality', 'dirac')), size_of(host_config(host, 'JointQuality', 'dirac'))
    if host == 'SSD':  # one class channel less per anchor: the background's
        anchors = sum(MODELS.build(stock_config('SSD')).num_base_priors)
        assert none - joint == anchors * (16 * 9 + 1)
    else:
        assert none == joint


@pytest.mark.parametrize('host', BRANCH_NAMES)
@pytest.mark.parametrize('quality', ['CenternessBranch', 'IoUBranch'])
def test_a_branch_adds_its_convolution(host, quality):
    anchors = 9 if host == 'Retina' else 1
    added = size_of(host_config(host, quality, 'dfl')) - size_of(host_config(host, 'NoQuality', 'dfl'))
    assert added == anchors * (16 * 9 + 1)
    branch = getattr(MODELS.build(host_config(host, quality)), BRANCH_NAMES[host])
    assert branch.out_channels == anchors and branch.weight.numel() + branch.bias.numel() == added


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('box, outputs', [('dirac', 1), ('gaussian', 2), ('dfl', 17)])
def test_a_box_representation_adds_its_outputs(host, box, outputs):
    anchors = dict(ATSS=1, FCOS=1, Retina=9, Fovea=1, SSD=4 + 6 + 6 + 6 + 4 + 4)[host]
    added = size_of(host_config(host, 'JointQuality', box)) - size_of(host_config(host, 'JointQuality', 'dirac'))
    assert added == anchors * 4 * (outputs - 1) * (16 * 9 + 1)


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('box', ['general', 'dfl'])
def test_qualities_and_boxes_hold_no_state(host, box):
    head = MODELS.build(host_config(host, box=box))
    for axis in (head.quality, head.box):
        assert not any(isinstance(value, (torch.nn.Module, torch.Tensor)) for value in vars(axis).values())
    assert torch.equal(head.state_dict()['integral.project'], torch.arange(17.0))


# Targets of the qualities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('box', BOXES)
def test_class_target_is_the_iou_of_the_box_decoded_as_at_test_time(host, box, monkeypatch):
    head = build(host_config(host, 'JointQuality', box)).eval()
    head.bbox_coder.clip_border = False
    seen = {}
    monkeypatch.setattr(joint, 'classification_loss', lambda *args: seen.update(args=args) or args[1].flatten().sum())
    feats, gts, images = host_features(host, SIZE, 1), objects([4], SIZE), metas(SIZE, 1)
    outs = head(feats)
    head.loss_by_feat(*outs, gts, images)
    targets, (logits, _) = positives_of(head, SIZE, gts, feats)
    loss, predictions, pos, labels, quality, weights, _ = seen['args']
    assert loss is head.loss_cls and torch.equal(predictions.flatten(), logits)
    assert torch.equal(pos.flat_inds, targets.pos.flat_inds) and torch.equal(labels, targets.labels)
    assert weights is targets.label_weights or torch.equal(weights, targets.label_weights)

    # Every score of every location as a detection: nothing thresholded, nothing suppressed.
    cfg = ConfigDict(dict(head.test_cfg, score_thr=-1.0, nms_pre=10**6, min_bbox_size=-1))
    with torch.no_grad():
        found = head.predict_by_feat(*outs, batch_img_metas=images, cfg=cfg, with_nms=False)[0]
    assert len(quality) == len(targets.pos) > 5 and not quality.requires_grad
    scores = logits[pos.flat_inds].sigmoid()
    for index in range(0, len(quality), 7):
        label = labels[index]
        same = (found.scores == scores[index, label]) & (found.labels == label)
        ious = bbox_overlaps(found.bboxes[same], targets.gt_bboxes[index, None])
        assert torch.isclose(ious, quality[index], atol=1e-5).any()


@pytest.mark.parametrize('host', BRANCH_NAMES)
@pytest.mark.parametrize('quality', ['CenternessBranch', 'IoUBranch'])
def test_a_branch_learns_the_quality(host, quality):
    # The BCE of the positives' branch outputs and their measure, divided as the class loss is.
    head = build(host_config(host, quality, 'general'))
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)
    targets, (logits, bbox_pred, branch) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    if quality == 'IoUBranch':
        boxes = head.box.decode(bbox_pred[targets.pos.flat_inds], targets.locations, head)
        target, key = bbox_overlaps(boxes, targets.gt_bboxes, is_aligned=True).detach(), 'loss_iou'
    else:
        left, top, right, bottom = targets.locations.distances(targets.gt_bboxes).clamp(min=0).unbind(1)
        target = torch.minimum(left, right) / torch.maximum(left, right)
        target = (target * torch.minimum(top, bottom) / torch.maximum(top, bottom)).sqrt()
        key = 'loss_centerness'
    avg_factor = head.normalizers(targets, target)[0]
    branch = branch[targets.pos.flat_inds, 0]
    bce = torch.nn.functional.binary_cross_entropy_with_logits(branch, target, reduction='sum')
    torch.testing.assert_close(losses[key], bce / avg_factor)
    # The measure has no gradient: the loss of the branch trains the branch, not the boxes.
    (grad,) = torch.autograd.grad(losses[key], [getattr(head, head.reg_name).weight], allow_unused=True)
    assert grad is None or grad.abs().max() == 0


@pytest.mark.parametrize('host', BRANCH_NAMES)
def test_the_branch_multiplies_the_score(host):
    head = build(host_config(host, 'IoUBranch', 'dirac')).eval()
    scores, boxes, branches = head(host_features(host, SIZE, 1))
    cfg = ConfigDict(dict(head.test_cfg, score_thr=-1.0, nms_pre=10**6, min_bbox_size=-1))
    images = metas(SIZE, 1)
    found = head.predict_by_feat(scores, boxes, branches, batch_img_metas=images, cfg=cfg, with_nms=False)[0]
    alone = head.predict_by_feat(scores, boxes, batch_img_metas=images, cfg=cfg, with_nms=False)[0]
    assert torch.equal(found.bboxes, alone.bboxes)
    factors = torch.cat([level.permute(0, 2, 3, 1).reshape(-1) for level in branches]).sigmoid()
    ratio = found.scores / alone.scores
    assert len(ratio) == 5 * len(factors)
    torch.testing.assert_close(ratio.sort().values, factors.repeat_interleave(5).sort().values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('host', BRANCH_NAMES)
@pytest.mark.parametrize('quality', ['CenternessGuided', 'IoUGuided'])
def test_guided_weights_leave_the_total_positive_loss_unchanged(host, quality):
    guided = build(host_config(host, quality, 'dirac'))
    none = build(host_config(host, 'NoQuality', 'dirac'))
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)
    losses = [head.loss_by_feat(*head(feats), gts, metas(SIZE, 2)) for head in (guided, none)]
    torch.testing.assert_close(losses[0]['loss_cls'], losses[1]['loss_cls'], rtol=1e-4, atol=1e-6)
    grads = [
        torch.autograd.grad(loss['loss_cls'], [getattr(head, head.cls_name).weight])[0]
        for loss, head in zip(losses, (guided, none))
    ]
    assert (grads[0] - grads[1]).abs().max() > 1e-3 * grads[1].abs().max()  # yet the weights have changed


# Weights of the boxes -----------------------------------------------------------------------------------------------

#: Value of ``box_weight='auto'``: section 3 of the design. Dirac boxes of Retina, Fovea and SSD weigh 1.
AUTO = dict(
    JointQuality='score',
    NoQuality='uniform',
    CenternessBranch='quality',
    IoUBranch='uniform',
    CenternessGuided='quality',
    IoUGuided='uniform',
)


def auto_box_weight(host, quality, box):
    return 'uniform' if host in ('Retina', 'Fovea', 'SSD') and box == 'dirac' else AUTO[quality]


@pytest.mark.parametrize('host, quality, box', STATIC_PLANE)
def test_box_weight_is_resolved_at_construction(host, quality, box):
    seen = []
    config = host_config(host, quality, box)
    kind = MODELS.get(config.pop('type'))

    class Watched(kind):
        def _init_layers(self):
            seen.append(self.box_weight)
            super()._init_layers()

    head = Watched(**config)
    expected = auto_box_weight(host, quality, box)
    assert head.box_weight == expected and seen[0] == expected


@pytest.mark.parametrize('host, quality, box', [point for point in PAIRS_OF_PLANE if point[0] in HOSTS])
def test_box_weight_is_taken_as_it_is_given(host, quality, box):
    for box_weight in ('score', 'uniform', *(['quality'] if quality != 'NoQuality' else [])):
        axis = part(quality, box_weight=box_weight)
        assert MODELS.build(host_config(host, None, box) | dict(quality=axis)).box_weight == box_weight


@pytest.mark.parametrize('host, quality, box', [point for point in STATIC_PLANE if point[2] in ('dirac', 'general')])
def test_boxes_are_weighted_as_resolved(host, quality, box, monkeypatch):
    head = build(host_config(host, quality, box))
    seen = {}
    loss = head.loss_bbox.forward

    def recorded(pred, target, weight, avg_factor):
        seen.update(weight=weight)
        return loss(pred, target, weight, avg_factor=avg_factor)

    monkeypatch.setattr(head.loss_bbox, 'forward', recorded)
    feats, gts = host_features(host, SIZE, 1), objects([4], SIZE)
    targets, (logits, *_) = positives_of(head, SIZE, gts, feats)
    head.loss_by_feat(*head(feats), gts, metas(SIZE, 1))
    left, top, right, bottom = targets.locations.distances(targets.gt_bboxes).clamp(min=0).unbind(1)
    centerness = torch.minimum(left, right) * torch.minimum(top, bottom)
    centerness = (centerness / torch.maximum(left, right) / torch.maximum(top, bottom)).sqrt()
    expected = dict(
        score=logits[targets.pos.flat_inds].sigmoid().amax(1),
        uniform=torch.ones(len(targets.pos)),
        quality=centerness,
    )[auto_box_weight(host, quality, box)]
    weight = seen['weight'] if seen['weight'].dim() == 1 else seen['weight'][:, 0]
    torch.testing.assert_close(weight, expected.detach())


# The hosts themselves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', HOSTS)
def test_targets_takes_one_batch(host, monkeypatch):
    head = build(host_config(host))
    feats, gts, images = host_features(host, SIZE, 2), objects([3, 1], SIZE), metas(SIZE, 2)
    ignored = objects([1, 0], SIZE, seed=4)
    seen, targets = [], head.targets
    monkeypatch.setattr(head, 'targets', lambda *args, **kwargs: seen.append((args, kwargs)) or targets(*args))
    monkeypatch.setattr(AssignmentBatch, 'predictions', lambda _: pytest.fail('a static assignment needs none'))
    logits, bbox_preds = head(feats)
    head.loss_by_feat(logits, bbox_preds, gts, images, ignored)
    (((batch,), kwargs),) = seen
    assert type(batch) is AssignmentBatch and kwargs == {}
    assert all(one is two for one, two in zip(batch.batch_gt_instances, gts, strict=True))
    assert batch.batch_img_metas is images
    assert batch.batch_gt_instances_ignore is ignored
    assert batch.featmap_sizes == featmap_sizes(feats) and batch.index.num_images == 2
    assert batch.index.num_priors == list(head.prior_generator.num_base_priors)
    assert all(one is two for one, two in zip(batch.cls_scores.levels, logits, strict=True))
    assert all(one is two for one, two in zip(batch.bbox_preds.levels, bbox_preds, strict=True))
    assert batch.cls_scores.num_outputs == 5 and batch.bbox_preds.num_outputs == 68


@pytest.mark.parametrize('host', HOSTS)
def test_static_targets_need_no_predictions(host):
    head = build(host_config(host))
    feats, gts = host_features(host, SIZE, 2), objects([3, 1], SIZE)
    with_predictions, _ = positives_of(head, SIZE, gts, feats)
    targets = head.targets(head.assignment_batch(featmap_sizes(feats), gts, metas(SIZE, 2)))
    assert torch.equal(targets.dense_labels(5), with_predictions.dense_labels(5)) and len(targets.pos) > 5
    assert torch.equal(targets.gt_bboxes, with_predictions.gt_bboxes) and targets.quality is None
    assert targets.num_images == 2


@pytest.mark.parametrize('host', HOSTS)
def test_the_baseline_of_a_host_is_its_stock_head(host):
    kind = MODELS.get(f'mmdet_gfl.{host}GFLHead')
    assert kind.stock_head is MODELS.get(f'{host}Head') and issubclass(kind, kind.stock_head)
    assert kind.baseline_quality == BASELINES[host] and kind.default_quality == 'JointQuality'
    assert not kind.assigns_quality and kind.weights_own_boxes == (host in ('ATSS', 'FCOS'))


@pytest.mark.parametrize(
    'config',
    [
        *(host_config(host, None, box) for host in HOSTS for box in BOXES),
        *(gfl_config(f'mmdet_gfl.{name}') for name in ('GFLHead', 'GFocalHead')),
    ],
    ids=lambda config: f'{config.type}-{config.box.type}' if 'box' in config else config.type,
)
def test_building_on_the_meta_device(config):
    """As tools build a model of which they need the shapes only."""
    with torch.device('meta'):
        head = MODELS.build(config)
    assert all(value.is_meta for value in head.state_dict().values())
    expected = MODELS.build(config).state_dict()
    assert {name: value.shape for name, value in head.state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }


@pytest.mark.parametrize('host', HOSTS)
def test_an_assigned_quality_raises_on_a_static_host(host):
    if 'AssignedQuality' not in OUR_MODELS.module_dict:
        pytest.skip('AssignedQuality is not registered')
    with pytest.raises(ValueError, match=rf'AssignedQuality learns.*{host}GFLHead measures nothing.*JointQuality'):
        MODELS.build(host_config(host, 'AssignedQuality'))


@pytest.mark.parametrize('host', HOSTS)
def test_a_users_quality_of_a_dynamic_assigner_raises_on_a_static_host(host):
    quality = type('OwnQuality', (JointQuality,), dict(needs_assigned_quality=True))()
    with pytest.raises(ValueError, match=rf'quality=OwnQuality learns.*{host}GFLHead measures nothing'):
        MODELS.build(dict(host_config(host), quality=quality))


# Images without objects ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('box', BOXES)
def test_images_without_objects(host, box):
    quality = 'NoQuality' if host == 'SSD' else 'CenternessBranch'
    head = build(host_config(host, quality, box))
    losses = backward(head, host_features(host, SIZE, 2), objects([0, 0], SIZE))
    assert losses['loss_bbox'] == 0 and losses['pos_iou'] == 0
    assert losses['loss_cls'] > 0 or host == 'SSD'  # SSD mines background for its positives only
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


# Precision ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', BASELINES)
def test_labels_of_any_numeric_type(host):
    """NumPy's empty list is float64, and so are the labels of a batch that holds it."""
    head = MODELS.build(host_config(host))
    outs, images = head(host_features(host, SIZE, 2)), metas(SIZE, 2)
    expected = head.loss_by_feat(*outs, objects([3, 0], SIZE), images)
    for dtype in (torch.float64, torch.float32, torch.int32, torch.uint8):
        gts = objects([3, 0], SIZE)
        for gt in gts:
            gt.labels = gt.labels.to(dtype)
        found = head.loss_by_feat(*outs, gts, images)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=named(str(dtype)))
        assert gts[0].labels.dtype == dtype


@pytest.mark.agreement
@pytest.mark.parametrize('host', BASELINES)
def test_nms_pre_of_0_keeps_nothing_as_in_mmdetection(host):
    ours, theirs = (head.eval() for head in pair(host, test_cfg=dict(nms_pre=0, score_thr=0.0)))
    feats, images = host_features(host, SIZE, 2), metas(SIZE, 2)
    for head in (ours, theirs):
        results = head.predict_by_feat(*head(feats), batch_img_metas=images, with_nms=False)
        assert [len(result.scores) for result in results] == [0, 0]


@pytest.mark.agreement
def test_a_gradient_penalty_is_mmdetections():
    """Second derivatives through all losses and the gather."""
    theirs = build(gfl_config('GFLHead', ours=False))
    ours = build(gfl_config(loss_cls=dict(type='mmdet_gfl.QualityFocalLoss', fused=False)))
    ours.load_state_dict(theirs.state_dict())
    penalties = []
    for head in (ours, theirs):
        feats = features(SIZE, 2, requires_grad=True)
        losses = head.loss_by_feat(*head(feats), objects([3, 0], SIZE), metas(SIZE, 2))
        total = sum(totals(losses).values()).sum()
        penalty = sum(grad.square().sum() for grad in torch.autograd.grad(total, feats, create_graph=True))
        penalties.append(torch.autograd.grad(penalty, feats))
    for mine, stock in zip(*penalties):
        torch.testing.assert_close(mine, stock, rtol=0, atol=1e-4 * float(stock.abs().max()))


@pytest.mark.parametrize(
    'host, dtype, baseline', covering(product(BASELINES, [torch.bfloat16, torch.float16], [False, True])), ids=str
)
def test_losses_under_autocast(host, dtype, baseline):
    head = build(host_config(host, BASELINES[host], 'dirac') if baseline else host_config(host))
    for parameter in head.parameters():
        parameter.data *= 0.3
    feats, gts, images = host_features(host, SIZE, 2), objects([4, 0], SIZE), metas(SIZE, 2)
    exact = totals(head.loss_by_feat(*head(feats), gts, images))
    with torch.autocast('cpu', dtype=dtype):
        outs = head(feats)
        assert outs[0][0].dtype == dtype and (host not in DYNAMIC_HOSTS or outs[1][0].dtype == torch.float32)
        losses = totals(head.loss_by_feat(*outs, gts, images))
    sum(losses.values()).backward()
    for key, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[key], rtol=0.1, atol=1e-3)
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in head.parameters())


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('baseline', [False, True], ids=['default', 'baseline'])
def test_losses_in_inference_mode(host, baseline):
    """Losses are those without gradients, as a validation loss needs."""
    head = build(host_config(host, BASELINES[host], 'dirac') if baseline else host_config(host))
    feats, gts, images = host_features(host, SIZE, 2), objects([4, 0], SIZE), metas(SIZE, 2)
    found = []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found.append(totals(head.loss_by_feat(*head(feats), gts, images)))
    assert found[0].keys() == found[1].keys() and found[0]['loss_cls'] > 0
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key]), key


@pytest.mark.parametrize('host', BASELINES)
@pytest.mark.parametrize('box', ['dirac', 'gaussian', 'dfl'])
def test_half_inference(host, box):
    head = build(host_config(host, BASELINES[host], box)).eval()
    half = copy.deepcopy(head).half()
    outs = half([level.half() for level in host_features(host, SIZE, 1)])
    found = half.predict_by_feat(*outs, batch_img_metas=metas(SIZE, 1))[0]
    in_float = [[level.float() for level in levels] for levels in outs]
    same = head.predict_by_feat(*in_float, batch_img_metas=metas(SIZE, 1))[0]
    assert len(found) > 5 and found.bboxes.dtype == found.scores.dtype == torch.float32
    # Decoding is in float32: the only rounding is that of the half outputs.
    torch.testing.assert_close(found.bboxes, same.bboxes, rtol=1e-3, atol=0.05)
    torch.testing.assert_close(found.scores, same.scores)


# Errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', ['Retina', 'Fovea', 'SSD'])
@pytest.mark.parametrize('loss', ['IoULoss', 'SIoULoss'])
def test_an_iou_loss_of_coded_boxes_raises(host, loss):
    changes = dict(loss_bbox=dict(type=loss, loss_weight=2.0))
    with pytest.raises(ValueError, match=rf'loss_bbox={loss} compares boxes.*SmoothL1Loss or L1Loss.*GeneralBox'):
        MODELS.build(host_config(host, BASELINES[host], 'dirac', **changes))
    MODELS.build(host_config(host, BASELINES[host], 'general', **changes))
    if host == 'Retina':
        MODELS.build(host_config(host, BASELINES[host], 'dirac', reg_decoded_bbox=True, **changes))


@pytest.mark.parametrize('axis', ['quality', 'box'])
@pytest.mark.parametrize('value', [{}, [], ''])
def test_an_empty_axis_raises(axis, value):
    with pytest.raises(ValueError, match=rf"{axis} needs dict\(type='mmdet_gfl"):
        MODELS.build(dict(host_config('ATSS'), **{axis: value}))


def test_arguments_of_a_base_config_raise_with_a_solution():
    with pytest.raises(ValueError, match=r'takes no arguments.*merged in; _delete_=True in box=dict\(...\) drops them'):
        MODELS.build(dict(host_config('ATSS'), box=dict(type='mmdet_gfl.DiracBox', delta=2.0)))


def test_initial_gaussian_boxes_of_fcos_and_scores_of_ssd():
    head = MODELS.build(host_config('FCOS', box='gaussian', half_anchor=3.0))
    assert head.conv_reg.bias.view(4, 2)[:, 0].tolist() == [3.0] * 4
    head = MODELS.build(host_config('SSD', prior_score=0.05))
    assert torch.sigmoid(head.cls_convs[0][-1].bias).tolist() == pytest.approx([0.05] * len(head.cls_convs[0][-1].bias))
    for host, wrong in (('FCOS', dict(half_anchor=-1)), ('SSD', dict(prior_score=1.5))):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MODELS.build(host_config(host, **wrong))


@pytest.mark.parametrize('loss', ['mmdet_gfl.QualityFocalLoss', 'QualityFocalLoss'])
@pytest.mark.parametrize('host', HOSTS)
def test_a_loss_of_qualities_raises_under_hard_labels(host, loss):
    with pytest.raises(ValueError, match=rf'loss_cls={loss}.*{BASELINES[host]}.*JointQuality'):
        MODELS.build(host_config(host, BASELINES[host], loss_cls=dict(type=loss, use_sigmoid=True)))


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('box, what, can', [('dirac', 'stats', 'none'), ('gaussian', 'full', "'stats'")])
def test_a_distribution_that_the_box_does_not_have_raises(host, box, what, can):
    test_cfg = dict(stock_config(host).test_cfg, with_distribution=what)
    with pytest.raises(ValueError, match=rf"with_distribution='{what}'.*can give {can}.*GeneralBox"):
        MODELS.build(host_config(host, 'NoQuality', box, test_cfg=test_cfg))


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_no_quality_has_no_weight_by_quality(host):
    with pytest.raises(ValueError, match="box_weight='quality'.*NoQuality has none"):
        MODELS.build(host_config(host, quality=None) | dict(quality=part('NoQuality', box_weight='quality')))


# MMDetection's own configs ------------------------------------------------------------------------------------------

NARROW = dict(in_channels=32, feat_channels=32, stacked_convs=1)
SHIPPED = [
    ('ATSS', 'atss/atss_r50_fpn_1x_coco.py', NARROW, SIZE),
    ('FCOS', 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', NARROW, SIZE),
    ('FCOS', 'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py', NARROW, SIZE),
    ('Retina', 'retinanet/retinanet_r50_fpn_1x_coco.py', NARROW, SIZE),
    ('Fovea', 'foveabox/fovea_r50_fpn_4xb4-1x_coco.py', NARROW, SIZE),
    ('SSD', 'ssd/ssd300_coco.py', dict(in_channels=(8,) * 6), (300, 300)),
    ('SSD', 'ssd/ssd512_coco.py', dict(in_channels=(8,) * 7), (512, 512)),
]


def shipped_features(cfg, size, head):
    """Random features of the shapes that the config's neck gives."""
    generator = torch.Generator().manual_seed(2)
    strides = [stride[0] for stride in head.prior_generator.strides]
    widths = cfg.in_channels if isinstance(cfg.in_channels, (list, tuple)) else [cfg.in_channels] * len(strides)
    return [
        torch.randn(2, width, -(-size[0] // stride), -(-size[1] // stride), generator=generator)
        for width, stride in zip(widths, strides)
    ]


@pytest.mark.parametrize('host, path, narrow, size', SHIPPED, ids=[path for _, path, _, _ in SHIPPED])
def test_a_stock_config_with_another_type_is_full_gfl(host, path, narrow, size):
    cfg = shipped_head(path, f'mmdet_gfl.{host}GFLHead', **narrow)
    assert shipped_head(path, **narrow).type == f'{host}Head' and cfg.num_classes == 80
    head = MODELS.build(cfg)
    head.init_weights()
    assert type(head.loss_cls).__name__ == 'QualityFocalLoss' and head.box.channels == 17
    feats = shipped_features(cfg, size, head)
    losses = head.loss_by_feat(*head(feats), objects([4, 0], size, 80), metas(size, 2))
    assert {'loss_cls', 'loss_bbox', 'loss_dfl'} <= set(losses)
    # The first class scores are 0.01 and the first distributions flat: log 17, a quarter of it, the side's mean.
    torch.testing.assert_close(head(feats)[0][0].sigmoid().mean(), torch.tensor(0.01), rtol=0.5, atol=0)
    assert 0 < losses['loss_dfl'] < 0.25 * 3 and 0 < losses['loss_bbox'] < 2 * head.loss_bbox.loss_weight
    head.eval()
    head.test_cfg.score_thr = 0.0
    with torch.no_grad():
        found = head.predict_by_feat(*head(feats), batch_img_metas=metas(size, 2))
    assert all(0 < len(result) <= head.test_cfg.max_per_img for result in found)


# MMDetection's heads ------------------------------------------------------------------------------------------------


@pytest.mark.agreement
@pytest.mark.parametrize('host', HOSTS)
def test_state_dicts_fit_both_ways(host):
    assert_state_dicts_fit(host)
    names = pair(host)[0].state_dict()
    assert (f'{BRANCH_NAMES.get(host)}.weight' in names) == (BASELINES[host] == 'CenternessBranch')


@pytest.mark.agreement
@pytest.mark.parametrize('host', HOSTS)
def test_stock_forward_is_the_same(host):
    ours, theirs = pair(host)
    for training in (True, False):
        feats = host_features(host, SIZE, 1)
        for our, their in zip(ours.train(training)(feats), theirs.train(training)(feats), strict=True):
            assert all(torch.equal(one, two) for one, two in zip(our, their, strict=True))


SIZES = [(128, 128), (200, 333), (64, 32), (31, 500)]
COUNTS = [[3], [5, 0], [0, 0], [20, 1, 7]]


@pytest.mark.agreement
@pytest.mark.parametrize('host, size, counts', covering(product(BASELINES, SIZES, COUNTS)), ids=str)
def test_losses_and_gradients_are_those_of_the_stock_head(host, size, counts):
    assert_host_trains_the_same(host, size, counts)


@pytest.mark.agreement
@pytest.mark.parametrize('host, size, rescale', covering(product(BASELINES, SIZES[:2], [False, True])), ids=str)
def test_detections_are_those_of_the_stock_head(host, size, rescale):
    assert_host_detects_the_same(host, size, rescale)


@pytest.mark.parametrize('host', ['ATSS', 'Retina', 'SSD'])
def test_encode_and_decode_are_inverse(host):
    head = MODELS.build(host_config(host, 'NoQuality', 'dirac'))
    corner = torch.rand(50, 2) * 300
    anchors = torch.cat((corner, corner + 24 + torch.rand(50, 2) * 100), dim=1)
    locations = Locations.of_priors(anchors, torch.full((50,), 8.0))
    boxes = anchors + torch.randn(50, 4) * 3
    coder = head.host_coder
    torch.testing.assert_close(coder.decode(coder.encode(boxes, locations), locations), boxes, rtol=1e-4, atol=1e-3)
