"""Numbers of locations, and outputs read where they lie, against the flattened form."""

import pytest
import torch

from mmdet_gfl.models.task_modules import Layout, Outputs, Picked
from mmdet_gfl.ops import pick_rows, rows_of_levels

SIZES = [(3, 4), (2, 2), (1, 1)]


def layout(num_priors, images=2):
    return Layout(SIZES, images, [num_priors] * 3)


def levels(width, num_priors, images=2):
    return [torch.randn(images, num_priors * width, high, wide) for high, wide in SIZES]


@pytest.mark.parametrize('num_priors', [1, 3])
def test_places_undo_the_flattening(num_priors):
    # A level whose entries are their own places, flattened as predictions are.
    at = layout(num_priors)
    parts = []
    for level, (high, wide) in enumerate(SIZES):
        ranges = (torch.arange(count) for count in (2, high, wide, num_priors))
        parts.append(torch.cartesian_prod(torch.tensor([level]), *ranges))
    expected = torch.cat(parts)
    assert at.total == len(expected)
    assert torch.equal(torch.stack(at.places(torch.arange(at.total)), dim=1), expected)


def test_bounds_by_hand():
    at = layout(1)  # the levels begin at 0, 24, 32 and end at 34
    assert at.starts == [0, 24, 32, 34]
    assert at.bounds(torch.tensor([0, 23, 32, 33])) == [0, 2, 2, 4]
    assert at.bounds(torch.zeros(0, dtype=torch.long)) == [0, 0, 0, 0]


FORMS = {
    'contiguous': lambda level: level,
    'channels-last': lambda level: level.to(memory_format=torch.channels_last),
    'transposed': lambda level: level.transpose(2, 3).contiguous().transpose(2, 3),
    'sliced': lambda level: torch.cat((level, level), dim=1)[:, : level.size(1)],
    'expanded': lambda level: level[:1].expand_as(level),
    'half': lambda level: level.half(),
    'bfloat16': lambda level: level.bfloat16(),
    'float64': lambda level: level.double(),
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('num_priors', [1, 3])
@pytest.mark.parametrize('step', [0, 5, 1], ids=['none', 'some', 'all'])
def test_picked_rows(form, num_priors, step):
    numbers = torch.arange(34 * num_priors)
    picked = Picked(layout(num_priors), numbers[::step] if step else numbers[:0])
    inputs = [FORMS[form](level).requires_grad_() for level in levels(5, num_priors)]
    rows = pick_rows(inputs, 5, picked.cells)
    expected = rows_of_levels(inputs, 5)[picked.pos]
    assert torch.equal(rows, expected) and rows.dtype == expected.dtype
    weight = torch.randn_like(expected)
    grads, plain = (torch.autograd.grad((form * weight).sum(), inputs) for form in (rows, expected))
    for grad, other in zip(grads, plain):
        assert torch.equal(grad, other) and grad.dtype == other.dtype
    entries = Picked(layout(num_priors), picked.pos).entries(5, picked.pos % 5)
    flat = torch.cat([level.reshape(-1) for level in inputs])
    assert torch.equal(flat[entries].to(rows.dtype), rows.gather(1, picked.pos[:, None] % 5)[:, 0])


def test_nothing_of_the_size_of_a_level_is_kept():
    inputs = [level.requires_grad_() for level in levels(5, 1)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        Outputs(inputs, 5, Picked(layout(1), torch.tensor([3, 25]))).positives.sum()
    assert sum(kept) == 0
