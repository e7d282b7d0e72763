"""Places of the sides of a box, by hand."""

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmdet_gfl.visualization.sides import Side, sides_of


def test_places_of_a_distribution():
    results = InstanceData(
        bbox_location=torch.tensor([[30.0, 25]]),
        bbox_mean=torch.tensor([[10.0, 15, 30, 25]]),
        bbox_std=torch.tensor([[1.0, 2, 3, 4]]),
        bbox_distribution=torch.eye(4)[None],
        bbox_step=torch.tensor([[8.0, 16, 8, 16]]),
    )
    left, top, right, bottom = sides_of(results)[0]
    assert (left.mean, top.mean, right.mean, bottom.mean) == (20, 10, 60, 50)
    assert (left.std, top.std, right.std, bottom.std) == (1, 2, 3, 4)
    assert left.places.tolist() == [30, 22, 14, 6] and right.places.tolist() == [30, 38, 46, 54]
    assert top.places.tolist() == [25, 9, -7, -23] and bottom.places.tolist() == [25, 41, 57, 73]
    assert top.probabilities.tolist() == [0, 1, 0, 0] and bottom.spacing == 16
    assert right.half_width() == (60 - 46) + 8  # its one entry, at 46, and half a bar and more


def test_the_visible_part_has_entries_of_2_percent_and_more():
    places, probabilities = np.array([0.0, 10, 20, 30]), np.array([0.94, 0.019, 0.02, 0.021])
    assert Side(1.0, 4.0, places, probabilities).half_width() == 29 + 10
    assert Side(1.0, 4.0, places, probabilities[[0, 1, 3, 1]]).half_width() == 19 + 10


def test_a_gaussian_side():
    side = Side(5.0, 2.0)
    x = np.linspace(-15, 25, 4001)
    assert abs(side.density(x).sum() * 0.01 - 1) < 1e-6
    np.testing.assert_allclose(side.density(np.array([7.0, 5.0])), [0.120985, 0.199471], rtol=1e-5)
    assert side.half_width() == 6 and side.spacing == 0
