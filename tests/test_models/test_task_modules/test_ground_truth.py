"""Validation of objects: what is wrong is named with its image."""

import math

import pytest
import torch
from cases import metas, objects
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import validate_ground_truth

SIZE = (96, 160)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 1e8, -1e30])
@pytest.mark.parametrize('side', range(4))
def test_a_box_that_is_no_box_raises(value, side):
    gts = objects([2, 3], SIZE)
    gts[1].bboxes[2, side] = value
    with pytest.raises(ValueError, match=r'image image-1\.jpg: box 2 of 3 is \[.*finite and below 1e\+08\. Fix the'):
        validate_ground_truth(gts, metas(SIZE, 2), 5)


@pytest.mark.parametrize('label', [5, -1])
def test_a_label_outside_the_classes_raises(label):
    gts = objects([3, 3], SIZE)
    gts[0].labels[1] = label
    with pytest.raises(ValueError, match=rf'image-0\.jpg: label {label} is outside \[0, num_classes\).*num_classes=5'):
        validate_ground_truth(gts, metas(SIZE, 2), 5)


def test_an_image_without_a_path_is_named_by_its_place():
    gts = objects([1, 1], SIZE)
    gts[1].bboxes[0] = math.nan
    with pytest.raises(ValueError, match='image number 1 of the batch: box 0 of 1'):
        validate_ground_truth(gts, [{}, {}], 5)


def test_valid_objects_pass():
    gts = objects([3, 0], SIZE)
    gts[0].bboxes[0] = torch.tensor([-9.9e7, 0, 9.9e7, 0])
    gts.append(InstanceData(bboxes=HorizontalBoxes(torch.rand(1, 4)), labels=torch.tensor([4])))
    validate_ground_truth(gts, metas(SIZE, 3), 5)


def test_objects_on_another_device_are_not_read():
    gts = [InstanceData(bboxes=torch.full((1, 4), math.nan, device='meta'), labels=torch.tensor([9]))]
    validate_ground_truth(gts, metas(SIZE, 1), 5)
