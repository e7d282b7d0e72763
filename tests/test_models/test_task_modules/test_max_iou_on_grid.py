"""Assignment by IoU on the grid against MMDetection's, which measures every anchor and every object."""

import math

import pytest
import torch
from cases import metas, stock_config
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator, SSDAnchorGenerator
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import AnchorGrid, MaxIoURules, match_max_iou
from mmdet_gfl.models.task_modules.max_iou_on_grid import pairs_of
from mmdet_gfl.models.task_modules.point_grid import image_inds
from mmdet_gfl.ops import LocationIndex

STRIDES = [8, 16, 32, 64, 128]
RETINA = dict(pos_iou_thr=0.5, neg_iou_thr=0.4)
SSD = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, gt_max_assign_all=False)
GENERATORS = {
    'retina': (
        AnchorGenerator,
        dict(octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=STRIDES),
        RETINA,
    ),
    'ssd300': (
        SSDAnchorGenerator,
        dict(
            scale_major=False,
            input_size=300,
            basesize_ratio_range=(0.15, 0.9),
            strides=[8, 16, 32, 64, 100, 300],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        ),
        SSD,
    ),
    'ssd512': (
        SSDAnchorGenerator,
        dict(
            scale_major=False,
            input_size=512,
            basesize_ratio_range=(0.1, 0.9),
            strides=[8, 16, 32, 64, 128, 256, 512],
            ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
        ),
        SSD,
    ),
    # Anchors with gaps between them, and of strides that differ in width and height.
    'gaps': (
        AnchorGenerator,
        dict(scales=[0.9], ratios=[0.7, 1.0], strides=[(16, 32), (48, 32)], center_offset=0.5),
        RETINA,
    ),
}
RULES = [
    {},
    dict(gt_max_assign_all=False),
    dict(gt_max_assign_all=True, min_pos_iou=0.3),
    dict(match_low_quality=False),
    dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.05, gt_max_assign_all=False),
    dict(pos_iou_thr=0.3, neg_iou_thr=0.6),
]


def generator(name):
    kind, args, _ = GENERATORS[name]
    return kind(**args)


def assigner(name, **changes):
    return MaxIoUAssigner(**dict(dict(GENERATORS[name][2], min_pos_iou=0.0, ignore_iof_thr=-1), **changes))


def sizes_of(gen, size):
    return [(math.ceil(size[0] / down), math.ceil(size[1] / across)) for across, down in gen.strides]


def grid_of(gen, size, images):
    index = LocationIndex(sizes_of(gen, size), len(images), gen.num_base_priors)
    return AnchorGrid.of(gen, index, images, 'cpu')


def match_by_mmdetection(gen, sizes, images, boxes, assigns):
    """``matched_gt_inds`` and weights (R,), and the number of positives as it is counted, by MMDetection's head."""
    head = MODELS.build(stock_config('Retina'))
    count = sum(map(len, boxes))
    head.prior_generator, head.assigner, head.num_classes, head.reg_decoded_bbox = gen, assigns, count, True
    gt_inds = torch.arange(count).split([len(own) for own in boxes])
    gts = [InstanceData(bboxes=own, labels=of_image) for own, of_image in zip(boxes, gt_inds)]
    anchors, flags = head.get_anchors(sizes, images, device='cpu')
    matched, weights, *_, avg_factor = head.get_targets(anchors, flags, gts, images)
    return *(torch.cat([level.flatten() for level in levels]) for levels in (matched, weights)), avg_factor


def assert_same(name, size, boxes, images=None, **rules):
    """Assert that result, weights and the count of positives are MMDetection's, and return the first two."""
    gen, assigns = generator(name), assigner(name, **rules)
    images = images or metas(size, len(boxes))
    grid = grid_of(gen, size, images)
    matched, weights = match_max_iou(grid, boxes, MaxIoURules.of(assigns))
    weights = torch.ones(len(matched)) if weights is None else weights
    expected = match_by_mmdetection(gen, sizes_of(gen, size), images, boxes, assigns)
    assert torch.equal(matched, expected[0])
    assert torch.equal(weights, expected[1])
    pos = grid.location_index.coords((matched < sum(map(len, boxes))).nonzero().squeeze(1))
    assert pos.image.bincount(minlength=len(boxes)).clamp(min=1).sum() == expected[2]
    return matched, weights


def random_boxes(count, size, rng, spread=1.5):
    """Objects of all sizes and shapes in the image, across its border and off it; every third on whole pixels."""
    extent = torch.tensor([size[1], size[0]])
    corner = (torch.rand(count, 2, generator=rng) * 2 * spread - spread + 0.5) * extent
    sides = torch.rand(count, 2, generator=rng) ** 3 * extent * torch.rand(count, 1, generator=rng) + 1
    boxes = torch.cat((corner, corner + sides), dim=1)
    boxes[::3] = boxes[::3].round()
    return boxes


@pytest.mark.parametrize('name', GENERATORS)
@pytest.mark.parametrize('seed', range(24))
def test_random_objects(name, seed):
    rng = torch.Generator().manual_seed(seed)
    size, count = tuple(torch.randint(20, 600, (2,), generator=rng).tolist()), 1 + seed % 3
    images = metas(size, count)
    if seed % 2:  # the images of a batch are padded differently
        for meta in images:
            meta['pad_shape'] = tuple(int(torch.randint(1, side + 1, (1,), generator=rng)) for side in size)
    spread = [0.5, 1.5][seed % 5 == 0]
    boxes = [random_boxes(int(torch.randint(0, 40, (1,), generator=rng)), size, rng, spread) for _ in images]
    assert_same(name, size, boxes, images, **RULES[seed % len(RULES)])


LIMITS = {
    'none': [],
    'one-pixel': [[40.3, 30.2, 41.3, 31.2], [64, 32, 65, 33]],
    'no-area': [[40.3, 30.2, 40.3, 30.2], [10.1, 50.3, 90.7, 50.3]],
    'no-area-last': [[21.7, 13.1, 140.9, 88.3], [10.1, 50.3, 90.7, 50.3]],
    'duplicates': [[21.7, 13.1, 140.9, 88.3]] * 3 + [[40.3, 30.2, 41.3, 31.2]] * 2,
    'off-the-image': [[-500.3, -300.1, -410.2, -250.7], [900.1, 20.3, 990.7, 80.9], [30, 30, 60, 60]],
    'far-off': [[8e7, 0, 9e7, 50], [-9e7, -9e7, -8e7, -8.5e7]],
    'hardly-on-the-grid': [[-200, -200, -22.6, -11.3], [-200, 20, -45.2, 60], [230, 140, 300, 200]],
    'whole-image': [[-31.3, -17.9, 190.1, 155.3], [2.1, 2.3, 157.7, 93.9], [0, 0, 160, 96]],
    'far-larger': [[-9e6, -9e6, 9e6, 9.1e6], [-1000, -1000, 1e4, 1e4], [-5e7, 10, 60, 70]],
    'thin': [[-300, 40, 900, 41], [70.5, -1000, 72, 1000]],
    'anchors-themselves': [[-16, -16, 16, 16], [0, 0, 32, 32], [48, 16, 112, 80], [-48, -48, 80, 80]],
    'between-two-anchors': [[20, 20, 28, 28], [4, 4, 36, 36], [36, 4, 68, 36], [12, 12, 20, 20]],
}


@pytest.mark.parametrize('rules', RULES, ids=str)
@pytest.mark.parametrize('name', GENERATORS)
@pytest.mark.parametrize('boxes', LIMITS.values(), ids=LIMITS)
def test_objects_at_the_limits(boxes, name, rules):
    objects = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    images = metas((96, 160), 3)
    images[2]['pad_shape'] = (50, 70)
    assert_same(name, (96, 160), [objects, objects.flip(0), objects[:1]], images, **rules)


@pytest.mark.parametrize('name', GENERATORS)
@pytest.mark.parametrize(
    'rules',
    [{}, dict(gt_max_assign_all=False), dict(pos_iou_thr=0.7, neg_iou_thr=0.5, match_low_quality=False)],
    ids=str,
)
def test_exact_ties_and_thresholds_reached_exactly(name, rules):
    # On whole pixels, every object has several best anchors, and several of IoU 0.5.
    steps = torch.arange(0, 160, 20.0)
    corner = torch.cartesian_prod(steps, steps)
    sides = torch.tensor([[8.0, 8], [16, 16], [64, 32], [32, 32]]).repeat(16, 1)
    assert_same(name, (160, 160), [torch.cat((corner, corner + sides), dim=1)], **rules)


def test_all_equal_best_anchors_or_the_first():
    # An object of 8 x 8 px around (64, 64) lies in the smallest anchors, 16 px to each side, of 5 x 3 or 3 x 3 cells.
    boxes = [torch.tensor([[60.0, 60, 68, 68]])]
    kind = dict(scales=[4], ratios=[1.0], strides=[8, 16])
    grid = grid_of(AnchorGenerator(**kind), (128, 128), metas((128, 128), 1))
    for all_best, expected in ((True, [16 * y + x for y in (7, 8, 9) for x in (7, 8, 9)]), (False, [16 * 7 + 7])):
        matched, weights = match_max_iou(grid, boxes, MaxIoURules(0.5, 0.4, 0.0, all_best))
        assert (matched == 0).nonzero().flatten().tolist() == expected
        assert weights.min() == 1


def test_of_equal_objects_the_first_has_the_anchors_and_the_last_their_best():
    box = torch.tensor([[16.0, 16, 48, 48]])
    matched, _ = assert_same('retina', (96, 160), [box.repeat(3, 1)], match_low_quality=False)
    assert set(matched.tolist()) == {0, 3}
    matched, _ = assert_same('retina', (96, 160), [box.repeat(3, 1)])
    assert (matched == 2).sum() == 1 and (matched == 0).sum() > 1 and not (matched == 1).any()


def test_anchors_between_the_thresholds_do_not_count():
    matched, weights = assert_same('retina', (96, 160), [torch.tensor([[16.0, 16, 48, 48]])])
    assert 0 < (weights == 0).sum() < 50 and (matched[weights == 0] == 1).all()


@pytest.mark.parametrize('name', ['retina', 'ssd300'])
def test_more_objects_than_anchors(name):
    size = (32, 40)
    matched, _ = assert_same(name, size, [random_boxes(1500, size, torch.Generator().manual_seed(0), 0.5)])
    assert len(matched) < 1500 and (matched < 1500).any()


@pytest.mark.parametrize('name', GENERATORS)
@pytest.mark.parametrize('changes', RULES, ids=str)
def test_float64(name, changes):
    # MMDetection's head cannot hold such objects beside its anchors in float32; its assigner can.
    gen, assigns, size = generator(name), assigner(name, **changes), (200, 280)
    rng = torch.Generator().manual_seed(7)
    boxes = [random_boxes(25, size, rng, 0.5).double() + torch.rand(25, 4, generator=rng, dtype=torch.float64) / 1e7]
    matched, weights = match_max_iou(grid_of(gen, size, metas(size, 1)), boxes, MaxIoURules.of(assigns))
    anchors = InstanceData(priors=torch.cat(gen.grid_priors(sizes_of(gen, size), device='cpu')))
    found = assigns.assign(anchors, InstanceData(bboxes=boxes[0], labels=torch.zeros(25, dtype=torch.long))).gt_inds
    assert torch.equal(matched, torch.where(found > 0, found - 1, 25))
    assert torch.equal(torch.ones(len(matched)) if weights is None else weights, (found >= 0).float())


def test_many_objects_in_a_large_image():
    boxes = [random_boxes(60, (800, 1344), torch.Generator().manual_seed(3), 0.5)]
    assert_same('retina', (800, 1344), boxes)


@pytest.mark.parametrize('name', GENERATORS)
def test_pairs_are_all_that_reach_the_threshold_each_once(name):
    gen, size = generator(name), (300, 420)
    grid = grid_of(gen, size, metas(size, 1))
    boxes = random_boxes(40, size, torch.Generator().manual_seed(2), 0.5)
    rules = MaxIoURules.of(assigner(name))
    pairs = pairs_of(grid, boxes, image_inds([boxes]), rules)
    assert len(set(zip(pairs.gt.tolist(), pairs.flat_inds.tolist()))) == len(pairs.gt)
    anchors = torch.cat(gen.grid_priors(grid.location_index.featmap_sizes, device='cpu'))
    overlaps = assigner(name).iou_calculator(boxes, anchors)
    assert torch.equal(pairs.iou, overlaps[pairs.gt, pairs.flat_inds])  # to the bit
    overlaps[pairs.gt, pairs.flat_inds] = -1
    assert overlaps.max() < rules.lowest


def test_assigners_that_these_rules_describe():
    assert MaxIoURules.fit(assigner('retina')) and MaxIoURules.fit(assigner('ssd300', match_low_quality=False))
    for changes in (
        dict(neg_iou_thr=(0.1, 0.4)),
        dict(neg_iou_thr=0.0),
        dict(neg_iou_thr=1),  # MMDetection takes a float only: there is no background
        dict(pos_iou_thr=0.0),
        dict(perm_repeat_gt_cfg=dict(iou_thr=0.7)),
    ):
        assert not MaxIoURules.fit(assigner('retina', **changes)), changes
    assert not MaxIoURules.fit(type('Own', (MaxIoUAssigner,), {})(**RETINA))


def test_memory_grows_with_the_objects_only():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.elements = max(self.elements, tensor.numel())
            return result

    gen, size = generator('retina'), (800, 1344)
    grid = grid_of(gen, size, metas(size, 1))
    boxes = random_boxes(500, size, torch.Generator().manual_seed(0), 0.5)
    with Largest() as largest:
        match_max_iou(grid, [boxes], MaxIoURules.of(assigner('retina')))
    assert grid.location_index.total == 201600 and largest.elements < 201600 * 500 / 50
