"""The exported path in torch, beside ``predict_by_feat`` on random and on nasty outputs; it needs no ONNX."""

import pytest
import torch
from cases import (
    BASELINES,
    BOXES,
    DYNAMIC_HOSTS,
    HOSTS,
    build,
    features,
    gfl_config,
    host_config,
    host_features,
    metas,
    stock_config,
)
from conftest import TEST_CFG, detector_config
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.export.decoding import decode_outputs
from mmdet_gfl.export.exporting import exportable
from mmdet_gfl.export.selection import detect, thresholds_of
from mmdet_gfl.models.boxes import BoxRepresentation
from mmdet_gfl.models.quality import Quality

SIZE = (160, 224)


def exported_detections(head, outs, sizes, cfg=None, with_std=False):
    predictions = decode_outputs(head, outs, torch.tensor(sizes, dtype=torch.float32), with_std)
    dets, labels, std = detect(predictions, thresholds_of(head.test_cfg if cfg is None else cfg))
    results = []
    for image, kept in enumerate(labels >= 0):
        one = InstanceData(bboxes=dets[image][kept, :4], scores=dets[image][kept, 4], labels=labels[image][kept])
        if std is not None:
            one.std = std[image][kept]
        assert not dets[image][~kept].any() and (labels[image][~kept] == -1).all()
        results.append(one)
    return results


def assert_same(ours, theirs, least):
    assert sum(map(len, theirs)) >= least
    for our, their in zip(ours, theirs, strict=True):
        assert len(our) == len(their)
        torch.testing.assert_close(our.scores, their.scores, rtol=0, atol=1e-6)
        for label in their.labels.unique():  # equal scores of different classes may have changed places
            torch.testing.assert_close(
                our.bboxes[our.labels == label], their.bboxes[their.labels == label], rtol=1e-6, atol=1e-3
            )


def assert_detects_the_same(head, outs, least=20, **changes):
    head = head.eval()
    cfg = ConfigDict(dict(TEST_CFG, **changes))
    sizes = [SIZE, (SIZE[0] - 30, SIZE[1] - 60)]
    images = [dict(one, img_shape=size) for one, size in zip(metas(SIZE, 2), sizes)]
    theirs = head.predict_by_feat(*outs, batch_img_metas=images, cfg=cfg)
    assert_same(exported_detections(head, outs, sizes, cfg), theirs, least)


@torch.no_grad()
@pytest.mark.parametrize('box', BOXES)
@pytest.mark.parametrize('host', [*HOSTS, *DYNAMIC_HOSTS])
def test_every_host_and_box(host, box):
    head = build(host_config(host, BASELINES[host], box)).eval()
    assert_detects_the_same(head, head(host_features(host, SIZE, 2)))


@torch.no_grad()
@pytest.mark.parametrize('quality', ['IoUBranch', 'CenternessGuided', 'DistributionGuidedQuality'])
def test_qualities(quality):
    head = build(host_config('ATSS', quality, 'dfl')).eval()
    assert_detects_the_same(head, head(features(SIZE, 2)))


@torch.no_grad()
@pytest.mark.parametrize(
    'changes',
    [
        dict(nms_pre=-1),
        dict(nms_pre=1000),
        dict(score_thr=0.999, least=0),
        dict(max_per_img=3, least=6),
        dict(max_per_img=5000),
        dict(min_bbox_size=40),
        dict(min_bbox_size=-1),
        dict(nms=dict(type='nms', iou_threshold=0.3, class_agnostic=True), least=8),
    ],
    ids=str,
)
def test_thresholds(changes):
    head = build(host_config('FCOS', 'CenternessBranch', 'dfl')).eval()
    assert_detects_the_same(head, head(features(SIZE, 2)), **changes)


@torch.no_grad()
def test_boxes_beyond_the_image():
    coder = dict(type='DistancePointBBoxCoder', clip_border=False)
    head = build(gfl_config(bbox_coder=coder)).eval()
    outs = head(features(SIZE, 2))
    assert_detects_the_same(head, outs)
    boxes = decode_outputs(head, outs, torch.tensor([SIZE, SIZE]).float()).boxes
    assert boxes.min() < -10


@torch.no_grad()
@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 1e30])
@pytest.mark.parametrize('box', ['dirac', 'dfl'])
def test_nasty_outputs(value, box):
    head = build(host_config('ATSS', 'CenternessBranch', box)).eval()
    cls_scores, bbox_preds, branch = head(features(SIZE, 2))
    cls_scores[0][0, 1, 2, :5] = value
    bbox_preds[2][1, :, 1, 1] = value  # beside it, to all sides
    cls_scores[2][1, :, 1, 1] = -100 if value != value or box == 'dfl' else 1.0  # boxes of NaN have no order
    assert_detects_the_same(head, (cls_scores, bbox_preds, branch))


@torch.no_grad()
def test_one_cell_and_no_candidates():
    head = build(gfl_config()).eval()
    outs = [[level[..., :1, :1] for level in kind] for kind in head(features((128, 128), 2))]
    assert_detects_the_same(head, outs, least=1)
    assert_detects_the_same(head, [[level - 100 for level in outs[0]], outs[1]], least=0)


@torch.no_grad()
@pytest.mark.parametrize('box', ['dfl', 'gaussian'])
def test_std_is_that_of_the_results(box):
    head = build(host_config('ATSS', 'JointQuality', box)).eval()
    outs = head(features(SIZE, 1))
    cfg = ConfigDict(head.test_cfg, with_distribution='stats')
    (theirs,) = head.predict_by_feat(*outs, batch_img_metas=metas(SIZE, 1), cfg=cfg)
    (ours,) = exported_detections(head, outs, [SIZE], with_std=True)
    torch.testing.assert_close(ours.std, theirs.bbox_std, rtol=1e-5, atol=1e-4)
    assert ours.std.min() > 0


def test_std_by_hand():
    """Half of the probability 1 stride away, half 3 strides: mean 2, deviation 1 stride; on stride 16, 16 pixels."""
    head = build(gfl_config()).eval()
    logits = torch.full((1, 4, 17, 1, 1), -torch.inf)
    logits[:, :, [1, 3]] = 0
    levels = [logits.flatten(1, 2)] * 5
    scores = [torch.zeros(1, 5, 1, 1)] * 5
    result = decode_outputs(head, (scores, levels), torch.tensor([[500.0, 500]]), with_std=True)
    torch.testing.assert_close(result.std[0, 1], torch.full((4,), 16.0))
    torch.testing.assert_close(result.boxes[0, 1], torch.tensor([0.0, 0, 32, 32]))  # the centre is (0, 0)
    assert (result.scores == 0.5).all() and result.level_sizes == [1] * 5


@torch.no_grad()
@pytest.mark.parametrize('host', [*HOSTS, *DYNAMIC_HOSTS, 'GFL'])
def test_heads_of_mmdetection_leave_as_their_counterparts(host):
    cfg = detector_config(gfl_config('GFLHead', ours=False) if host == 'GFL' else stock_config(host))
    model = MODELS.build(cfg.model).eval()
    theirs = model.bbox_head
    theirs.load_state_dict(build(ConfigDict(cfg.model.bbox_head, train_cfg=cfg.model.train_cfg)).state_dict())
    converted = exportable(model, cfg).bbox_head
    assert type(converted).stock_head is type(theirs)
    if host == 'SSD':
        theirs.loss_cls = converted.loss_cls  # MMDetection 3.3 uses it when it predicts, and does not build it
    levels = host_features(host, SIZE, 2)
    wanted = theirs.predict_by_feat(*theirs(levels), batch_img_metas=metas(SIZE, 2))
    assert_same(exported_detections(converted, converted(levels), [SIZE, SIZE]), wanted, least=20)


def test_other_heads_are_refused():
    class Own(type(build(gfl_config()))):
        def predict_by_feat(self, *args, **kwargs):
            """Something of its own."""

    cfg = detector_config(gfl_config('GFLHead', ours=False))
    model = MODELS.build(cfg.model)
    model.bbox_head = MODELS.build(dict(stock_config('ATSS'), type='PAAHead'))
    with pytest.raises(UserError, match=r'model.bbox_head.type=PAAHead is not exported; accepted are mmdet_gfl'):
        exportable(model, cfg)
    model.bbox_head.__class__ = Own
    with pytest.raises(UserError, match='Own overrides predict_by_feat, which the graph would not contain'):
        exportable(model, cfg)
    with pytest.raises(UserError, match='model.type=ResNet is not a detector with one dense bbox_head'):
        exportable(model.backbone, cfg)


@pytest.mark.parametrize(
    ('test_cfg', 'message'),
    [
        (
            dict(TEST_CFG, nms=dict(type='soft_nms', iou_threshold=0.5)),
            r"test_cfg.nms=\{'type': 'soft_nms'.*--output decoded",
        ),
        (dict(TEST_CFG, nms=dict(type='nms', iou_threshold=0.5, max_num=7)), 'max_num'),
        (dict(TEST_CFG, nms=None), r'test_cfg.nms=\{\} cannot be part of the graph'),
        (dict(TEST_CFG, max_per_img=-1), 'test_cfg.max_per_img=-1 cannot'),
        (dict(TEST_CFG, nms_pre=0), 'test_cfg.nms_pre=0 keeps no detection'),
        (None, 'test_cfg.nms'),
    ],
)
def test_thresholds_that_a_graph_cannot_have(test_cfg, message):
    with pytest.raises(UserError, match=message):
        thresholds_of(test_cfg)


class _CubedQuality(Quality):
    """A quality of a user's own."""

    def class_logits(self, cls_score, bbox_pred, head):
        return 0.4 * cls_score + 0.1 * bbox_pred.mean(dim=1, keepdim=True)


class _SquareBox(BoxRepresentation):
    """A box representation of a user's own: one output, the same distance to all sides."""

    def decode(self, bbox_pred, locations, head):
        return locations.boxes(bbox_pred.abs().mean(dim=1, keepdim=True).expand(-1, 4))


@torch.no_grad()
def test_new_quality_and_box_need_nothing_here():
    head = build(host_config('Retina'))
    head.quality = _CubedQuality()
    assert_detects_the_same(head, head(features(SIZE, 2)))
    head = build(host_config('Retina', 'NoQuality', 'dirac'))
    head.box = _SquareBox()
    assert_detects_the_same(head, head(features(SIZE, 2)))
