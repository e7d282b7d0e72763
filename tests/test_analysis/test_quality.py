"""Rank correlations and true IoUs by hand."""

import math

import numpy as np
import pytest

from mmdet_gfl.analysis.matching import Detections, Objects
from mmdet_gfl.analysis.quality import Scored, mean_iou_by_score, rank_correlation, score_and_iou, table


def test_rank_correlation_by_hand():
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, -1])) == pytest.approx(-1)
    # 1 - 6 sum(d^2) / n(n^2 - 1) with d = 1, 1, 0, 0
    assert rank_correlation(np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 3, 4])) == pytest.approx(1 - 6 * 2 / 60)
    # Ties at their mean rank: (1, 2.5, 2.5, 4) with (1, 2, 3, 4) is 4.5 / sqrt(4.5 * 5)
    assert rank_correlation(np.array([1.0, 5, 5, 9]), np.array([1.0, 2, 3, 4])) == pytest.approx(4.5 / math.sqrt(22.5))


@pytest.mark.parametrize('values', [[], [1.0], [2.0, 2.0, 2.0]])
def test_no_rank_correlation(values):
    values = np.array(values)
    assert math.isnan(rank_correlation(values, np.arange(len(values), dtype=float)))


def test_each_detection_beside_its_best_object():
    truth = Objects(
        np.array([[0.0, 0, 10, 10], [0, 0, 40, 10], [0, 0, 10, 8]]),
        np.array([0, 0, 1]),
        np.array([False, True, False]),
    )
    boxes = np.array([[0.0, 0, 10, 5], [0, 0, 10, 10], [22, 0, 30, 10], [22, 0, 42, 10], [50, 50, 60, 60]])
    found = Detections(
        boxes, np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0, 1, 0, 1, 0]), np.array([0.9, 1.0, 0.8, 0.5, 0.0])
    )
    scored = score_and_iou([(found, truth), (Detections(*(part[:0] for part in found)), truth)])
    # The first lies in the crowd of its class, but on an object; the third, on none, is left out; the fourth is of
    # another class.
    np.testing.assert_allclose(scored.scores, [0.9, 0.8, 0.6, 0.5])
    np.testing.assert_allclose(scored.ious, [0.5, 0.8, 0, 0])
    np.testing.assert_allclose(scored.quality, [0.9, 1, 0.5, 0])
    np.testing.assert_allclose(scored.class_scores[:3], [1, 0.8, 1.2])


def test_mean_iou_by_score():
    """Ten bins, each closed below; 1 belongs to the last."""
    by_bin = [
        ([0.02, 0.08], [0.1, 0.3]),
        ([0.12], [0.8]),
        ([0.45], [0.2]),
        ([0.5, 0.58], [0.6, 0.8]),
        ([0.9, 1], [1, 0]),
    ]
    scores, ious = (np.concatenate(values) for values in zip(*by_bin))
    order = np.array([3, 0, 7, 5, 1, 6, 4, 2])
    mean_scores, mean_ious = mean_iou_by_score(Scored(scores[order], ious[order], None))
    np.testing.assert_allclose(mean_scores, [0.05, 0.12, 0.45, 0.54, 0.95])
    np.testing.assert_allclose(mean_ious, [0.2, 0.8, 0.2, 0.7, 0.5])


def test_the_table_has_a_branch_where_a_model_has_one():
    rising = np.array([0.1, 0.5, 0.6, 0.9])
    joint = Scored(rising, rising, None)
    branch = Scored(rising, rising, rising[::-1])
    assert 'branch' not in table(['a'], [joint])
    said = table(['joint', 'with branch'], [joint, branch]).splitlines()
    assert said[2].split() == ['joint', '4', '3', '1.000', '1.000']
    assert said[3].split() == ['with', 'branch', '4', '3', '1.000', '1.000', '1.000', '-1.000']
