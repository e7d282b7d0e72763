"""A head under ``torch.compile``: the same losses, gradients and detections."""

import pytest
import torch
from cases import assert_same_detections, build, features, gfl_config, metas, objects, totals

SIZE = (64, 96)


@pytest.mark.slow
def test_the_same_compiled():
    head = build(gfl_config())
    loss_by_feat, predict_by_feat = (
        torch.compile(step, backend='eager')  # Dynamo's graphs, breaks and guards, without a compiler
        for step in (head.loss_by_feat, head.predict_by_feat)
    )
    with torch.no_grad():
        outs = head(features(SIZE, 2))

    def step(loss):
        leaves = [[level.clone().requires_grad_() for level in levels] for levels in outs]
        losses = totals(loss(*leaves, objects([2, 0], SIZE), metas(SIZE, 2)))
        total = sum(value for key, value in losses.items() if 'loss' in key)
        return losses, torch.autograd.grad(total, [level for levels in leaves for level in levels])

    torch.testing.assert_close(step(loss_by_feat), step(head.loss_by_feat))
    with torch.no_grad():
        compiled, here = (
            predict(*outs, batch_img_metas=metas(SIZE, 2)) for predict in (predict_by_feat, head.predict_by_feat)
        )
    assert_same_detections(compiled, here, least=20)
