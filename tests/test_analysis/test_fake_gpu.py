"""The fake GPU: values as on the CPU, devices kept apart, host synchronizations recorded."""

from typing import NamedTuple

import pytest
import torch
from mmengine.structures import InstanceData
from torch import autocast, nn

from mmdet_gfl.analysis.fake_gpu import DEVICE, FakeGPU, FakeGPUTensor, moved, values


@pytest.fixture
def gpu():
    with FakeGPU() as entered:
        yield entered


def names(gpu):
    return [sync.partition(' ')[0].split('.')[1] for sync in gpu.host_syncs]


def test_values_views_and_gradients_are_the_cpus(gpu):
    x = torch.randn(3, 4, requires_grad=True)
    there = moved(x)
    assert there.device == DEVICE and there.requires_grad and there.is_leaf

    def compute(x):
        y = torch.zeros_like(x) + torch.arange(4, device=x.device)
        y[1] = x[2].exp()
        y.t()[2].mul_(x.sum())
        return (y * x).flatten()[::3].sum() + torch.cat([x, y])[:, 1].max()

    here, result = compute(x), compute(there)
    assert isinstance(result, FakeGPUTensor) and torch.equal(values(result), here)
    here.backward(), result.backward()
    assert torch.equal(values(there.grad), x.grad)
    assert gpu.host_syncs == []


def test_devices_do_not_mix(gpu):
    there = moved(torch.randn(3))
    for mixed in (
        lambda: there + torch.ones(3),
        lambda: torch.cat([there, torch.ones(3)]),
        lambda: there.dot(torch.ones(3)),
    ):
        with pytest.raises(RuntimeError, match='same device, found meta and cpu'):
            mixed()
    more = there + torch.tensor(2.0)  # a number of the CPU may go along, as on a GPU
    assert torch.equal(values(more), values(there) + 2)
    with pytest.raises(RuntimeError, match='without values'):
        there + torch.as_tensor([1.0, 2.0, 3.0], device=DEVICE)


@pytest.mark.parametrize(
    ('ask', 'operators'),
    [
        (lambda x: x.sum().item(), ['_local_scalar_dense']),
        (lambda x: bool(x.any()), ['_local_scalar_dense']),
        (lambda x: x.nonzero(), ['nonzero']),
        (lambda x: x[x > 0], ['index']),
        (lambda x: x[(x > 0).nonzero().squeeze(1)], ['nonzero']),
        (lambda x: x[[0, 2]], ['_to_copy']),
        (lambda x: x[torch.tensor([0, 2])], ['index']),
        (lambda x: x[1:], []),
        (lambda x: x.__setitem__(x > 0, 1.0), []),
        (lambda x: x.__setitem__(x > 0, x.new_zeros(2)), ['index_put_']),
        (lambda x: x.tolist(), ['_to_copy']),
        (lambda x: x.cpu(), ['_to_copy']),
        (lambda x: x.to('cpu', non_blocking=True), []),
        (lambda x: torch.ones(3).to(DEVICE), ['_to_copy']),
        (lambda x: torch.ones(3).to(DEVICE, non_blocking=True), []),
        (lambda x: x.new_tensor([1.0]), ['_to_copy']),
        (lambda x: torch.tensor([1.0], device=x.device), ['_to_copy']),
        (lambda x: x.copy_(torch.ones(3)), ['copy_']),
        (lambda x: x.copy_(x + 1), []),
        (lambda x: x.half(), []),
        (lambda x: x.unique(), ['_unique2']),
        (lambda x: torch.repeat_interleave(x.long().clamp(min=0)), ['repeat_interleave']),
        (lambda x: x.repeat_interleave(x.new_ones(3).long(), output_size=3), []),
        (lambda x: x.new_zeros(3).scatter_(0, x.argsort(), x), []),
        (lambda x: x.topk(2), []),
    ],
)
def test_host_synchronizations(gpu, ask, operators):
    ask(moved(torch.tensor([1.0, -2.0, 3.0])))
    assert names(gpu) == operators
    assert all('test_fake_gpu.py:' in sync for sync in gpu.host_syncs)


def test_modules_and_instance_data(gpu):
    module = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3))
    x = torch.randn(1, 2, 4, 4)
    expected = module.eval()(x)
    parameters = [parameter.requires_grad for parameter in module.parameters()]
    module.to(DEVICE)
    assert [parameter.requires_grad for parameter in module.parameters()] == parameters
    torch.testing.assert_close(values(module(moved(x))), expected)
    objects = moved([InstanceData(bboxes=torch.ones(2, 4), labels=torch.tensor([3, 4]))])
    kept = objects[0][objects[0].labels > 3]
    assert isinstance(kept.bboxes, FakeGPUTensor) and values([kept])[0].labels.tolist() == [4]


class Pair(NamedTuple):
    first: torch.Tensor
    rest: tuple


def test_named_tuples_keep_their_type(gpu):
    there = moved(Pair(torch.ones(2), (torch.zeros(1), 'word')))
    assert type(there) is Pair and isinstance(there.first, FakeGPUTensor) and there.rest[1] == 'word'
    assert type(values(there)) is Pair and torch.equal(values(there).rest[0], torch.zeros(1))
    largest = moved(torch.tensor([[1.0, 3.0, 2.0]]).max(dim=1))
    assert type(largest) is torch.return_types.max and isinstance(largest.indices, FakeGPUTensor)
    assert type(values(largest)) is torch.return_types.max and values(largest).indices.tolist() == [1]


def test_autocast_can_be_entered(gpu):
    """Also where it was imported by its name."""
    x = moved(torch.randn(2, 2))
    for context in (autocast(x.device.type, enabled=False), torch.autocast(x.device.type, torch.bfloat16)):
        with context:
            assert values(x.exp()).shape == (2, 2)


def test_all_is_as_before_afterwards():
    before = torch.tensor, torch.autocast.__init__
    with pytest.raises(KeyError), FakeGPU():
        raise KeyError
    assert (torch.tensor, torch.autocast.__init__) == before
    with pytest.raises(RuntimeError, match='not entered'):
        moved(torch.ones(2)) + 1
