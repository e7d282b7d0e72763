"""IoU of pairs against MMDetection's function, bit by bit."""

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps

from mmdet_gfl.ops import box_sides, iou_of_sides, paired_iou


def test_iou_by_hand():
    boxes = torch.tensor([[0.0, 0, 4, 2], [0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 5, 5]])
    others = torch.tensor([[2.0, 0, 6, 2], [1, 0, 2, 1], [0, 0, 1, 1], [5, 5, 5, 5]])
    assert paired_iou(boxes, others).tolist() == pytest.approx([4 / 12, 0, 1, 0])  # empty boxes: 0 over the least union


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_pairs_are_those_of_mmdetection(dtype):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.randint(0, 40, (3000, 4), generator=generator).to(dtype) / 7  # inside out, too, and empty
    others = torch.randint(0, 40, (3000, 4), generator=generator).to(dtype) / 7
    boxes[:3] = torch.tensor([[torch.nan, 0, 1, 1], [0, 0, torch.inf, 1], [-1e30, -1e30, 1e30, 1e30]])
    expected = bbox_overlaps(boxes, others, is_aligned=True)
    assert torch.equal(paired_iou(boxes, others).nan_to_num(-7), expected.nan_to_num(-7))
    assert paired_iou(boxes[:0], others[:0]).shape == (0,)


def test_sides_by_hand():
    sides = box_sides(torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]))
    assert sides.tolist() == [[[1, 5], [2, 6]], [[3, 7], [4, 8]]]


def test_sides_are_broadcast():
    generator = torch.Generator().manual_seed(1)
    corner, size = torch.rand(2, 12, 2, generator=generator).unbind()
    boxes = torch.cat((corner, corner + size), dim=1)
    every = iou_of_sides(box_sides(boxes[:5])[..., None], box_sides(boxes[5:])[:, :, None])
    assert torch.equal(every, bbox_overlaps(boxes[:5], boxes[5:]))
