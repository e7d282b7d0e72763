"""Exported graphs in onnxruntime, beside what the detectors predict in torch."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import CONFIGS, SIZE

from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.export import checking, writing
from mmdet_gfl.export.graph import ExportedDetector
from mmdet_gfl.models.boxes.general import GeneralBox
from mmdet_gfl.models.quality.joint import JointQuality

pytest.importorskip('onnx', reason='onnx is not installed')
pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')

#: The traced one with other batches, one of portrait format, and images smaller than most strides.
INPUTS = ((1, SIZE, SIZE), (3, 224, 160), (2, 32, 32))
WITH_STD = ('gfl', 'gflv2', 'gaussian', 'retina', 'rtmdet')


@pytest.mark.parametrize('name', CONFIGS)
def test_detections_are_those_of_predict_by_feat(exported, name):
    graph, _, session = exported(name, with_std=name in WITH_STD)
    compared = 0
    for batch, *shape in INPUTS:
        result = checking.difference(session, graph, checking.random_input(graph, batch, tuple(shape)))
        assert result.within(checking.LIMITS), (shape, str(result))
        assert result.swapped <= 0.02 * result.compared, (shape, str(result))
        compared += result.compared
    assert compared > 50


@pytest.mark.parametrize(
    ('name', 'output'), [('gflv2', 'decoded'), ('ssd', 'decoded'), ('fcos', 'raw'), ('rtmdet', 'raw')]
)
def test_decoded_and_raw(exported, name, output):
    graph, _, session = exported(name, output=output)
    for batch, *shape in INPUTS:
        result = checking.difference(session, graph, checking.random_input(graph, batch, tuple(shape)))
        assert result.within(checking.LIMITS), (shape, str(result))


def run(exported_graph, given):
    graph, _, session = exported_graph
    feed = dict(images=given.images.numpy(), image_sizes=given.image_sizes.numpy())
    return dict(
        zip(graph.output_names, session.run(None, {k: feed[k] for k in feed if graph.output != 'raw' or k == 'images'}))
    )


def test_names_and_shapes_are_the_contract(exported):
    for name, output, names in (
        ('gfl', 'nms', ['dets', 'labels', 'std']),
        ('gflv2', 'decoded', ['boxes', 'scores']),
        ('fcos', 'raw', [f'{kind}_{level}' for kind in ('cls', 'reg', 'branch') for level in range(5)]),
    ):
        graph, model, session = (
            exported(name, output=output, with_std=True) if output == 'nms' else exported(name, output=output)
        )
        assert [one.name for one in session.get_inputs()] == ['images']
        assert session.get_inputs()[0].shape == ['batch', 3, 'height', 'width']
        assert [one.name for one in session.get_outputs()] == names == graph.output_names
    graph, _, session = exported('gfl', with_std=True)
    assert [one.shape for one in session.get_outputs()] == [['batch', 100, 5], ['batch', 100], ['batch', 100, 4]]
    dets, labels, std = session.run(None, dict(images=np.zeros((2, 3, 64, 96), np.float32)))
    assert (dets.shape, labels.shape, std.shape) == ((2, 100, 5), (2, 100), (2, 100, 4))
    assert (labels.dtype, dets.dtype) == (np.int64, np.float32)
    _, _, session = exported('gflv2', output='decoded')
    boxes, scores = session.run(None, dict(images=np.zeros((2, 3, 64, 96), np.float32)))
    locations = sum(-(-64 // stride) * -(-96 // stride) for stride in (8, 16, 32, 64, 128))
    assert (boxes.shape, scores.shape) == ((2, locations, 4), (2, locations, 3))


def test_boxes_are_clipped_to_the_images_in_the_batch(exported):
    graph, _, session = exported('gfl', with_std=True)
    given = checking.random_input(graph, 2, (128, 160))
    sizes = torch.tensor([[128.0, 160], [100, 90]])
    free = session.run(None, dict(images=given.images.numpy()))[0]
    clipped = session.run(None, dict(images=given.images.numpy(), image_sizes=sizes.numpy()))[0]
    np.testing.assert_array_equal(free[0], clipped[0])
    assert free[1, :, 2].max() > 90 and free[1, :, 3].max() > 100
    assert clipped[1, :, 2].max() == 90 and clipped[1, :, 3].max() == 100


def test_no_detections(exported):
    graph, _, session = exported('rtmdet')
    head = graph.model.bbox_head
    given = checking.random_input(graph, 1, (32, 32))
    outs = head.predict_by_feat(*graph.head_outputs(given.images), batch_img_metas=[dict(img_shape=(32, 32))])
    dets, labels = session.run(None, dict(images=given.images.numpy()))
    kept = labels[0] >= 0
    assert kept.sum() == len(outs[0]) < 300  # of 21 locations: the rest is padding
    assert (labels[0][~kept] == -1).all() and (dets[0][~kept] == 0).all()


@pytest.mark.parametrize('dynamic', ['none', 'batch'])
def test_fixed_sizes(exported, dynamic):
    graph, model, session = exported('atss', output='raw', dynamic=dynamic)
    batch = 1 if dynamic == 'none' else 'batch'
    assert session.get_inputs()[0].shape == [batch, 3, SIZE, SIZE]
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {'NonZero', 'TopK', 'NonMaxSuppression', 'Range'}  # for an NPU
    given = checking.random_input(graph, 1 if dynamic == 'none' else 3, (SIZE, SIZE))
    assert checking.difference(session, graph, given).within(checking.LIMITS)


def test_requirements_of_tensorrt(exported):
    _, model, _ = exported('gfl', with_std=True)
    constants = {one.name for one in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == 'Constant'}
    assert all(node.input[1] in constants for node in model.graph.node if node.op_type == 'TopK')
    assert 'NonZero' not in {node.op_type for node in model.graph.node}


def test_preprocess_takes_pixels(exported, detectors):
    inside, outside = exported('gfl', preprocess=True), exported('gfl', with_std=True)
    given = checking.random_input(inside[0], 2, (96, 128))
    assert given.images.max() > 200
    preprocessor = detectors('gfl').model.data_preprocessor
    normalized = (given.images[:, [2, 1, 0]] - preprocessor.mean) / preprocessor.std
    theirs = run(outside, given._replace(images=normalized))
    ours = run(inside, given)
    np.testing.assert_allclose(ours['dets'], theirs['dets'], atol=1e-3)
    np.testing.assert_array_equal(ours['labels'], theirs['labels'])


def test_half_precision_is_in_the_layers_alone(exported):
    half, _, session = exported('gfl', half=True)
    single, model, _ = exported('gfl', with_std=True)
    _, half_model, _ = exported('gfl', half=True)
    assert len(half_model.SerializeToString()) < 0.65 * len(model.SerializeToString())
    kinds = {one.name: one.data_type for one in half_model.graph.initializer}
    assert sum(kind == 10 for kind in kinds.values()) > 30  # FLOAT16
    result = checking.difference(
        session, single_without_std(single), checking.random_input(single, 2, (128, 160)), checking.HALF_LIMITS
    )
    assert result.within(checking.HALF_LIMITS), str(result)
    assert result.pixels < 1 and result.compared > 50, str(result)


def single_without_std(graph):
    return ExportedDetector(graph.model, graph.output, graph.thresholds)


def test_metadata(exported, detectors):
    _, model, _ = exported('gfl', with_std=True)
    facts = {one.key: json.loads(one.value) for one in model.metadata_props}
    assert facts['classes'] == ['a', 'b', 'c']
    assert facts['mean'] == pytest.approx([123.675, 116.28, 103.53]) and facts['channel_order'] == 'RGB'
    assert facts['std'] == pytest.approx([58.395, 57.12, 57.375])
    assert facts['strides'] == [8, 16, 32, 64, 128] and facts['size_divisor'] == 32
    assert facts['resize'] == dict(scale=[SIZE, SIZE], keep_ratio=True, interpolation='bilinear')
    assert facts['thresholds']['score_thr'] == 0.05 and facts['thresholds']['nms']['iou_threshold'] == 0.6
    assert facts['box'] == dict(type='GeneralBox', channels=17, reg_max=16, delta=1.0)
    assert (facts['output'], facts['preprocess']) == ('nms', False)
    assert facts['versions'].keys() == {'mmdet_gfl', 'mmdet', 'mmengine', 'torch'}


class _SharpQuality(JointQuality):
    """A quality of a user's own."""

    def class_logits(self, cls_score, bbox_pred, head):
        return 1.5 * cls_score + 0.1 * bbox_pred.mean(dim=1, keepdim=True)


class _SharpBox(GeneralBox):
    """A box representation of a user's own."""

    def decode(self, bbox_pred, locations, head):
        return super().decode(2 * bbox_pred, locations, head)


def test_user_defined_quality_and_box(detectors, exported):
    model = copy.deepcopy(detectors('gfl').model)
    model.bbox_head.quality, model.bbox_head.box = _SharpQuality(), _SharpBox()
    plain = exported('gfl', with_std=True)[0]
    graph = ExportedDetector(model, 'nms', plain.thresholds, with_std=True).eval()
    session = checking.open_session(writing.to_onnx(graph, (SIZE, SIZE), 'all', 18, {}))
    given = checking.random_input(graph, 3, (224, 160))
    result = checking.difference(session, graph, given)
    assert result.within(checking.LIMITS) and result.compared > 50, str(result)
    assert not checking.difference(session, plain, given).within(checking.LIMITS)


def test_layer_without_a_counterpart_is_named(detectors):
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

    graph = ExportedDetector(copy.deepcopy(detectors('gfl').model), 'raw')
    graph.model.neck.register_forward_hook(lambda module, args, levels: tuple(map(Round.apply, levels)))
    with pytest.raises(UserError, match='torch cannot write this detector as ONNX .*operator Round.* needs a symbolic'):
        writing.to_onnx(graph, (SIZE, SIZE), 'batch', 18, {})
