"""Qualities: their measures and weights by hand, and a quality that learns, on every host."""

import pytest
import torch
from cases import (
    DYNAMIC_HOSTS,
    HOSTS,
    build,
    flat_rows,
    host_config,
    host_features,
    metas,
    objects,
    row_targets,
)
from mmdet.registry import MODELS
from torch import nn

from mmdet_gfl.models.quality.branches import CenternessBranch, IoUBranch
from mmdet_gfl.models.quality.guided import CenternessGuided, IoUGuided
from mmdet_gfl.models.quality.joint import JointQuality
from mmdet_gfl.models.quality.none import NoQuality
from mmdet_gfl.models.task_modules import Locations, Positives

SIZE = (96, 160)
QUALITIES = (JointQuality, NoQuality, CenternessBranch, IoUBranch, CenternessGuided, IoUGuided)
HARD_LABELS = QUALITIES[1:]
each_host = pytest.mark.parametrize('host', (*HOSTS, *DYNAMIC_HOSTS))


# Measures and weights -----------------------------------------------------------------------------------------------


def one_positive():
    """A location a quarter into a 100 x 40 object (centerness sqrt(1/3)), with its box the left half (IoU 0.5)."""
    locations = Locations.of_priors(torch.tensor([[25.0, 20.0]]), torch.tensor([8.0]))
    targets = row_targets(locations, torch.tensor([[0.0, 0.0, 100.0, 40.0]]))
    return Positives(torch.tensor([[-1.0, 2.0]]), torch.tensor([[0.0, 0.0, 50.0, 40.0]]), targets)


MEASURES = dict(centerness=(1 / 3) ** 0.5, iou=0.5, score=0.880797, one=1.0)


@pytest.mark.parametrize(
    'quality, target, auto, weight, key',
    [
        (JointQuality, 'iou', 'score', 'score', None),
        (NoQuality, 'iou', 'uniform', 'one', None),
        (CenternessBranch, 'centerness', 'quality', 'centerness', 'loss_centerness'),
        (IoUBranch, 'iou', 'uniform', 'one', 'loss_iou'),
        (CenternessGuided, 'centerness', 'quality', 'centerness', None),
        (IoUGuided, 'iou', 'uniform', 'one', None),
    ],
)
def test_targets_and_box_weights_by_hand(quality, target, auto, weight, key):
    positives, default = one_positive(), quality()
    assert default.target(positives).item() == pytest.approx(MEASURES[target])
    assert default.resolve_box_weight() == auto and default.resolve_box_weight('uniform') == 'uniform'
    assert default.box_weights(positives, auto).item() == pytest.approx(MEASURES[weight])
    assert default.box_weights(positives, 'uniform').item() == 1
    assert default.box_weights(positives, 'score').item() == pytest.approx(MEASURES['score'])
    assert default.box_weights(positives, 'quality').item() == pytest.approx(MEASURES[target])
    assert default.branch == (key is not None) and (key is None or default.branch_loss_key == key)
    assert default.soft_labels == (quality is JointQuality)
    assert default.reweights_labels == (quality in (CenternessGuided, IoUGuided))
    assert not default.needs_assigned_quality


@pytest.mark.parametrize('quality', QUALITIES)
@pytest.mark.parametrize('box_weight', ['score', 'uniform', 'quality'])
def test_an_explicit_box_weight_is_not_the_hosts_to_change(quality, box_weight):
    if quality is NoQuality and box_weight == 'quality':
        with pytest.raises(ValueError, match="box_weight='quality'.*accepted: auto, score, uniform"):
            quality(box_weight=box_weight)
    else:
        assert quality(box_weight=box_weight).resolve_box_weight('uniform') == box_weight
        assert quality(box_weight=box_weight).resolve_box_weight() == box_weight


@pytest.mark.parametrize('quality', QUALITIES)
def test_an_unknown_box_weight_raises(quality):
    with pytest.raises(ValueError, match=r"box_weight='iou'; accepted: auto, quality, score, uniform"):
        quality(box_weight='iou')


@pytest.mark.parametrize('quality', HARD_LABELS)
@pytest.mark.parametrize('loss', ['mmdet_gfl.QualityFocalLoss', 'QualityFocalLoss', 'mmdet_gfl.VarifocalLoss'])
def test_a_loss_of_qualities_raises_under_hard_labels(quality, loss):
    with pytest.raises(ValueError, match=rf'loss_cls={loss}.*{quality.__name__}.*JointQuality.*FocalLoss'):
        quality().loss_cls_cfg(dict(type=loss))


def test_a_loss_of_hard_labels_is_left_as_it_is():
    cfg = dict(type='FocalLoss', gamma=1.5)
    assert NoQuality().loss_cls_cfg(cfg) is cfg and NoQuality().loss_cls_cfg(None) is None


@pytest.mark.parametrize('quality', QUALITIES)
def test_by_default_a_quality_has_no_layers_and_leaves_the_class_outputs(quality):
    cls_score = torch.randn(2, 5, 3, 4)
    assert quality().build_modules(None) == {}
    assert quality().class_logits(cls_score, torch.randn(2, 4, 3, 4), None) is cls_score


# A quality that learns ----------------------------------------------------------------------------------------------


class ScaledScore(JointQuality):
    """Class logits are 2 c + 0.5 m: c the class output, m the mean of the location's box outputs, both factors learned.

    It counts the calls of its hooks.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []

    def build_modules(self, head):
        self.calls.append(('build_modules', type(head.box).__name__))  # which stands before the quality
        return dict(score_scale=nn.Conv2d(2, 1, 1, bias=False))

    def init_weights(self, head):
        self.calls.append(('init_weights',))
        head.score_scale.weight.data = torch.tensor([2.0, 0.5]).view(1, 2, 1, 1)

    def class_logits(self, cls_score, bbox_pred, head):
        self.calls.append(('class_logits', tuple(cls_score.shape), tuple(bbox_pred.shape)))
        num_priors = bbox_pred.size(1) // (4 * head.box.channels)
        cls_score = cls_score.unflatten(1, (num_priors, -1))  # (N, A, C, H, W)
        mean = bbox_pred.unflatten(1, (num_priors, -1)).mean(dim=2, keepdim=True)  # (N, A, 1, H, W)
        pairs = torch.stack((cls_score, mean.expand_as(cls_score)), dim=3)  # (N, A, C, 2, H, W)
        return head.score_scale(pairs.flatten(0, 2)).view(cls_score.shape).flatten(1, 2)


class ScaledBranch(ScaledScore, IoUBranch):
    """The same with a branch, and hard labels."""

    soft_labels = False
    loss_cls_cfg = IoUBranch.loss_cls_cfg
    class_loss = IoUBranch.class_loss


def learning_head(host, box='dfl', quality=None, **changes):
    """A head with a quality that learns, and its quality."""
    quality = ScaledScore() if quality is None else quality
    return MODELS.build(dict(host_config(host, box=box, **changes), quality=quality)), quality


def names_of(calls):
    return [call[0] for call in calls]


@each_host
def test_layers_are_built_once_and_initialized_last(host):
    head, quality = learning_head(host)
    assert quality.calls == [('build_modules', 'GeneralBox'), ('init_weights',)]
    names = {name for name in head.state_dict() if 'score_scale' in name}
    assert names == {'score_scale.weight'}
    plain = MODELS.build(host_config(host, 'JointQuality', 'dfl')).state_dict()
    assert set(head.state_dict()) - names == set(plain)
    assert [name for name in head.state_dict() if name not in names] == list(plain)
    nn.init.constant_(head.score_scale.weight, 7.0)
    head.init_weights()  # on SSD a Xavier initialization of all convolutions
    assert head.score_scale.weight.flatten().tolist() == [2.0, 0.5]
    assert names_of(quality.calls) == ['build_modules', *['init_weights'] * 2]


@each_host
@pytest.mark.parametrize('box', ['dirac', 'dfl'])
def test_class_logits_are_asked_for_once_per_level(host, box):
    """RetinaNet has nine priors per cell, SSD four or six."""
    head, quality = learning_head(host, box)
    feats, num_priors = host_features(host, SIZE, 2), head.prior_generator.num_base_priors
    quality.calls.clear()
    logits, bbox_preds = head(feats)
    expected = [
        (
            'class_logits',
            (2, a * 5, *level.shape[-2:]),
            (2, a * 4 * head.box.channels, *level.shape[-2:]),
        )
        for a, level in zip(num_priors, feats)
    ]
    assert quality.calls == expected
    head.loss_by_feat(logits, bbox_preds, objects([3, 0], SIZE), metas(SIZE, 2))
    head.predict_by_feat(logits, bbox_preds, batch_img_metas=metas(SIZE, 2))
    assert quality.calls == expected


@each_host
@pytest.mark.parametrize('box', ['dirac', 'dfl'])
def test_forward_gives_the_logits_of_the_quality(host, box):
    head, _ = learning_head(host, box)
    state = build(host_config(host, 'JointQuality', box)).state_dict()
    head.load_state_dict(state, strict=False)
    plain = MODELS.build(host_config(host, 'JointQuality', box))
    plain.load_state_dict(state)
    feats = host_features(host, SIZE, 2)
    for level, cls_score, bbox_pred, same, a in zip(
        head(feats)[0], *plain(feats), head(feats)[1], head.prior_generator.num_base_priors, strict=True
    ):
        assert torch.equal(bbox_pred, same)
        classes, sides = flat_rows([cls_score], 5), flat_rows([bbox_pred], 4 * head.box.channels)
        expected = 2 * classes + 0.5 * sides.mean(dim=1, keepdim=True)
        assert level.shape == cls_score.shape == (2, a * 5, *level.shape[-2:])
        torch.testing.assert_close(flat_rows([level], 5), expected, rtol=1e-4, atol=1e-4)


@each_host
def test_losses_and_detections_are_those_of_its_logits(host):
    head, _ = learning_head(host)
    head.load_state_dict(build(host_config(host, 'JointQuality', 'dfl')).state_dict(), strict=False)
    plain = MODELS.build(host_config(host, 'JointQuality', 'dfl'))
    plain.load_state_dict({name: value for name, value in head.state_dict().items() if 'score_scale' not in name})
    feats, gts, images = host_features(host, SIZE, 2), objects([3, 1], SIZE), metas(SIZE, 2)
    logits, bbox_preds = head(feats)
    found = head.loss_by_feat(logits, bbox_preds, gts, images)
    expected = plain.loss_by_feat(logits, bbox_preds, gts, images)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    (grad,) = torch.autograd.grad(found['loss_cls'], head.score_scale.weight)
    assert grad.abs().min() > 0
    with torch.no_grad():
        detections = head.eval().predict_by_feat(*head(feats), batch_img_metas=images)
        same = plain.eval().predict_by_feat(*head(feats), batch_img_metas=images)
    assert sum(map(len, detections)) > 10
    assert all(torch.equal(one.scores, two.scores) for one, two in zip(detections, same))


@pytest.mark.parametrize('host', ['ATSS', 'FCOS', 'Retina', 'Fovea'])
def test_a_quality_may_have_layers_and_a_branch(host):
    head, quality = learning_head(host, 'dfl', ScaledBranch())
    feats = host_features(host, SIZE, 2)
    quality.calls.clear()
    outs = head(feats)
    assert names_of(quality.calls) == ['class_logits'] * len(feats) and len(outs) == 3
    losses = head.loss_by_feat(*outs, objects([3, 1], SIZE), metas(SIZE, 2))
    assert {'loss_cls', 'loss_iou', 'loss_bbox', 'loss_dfl'} <= set(losses)
    (grad,) = torch.autograd.grad(losses['loss_cls'], head.score_scale.weight)
    assert grad.abs().max() > 0


@pytest.mark.parametrize('host', HOSTS)  # RTMDet's head, in MMDetection, loads nothing of its init_cfg
def test_a_pretrained_head_keeps_the_layers_of_its_quality(host, tmp_path):
    head, _ = learning_head(host)
    nn.init.constant_(head.score_scale.weight, 7.0)
    torch.save(head.state_dict(), tmp_path / 'head.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth'))
    other, _ = learning_head(host, init_cfg=pretrained)
    other.init_weights()
    assert other.score_scale.weight.flatten().tolist() == [7.0, 7.0]
