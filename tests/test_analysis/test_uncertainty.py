"""Predicted standard deviations beside the truth of the shapes, on numbers worked out by hand."""

import json
import math

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmdet_gfl.analysis import uncertainty
from mmdet_gfl.analysis.detector import named_models
from mmdet_gfl.analysis.uncertainty import Sides
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.visualization.uncertainty import draw_uncertainty


def shape(bbox, std=(0, 0, 0, 0), kind=('sharp',) * 4, visible=(1, 1, 1, 1), **fields):
    return dict(bbox=bbox, side_std=std, side_kind=kind, side_visible=visible, iscrowd=0, image_id=1, **fields)


def detections(boxes, deviations):
    return InstanceData(bboxes=torch.tensor(boxes), bbox_std=torch.tensor(deviations))


def sides(predicted, true, error=None, length=None, kind=None, floor=None):
    count = len(predicted)
    return Sides(
        np.array(predicted, float),
        np.array(true, float),
        np.zeros(count) if error is None else np.array(error, float),
        np.full(count, 10.0) if length is None else np.array(length, float),
        np.array(['blur' if value else 'sharp' for value in true] if kind is None else kind),
        np.zeros(count) if floor is None else np.array(floor, float),
    )


def test_sides_of_an_object_by_hand():
    """A detection that is 1 px too far left, 2 too high, 3 too narrow at the right, and right below."""
    one = shape([10, 20, 40, 60], std=(2, 0, 3, 4), kind=('blur', 'sharp', 'fade', 'border'), visible=(1, 1, 0.5, 1))
    found = uncertainty.visible_sides(detections([[9.0, 18, 47, 80]], [[1.5, 0.5, 9, 9]]), [one], iou=0.5)
    assert found.predicted.tolist() == [1.5, 0.5]  # right is hidden, bottom is the border
    assert found.true.tolist() == [2, 0] and found.kind.tolist() == ['blur', 'sharp']
    assert found.error.tolist() == [1, 2] and found.length.tolist() == [40, 60]


def test_the_error_is_positive_outwards_on_all_sides():
    found = uncertainty.visible_sides(detections([[9.0, 9, 21, 21]], [[1.0] * 4]), [shape([10, 10, 10, 10])], iou=0.5)
    assert found.error.tolist() == [1, 1, 1, 1]


def test_an_object_is_taken_once_by_the_first_detection_and_a_bad_one_takes_none():
    objects = [shape([0, 0, 10, 10]), shape([100, 0, 10, 10])]
    boxes = [[0.0, 0, 10, 9], [0, 0, 10, 10], [104, 0, 114, 10]]
    found = uncertainty.visible_sides(detections(boxes, [[1.0] * 4, [2.0] * 4, [3.0] * 4]), objects, iou=0.5)
    assert found.predicted.tolist() == [1] * 4
    assert not len(uncertainty.visible_sides(detections(boxes, [[1.0] * 4] * 3), [], iou=0.5).true)
    none = InstanceData(bboxes=torch.zeros(0, 4), bbox_std=torch.zeros(0, 4))
    assert not len(uncertainty.visible_sides(none, objects, iou=0.5).true)


def test_evaluation_by_hand():
    evaluation = uncertainty.evaluate(sides([1, 2, 3, 4], [0, 2, 0, 4], error=[0.5, 2, -9, -5]))
    # Ranks 1, 2, 3, 4 and 1.5, 3, 1.5, 4: covariance 3 / sqrt(5 * 4.5).
    assert evaluation.correlation == pytest.approx(3 / math.sqrt(5 * 4.5))
    assert evaluation.among_ambiguous == pytest.approx(1)
    # Sizes of the errors 0.5, 2, 9, 5: ranks 1, 2, 4, 3.
    assert evaluation.own_error == pytest.approx(0.8)
    assert evaluation.auroc == 3 / 4  # of the pairs (2, 1), (2, 3), (4, 1), (4, 3) three are in order
    assert (evaluation.within_one, evaluation.within_two) == (0.5, 0.75)
    assert evaluation.by_kind['sharp'] == pytest.approx((2, 0, math.sqrt(5), math.sqrt((0.25 + 81) / 2)))
    assert evaluation.by_kind['blur'] == pytest.approx((2, math.sqrt(10), math.sqrt(10), math.sqrt((4 + 25) / 2)))


def test_a_mean_between_two_steps_has_a_floor():
    # A quarter of a step of 8 px above an entry: 8 sqrt(1/4 * 3/4); on an entry: none.
    results = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 20, 20]]),
        bbox_std=torch.tensor([[5.0, 4, 3, 5]]),
        bbox_mean=torch.tensor([[10.0, 16, 10, 20]]),
        bbox_step=torch.full((1, 4), 8.0),
    )
    found = uncertainty.visible_sides(results, [shape([10, 10, 10, 10])], iou=0.5)
    assert found.floor == pytest.approx([math.sqrt(12), 0, math.sqrt(12), 4])
    beyond = found.beyond_floor()
    assert beyond.predicted == pytest.approx([math.sqrt(13), 4, 0, 3]) and not beyond.floor.any()
    names, models = uncertainty.with_floors_taken_away(['steps', 'none'], [found, beyond])
    assert names == ['steps', 'steps, beyond its floor', 'none']
    assert models[0] is found and models[1].predicted == pytest.approx(beyond.predicted)


def test_telling_apart_looks_at_shares_of_the_length():
    """A large sharp object has wider deviations in pixels than a small blurred one."""
    assert uncertainty.evaluate(sides([4, 3], [0, 2], length=[100, 20])).auroc == 1


def test_auroc():
    assert uncertainty.auroc(np.array([1.0, 2]), np.array([1.0, 3])) == 3 / 8
    assert math.isnan(uncertainty.auroc(np.zeros(0), np.ones(1)))


def test_a_model_that_knows_the_truth_is_calibrated():
    rng = np.random.default_rng(0)
    true = rng.uniform(1, 6, 20000)
    evaluation = uncertainty.evaluate(sides(true, true, error=rng.normal(0, true)))
    assert evaluation.within_one == pytest.approx(0.683, abs=0.01) and evaluation.within_two == pytest.approx(
        0.954, abs=0.01
    )
    assert evaluation.correlation == pytest.approx(1)


def test_annotations_of_another_data_set_are_refused(tmp_path):
    file = tmp_path / 'coco.json'
    file.write_text(json.dumps(dict(annotations=[dict(image_id=1, bbox=[0, 0, 1, 1], iscrowd=0)])))
    with pytest.raises(UserError, match='does not say how ambiguous its sides are'):
        uncertainty.read_annotations(file)


def test_crowds_are_left_out(tmp_path):
    file = tmp_path / 'shapes.json'
    crowd = shape([0, 0, 1, 1]) | dict(iscrowd=1)
    file.write_text(json.dumps(dict(annotations=[shape([0, 0, 9, 9]), crowd])))
    assert [one['bbox'] for one in uncertainty.read_annotations(file)[1]] == [[0, 0, 9, 9]]


def test_table_and_picture_hold_every_model(tmp_path):
    models = [sides([1, 2, 3, 4], [0, 2, 0, 4]), sides([1, 2], [0, 0])]
    evaluations = [uncertainty.evaluate(one) for one in models]
    shares = evaluations[0]._replace(within_one=0.25, within_two=0.75)
    assert '| nan | 0.75 | 25% | 75% |' in uncertainty.table(['one'], [shares])
    text = uncertainty.table(['one', 'other'], evaluations)
    assert '| one | 4 | 0.63 | 1.00 | nan | 0.75 |' in text and '| other | 2 | nan | nan | nan | nan |' in text
    assert '| sharp | other | 2 | 0.0 | 1.6 | 0.0 |' in text and '| blur | other' not in text
    figure = draw_uncertainty(['one', 'other'], models)
    assert len(figure.axes) == 4
    points = [group.get_offsets().tolist() for group in figure.axes[0].collections]
    assert points == [[[2, 2], [4, 4]], [], []]
    assert [axes.get_title() for axes in figure.axes[:2]] == ['one', 'other']
    # Below, shares of a length of 10 px: 10% and 30% at sharp sides, 20% and 40% at blurred ones, truly 0 and 30%.
    below = figure.axes[2]
    assert [label.get_text() for label in below.get_xticklabels()] == ['sharp', 'blur']
    quartiles = [box.get_path().get_extents().intervaly.tolist() for box in below.patches]
    assert quartiles == [[15, 25], [25, 35]]
    (true,) = (line for line in below.lines if line.get_label() == 'true (median)')
    np.testing.assert_allclose(true.get_xydata(), [[1, 0], [2, 30]])
    assert below.get_ylim() == figure.axes[3].get_ylim() and below.get_ylim()[0] == 0
    assert draw_uncertainty(['one'], [sides([0, 0], [0, 0])]).axes[0].get_xlim() == (0, 1)


def test_the_true_deviation_is_across_and_the_predicted_one_up():
    axes = draw_uncertainty(['one'], [sides([3, 1], [2, 4])]).axes[0]
    assert [group.get_offsets().tolist() for group in axes.collections] == [[[2, 3], [4, 1]], [], []]
    assert axes.get_xlabel() == 'true standard deviation, px' and axes.get_ylabel() == 'predicted, px'
    (diagonal,) = axes.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [axes.get_xlim()[1]] * 2]


def test_models_of_a_command_line():
    pairs = ['a/b.py', 'b.pth', 'c.py', 'd.pth']
    assert named_models(pairs, None) == [('b', 'a/b.py', 'b.pth'), ('c', 'c.py', 'd.pth')]
    assert [name for name, _, _ in named_models(pairs, ['x', 'y'])] == ['x', 'y']
    with pytest.raises(UserError, match='c.py stands alone'):
        named_models(pairs[:3], None)
    with pytest.raises(UserError, match='--names gives 1 names for 2 models'):
        named_models(pairs, ['x'])
