"""Objects by number: what goes in as a label comes out as the object."""

import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import by_number, numbered


def gts():
    boxes = torch.arange(12.0).reshape(3, 4)
    first = InstanceData(bboxes=boxes[:2], labels=torch.tensor([1, 0]))
    empty = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return [first, empty, InstanceData(bboxes=HorizontalBoxes(boxes[2:]), labels=torch.tensor([1]))], boxes


def test_numbers_begin_behind_the_background():
    objects, _ = gts()
    assert [gt.labels.tolist() for gt in numbered(objects, 2)] == [[3, 4], [], [5]]
    assert objects[0].labels.tolist() == [1, 0]  # the objects themselves stay


def test_there_and_back():
    objects, boxes = gts()
    # Six locations: background, the third object, the second, background, the first, the third.
    labels, pos, found = by_number(torch.tensor([2, 5, 4, 2, 3, 5]), objects, 2)
    assert labels.tolist() == [2, 1, 0, 2, 1, 1] and pos.tolist() == [1, 2, 4, 5]
    assert torch.equal(found, boxes[[2, 1, 0, 2]])


def test_no_object():
    objects = [InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))]
    labels, pos, found = by_number(torch.full((4,), 2), objects, 2)
    assert labels.tolist() == [2] * 4 and len(pos) == 0 and found.shape == (0, 4)
