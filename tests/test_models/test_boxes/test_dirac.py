"""DiracBox: the host's coding and the host's loss, in the host's frame."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_gfl.models.boxes import SideCoding
from mmdet_gfl.models.boxes.dirac import DiracBox
from mmdet_gfl.models.task_modules import Locations, Targets


class Halves(SideCoding):
    """Four numbers are half the distances in strides, and the loss looks at them."""

    def decode(self, raw, at):
        return at.boxes(2 * raw)

    def encode(self, boxes, at):
        return at.distances(boxes) / 2

    def pair(self, raw, boxes, targets):
        return raw, self.encode(targets.gt, targets.at)


def one_positive():
    # From (100, 50) on stride 8: l, t, r, b = 1, 2, 3, 4 strides, so the four numbers are 0.5, 1, 1.5, 2.
    at = Locations(torch.tensor([[100.0, 50.0]]), torch.tensor([[100.0, 50.0]]), torch.tensor([8.0]))
    gt = torch.tensor([[92.0, 34.0, 124.0, 82.0]])
    return Targets(torch.zeros(1), torch.ones(1), torch.arange(1), gt, at, 1.0, 1)


def host(loss, coding):
    return SimpleNamespace(coding=coding, **DiracBox().modules(loss))


def test_decoding_is_the_hosts():
    aim = one_positive()
    found = DiracBox().decode(torch.tensor([[0.5, 1.0, 1.5, 2.0]]), aim.at, host(nn.L1Loss(), Halves()))
    torch.testing.assert_close(found, aim.gt)


@pytest.mark.parametrize('weight', [1.0, 0.25])
def test_an_elementwise_loss_in_the_hosts_frame_by_hand(weight):
    # Off by 0.1, 0.2, 0.3, 0.4: 1.0 in all, times the weight of the positive, divided by the normaliser 2.
    aim = one_positive()
    raw = torch.tensor([[0.6, 1.2, 1.8, 2.4]])
    head = host(MODELS.build(dict(type='L1Loss')), Halves())
    found = DiracBox().losses(raw, raw, aim, torch.tensor([weight]), torch.tensor(2.0), head)
    torch.testing.assert_close(found, dict(loss_bbox=torch.tensor(weight * 1.0 / 2)))


def test_a_loss_that_calls_its_weights_otherwise():
    # GHMR takes them as label_weight. All four errors fall into one bin: the mean over them of sqrt(d² + µ²) - µ.
    aim, mu = one_positive(), 0.02
    raw = torch.tensor([[0.5, 1.0, 1.5, 2.0]]) + 0.1
    head = host(MODELS.build(dict(type='GHMR', mu=mu, bins=1)), Halves())
    found = DiracBox().losses(raw, raw, aim, torch.ones(1), torch.tensor(2.0), head)
    torch.testing.assert_close(found['loss_bbox'], torch.tensor((0.1**2 + mu**2) ** 0.5 - mu))


@pytest.mark.parametrize('kind', ['IoULoss', 'GIoULoss', 'DIoULoss'])
def test_an_iou_loss_weighs_boxes(kind):
    # The frame of SideCoding itself is boxes in pixels; the same box costs 0, one beside it a whole loss.
    aim = one_positive()
    aim = aim._replace(
        gt=aim.gt.repeat(2, 1), at=Locations(*(part.repeat(2, *[1] * (part.dim() - 1)) for part in aim.at))
    )
    boxes = aim.gt + torch.tensor([[0.0], [16.0]])
    loss = MODELS.build(dict(type=kind))
    found = DiracBox().losses(boxes, boxes, aim, torch.tensor([0.7, 0.3]), torch.tensor(2.0), host(loss, SideCoding()))
    each = loss(boxes, aim.gt, reduction_override='none')
    torch.testing.assert_close(found['loss_bbox'], 0.3 * each[1] / 2)


def test_it_reports_no_distribution():
    box = DiracBox()
    assert box.channels == 1 and box.statistics == () and box.in_host_coding and box.reach == float('inf')
