"""Targets of FCOS and FoveaBox on the grid against those of MMDetection's assignment."""

import math

import pytest
import torch
from cases import STRIDES, grid_batch, host_config
from mmdet.models.dense_heads import FCOSHead, FoveaHead
from mmdet.registry import MODELS

from mmdet_gfl.models.dense_heads.points import assigns_as, stock_targets
from mmdet_gfl.ops import LocationIndex

SETTINGS = dict(
    FCOS=[
        dict(center_sampling=False),
        dict(center_sampling=True),
        dict(center_sampling=True, center_sample_radius=0.7),
    ],
    Fovea=[dict(sigma=0.4), dict(sigma=0.9)],
)
CASES = [(host, setting) for host, settings in SETTINGS.items() for setting in settings]


def assert_same(host, setting, size, boxes, monkeypatch):
    """Assert that the head's targets are those of MMDetection's assignment, and return them."""
    head = MODELS.build(host_config(host, **setting))
    sizes = [(math.ceil(size[0] / stride), math.ceil(size[1] / stride)) for stride in STRIDES]
    batch = grid_batch(LocationIndex(sizes, len(boxes), [1] * len(STRIDES)), boxes)
    if host == 'FCOS':
        expected = stock_targets(head, batch, lambda points, gts: torch.cat(head.get_targets(points, gts)[0]))
    else:
        expected = stock_targets(head, batch, lambda points, gts: head.get_targets(gts, sizes, points)[0])
    with monkeypatch.context() as patched:
        patched.setattr(head, 'get_targets', lambda *_: pytest.fail('not on the grid'))
        found = head.targets(batch)
    assert torch.equal(found.pos.flat_inds, expected.pos.flat_inds)
    for name in ('labels', 'gt_bboxes'):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for one, other in zip(found.locations, expected.locations, strict=True):
        assert torch.equal(one, other)
    assert found.label_weights is expected.label_weights is None
    assert (found.avg_factor, found.num_images) == (expected.avg_factor, expected.num_images)
    return found


@pytest.mark.parametrize('host, setting', CASES, ids=str)
def test_random_objects(host, setting, monkeypatch):
    positives = 0
    for seed in range(8):
        rng = torch.Generator().manual_seed(seed)
        size = tuple(torch.randint(20, 900, (2,), generator=rng).tolist())
        boxes = []
        for _ in range(1 + seed % 3):
            extent = torch.tensor([size[1], size[0]])
            count = int(torch.randint(0, 40, (1,), generator=rng))
            corner = (torch.rand(count, 2, generator=rng) * 2 - 0.5) * extent
            sides = torch.rand(count, 2, generator=rng) * extent * torch.rand(count, 1, generator=rng) ** 3 + 1
            boxes.append(torch.cat((corner, corner + sides), dim=1))
        positives += len(assert_same(host, setting, size, boxes, monkeypatch).pos)
    assert positives > 30


@pytest.mark.parametrize('host, setting', CASES, ids=str)
@pytest.mark.parametrize(
    'boxes',
    [
        [],
        [[40.3, 30.2, 41.3, 31.2], [3.5, 3.5, 4.5, 4.5]],
        [[40.3, 30.2, 40.3, 30.2], [10.1, 50.3, 90.7, 50.3]],
        [[-500.3, -300.1, -410.2, -250.7], [900.1, 20.3, 990.7, 80.9], [-4e3, -4e3, 4e3, 4.1e3], [8e6, 0, 9e6, 5]],
        [[8.0, 8.0, 72.0, 72.0], [4.0, 4.0, 68.0, 132.0], [12.0, 20.0, 140.0, 148.0]],  # sides and limits on points
        [[-3.1, -5.9, 190.1, 155.3], [0.0, 0.0, 160.0, 3.0]],
    ],
    ids=['none', 'one-pixel', 'no-area', 'off-the-image', 'on-the-points', 'whole-image-and-a-line'],
)
def test_objects_at_the_limits(host, setting, boxes, monkeypatch):
    objects = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    assert_same(host, setting, (96, 160), [objects, objects[:1]], monkeypatch)


@pytest.mark.parametrize('setting', SETTINGS['FCOS'], ids=str)
def test_of_equal_areas_the_first_object_is_matched(setting, monkeypatch):
    boxes = torch.tensor([[20.3, 10.1, 100.3, 80.1]]).repeat(3, 1) + torch.tensor([[0.0], [0.0], [8.0]])
    assert_same('FCOS', setting, (96, 160), [boxes], monkeypatch)


@pytest.mark.parametrize('host, stock', [('FCOS', FCOSHead), ('Fovea', FoveaHead)])
@pytest.mark.parametrize('name', ['get_targets', '_get_targets_single'])
def test_an_overridden_assignment_is_used(host, stock, name):
    head = MODELS.build(host_config(host))
    assert assigns_as(head, stock)
    calls = []

    def own(self, *args, **kwargs):
        calls.append(name)
        return getattr(super(type(self), self), name)(*args, **kwargs)

    head.__class__ = type('Own', (type(head),), {name: own})
    assert not assigns_as(head, stock)
    index = LocationIndex([(12, 20), (6, 10), (3, 5), (2, 3), (1, 2)], 2, [1] * 5)
    head.targets(grid_batch(index, [torch.tensor([[10.0, 10, 80, 70]])] * 2))
    assert calls


def test_another_point_generator_is_not_on_the_grid():
    head = MODELS.build(host_config('FCOS'))
    head.prior_generator.__class__ = type('Own', (type(head.prior_generator),), {})
    assert not assigns_as(head, FCOSHead)


def test_strides_that_are_not_square_raise():
    head = MODELS.build(host_config('FCOS'))
    head.prior_generator.strides[1] = (16, 8)
    with pytest.raises(ValueError, match=r'strides: \(16, 8\) differ in width and height; .* one stride, as 16'):
        assigns_as(head, FCOSHead)
