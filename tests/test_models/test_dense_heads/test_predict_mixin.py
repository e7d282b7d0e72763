"""What survives the score threshold, against MMDetection's ``filter_scores_and_topk``, which sorts all scores."""

import pytest
import torch
from cases import build, features, gfl_config, metas
from mmdet.models.utils import filter_scores_and_topk

from mmdet_gfl.models.dense_heads.predict_mixin import best_scores, rows_at, worth_a_look


def scores(kind):
    values = torch.rand(200, 7, generator=torch.Generator().manual_seed(3))
    if kind == 'ties':
        return (values * 4).round() / 4
    return values**8 if kind == 'few' else values


@pytest.mark.agreement
@pytest.mark.parametrize('top_k', [1, 10, 199, 200, 10**4])
@pytest.mark.parametrize('threshold', [-1.0, 0.0, 0.05, 0.5, 2.0])
@pytest.mark.parametrize('kind', ['random', 'ties', 'few'])
def test_survivors(kind, threshold, top_k):
    every = scores(kind)
    places = worth_a_look(every.amax(dim=1), threshold, top_k)
    found, labels, index = best_scores(every[places], threshold, top_k)
    assert torch.equal(found, every[every > threshold].sort(descending=True).values[:top_k])
    assert torch.equal(every[places[index], labels], found)
    assert len(set(zip(places[index].tolist(), labels.tolist()))) == len(found)
    theirs = filter_scores_and_topk(every, threshold, top_k)
    if kind != 'ties' or top_k > every.numel():  # else which of the tied are kept is open
        assert torch.equal(found, theirs[0]) and torch.equal(labels, theirs[1])
        assert torch.equal(places[index], theirs[2])


def test_few_locations_are_looked_at():
    largest = torch.rand(5000)
    assert len(worth_a_look(largest, 0.05, 100)) < 110
    assert len(worth_a_look(largest * 0.04, 0.05, 100)) == 0


def test_nan_hides_no_other_score():
    # MMDetection's comparison drops the NaN entry alone.
    every = torch.tensor([[0.9, torch.nan], [0.1, 0.2], [0.3, 0.4]])
    places = worth_a_look(every.amax(dim=1), 0.05, 2)
    found, labels, index = best_scores(every[places], 0.05, 2)
    assert found.tolist() == pytest.approx([0.9, 0.4])
    assert places[index].tolist() == [0, 2] and labels.tolist() == [0, 1]


@pytest.mark.parametrize('num_priors', [1, 3])
def test_rows(num_priors):
    level = torch.randn(num_priors * 5, 4, 6).half()
    expected = level.permute(1, 2, 0).reshape(-1, 5).float()
    places = torch.randperm(len(expected))
    for form in (level, level.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        assert torch.equal(rows_at(form, 5, places), expected[places])


@pytest.mark.parametrize('form', ['channels-last', 'sliced'])
def test_detections_do_not_depend_on_strides(form):
    head = build(gfl_config()).eval()
    outs = head(features((96, 160), 2))
    other = [
        [
            level.to(memory_format=torch.channels_last)
            if form == 'channels-last'
            else torch.cat((level, level), dim=1)[:, : level.size(1)]
            for level in levels
        ]
        for levels in outs
    ]
    images = metas((96, 160), 2)
    for one, same in zip(*(head.predict_by_feat(*out, batch_img_metas=images) for out in (outs, other))):
        assert len(one) > 10 and torch.equal(one.scores, same.scores)
        torch.testing.assert_close(one.bboxes, same.bboxes)
