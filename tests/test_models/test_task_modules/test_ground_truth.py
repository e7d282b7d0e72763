"""Validation of objects: what is wrong is named with its image."""

import math

import pytest
import torch
from cases import metas, objects
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_gfl.models.task_modules import validate_ground_truth, with_integer_labels
from mmdet_gfl.models.task_modules.ground_truth import is_usable

SIZE = (96, 160)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 1e8, -1e30])
@pytest.mark.parametrize('side', range(4))
def test_a_box_that_is_not_finite_raises(value, side):
    gts = objects([2, 3], SIZE)
    gts[1].bboxes[2, side] = value
    with pytest.raises(
        ValueError,
        match=r'image image-1\.jpg: box 2 of 3 is \[.*finite, below 1e\+08, with x1 <= x2 and y1 <= y2\. Fix the',
    ):
        validate_ground_truth(gts, metas(SIZE, 2), 5)


@pytest.mark.parametrize('box', [[30, 5, 20, 9], [20, 9, 30, 5], [30, 9, 20, 5]])
def test_a_box_with_its_sides_in_wrong_order_raises(box):
    gts = objects([2, 3], SIZE)
    gts[0].bboxes[1] = torch.tensor(box)
    with pytest.raises(ValueError, match=r'image image-0\.jpg: box 1 of 2 is \[.*x1 <= x2 and y1 <= y2'):
        validate_ground_truth(gts, metas(SIZE, 2), 5)


def test_usable_boxes_by_hand():
    boxes = [
        [0, 0, 2, 3],
        [5, 5, 5, 9],
        [3, 0, 2, 1],
        [0, 3, 1, 2],
        [3, 3, 2, 2],
        [0, 0, math.nan, 1],
        [0, 0, 1e30, 1e30],
    ]
    assert is_usable(torch.tensor(boxes)).tolist() == [True, True, False, False, False, False, False]
    assert is_usable(torch.zeros(0, 4)).shape == (0,)


def test_labels_become_integers_and_the_objects_stay_as_they_were():
    labels = torch.tensor([1.0, 3.0], dtype=torch.float64)
    gts = InstanceData(bboxes=torch.rand(2, 4), labels=labels, areas=torch.tensor([1.0, 2.0]))
    converted = with_integer_labels(gts)
    assert converted.labels.dtype == torch.long and converted.labels.tolist() == [1, 3]
    assert converted.bboxes is gts.bboxes and converted.areas is gts.areas and gts.labels is labels
    integers = objects([2], SIZE)[0]
    assert with_integer_labels(integers) is integers


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


@pytest.mark.parametrize('gt', [InstanceData(), InstanceData(bboxes=torch.rand(1, 4))])
def test_a_pipeline_without_annotations_raises(gt):
    with pytest.raises(ValueError, match=r"image-1\.jpg: the transforms give no boxes .*type='LoadAnnotations'"):
        validate_ground_truth([*objects([1], SIZE), gt], metas(SIZE, 2), 5)


def test_valid_objects_pass():
    gts = objects([3, 0], SIZE)
    gts[0].bboxes[0] = torch.tensor([-9.9e7, 0, 9.9e7, 0])
    gts.append(InstanceData(bboxes=HorizontalBoxes(torch.tensor([[0.1, 0.2, 0.3, 0.4]])), labels=torch.tensor([4])))
    validate_ground_truth(gts, metas(SIZE, 3), 5)


def test_objects_on_another_device_are_not_read():
    gts = [InstanceData(bboxes=torch.full((1, 4), math.nan, device='meta'), labels=torch.tensor([9]))]
    validate_ground_truth(gts, metas(SIZE, 1), 5)
