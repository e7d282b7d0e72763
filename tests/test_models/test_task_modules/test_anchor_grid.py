"""Anchors as a grid: those of MMDetection's generators, at coordinates of the index, and its valid flags."""

import math

import pytest
import torch
from cases import metas
from mmdet.models.task_modules.prior_generators import AnchorGenerator, SSDAnchorGenerator
from mmdet.models.utils import images_to_levels

from mmdet_gfl.models.task_modules import AnchorGrid
from mmdet_gfl.ops import LocationIndex

ATSS = dict(ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32, 64, 128])
SSD = dict(scale_major=False, input_size=300, basesize_ratio_range=(0.15, 0.9), strides=[8, 16, 32, 64, 100, 300])
GENERATORS = {
    'atss': lambda: AnchorGenerator(**ATSS),
    'atss-offset': lambda: AnchorGenerator(**dict(ATSS, center_offset=0.5, ratios=[0.5])),
    'two-strides': lambda: AnchorGenerator(**dict(ATSS, strides=[(8, 16), (48, 24)])),
    'retina': lambda: AnchorGenerator(**dict(ATSS, scales_per_octave=3, ratios=[0.5, 1.0, 2.0])),
    'gaps': lambda: AnchorGenerator(scales=[0.9], ratios=[0.7, 1.0], strides=[(16, 32), (48, 32)], center_offset=0.5),
    'ssd': lambda: SSDAnchorGenerator(**SSD, ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]]),
}
each_generator = pytest.mark.parametrize('name', GENERATORS)


def grid_of(name, size, images):
    generator = GENERATORS[name]()
    sizes = [(math.ceil(size[0] / dy), math.ceil(size[1] / dx)) for dx, dy in generator.strides]
    index = LocationIndex(sizes, len(images), generator.num_base_priors)
    return generator, AnchorGrid.of(generator, index, images, 'cpu')


@each_generator
def test_anchors_are_the_generators_to_the_bit(name):
    generator, grid = grid_of(name, (70, 90), metas((70, 90), 2))
    index = grid.location_index
    coords = index.coords(torch.arange(index.total))
    levels = generator.grid_priors(index.featmap_sizes, device='cpu')
    assert torch.equal(grid.anchors_at(coords), torch.cat([level.repeat(2, 1) for level in levels]))
    order = torch.randperm(index.total)[:50]
    level, y, x, prior = (
        torch.as_tensor(values).expand(index.total)[order]
        for values in (coords.level, coords.y, coords.x, coords.prior)
    )
    assert torch.equal(grid.anchors(level, y, x, prior), grid.anchors_at(coords)[order])
    assert torch.equal(index.flat_inds(level, coords.image[order], y, x, prior), order)


@each_generator
def test_label_weights_are_the_valid_flags(name):
    images = metas((100, 140), 2)
    images[1]['pad_shape'] = (50, 90)
    generator, grid = grid_of(name, (100, 140), images)
    sizes = grid.location_index.featmap_sizes
    flags = [torch.cat(generator.valid_flags(sizes, meta['pad_shape'], 'cpu')) for meta in images]
    per_level = [h * w * a for (h, w), a in zip(sizes, generator.num_base_priors)]
    expected = torch.cat([level.flatten() for level in images_to_levels(flags, per_level)])
    assert torch.equal(grid.label_weights(), expected.float()) and expected.min() == 0


@each_generator
def test_no_label_weights_where_all_anchors_are_valid(name):
    assert grid_of(name, (100, 140), metas((100, 140), 2))[1].label_weights() is None


@each_generator
def test_level_of_each_shape(name):
    generator, grid = grid_of(name, (70, 90), metas((70, 90), 1))
    levels = [level for level, count in enumerate(generator.num_base_priors) for _ in range(count)]
    assert grid.levels.tolist() == levels


def test_generators_that_are_a_grid():
    assert all(AnchorGrid.fits(generator()) for generator in GENERATORS.values())
    assert not AnchorGrid.fits(AnchorGenerator(**ATSS, use_box_type=True))
    assert not AnchorGrid.fits(type('Other', (AnchorGenerator,), {})(strides=[8], ratios=[1.0], scales=[8]))
