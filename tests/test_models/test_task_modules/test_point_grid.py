"""Points as a grid: those of MMDetection's generator, and the cells that objects claim, by hand."""

import pytest
import torch
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator

from mmdet_gfl.models.task_modules import PointGrid
from mmdet_gfl.models.task_modules.point_grid import Claims, cells_in, claimed_cells, image_inds, match_by_rank
from mmdet_gfl.ops import LocationIndex


@pytest.mark.parametrize('offset', [0.5, 0])
@pytest.mark.parametrize('strides', [[8, 16], [(8, 16), (48, 24)]], ids=str)
def test_points_are_the_generators_to_the_bit(strides, offset):
    generator, sizes = MlvlPointGenerator(strides, offset), [(7, 9), (3, 2)]
    index = LocationIndex(sizes, 2, [1, 1])
    grid = PointGrid.of(generator, index, 'cpu')
    expected = torch.cat([level.repeat(2, 1) for level in generator.grid_priors(sizes, device='cpu')])
    coords = index.coords(torch.arange(index.total))
    assert torch.equal(grid.points_at(coords), expected)
    assert torch.equal(grid.points(coords.level, coords.x, coords.y), expected)


def test_generators_that_are_a_grid():
    assert PointGrid.fits(MlvlPointGenerator([8]))
    assert not PointGrid.fits(type('Other', (MlvlPointGenerator,), {})([8]))


def test_claimed_cells_by_hand():
    index = LocationIndex([(2, 3), (1, 1)], 1, [1, 1])
    first = torch.tensor([[[-4, 1], [0, 0]], [[2, 0], [1, 0]]])
    last = torch.tensor([[[1, 9], [-1, 5]], [[2, 1], [5, 5]]])
    claims = claimed_cells(index, first, last)
    by_name = zip(claims.gt.tolist(), claims.level.tolist(), claims.y.tolist(), claims.x.tolist())
    assert list(by_name) == [(0, 0, 1, 0), (0, 0, 1, 1), (1, 0, 0, 2), (1, 0, 1, 2)]


def test_cells_of_rectangles_by_hand():
    # 2 x 2 cells from (1, 3), none, one cell.
    first = torch.tensor([[1, 3], [4, 0], [0, 0]])
    last = torch.tensor([[2, 4], [3, 9], [0, 0]])
    which, column, row = cells_in(first, last)
    assert which.tolist() == [0, 0, 0, 0, 2]
    assert column.tolist() == [1, 2, 1, 2, 0] and row.tolist() == [3, 3, 4, 4, 0]


def test_the_first_of_the_ranking_is_matched():
    # Three objects, the last one in image 1; the ranking is 2, 1, 0. A claim that is not valid does not count.
    index = LocationIndex([(1, 3)], 2, [1])
    gt, x = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 2, 1, 2, 0])
    zero = torch.zeros(6, dtype=torch.long)
    valid = torch.tensor([True, True, True, True, False, True])
    matched = match_by_rank(index, Claims(gt, zero, zero, x), torch.tensor([0, 0, 1]), valid, torch.tensor([2, 1, 0]))
    assert matched.tolist() == [0, 1, 0, 2, 3, 3]


def test_image_of_each_object():
    assert image_inds([torch.zeros(2, 4), torch.zeros(0, 4), torch.zeros(1, 4)]).tolist() == [0, 0, 2]
    assert image_inds([torch.zeros(0, 4)]).dtype == torch.int64
