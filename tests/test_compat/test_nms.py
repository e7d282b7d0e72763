"""The stand-in's NMS and soft-NMS, called as ``mmcv.ops`` calls them, on torch alone and through torchvision."""

import importlib
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms, nms, soft_nms

from mmdet_gfl.compat import mmcv_ext, mmcv_flavour
from mmdet_gfl.compat import nms as stand_in
from mmdet_gfl.compat.operators import torchvision_ops

pytestmark = pytest.mark.filterwarnings('error::RuntimeWarning')  # numpy's, of 0 / 0

NAN, INF = float('nan'), float('inf')
compiled = pytest.mark.skipif(mmcv_flavour() != 'compiled', reason='mmcv is installed without compiled operators')


@pytest.fixture(autouse=True, params=['numpy', 'torch', 'torchvision'] if torchvision_ops() else ['numpy', 'torch'])
def backend(request, monkeypatch):
    """Let mmcv's wrappers call the stand-in, whatever mmcv was installed, and the stand-in each of its ways."""
    if request.param != 'torchvision':
        monkeypatch.setattr(stand_in, 'torchvision_ops', lambda: None)
    if request.param == 'torch':  # as on a GPU
        monkeypatch.setattr(stand_in, '_NUMPY_DEVICES', ())
    monkeypatch.setattr(importlib.import_module('mmcv.ops.nms'), 'ext_module', mmcv_ext)
    return request.param


def boxes_of(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def kept(boxes, scores, threshold, **kwargs):
    """The indices that ``mmcv.ops.nms`` keeps; the detections must be their rows."""
    scores = torch.as_tensor(scores)
    dets, indices = nms(boxes, scores, threshold, **kwargs)
    rows = torch.cat([boxes, scores[:, None]], 1)[indices]
    torch.testing.assert_close(dets, rows, rtol=0, atol=0, equal_nan=True)
    return indices.tolist()


def exact_iou(a, b, offset):
    """IoU of boxes of whole numbers as a fraction; None for 0 / 0."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(x2 - x1 + offset) * (y2 - y1 + offset) for x1, y1, x2, y2 in (a, b)]
    union = sum(areas) - width * height
    return Fraction(width * height, union) if union else None


def exact_nms(boxes, scores, threshold, offset):
    rows = tuple(tuple(int(value) for value in row) for row in boxes.tolist())
    return list(exact_nms_of(rows, tuple(scores.tolist()), threshold, offset))


@cache
def exact_nms_of(rows, scores, threshold, offset):
    left = sorted(range(len(rows)), key=lambda i: -scores[i])
    result = []
    while left:
        best, *left = left
        result.append(best)
        ious = {i: exact_iou(rows[best], rows[i], offset) for i in left}
        left = [i for i in left if ious[i] is None or ious[i] <= threshold]
    return result


def whole_boxes(count, seed, size=12):
    """Boxes of whole numbers, many of them empty or inverted, and distinct scores, some below 0 and one of them 0."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 25, (count, 2), generator=generator)
    sizes = torch.randint(-2, size, (count, 2), generator=generator)
    scores = (torch.randperm(count, generator=generator) - count // 4).float() / 64
    return torch.cat([corners, corners + sizes], 1).float(), scores


def scattered(count, num_classes, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 1333
    boxes = torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * size], 1)
    scores = (torch.randperm(count, generator=generator) + 1) / count
    return boxes, scores, torch.randint(num_classes, (count,), generator=generator)


def test_drops_above_the_threshold_and_not_at_it():
    boxes = boxes_of([0, 0, 10, 10], [0, 0, 10, 5])  # IoU 1/2
    assert kept(boxes, [0.9, 0.8], 0.5) == [0, 1]
    assert kept(boxes, [0.9, 0.8], 0.49) == [0]
    assert kept(boxes, [0.8, 0.9], 0.49) == [1]


def test_offset_counts_the_last_pixel():
    boxes = boxes_of([0, 0, 9, 9], [0, 0, 9, 4])  # 10 x 10 and 10 x 5 pixels: 1/2; as lengths 36/81
    assert kept(boxes, [0.9, 0.8], 0.49, offset=1) == [0]
    assert kept(boxes, [0.9, 0.8], 0.49, offset=0) == [0, 1]


def test_a_dropped_box_drops_nothing():
    chain = boxes_of([0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1])  # IoU 6/14 from each to the next
    assert kept(chain, [0.9, 0.8, 0.7], 0.4) == [0, 2]


def test_result_is_sorted_by_score():
    boxes = boxes_of([0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10])
    assert kept(boxes, [0.2, 0.9, 0.5], 0.5) == [1, 2, 0]


def test_empty_input():
    dets, indices = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert indices.shape == (0,) and indices.dtype == torch.int64


def test_one_box():
    assert kept(boxes_of([1, 2, 3, 4]), [0.3], 0.5) == [0]


def test_identical_boxes_leave_the_best():
    assert kept(boxes_of(*[[3, 3, 7, 8]] * 300), torch.linspace(0, 1, 300), 0.99) == [299]


@pytest.mark.parametrize('offset, expected', [(0, [0, 1, 2]), (1, [0, 2])])
def test_boxes_without_area_overlap_nothing_unless_the_last_pixel_counts(offset, expected):
    boxes = boxes_of([5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10])
    assert kept(boxes, [0.9, 0.8, 0.7], 0.5, offset=offset) == expected


def test_scores_of_zero_and_below_are_kept():
    boxes = boxes_of([0, 0, 1, 1], [5, 5, 6, 6], [5, 5, 6, 6], [8, 8, 9, 9])
    assert kept(boxes, [0.0, -0.1, -0.2, 0.5], 0.5) == [3, 0, 1]


def test_score_threshold_is_exclusive_and_indices_are_those_of_the_input():
    boxes = boxes_of([0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5], [4, 4, 5, 5])
    assert kept(boxes, [0.25, 0.1, 0.5, 0.75], 0.5, score_threshold=0.25) == [3]


@pytest.mark.parametrize('max_num, expected', [(-1, [1, 2, 0]), (2, [1, 2]), (9, [1, 2, 0])])
def test_max_num_keeps_the_best(max_num, expected):
    boxes = boxes_of([0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10])
    assert kept(boxes, [0.2, 0.9, 0.5], 0.5, max_num=max_num) == expected


def test_a_box_with_nan_overlaps_nothing():
    boxes = boxes_of([0, 0, 10, 10], [0, 0, NAN, 10], [0, 0, 10, 10], [NAN] * 4)
    assert kept(boxes, [0.9, 0.8, 0.7, 0.6], 0.5) == [0, 1, 3]


def test_infinite_boxes():
    boxes = boxes_of([-INF, -INF, INF, INF], [0, 0, 10, 10], [0, 0, INF, 10], [0, 0, 10, 10])
    assert kept(boxes, [0.9, 0.8, 0.7, 0.6], 0.5) == [0, 1, 2]


def test_threshold_is_compared_in_the_precision_of_the_boxes():
    boxes = boxes_of([0, 0, 10, 1], [0, 0, 3, 1])  # IoU 3/10, and float32(0.3) > 0.3
    assert kept(boxes, [0.9, 0.8], 0.3) == [0, 1]
    assert kept(boxes.double(), [0.9, 0.8], 0.3) == [0, 1]


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', ['0.3', '0.5', '0.75', '0', '1'])
@pytest.mark.parametrize('seed', range(4))
def test_equals_exact_arithmetic(seed, threshold, offset):
    boxes, scores = whole_boxes(150, seed)
    expected = exact_nms(boxes, scores, Fraction(threshold), offset)
    assert kept(boxes, scores, float(threshold), offset=offset) == expected


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    boxes, scores = whole_boxes(100, seed=1)  # whole numbers below 256 and multiples of 1/64 fit in all of them
    expected = exact_nms(boxes, scores, Fraction(1, 2), 0)
    assert kept(boxes.to(dtype), scores.to(dtype), 0.5) == expected


def test_numpy_input_gives_numpy_output():
    boxes, scores = whole_boxes(50, seed=2)
    dets, indices = nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray) and isinstance(indices, np.ndarray)
    assert indices.tolist() == exact_nms(boxes, scores, Fraction(1, 2), 0)


def test_input_need_not_be_contiguous_and_stays_as_it_is():
    boxes, scores = whole_boxes(60, seed=3)
    wide = torch.cat([boxes, boxes], 1).t().contiguous().t()[::2, :4]
    before = wide.clone()
    assert not wide.is_contiguous()
    assert kept(wide, scores[::2], 0.5) == exact_nms(wide, scores[::2], Fraction(1, 2), 0)
    assert torch.equal(wide, before)


def test_no_gradient_and_no_autocast_reach_the_result():
    boxes, scores = whole_boxes(60, seed=4)
    with torch.autocast('cpu', torch.bfloat16):
        indices = mmcv_ext.nms(boxes.requires_grad_(), scores.requires_grad_(), iou_threshold=0.5, offset=0)
    assert not indices.requires_grad
    assert indices.tolist() == exact_nms(boxes.detach(), scores.detach(), Fraction(1, 2), 0)


@pytest.mark.parametrize('block, max_pairs', [(1, 1), (2, 3), (7, 50), (64, 10**6), (1000, 1)])
@pytest.mark.parametrize('size', [2, 12, 60])
def test_size_of_the_steps_changes_nothing(monkeypatch, size, block, max_pairs):
    monkeypatch.setattr(stand_in, '_CPU_STEPS', (block, max_pairs))
    monkeypatch.setattr(stand_in, '_GPU_STEPS', (block, max_pairs))
    boxes, scores = whole_boxes(70, seed=5, size=size)
    assert kept(boxes, scores, 0.25) == exact_nms(boxes, scores, Fraction(1, 4), 0)


def test_long_chain():
    left = torch.arange(1000.0)
    boxes = torch.stack([left, torch.zeros(1000), left + 3, torch.ones(1000)], 1)  # IoU 1/2 with the next
    assert kept(boxes, torch.linspace(1, 0.1, 1000), 0.3) == list(range(0, 1000, 2))


def test_torchvision_gets_the_threshold_mmcv_sees_and_our_order(monkeypatch):
    calls = []

    def fake_nms(boxes, scores, iou_threshold):
        calls.append((boxes.tolist(), scores.tolist(), iou_threshold))
        return torch.tensor([0, 2])

    monkeypatch.setattr(stand_in, 'torchvision_ops', lambda: SimpleNamespace(nms=fake_nms))
    boxes, scores = boxes_of([0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]), torch.tensor([0.1, 0.9, NAN])
    assert mmcv_ext.nms(boxes.half(), scores, iou_threshold=0.6, offset=0).tolist() == [2, 0]
    ((given, order, threshold),) = calls
    assert given == boxes[[2, 1, 0]].tolist()
    assert order == sorted(order, reverse=True)
    assert threshold == float(np.float32(0.6)) != 0.6


def test_torchvision_is_not_asked_for_what_it_lacks(monkeypatch):
    def refuse(*args):
        raise NotImplementedError("Could not run 'torchvision::nms' with arguments from the 'CUDA' backend")

    boxes, scores = whole_boxes(40, seed=6)
    monkeypatch.setattr(stand_in, 'torchvision_ops', lambda: SimpleNamespace(nms=refuse))
    assert kept(boxes, scores, 0.5) == exact_nms(boxes, scores, Fraction(1, 2), 0)
    monkeypatch.setattr(stand_in, 'torchvision_ops', lambda: SimpleNamespace())
    assert kept(boxes, scores, 0.5, offset=1) == exact_nms(boxes, scores, Fraction(1, 2), 1)


def test_batched_nms_is_class_wise():
    boxes = boxes_of([0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9])
    scores, classes = torch.tensor([0.7, 0.9, 0.8]), torch.tensor([0, 1, 1])
    dets, indices = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5))
    assert indices.tolist() == [1, 0]
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[[1, 0]])
    _, indices = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5), class_agnostic=True)
    assert indices.tolist() == [1]


@pytest.mark.parametrize('max_num', [-1, 20])
def test_batched_nms_one_class_at_a_time_gives_the_same(max_num):
    boxes, scores = whole_boxes(200, seed=7)
    scores += 5  # with `split_thr` mmcv marks the boxes it dropped by a score of 0
    classes = torch.arange(200) % 7
    by_class = [
        [int(members[i]) for i in exact_nms(boxes[members], scores[members], Fraction(1, 2), 0)]
        for members in ((classes == c).nonzero().flatten() for c in range(7))
    ]
    expected = sorted(sum(by_class, []), key=lambda i: -scores[i])[: max_num if max_num > 0 else None]
    for split in (10000, 50):
        config = dict(type='nms', iou_threshold=0.5, max_num=max_num, split_thr=split)
        assert batched_nms(boxes, scores, classes, config)[1].tolist() == expected


@pytest.mark.parametrize('num_classes, size', [(80, 300), (1, 5), (1, 300)])
def test_ten_thousand_boxes_take_few_steps(num_classes, size, backend, monkeypatch):
    """A step compares at most 256 boxes with each other, or 65536 pairs; a loop over boxes would take 9999."""
    if backend != 'numpy':
        pytest.skip('the block size is that of the CPU')
    pairs, overlaps = [], stand_in._overlaps

    def counted(xp, rows, columns, *others):
        pairs.append(rows.shape[1] * columns.shape[1])
        return overlaps(xp, rows, columns, *others)

    monkeypatch.setattr(stand_in, '_overlaps', counted)
    boxes, scores, classes = scattered(9999, num_classes, size)  # mmcv splits from 10000 on
    batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.6))
    assert max(pairs) <= 2**16 and sum(pairs) < 9999**2 and len(pairs) < 1000


@pytest.mark.parametrize(
    'method, expected',
    [
        ('naive', [[0, 0, 10, 10, 0.9], [20, 0, 30, 10, 0.5]]),
        ('linear', [[0, 0, 10, 10, 0.9], [20, 0, 30, 10, 0.5], [0, 0, 10, 8, 0.16]]),  # 0.8 (1 - 0.8)
        ('gaussian', [[0, 0, 10, 10, 0.9], [20, 0, 30, 10, 0.5], [0, 0, 10, 8, 0.8 * np.exp(-0.64 / 0.5)]]),
    ],
)
def test_soft_nms_by_hand(method, expected):
    boxes = boxes_of([0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 10])
    dets, indices = soft_nms(boxes, torch.tensor([0.8, 0.5, 0.9]), 0.3, sigma=0.5, min_score=1e-3, method=method)
    assert indices.tolist() == [2, 1, 0][: len(expected)]
    torch.testing.assert_close(dets, boxes_of(*expected))


def test_soft_nms_drops_below_min_score_and_counts_the_offset():
    boxes = boxes_of([0, 0, 9, 9], [0, 0, 9, 4])  # IoU 1/2 with the last pixel, 4/9 without
    scores = torch.tensor([0.9, 0.8])
    assert len(soft_nms(boxes, scores, 0.3, min_score=0.41, offset=1)[1]) == 1
    assert len(soft_nms(boxes, scores, 0.3, min_score=0.41, offset=0)[1]) == 2
    dets, indices = soft_nms(boxes[:0], scores[:0], 0.3)
    assert dets.shape == (0, 5) and indices.shape == (0,)


def test_soft_nms_lowers_from_the_threshold_on():
    boxes = boxes_of([0, 0, 10, 10], [0, 0, 10, 5])
    dets, _ = soft_nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    assert dets[1, 4].item() == pytest.approx(0.4)


def test_soft_nms_orders_equals_as_mmcv_does():
    """The last boxes take the places of the dropped ones, and the first of equals is the best."""
    boxes = boxes_of(*[[0, 0, 10, 10]] * 3, *[[20 * i, 0, 20 * i + 10, 10] for i in (1, 2, 3, 4)])
    scores = torch.tensor([0.9, 0.8, 0.8, 0.5, 0.5, 0.5, 0.5])
    assert soft_nms(boxes, scores, 0.3, method='naive')[1].tolist() == [0, 6, 5, 3, 4]


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_soft_nms_in_other_precisions(dtype):
    boxes, scores = whole_boxes(40, seed=8)
    expected, order = soft_nms(boxes, scores, 0.3)
    dets, indices = soft_nms(boxes.to(dtype), scores.to(dtype), 0.3)
    assert dets.dtype == dtype
    assert torch.equal(indices, order)
    torch.testing.assert_close(dets.float(), expected, rtol=2e-3, atol=1e-4)


def random_boxes(count, kind, generator):
    corners = torch.rand(count, 2, generator=generator) * 100 + (1e5 if kind == 'far' else 0)
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 60 - 3], 1)
    if kind == 'whole':
        boxes = boxes.round()
    if kind == 'not finite':
        chance = torch.rand(count, 4, generator=generator)
        boxes[chance < 0.03], boxes[chance > 0.97] = NAN, INF
        boxes[(chance > 0.5) & (chance < 0.53)] = -INF
    return boxes


@compiled
@pytest.mark.agreement
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('kind', ['plain', 'whole', 'far', 'not finite'])
def test_same_as_compiled(kind, offset):
    extension = importlib.import_module('mmcv._ext')
    generator = torch.Generator().manual_seed(0)
    for trial in range(60):
        boxes = random_boxes(int(torch.randint(0, 300, (), generator=generator)), kind, generator)
        scores = torch.randperm(len(boxes), generator=generator) / 100 - 0.5
        threshold = (0.3, 0.5, 0.6, 0.7, 1 / 3)[trial % 5]
        expected = extension.nms(boxes, scores, iou_threshold=threshold, offset=offset)
        assert torch.equal(mmcv_ext.nms(boxes, scores, iou_threshold=threshold, offset=offset), expected)


@compiled
@pytest.mark.agreement
@pytest.mark.parametrize('num_classes, size', [(80, 300), (80, 20), (1, 5), (1, 300)])
def test_batched_same_as_compiled(num_classes, size, monkeypatch):
    inputs = scattered(9999, num_classes, size)
    config = dict(type='nms', iou_threshold=0.6)
    result = batched_nms(*inputs, config)
    monkeypatch.setattr(importlib.import_module('mmcv.ops.nms'), 'ext_module', importlib.import_module('mmcv._ext'))
    for ours, theirs in zip(result, batched_nms(*inputs, config), strict=True):
        assert torch.equal(ours, theirs)


@compiled
@pytest.mark.agreement
@pytest.mark.parametrize('kind', ['plain', 'whole', 'not finite'])
@pytest.mark.parametrize('method', [0, 1, 2])
def test_soft_nms_same_as_compiled(method, kind):
    extension = importlib.import_module('mmcv._ext')
    generator = torch.Generator().manual_seed(1)
    for trial in range(40):
        boxes = random_boxes(int(torch.randint(0, 150, (), generator=generator)), kind, generator)
        scores = torch.rand(len(boxes), generator=generator)
        options = dict(iou_threshold=0.3, sigma=0.5, min_score=0.05, method=method, offset=trial % 2)
        ours, theirs = torch.zeros(len(boxes), 5), torch.zeros(len(boxes), 5)
        expected = extension.softnms(boxes, scores, theirs, **options)
        assert torch.equal(mmcv_ext.softnms(boxes, scores, ours, **options), expected)
        count = len(expected)
        torch.testing.assert_close(ours[:count], theirs[:count], rtol=1e-6, atol=0, equal_nan=True)
