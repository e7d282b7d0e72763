"""Order statistics against torch's own, which they replace on a CPU."""

import pytest
import torch

from mmdet_gfl.ops import argsort_by_group_and_score, kth_largest


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('k', [1, 2, 40, 99, 100])
def test_kth_largest(k, dtype):
    values = torch.randn(3, 100, dtype=dtype).mul(4).round() / 4  # many are equal
    values[0, :5] = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0, 1e-45])
    assert torch.equal(kth_largest(values, k), values.topk(k).values[:, -1])
    strided = values.t().contiguous().t()
    assert torch.equal(kth_largest(strided, k), values.topk(k).values[:, -1])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('count', [0, 1, 7, 5000])
def test_order_equals_a_stable_sort_by_group_of_a_sort_by_score(count, dtype):
    groups = torch.randint(0, 40, (count,))
    scores = (torch.randperm(count) / max(count, 1)).to(dtype)  # 0 among them, none equal
    by_score = scores.argsort(descending=True)
    expected = by_score[groups[by_score].argsort(stable=True)]
    assert torch.equal(argsort_by_group_and_score(groups, scores), expected)


def test_order_of_the_smallest_and_largest_scores():
    tiny = torch.finfo(torch.float32).smallest_normal
    scores = torch.tensor([0.0, tiny / 4, tiny, 1.0, 1.0 + 2**-23, 3e38, torch.inf])
    groups = torch.tensor([0, 0, 0, 1, 1, 2**31 - 1, 1])
    assert argsort_by_group_and_score(groups, scores).tolist() == [2, 1, 0, 6, 4, 3, 5]


def test_equal_scores_of_a_group_stay_together():
    groups, scores = torch.tensor([1, 0, 1, 0, 1]), torch.tensor([0.5, 0.5, 0.5, 0.5, 0.7])
    order = argsort_by_group_and_score(groups, scores)
    assert groups[order].tolist() == [0, 0, 1, 1, 1] and order[2] == 4 and sorted(order.tolist()) == list(range(5))
