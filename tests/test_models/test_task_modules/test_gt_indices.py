"""Objects as labels: the label that an assignment gives leads back to the object."""

import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import labels_as_gt_indices, recover_gt_indices


def four_objects():
    """Three objects, no object and one object in three images, with two classes."""
    boxes = torch.arange(16.0).reshape(4, 4)
    first = InstanceData(bboxes=boxes[:3], labels=torch.tensor([1, 0, 1]))
    empty = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return [first, empty, InstanceData(bboxes=HorizontalBoxes(boxes[3:]), labels=torch.tensor([1]))], boxes


def test_labels_start_above_the_background():
    gts, boxes = four_objects()
    relabelled = labels_as_gt_indices(gts, 2)
    assert [gt.labels.tolist() for gt in relabelled] == [[3, 4, 5], [], [6]]
    assert torch.equal(torch.cat([gt.bboxes for gt in relabelled]), boxes)
    assert gts[0].labels.tolist() == [1, 0, 1]  # the objects themselves are not changed


def test_recovered_indices_by_hand():
    # Six locations: background, the fourth object, the second, background, the first, the fourth.
    matched = recover_gt_indices(torch.tensor([2, 6, 4, 2, 3, 6]), 2, 4)
    assert matched.tolist() == [4, 3, 1, 4, 0, 3] and matched.dtype == torch.int64


def test_each_label_leads_back_to_its_object():
    gts, _ = four_objects()
    labels = torch.cat([gt.labels for gt in labels_as_gt_indices(gts, 2)])
    assert recover_gt_indices(labels, 2, 4).tolist() == [0, 1, 2, 3]


def test_recovered_indices_without_objects():
    assert recover_gt_indices(torch.full((4,), 2), 2, 0).tolist() == [0] * 4
