"""Overlaps by hand, and matching beside pycocotools'."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_gfl.analysis.matching import (
    FALSE,
    IGNORED,
    TRUE,
    Detections,
    Objects,
    best_overlaps,
    class_overlaps,
    ious,
    match,
)

RIGHT, CROWD = [0.0, 0, 10, 10], [20.0, 0, 40, 10]


def objects(boxes, labels=None, ignored=None):
    count = len(boxes)
    return Objects(
        np.array(boxes, float).reshape(-1, 4),
        np.array(labels if labels is not None else [0] * count, int),
        np.array(ignored if ignored is not None else [0] * count, bool),
    )


def detections(boxes, scores, labels=None):
    labels = labels if labels is not None else [0] * len(boxes)
    return Detections(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(labels, int))


def test_overlaps_by_hand():
    found = detections([RIGHT, [5, 0, 15, 10], [30, 0, 50, 10], [3, 3, 3, 3]], [1.0] * 4)
    # 50 of 150 shared; the crowd takes the share of the box: 10 of 20 wide.
    expected = [[1, 0], [1 / 3, 0], [0, 0.5], [0, 0]]
    np.testing.assert_allclose(class_overlaps(found, objects([RIGHT, CROWD], ignored=[0, 1])), expected)
    np.testing.assert_allclose(ious(found.boxes, np.array([RIGHT, CROWD]))[2], [0, 1 / 3])
    none = detections([], [])
    assert class_overlaps(none, objects([RIGHT])).shape == (0, 1) and ious(found.boxes, none.boxes).shape == (4, 0)


def test_best_overlaps_are_of_the_same_class():
    found = detections([RIGHT, RIGHT, [25, 0, 35, 10]], [0.9, 0.8, 0.7], [0, 1, 0])
    iou, in_crowd = best_overlaps(found, objects([RIGHT, [0, 0, 10, 5], CROWD], [0, 1, 0], [0, 0, 1]))
    np.testing.assert_allclose(iou, [1, 0.5, 0])
    np.testing.assert_allclose(in_crowd, [0, 0, 1])
    assert [part.tolist() for part in best_overlaps(found, objects([]))] == [[0, 0, 0], [0, 0, 0]]


def test_an_object_is_matched_once_and_by_the_highest_score():
    found = detections([[0, 0, 10, 9], RIGHT, [0, 0, 10, 4]], [0.5, 0.4, 0.9])
    # The first in score overlaps by 0.4 only, the next takes the object, the exact box comes too late.
    assert match(found, objects([RIGHT]), 0.5).tolist() == [TRUE, FALSE, FALSE]
    assert match(found, objects([RIGHT]), 0.4).tolist() == [FALSE, FALSE, TRUE]
    assert match(found, objects([RIGHT], labels=[1]), 0.4).tolist() == [FALSE] * 3


def test_of_equal_overlaps_the_last_object_is_taken():
    found = detections([[5, 0, 15, 10], RIGHT], [0.9, 0.8])
    # The first detection shares a third with either object; as with pycocotools, it leaves the first one free.
    assert match(found, objects([RIGHT, [10, 0, 20, 10]]), 0.3).tolist() == [TRUE, TRUE]
    assert match(found, objects([[10, 0, 20, 10], RIGHT]), 0.3).tolist() == [TRUE, FALSE]


def test_a_crowd_takes_any_number_but_after_the_objects():
    found = detections([[20, 0, 30, 10], [30, 0, 40, 10], [21, 0, 31, 10], RIGHT], [0.9, 0.8, 0.7, 0.6])
    outcome = match(found, objects([[20, 0, 30, 10], CROWD], ignored=[0, 1]), 0.5)
    assert outcome.tolist() == [TRUE, IGNORED, IGNORED, FALSE]


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('iou', [0.5, 0.75])
def test_the_same_as_pycocotools(seed, iou):
    random = np.random.default_rng(seed)
    corner = random.integers(0, 40, (30, 2))
    truth = objects(np.c_[corner, corner + random.integers(5, 30, (30, 2))], np.arange(30) % 3, np.arange(30) % 7 == 0)
    near = truth.boxes[random.integers(0, 30, 80)] + random.integers(-3, 4, (80, 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    found = detections(near, random.integers(1, 20, 80) / 20, random.integers(0, 4, 80))  # equal scores too

    coco = COCO()
    wide = np.c_[truth.boxes[:, :2], truth.boxes[:, 2:] - truth.boxes[:, :2]]
    coco.dataset = dict(
        images=[dict(id=1)],
        categories=[dict(id=label, name=str(label)) for label in range(4)],
        annotations=[
            dict(id=i + 1, image_id=1, category_id=int(label), bbox=box.tolist(), area=1.0, iscrowd=int(crowd))
            for i, (box, label, crowd) in enumerate(zip(wide, truth.labels, truth.ignored))
        ],
    )
    results = np.c_[np.ones(80), near[:, :2], near[:, 2:] - near[:, :2], found.scores, found.labels]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
        evaluation.params.iouThrs = np.array([iou])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluation.evaluate()
    ours = match(found, truth, iou)
    seen = 0
    for theirs in filter(None, evaluation.evalImgs):
        members = np.array([index - 1 for index in theirs['dtIds']], int)
        expected = np.where(theirs['dtIgnore'][0], IGNORED, np.where(theirs['dtMatches'][0] > 0, TRUE, FALSE))
        assert ours[members].tolist() == expected.tolist()
        seen += len(members)
    assert seen == 80 and {TRUE, FALSE, IGNORED} == set(ours.tolist())
