"""Thresholds worked out by hand."""

import numpy as np
import pytest

from mmdet_gfl.analysis.matching import Detections, Objects
from mmdet_gfl.analysis.thresholds import OperatingPoint, as_json, operating_points, select_thresholds, table


def test_operating_points_by_hand():
    scores = np.array([0.2, 0.9, 0.5, 0.5, 0.7])
    right = np.array([True, True, False, True, True])
    assert operating_points(scores, right, objects=8) == [
        OperatingPoint(0.9, 1.0, 1 / 8, 1),
        OperatingPoint(0.7, 1.0, 2 / 8, 2),
        OperatingPoint(0.5, 3 / 4, 3 / 8, 4),  # equal scores are kept or dropped together
        OperatingPoint(0.2, 4 / 5, 4 / 8, 5),
    ]
    assert operating_points(scores, right, objects=0) == []
    assert operating_points(scores[:0], right[:0], objects=3) == []


#: Ten objects side by side; class 0.
BOXES = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(10)], float)
CLASSES = ('cat', 'dog', 'owl', 'elk')


def picked(precision, iou=0.5):
    """Cats: hits at 0.9, 0.8, 0.6, 0.4, a miss at 0.7 and at 0.3; dogs: a miss above a hit; owls none; elks unseen."""
    none = np.zeros(13, bool)
    boxes, labels = np.concatenate((BOXES, BOXES[:2], BOXES[:1])), np.array([0] * 10 + [1, 1, 3])
    truth = [Objects(boxes[part], labels[part], none[part]) for part in (slice(0, 4), slice(4, 13))]
    far = BOXES[2] + 100_000
    found = [
        Detections(np.stack((BOXES[0], BOXES[1], far, BOXES[3])), np.array([0.9, 0.8, 0.7, 0.6]), np.zeros(4, int)),
        Detections(BOXES[[4, 0, 5, 0, 0]], np.array([0.4, 0.3, 0.9, 0.5, 0.8]), np.array([0, 0, 1, 1, 2])),
    ]
    return select_thresholds(zip(found, truth), CLASSES, precision, iou)


def test_the_lowest_threshold_wins():
    cat, dog, owl, elk = picked(0.75)
    # Precision falls to 2/3 at 0.7 and rises again: 3/4, 4/5, then 4/6.
    assert cat.objects == 10 and cat.point == OperatingPoint(0.4, 4 / 5, 4 / 10, 5)
    assert dog.point is None and dog.best == OperatingPoint(0.5, 1 / 2, 1 / 2, 2)
    assert owl.point is None and owl.best is None and owl.objects == 0
    assert elk.point is None and elk.best is None and elk.objects == 1
    assert picked(0.81)[0].point == OperatingPoint(0.8, 1.0, 2 / 10, 2)
    assert picked(1.0)[0].point == picked(0.81)[0].point
    assert picked(0.5)[0].point == OperatingPoint(0.3, 4 / 6, 4 / 10, 6) and picked(0.5)[1].point == OperatingPoint(
        0.5, 1 / 2, 1 / 2, 2
    )


def test_of_equally_precise_points_the_best_has_the_largest_recall():
    truth = Objects(BOXES[:2], np.array([0, 0]), np.array([False, False]))
    found = Detections(BOXES[[0, 4, 1, 5]], np.array([0.9, 0.8, 0.7, 0.6]), np.zeros(4, int))
    found = Detections(found.boxes[[1, 0, 3, 2]], found.scores, found.labels)  # wrong, right, wrong, right
    answer = select_thresholds([(found, truth)], ('cat',), 0.9, 0.5)[0]
    assert answer.point is None and answer.best == OperatingPoint(0.6, 1 / 2, 1.0, 4)
    assert table([answer], 0.9).endswith('the best is 0.500, at threshold 0.6000 (recall 1.000, 4 detections)')


def test_detections_in_a_crowd_do_not_count():
    truth = Objects(BOXES[:2], np.array([0, 0]), np.array([False, True]))
    found = Detections(BOXES[[1, 0, 2]], np.array([0.9, 0.8, 0.7]), np.array([0, 0, 0]))
    answer = select_thresholds([(found, truth)], ('cat',), 0.9, 0.5)[0]
    assert answer.objects == 1 and answer.point == OperatingPoint(0.8, 1.0, 1.0, 1)


def test_printed_and_written_results():
    answers = picked(0.75)
    said = table(answers, 0.75).splitlines()
    assert said[1].split() == ['cat', '10', '0.4000', '0.800', '0.400', '5'] and said[2].split() == ['dog', '2', '-']
    assert said[5] == (
        'dog cannot reach precision 0.75: the best is 0.500, at threshold 0.5000 (recall 0.500, 2 detections)'
    )
    assert said[6].startswith('owl has no objects') and said[7].startswith('elk is never detected')
    assert as_json(answers)['cat'] == dict(objects=10, threshold=0.4, precision=0.8, recall=0.4, detections=5)
    assert as_json(answers)['dog'] == dict(objects=2, threshold=None)


def test_keeping_what_the_threshold_says_gives_the_precision():
    random = np.random.default_rng(0)
    scores = random.random(500).astype(np.float32).astype(float)
    right = random.random(500) < scores
    point = [point for point in operating_points(scores, right, 400) if point.precision >= 0.8][-1]
    kept = scores >= point.threshold
    assert kept.sum() == point.detections and right[kept].mean() == pytest.approx(point.precision)
    assert right[kept].mean() >= 0.8 and right[kept].sum() / 400 == pytest.approx(point.recall)
