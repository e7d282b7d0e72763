"""DiracBox: the host's coder, and the host's loss on the coder's inputs."""

from types import SimpleNamespace

import pytest
import torch
from cases import row_targets
from mmdet.registry import MODELS
from torch import nn

from mmdet_gfl.models.boxes import HostBoxCoder
from mmdet_gfl.models.boxes.dirac import DiracBox
from mmdet_gfl.models.task_modules import Locations


class HalfDistances(HostBoxCoder):
    """Four numbers are half the distances in strides, and the loss compares them."""

    def decode(self, bbox_pred, locations):
        return locations.boxes(2 * bbox_pred)

    def encode(self, boxes, locations):
        return locations.distances(boxes) / 2

    def loss_inputs(self, bbox_pred, boxes, targets):
        return bbox_pred, self.encode(targets.gt_bboxes, targets.locations)


def one_positive(count=1):
    # From (100, 50) on stride 8: l, t, r, b = 1, 2, 3, 4 strides, so the four numbers are 0.5, 1, 1.5, 2.
    point = torch.tensor([[100.0, 50.0]]).repeat(count, 1)
    locations = Locations(point, point, torch.full((count,), 8.0))
    return row_targets(locations, torch.tensor([[92.0, 34.0, 124.0, 82.0]]).repeat(count, 1))


def head_of(loss_bbox, host_coder):
    """A head's parts that a Dirac box may use."""
    head = SimpleNamespace(loss_bbox=loss_bbox, host_coder=host_coder)
    assert DiracBox().build_modules(head) == {}
    return head


def test_decoding_is_the_hosts():
    targets = one_positive()
    head = head_of(nn.L1Loss(), HalfDistances())
    found = DiracBox().decode(torch.tensor([[0.5, 1.0, 1.5, 2.0]]), targets.locations, head)
    torch.testing.assert_close(found, targets.gt_bboxes)


@pytest.mark.parametrize('weight', [1.0, 0.25])
def test_an_elementwise_loss_of_the_hosts_numbers_by_hand(weight):
    # Off by 0.1, 0.2, 0.3, 0.4: 1.0 in all, times the weight of the positive, divided by avg_factor = 2.
    bbox_pred = torch.tensor([[0.6, 1.2, 1.8, 2.4]])
    head = head_of(MODELS.build(dict(type='L1Loss')), HalfDistances())
    found = DiracBox().losses(bbox_pred, bbox_pred, one_positive(), torch.tensor([weight]), torch.tensor(2.0), head)
    torch.testing.assert_close(found, dict(loss_bbox=torch.tensor(weight * 1.0 / 2)))


def test_a_loss_with_another_name_for_its_weights():
    # GHMR takes them as label_weight. All four errors fall into one bin: the mean over them of sqrt(d² + µ²) - µ.
    mu = 0.02
    bbox_pred = torch.tensor([[0.5, 1.0, 1.5, 2.0]]) + 0.1
    head = head_of(MODELS.build(dict(type='GHMR', mu=mu, bins=1)), HalfDistances())
    found = DiracBox().losses(bbox_pred, bbox_pred, one_positive(), torch.ones(1), torch.tensor(2.0), head)
    torch.testing.assert_close(found['loss_bbox'], torch.tensor((0.1**2 + mu**2) ** 0.5 - mu))


@pytest.mark.parametrize('kind', ['IoULoss', 'GIoULoss', 'DIoULoss'])
def test_an_iou_loss_is_weighted_per_box(kind):
    # HostBoxCoder's own loss inputs are boxes in pixels; the same box costs 0, one beside it a whole loss.
    targets = one_positive(2)
    boxes = targets.gt_bboxes + torch.tensor([[0.0], [16.0]])
    loss = MODELS.build(dict(type=kind))
    head = head_of(loss, HostBoxCoder())
    found = DiracBox().losses(boxes, boxes, targets, torch.tensor([0.7, 0.3]), torch.tensor(2.0), head)
    each = loss(boxes, targets.gt_bboxes, reduction_override='none')
    torch.testing.assert_close(found['loss_bbox'], 0.3 * each[1] / 2)


def test_attributes():
    box = DiracBox()
    assert box.channels == 1 and box.statistics == () and box.uses_host_coder and box.max_distance == float('inf')
    assert HostBoxCoder.on_boxes
