"""ATSS on the grid against MMDetection's ``ATSSAssigner``, which looks at every anchor and every object."""

import math

import pytest
import torch
from cases import metas
from mmdet.models.task_modules.assigners import ATSSAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.models.utils import images_to_levels
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import AnchorGrid, Layout, atss_owners
from mmdet_gfl.models.task_modules.atss_on_grid import images_of, nearest

STRIDES = [8, 16, 32, 64, 128]


def generator(**changes):
    args = dict(ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=STRIDES)
    return AnchorGenerator(**dict(args, **changes))


def sizes_of(gen, size):
    return [(math.ceil(size[0] / down), math.ceil(size[1] / across)) for across, down in gen.strides]


def mmdetections(gen, sizes, images, boxes, k):
    """Owners (R,) by its assigner, image by image."""
    anchors = gen.grid_priors(sizes, device='cpu')
    per_level = [len(level) for level in anchors]
    flat, count, first, found = torch.cat(anchors), sum(map(len, boxes)), 0, []
    for meta, own in zip(images, boxes):
        valid = torch.cat(gen.valid_flags(sizes, meta['pad_shape'], 'cpu')).bool()
        inside = [int(flags.sum()) for flags in valid.split(per_level)]
        gt = InstanceData(bboxes=own, labels=torch.zeros(len(own), dtype=torch.long))
        numbers = ATSSAssigner(topk=k).assign(InstanceData(priors=flat[valid]), inside, gt).gt_inds
        owners = torch.full((len(flat),), count)
        owners[valid] = torch.where(numbers > 0, numbers - 1 + first, count)
        found.append(owners)
        first += len(own)
    return torch.cat([level.flatten() for level in images_to_levels(found, per_level)])


def assert_same(gen, size, boxes, k=9, images=None):
    images = images or metas(size, len(boxes))
    sizes = sizes_of(gen, size)
    owners = atss_owners(AnchorGrid.of(gen, sizes, images, 'cpu'), boxes, k)
    assert torch.equal(owners, mmdetections(gen, sizes, images, boxes, k))
    return owners


def random_boxes(count, size, rng, spread=1.5):
    """Objects of all sizes in the image, across its border and off it."""
    extent = torch.tensor([size[1], size[0]])
    corner = (torch.rand(count, 2, generator=rng) * 2 * spread - spread + 0.5) * extent
    sides = torch.rand(count, 2, generator=rng) * extent * torch.rand(count, 1, generator=rng) ** 3 + 1
    return torch.cat((corner, corner + sides), dim=1)


@pytest.mark.agreement
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


@pytest.mark.agreement
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
def test_nasty_objects(boxes):
    objects = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    assert_same(generator(), (96, 160), [objects, objects.flip(0)])


@pytest.mark.agreement
def test_more_objects_than_anchors():
    boxes = random_boxes(300, (64, 64), torch.Generator().manual_seed(0), 0.5)
    owners = assert_same(generator(strides=[8, 16], octave_base_scale=3), (64, 64), [boxes], 5)
    assert len(owners) == 80 and (owners < 300).any()


@pytest.mark.agreement
@pytest.mark.parametrize('k', [1, 9, 1000])
def test_fewer_anchors_than_candidates(k):
    assert_same(generator(), (30, 50), [random_boxes(7, (30, 50), torch.Generator().manual_seed(1), 0.6)], k)


@pytest.mark.parametrize('k', [1, 2, 9, 17])
def test_with_ties_in_distance_the_candidates_are_k_nearest(k):
    # Objects whose centres lie on cells' corners, edges and centres: which of the tied is taken does not matter.
    steps = torch.tensor([-64.0, -8, 0, 4, 8, 12, 60, 96, 200])
    centers = torch.cartesian_prod(steps, steps)
    boxes = torch.cat((centers - 20, centers + 20), dim=1)
    gen, size = generator(strides=[8, 16]), (64, 96)
    grid = AnchorGrid.of(gen, sizes_of(gen, size), metas(size, 1), 'cpu')
    near = nearest(grid, boxes, images_of([boxes]), k)
    for level, stride in enumerate([8, 16]):
        high, wide = grid.layout.sizes[level]
        cells = torch.cartesian_prod(torch.arange(wide), torch.arange(high)) * float(stride)
        expected = torch.cdist(centers, cells).sort(dim=1).values[:, :k]
        column, row = near.cells[:, :, level]
        found = (torch.stack((column, row), dim=-1) * float(stride) - centers[:, None]).norm(dim=-1)
        torch.testing.assert_close(found, expected)
        assert all(len(set(zip(*pair))) == k for pair in zip(column.tolist(), row.tolist()))


def test_of_equal_overlaps_the_first_object_has_the_anchor():
    box = torch.tensor([[21.7, 13.1, 140.9, 88.3]])
    owners = assert_same(generator(), (96, 160), [box.repeat(3, 1)])
    assert set(owners.tolist()) == {0, 3}


@pytest.mark.parametrize('changes', [{}, dict(center_offset=0.5, ratios=[0.5]), dict(strides=[(8, 16), (48, 24)])])
def test_anchors_are_the_generators_to_the_bit(changes):
    gen, size = generator(**changes), (70, 90)
    grid = AnchorGrid.of(gen, sizes_of(gen, size), metas(size, 2), 'cpu')
    expected = torch.cat([level.repeat(2, 1) for level in gen.grid_priors(sizes_of(gen, size), device='cpu')])
    assert torch.equal(grid.anchors(grid.layout.places(torch.arange(grid.layout.total))), expected)


def test_weights_are_the_valid_flags():
    gen, size = generator(), (100, 140)
    images = metas(size, 2)
    images[1]['pad_shape'] = (50, 90)
    sizes = sizes_of(gen, size)
    flags = [torch.cat(gen.valid_flags(sizes, meta['pad_shape'], 'cpu')) for meta in images]
    expected = torch.cat([level.flatten() for level in images_to_levels(flags, [h * w for h, w in sizes])])
    assert torch.equal(AnchorGrid.of(gen, sizes, images, 'cpu').weights(), expected.float())
    assert AnchorGrid.of(gen, sizes, images[:1], 'cpu').weights() is None


def test_which_generators_are_a_grid():
    assert AnchorGrid.fits(generator()) and AnchorGrid.fits(generator(ratios=[0.5, 1.0]))
    assert not AnchorGrid.fits(generator(use_box_type=True))
    assert not AnchorGrid.fits(type('Other', (AnchorGenerator,), {})(strides=[8], ratios=[1.0], scales=[8]))


def test_memory_does_not_grow_with_anchors_times_objects():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.elements = max(self.elements, tensor.untyped_storage().nbytes())
            return result

    gen, size = generator(), (800, 1344)
    grid = AnchorGrid.of(gen, sizes_of(gen, size), metas(size, 1), 'cpu')
    assert isinstance(grid.layout, Layout) and grid.layout.total == 22400
    boxes = random_boxes(1000, size, torch.Generator().manual_seed(0), 0.5)
    with Largest() as seen:
        atss_owners(grid, [boxes], 9)
    assert seen.elements < 22400 * 1000 * 4 / 20
