"""What is measured of the positives, by hand."""

import torch

from mmdet_gfl.models.task_modules import Locations, Positives, Targets


def positives(centers, gt, boxes=None, logits=None) -> Positives:
    count = len(centers)
    at = Locations.of_priors(torch.tensor(centers), torch.full((count,), 8.0))
    aim = Targets(torch.arange(count), torch.ones(count), torch.arange(count), torch.tensor(gt), at, float(count), 1)
    return Positives(
        torch.zeros(count, 2) if logits is None else logits, torch.tensor(gt if boxes is None else boxes), aim
    )


def test_centerness_by_hand():
    # In a box of 100 x 40 px: the middle, a quarter in from the left, outside on the left, on the edge.
    box = [0.0, 0.0, 100.0, 40.0]
    centers = [[50.0, 20.0], [25.0, 20.0], [-10.0, 20.0], [0.0, 20.0]]
    expected = torch.tensor([1.0, (25 / 75) ** 0.5, 0.0, 0.0])
    torch.testing.assert_close(positives(centers, [box] * 4).centerness, expected)


def test_centerness_is_defined_in_a_box_without_area():
    assert positives([[5.0, 5.0]], [[5.0, 5.0, 5.0, 5.0]]).centerness.tolist() == [0.0]


def test_iou_by_hand():
    # Half covered, disjoint, the same.
    found = positives([[0.0, 0.0]] * 3, [[0.0, 0, 10, 10]] * 3, [[0.0, 0, 5, 10], [20.0, 20, 30, 30], [0.0, 0, 10, 10]])
    torch.testing.assert_close(found.iou, torch.tensor([0.5, 0.0, 1.0]))


def test_score_is_the_largest_of_the_location():
    found = positives([[0.0, 0.0]], [[0.0, 0, 1, 1]], logits=torch.tensor([[-1.0, 2.0]]))
    torch.testing.assert_close(found.score, torch.tensor([2.0]).sigmoid())


def test_nothing_measured_carries_a_gradient():
    logits, boxes = torch.randn(1, 2, requires_grad=True), torch.rand(1, 4, requires_grad=True)
    aim = positives([[0.0, 0.0]], [[0.0, 0, 1, 1]])
    found = Positives(
        logits, boxes, Targets(torch.zeros(1), torch.ones(1), torch.zeros(1).long(), aim.gt, aim.at, 1.0, 1)
    )
    assert not (found.iou.requires_grad or found.score.requires_grad or found.centerness.requires_grad)


def test_locations_of_anchors_and_of_points():
    anchors = torch.tensor([[0.0, 10, 20, 50]])
    assert Locations.of_priors(anchors, torch.ones(1)).centers.tolist() == [[10.0, 30.0]]
    assert Locations.of_priors(torch.tensor([[3.0, 4.0]]), torch.ones(1)).centers.tolist() == [[3.0, 4.0]]
