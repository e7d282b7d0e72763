"""ATSS on the grid against MMDetection's ``ATSSAssigner``, which measures every anchor and every object."""

import math

import pytest
import torch
from cases import metas
from mmdet.models.task_modules.assigners import ATSSAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.models.utils import images_to_levels
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import AnchorGrid, match_atss
from mmdet_gfl.models.task_modules.atss_on_grid import nearest
from mmdet_gfl.models.task_modules.point_grid import image_inds
from mmdet_gfl.ops import LocationIndex

STRIDES = [8, 16, 32, 64, 128]


def generator(**changes):
    args = dict(ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES)
    return AnchorGenerator(**dict(args, **changes))


def sizes_of(gen, size):
    return [(math.ceil(size[0] / down), math.ceil(size[1] / across)) for across, down in gen.strides]


def grid_of(gen, size, images):
    index = LocationIndex(sizes_of(gen, size), len(images), gen.num_base_priors)
    return AnchorGrid.of(gen, index, images, 'cpu')


def match_by_mmdetection(gen, sizes, images, boxes, k):
    """``matched_gt_inds`` (R,) by its assigner, image by image."""
    anchors = gen.grid_priors(sizes, device='cpu')
    per_level = [len(level) for level in anchors]
    flat, count, first, found = torch.cat(anchors), sum(map(len, boxes)), 0, []
    for meta, own in zip(images, boxes):
        valid = torch.cat(gen.valid_flags(sizes, meta['pad_shape'], 'cpu')).bool()
        inside = [int(flags.sum()) for flags in valid.split(per_level)]
        gt = InstanceData(bboxes=own, labels=torch.zeros(len(own), dtype=torch.long))
        gt_inds = ATSSAssigner(topk=k).assign(InstanceData(priors=flat[valid]), inside, gt).gt_inds
        matched = torch.full((len(flat),), count)
        matched[valid] = torch.where(gt_inds > 0, gt_inds - 1 + first, count)
        found.append(matched)
        first += len(own)
    return torch.cat([level.flatten() for level in images_to_levels(found, per_level)])


def assert_same(gen, size, boxes, k=9, images=None):
    """Assert that the result is MMDetection's, and return it."""
    images = images or metas(size, len(boxes))
    matched = match_atss(grid_of(gen, size, images), boxes, k)
    assert torch.equal(matched, match_by_mmdetection(gen, sizes_of(gen, size), images, boxes, k))
    return matched


def random_boxes(count, size, rng, spread=1.5):
    """Objects of all sizes in the image, across its border and off it."""
    extent = torch.tensor([size[1], size[0]])
    corner = (torch.rand(count, 2, generator=rng) * 2 * spread - spread + 0.5) * extent
    sides = torch.rand(count, 2, generator=rng) * extent * torch.rand(count, 1, generator=rng) ** 3 + 1
    return torch.cat((corner, corner + sides), dim=1)


@pytest.mark.parametrize('seed', range(40))
def test_random_objects(seed):
    rng = torch.Generator().manual_seed(seed)
    size = tuple(torch.randint(20, 700, (2,), generator=rng).tolist())
    changes = [{}, dict(ratios=[0.5]), dict(center_offset=0.5), dict(strides=[(8, 16), (16, 16), (64, 24)])][seed % 4]
    gen, count = generator(**changes), 1 + seed % 3
    images = metas(size, count)
    if seed % 2:  # the images of a batch are padded differently
        for meta in images:
            meta['pad_shape'] = tuple(int(torch.randint(1, side + 1, (1,), generator=rng)) for side in size)
    boxes = [random_boxes(int(torch.randint(0, 40, (1,), generator=rng)), size, rng) for _ in images]
    k = int(torch.randint(1, 30, (1,), generator=rng))
    assert_same(gen, size, boxes, k, images)


@pytest.mark.parametrize(
    'boxes',
    [
        [],
        [[40.3, 30.2, 41.3, 31.2]],  # one pixel
        [[40.3, 30.2, 40.3, 30.2], [10.1, 50.3, 90.7, 50.3]],  # no area
        [[21.7, 13.1, 140.9, 88.3]] * 5,  # the same again
        [[-500.3, -300.1, -410.2, -250.7], [900.1, 20.3, 990.7, 80.9], [-9e6, -9e6, 9e6, 9.1e6], [8e7, 0, 9e7, 50]],
        [[-31.3, -17.9, 190.1, 155.3], [2.1, 2.3, 157.7, 93.9]],  # the whole image
    ],
    ids=['none', 'one-pixel', 'no-area', 'duplicates', 'off-the-image', 'whole-image'],
)
def test_objects_at_the_limits(boxes):
    objects = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    assert_same(generator(), (96, 160), [objects, objects.flip(0)])


def test_more_objects_than_anchors():
    boxes = random_boxes(300, (64, 64), torch.Generator().manual_seed(0), 0.5)
    matched = assert_same(generator(strides=[8, 16], octave_base_scale=3), (64, 64), [boxes], 5)
    assert len(matched) == 80 and (matched < 300).any()


@pytest.mark.parametrize('k', [1, 9, 1000])
def test_fewer_anchors_than_candidates(k):
    assert_same(generator(), (30, 50), [random_boxes(7, (30, 50), torch.Generator().manual_seed(1), 0.6)], k)


@pytest.mark.parametrize('k', [1, 2, 9, 17])
def test_with_ties_in_distance_the_candidates_are_k_nearest(k):
    # Objects whose centres lie on cells' corners, edges and centres; any choice among the tied is correct.
    steps = torch.tensor([-64.0, -8, 0, 4, 8, 12, 60, 96, 200])
    centers = torch.cartesian_prod(steps, steps)
    boxes = torch.cat((centers - 20, centers + 20), dim=1)
    gen, size = generator(strides=[8, 16]), (64, 96)
    grid = grid_of(gen, size, metas(size, 1))
    near = nearest(grid, boxes, image_inds([boxes]), k)
    for level, stride in enumerate([8, 16]):
        height, width = grid.location_index.featmap_sizes[level]
        cells = torch.cartesian_prod(torch.arange(width), torch.arange(height)) * float(stride)
        expected = torch.cdist(centers, cells).sort(dim=1).values[:, :k]
        column, row = near.cells[:, :, level]
        found = (torch.stack((column, row), dim=-1) * float(stride) - centers[:, None]).norm(dim=-1)
        torch.testing.assert_close(found, expected)
        assert all(len(set(zip(*pair))) == k for pair in zip(column.tolist(), row.tolist()))


@pytest.mark.parametrize('inside, positive', [(-0.005, False), (0.005, False), (0.009, False), (0.02, True)])
@pytest.mark.parametrize('side', range(4))
def test_centers_of_positives_lie_a_hundredth_of_a_pixel_inside(side, inside, positive):
    # Nine anchors of stride 8 with centres at 32, 40, 48 and 24, 32, 40; one side passes beside three of them.
    box = torch.tensor([30.0, 22, 50, 42])
    on_centers = torch.tensor([32.0, 24, 48, 40])
    box[side] = on_centers[side] + (inside if side > 1 else -inside)
    matched = assert_same(generator(), (96, 160), [box[None]])
    centers = torch.cartesian_prod(torch.arange(24, 41, 8), torch.arange(32, 49, 8))
    expected = [
        20 * (y // 8) + x // 8
        for y, x in centers.tolist()
        if positive or (x if side % 2 == 0 else y) != on_centers[side]
    ]
    assert (matched == 0).nonzero().flatten().tolist() == expected


def test_of_equal_overlaps_the_first_object_is_matched():
    box = torch.tensor([[21.7, 13.1, 140.9, 88.3]])
    matched = assert_same(generator(), (96, 160), [box.repeat(3, 1)])
    assert set(matched.tolist()) == {0, 3}


def test_memory_does_not_grow_with_anchors_times_objects():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        num_bytes = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.num_bytes = max(self.num_bytes, tensor.untyped_storage().nbytes())
            return result

    gen, size = generator(), (800, 1344)
    grid = grid_of(gen, size, metas(size, 1))
    assert grid.location_index.total == 22400
    boxes = random_boxes(1000, size, torch.Generator().manual_seed(0), 0.5)
    with Largest() as largest:
        match_atss(grid, [boxes], 9)
    assert largest.num_bytes < 22400 * 1000 * 4 / 20
