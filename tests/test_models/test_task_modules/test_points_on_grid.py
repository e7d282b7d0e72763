"""Assignment of FCOS and FoveaBox on the grid against MMDetection's, on random and on nasty objects."""

import math

import pytest
import torch
from cases import STRIDES, host_config, metas
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_gfl.models.dense_heads.points import assigns_as, point_targets
from mmdet_gfl.models.task_modules import Layout
from mmdet_gfl.models.task_modules.point_grid import claims_of

SETTINGS = dict(
    FCOS=[
        dict(center_sampling=False),
        dict(center_sampling=True),
        dict(center_sampling=True, center_sample_radius=0.7),
    ],
    Fovea=[dict(sigma=0.4), dict(sigma=0.9)],
)
CASES = [(host, setting) for host, settings in SETTINGS.items() for setting in settings]


def assert_same(host, setting, size, boxes):
    head = MODELS.build(host_config(host, **setting))
    sizes = [(math.ceil(size[0] / stride), math.ceil(size[1] / stride)) for stride in STRIDES]
    gts = [InstanceData(bboxes=of_image, labels=torch.arange(len(of_image)) % 5) for of_image in boxes]
    if host == 'FCOS':
        plain = point_targets(head, sizes, gts, lambda points, gt: torch.cat(head.get_targets(points, gt)[0]))
    else:
        plain = point_targets(head, sizes, gts, lambda points, gt: head.get_targets(gt, sizes, points)[0])
    found = head.targets(sizes, gts, metas(size, len(gts)), None)
    assert found.all_count and not plain.all_count  # the two are two
    for name in ('labels', 'label_weights', 'pos', 'gt', 'avg_factor', 'num_images'):
        assert torch.equal(torch.as_tensor(getattr(found, name)), torch.as_tensor(getattr(plain, name))), name
    for found_at, plain_at in zip(found.at, plain.at):
        assert torch.equal(found_at, plain_at)
    return found


@pytest.mark.agreement
@pytest.mark.parametrize('host, setting', CASES, ids=str)
def test_random_objects(host, setting):
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
        positives += len(assert_same(host, setting, size, boxes).pos)
    assert positives > 30


@pytest.mark.agreement
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
def test_nasty_objects(host, setting, boxes):
    objects = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    assert_same(host, setting, (96, 160), [objects, objects[:1]])


@pytest.mark.agreement
@pytest.mark.parametrize('setting', SETTINGS['FCOS'], ids=str)
def test_of_equal_areas_the_first_object_has_the_point(setting):
    boxes = torch.tensor([[20.3, 10.1, 100.3, 80.1]]).repeat(3, 1) + torch.tensor([[0.0], [0.0], [8.0]])
    assert_same('FCOS', setting, (96, 160), [boxes])


def test_cells_of_rectangles_by_hand():
    layout = Layout([(2, 3), (1, 1)], 1, [1, 1])
    first = torch.tensor([[[-4, 1], [0, 0]], [[2, 0], [1, 0]]])
    last = torch.tensor([[[1, 9], [-1, 5]], [[2, 1], [5, 5]]])
    claims = claims_of(layout, first, last)
    assert list(zip(*(part.tolist() for part in claims))) == [(0, 0, 1, 0), (0, 0, 1, 1), (1, 0, 0, 2), (1, 0, 1, 2)]


def test_an_overridden_assignment_is_used():
    head = MODELS.build(host_config('FCOS'))
    parent = type(head).__mro__[2 + [c.__name__ for c in type(head).__mro__[2:]].index('FCOSHead')]
    assert assigns_as(head, parent)
    head.__class__ = type('Own', (type(head),), dict(_get_targets_single=lambda *args, **kw: None))
    assert not assigns_as(head, parent)
