"""Heads under ``torch.compile``: convolutions become a graph, losses and decoding are not traced."""

import pytest
import torch
from cases import (
    assert_same_detections,
    build,
    features,
    gfl_config,
    host_config,
    host_features,
    metas,
    objects,
    totals,
)
from mmdet.structures import DetDataSample

pytestmark = pytest.mark.skipif(
    torch.__version__.startswith('2.1.'), reason='torch 2.1 fails to trace comprehensions that use `self`'
)
SIZE = (64, 96)


def samples(counts, number):
    """A batch; images of another number have other sizes and names."""
    meta = dict(img_shape=(SIZE[0] - number, SIZE[1]), scale_factor=(1 + number / 7, 1.0))
    return [
        DetDataSample(gt_instances=gts, metainfo=one | meta | dict(img_path=f'{number}-{index}.jpg'))
        for index, (gts, one) in enumerate(zip(objects(counts, SIZE), metas(SIZE, len(counts))))
    ]


@pytest.mark.parametrize('host', ['GFL', 'SSD', 'RTMDet'])
def test_the_same_compiled_and_no_recompilation_for_other_images_and_objects(host):
    head = build(gfl_config() if host == 'GFL' else host_config(host))
    graphs, numbers = [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    loss, predict = (torch.compile(step, backend=backend) for step in (head.loss, head.predict))
    for number, counts in enumerate(([2, 0], [1, 3], [5, 5])):
        results = []
        for step in (loss, head.loss):
            feats = host_features(host, SIZE, 2, requires_grad=True)
            losses = totals(step(feats, samples(counts, number)))
            total = sum(value for key, value in losses.items() if 'loss' in key)
            results.append((losses, torch.autograd.grad(total, feats)))
        torch.testing.assert_close(*results)
        with torch.no_grad():
            feats = host_features(host, SIZE, 2)
            compiled, here = (step(feats, samples(counts, number)) for step in (predict, head.predict))
        assert_same_detections(compiled, here, least=10)
        numbers.append(len(graphs))
    assert numbers[0] > 0 and numbers == numbers[:1] * 3


def test_loss_and_predict_steps_make_no_graph():
    head = build(gfl_config())
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    with torch.no_grad():
        outs = head(features(SIZE, 2))
    torch.compile(head.loss_by_feat, backend=backend)(*outs, objects([2, 0], SIZE), metas(SIZE, 2))
    torch.compile(head.predict_by_feat, backend=backend)(*outs, batch_img_metas=metas(SIZE, 2))
    assert graphs == []
