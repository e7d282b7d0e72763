"""AssignedQuality: the class score learns what the assigner has measured, whatever the IoU is."""

import types

import pytest
import torch
from cases import DYNAMIC_HOSTS, HOSTS, build, host_config, host_features, metas, objects, positives_of
from mmdet.registry import MODELS

from mmdet_gfl.models.quality.assigned import AssignedQuality

SIZE = (96, 160)


def positives(quality):
    return types.SimpleNamespace(assigned_quality=quality, score=torch.full((2,), 0.3), boxes=torch.zeros(2, 4))


@pytest.mark.parametrize('kind, weights', [('auto', [0.25, 0.75]), ('score', [0.3, 0.3]), ('uniform', [1.0, 1.0])])
def test_target_and_box_weights(kind, weights):
    quality, measured = AssignedQuality(box_weight=kind), torch.tensor([0.25, 0.75])
    assert quality.target(positives(measured)) is measured
    torch.testing.assert_close(
        quality.box_weights(positives(measured), quality.resolve_box_weight()), torch.tensor(weights)
    )


@pytest.mark.parametrize('host', HOSTS)
def test_static_hosts_refuse_it(host):
    with pytest.raises(ValueError, match=rf'AssignedQuality learns.*{host}GFLHead measures nothing.*JointQuality'):
        MODELS.build(host_config(host, 'AssignedQuality'))


def test_targets_without_a_quality_are_named():
    with pytest.raises(ValueError, match=r'Targets.quality, which is None.*assigns_quality = True'):
        AssignedQuality().target(positives(None))


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
@pytest.mark.parametrize('quality, learned', [('AssignedQuality', 0.7), ('JointQuality', 'iou')])
def test_the_target_of_the_class_score(host, quality, learned, monkeypatch):
    # An assigner that calls every match 0.7 good: what is learned is what it says, and never the IoU in its place.
    head = build(host_config(host, quality))
    assign = head.assigner.assign

    def by_decree(*args):
        result = assign(*args)
        result.max_overlaps[result.gt_inds > 0] = 0.7
        return result

    monkeypatch.setattr(head.assigner, 'assign', by_decree)
    feats, gts = host_features(host, SIZE, 1), objects([4], SIZE)
    targets, (logits, _) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 1))
    soft = torch.zeros(len(logits))
    positive = targets.pos.flat_inds
    boxes = head.box.decode(
        torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 68) for level in head(feats)[1]])[positive],
        targets.locations,
        head,
    )
    soft[positive] = iou(boxes, targets.gt_bboxes).detach() if learned == 'iou' else learned
    total = head.loss_cls(logits, (targets.dense_labels(5), soft), reduction_override='sum')
    torch.testing.assert_close(losses['loss_cls'], total / max(0.7 * len(positive), 1), rtol=1e-5, atol=0)
    assert head.box_weight == dict(AssignedQuality='quality', JointQuality='score')[quality]


def iou(boxes, others):
    """By the definition."""
    corner = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    overlap = corner.clamp(min=0).prod(1)
    areas = [(of[:, 2:] - of[:, :2]).prod(1) for of in (boxes, others)]
    return overlap / (areas[0] + areas[1] - overlap)
