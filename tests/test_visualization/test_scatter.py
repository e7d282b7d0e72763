"""Contents of the scatter pictures."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mmdet_gfl.analysis.quality import Scored
from mmdet_gfl.visualization import draw_scatter
from mmdet_gfl.visualization.scatter import sample

SCORES, IOUS = np.array([0.2, 0.4, 0.8]), np.array([0.1, 0.7, 0.6])
JOINT = Scored(SCORES, IOUS, None)
BRANCH = Scored(SCORES, IOUS, np.array([0.25, 0.8, 1.0]))  # class scores 0.8, 0.5, 0.8


def points(axes):
    return [collection.get_offsets().tolist() for collection in axes.collections]


def test_a_joint_model_has_one_picture():
    figure = draw_scatter(['GFL'], [JOINT])
    (axes,) = figure.axes
    assert points(axes) == [[[0.2, 0.1], [0.4, 0.7], [0.8, 0.6]]]
    assert axes.get_title() == 'GFL\nrank correlation 0.50, 3 detections'
    mean = next(line for line in axes.lines if line.get_label() == 'mean IoU')
    np.testing.assert_allclose(mean.get_xydata(), [[0.2, 0.1], [0.4, 0.7], [0.8, 0.6]])
    assert mean.get_linestyle() == '-' and axes.get_xlim() == axes.get_ylim() == (0, 1)
    FigureCanvasAgg(figure).draw()


def test_a_branch_beside_a_joint_model():
    figure = draw_scatter(['ATSS', 'GFL'], [BRANCH, JOINT])
    _, _, pairs, diagonal = figure.axes
    np.testing.assert_allclose(points(pairs), [[[0.8, 0.25], [0.5, 0.8], [0.8, 1.0]]])
    assert pairs.get_title() == 'separate: rank correlation 0.00'
    assert points(diagonal) == [] and diagonal.get_title() == 'joint: one number is both'
    assert [line.get_linestyle() for line in diagonal.lines] == [':', '-']  # of the frame, and the joint scores
    assert [line.get_xydata().tolist() for line in diagonal.lines] == [[[0, 0], [1, 1]]] * 2
    assert (pairs.get_xlabel(), pairs.get_ylabel()) == ('class score', 'quality')


def test_of_many_points_the_same_ones_are_drawn():
    assert sample(5, 10).tolist() == [0, 1, 2, 3, 4]
    chosen = sample(1000, 10)
    assert (
        len(set(chosen.tolist())) == 10 and (np.diff(chosen) > 0).all() and chosen.tolist() == sample(1000, 10).tolist()
    )
