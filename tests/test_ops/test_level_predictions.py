"""Flat indices of locations, and predictions gathered in place, against the flattened form."""

import pytest
import torch

from mmdet_gfl.ops import LevelPredictions, LocationIndex

SIZES = [(3, 4), (2, 2), (1, 1)]
#: Priors per cell of the three levels.
PRIORS = {'one': [1, 1, 1], 'three': [3, 3, 3], 'different': [1, 3, 2]}
each_number_of_priors = pytest.mark.parametrize('num_priors', PRIORS.values(), ids=PRIORS)


def index_of(num_priors, num_images=2):
    return LocationIndex(SIZES, num_images, num_priors)


def expected_coords(num_priors, num_images=2):
    """Level, image, y, x and prior of all locations, as predictions are flattened."""
    levels = []
    for level, ((height, width), a) in enumerate(zip(SIZES, num_priors)):
        ranges = (torch.arange(count) for count in (num_images, height, width, a))
        levels.append(torch.cartesian_prod(torch.tensor([level]), *ranges))
    return torch.cat(levels)


def flattened(levels, num_outputs):
    """Rows (R, num_outputs) by transposing and joining, at least float32."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1, num_outputs) for level in levels]).to(
        torch.promote_types(levels[0].dtype, torch.float32)
    )


# LocationIndex and LocationCoords -----------------------------------------------------------------------------------


def test_index_by_hand():
    # Level 0: 2 images of 2 x 3 cells. Level 1: 2 images of 1 x 2 cells with 3 priors.
    index = LocationIndex([(2, 3), (1, 2)], 2, [1, 3])
    assert index.level_sizes == [6, 6] and index.level_offsets == [0, 12, 24] and index.total == 24
    coords = index.coords(torch.tensor([0, 5, 6, 10, 12, 16, 17, 19, 23]))
    assert coords.level.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert coords.image.tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1]
    assert coords.y.tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0]
    assert coords.x.tolist() == [0, 2, 0, 1, 0, 1, 1, 0, 1]
    assert coords.prior.tolist() == [0, 0, 0, 0, 0, 1, 2, 1, 2]
    assert coords.cell.tolist() == [0, 5, 0, 4, 0, 1, 1, 0, 1]
    # Among the 12 locations of an image, level 1 begins at 6.
    assert coords.prior_inds.tolist() == [0, 5, 0, 4, 6, 10, 11, 7, 11]
    assert coords.group.tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert coords.group_sizes == [2, 2, 3, 2] and coords.per_level == [4, 5] and len(coords) == 9


@each_number_of_priors
@pytest.mark.parametrize('num_images', [1, 2, 3])
@pytest.mark.parametrize('step', [1, 2, 7])
def test_coords_and_flat_inds_are_inverse(num_priors, num_images, step):
    index = index_of(num_priors, num_images)
    expected = expected_coords(num_priors, num_images)[::step]
    flat_inds = torch.arange(0, index.total, step)
    coords = index.coords(flat_inds)
    found = (coords.level, coords.image, coords.y, coords.x, torch.as_tensor(coords.prior).expand(len(coords)))
    assert torch.equal(torch.stack(found, dim=1), expected)
    assert index.total == len(expected_coords(num_priors, num_images))
    order = torch.randperm(len(expected))
    assert torch.equal(index.flat_inds(*expected[order].unbind(1)), flat_inds[order])


def test_flat_inds_of_coordinates_that_broadcast():
    index = LocationIndex([(2, 3), (1, 2)], 2, [1, 3])
    levels, images = torch.tensor([[0], [1]]), torch.tensor([0, 1])
    zero = torch.zeros((), dtype=torch.long)
    assert index.flat_inds(levels, images, zero, zero).tolist() == [[0, 6], [12, 18]]
    assert index.flat_inds(levels[1], images, zero, zero + 1, 2).tolist() == [17, 23]


@each_number_of_priors
def test_prior_inds_count_through_an_image(num_priors):
    index = index_of(num_priors, 3)
    per_image = index.image_major(torch.arange(index.total))
    assert per_image.shape == (3, index.total // 3)
    flat_inds = torch.arange(0, index.total, 2)
    coords = index.coords(flat_inds)
    assert torch.equal(per_image[coords.image, coords.prior_inds], flat_inds)
    assert (per_image.diff(dim=1) > 0).all()


@each_number_of_priors
@pytest.mark.parametrize('num_images', [1, 3])
@pytest.mark.parametrize('shape', [(), (2,)])
def test_image_major_is_the_index_in_the_image(num_priors, num_images, shape):
    index = index_of(num_priors, num_images)
    values = torch.randn(index.total, *shape)
    coords = index.coords(torch.arange(index.total))
    assert torch.equal(index.image_major(values)[coords.image, coords.prior_inds], values)


def test_image_major_by_hand():
    # Two images of four locations on level 0 and of one on level 1.
    index = LocationIndex([(2, 2), (1, 1)], 2, [1, 1])
    values = torch.tensor([0, 1, 2, 3, 10, 11, 12, 13, 4, 14])
    assert index.image_major(values).tolist() == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]


def test_constants_of_levels_and_images():
    index = LocationIndex([(2, 3), (1, 2)], 2, [1, 3])
    coords = index.coords(torch.tensor([0, 6, 12, 23]))
    strides = coords.of_levels([8, 16], torch.float32)
    assert strides.tolist() == [8, 8, 16, 16] and strides.dtype == torch.float32
    assert coords.of_levels([8, 16]).dtype == torch.int64
    shapes = coords.of_images([[1.5, 2], [3, 4]], torch.float64)
    assert shapes.tolist() == [[1.5, 2], [3, 4], [1.5, 2], [3, 4]] and shapes.dtype == torch.float64


@each_number_of_priors
def test_coords_of_no_location(num_priors):
    coords = index_of(num_priors).coords(torch.zeros(0, dtype=torch.long))
    assert len(coords) == 0 and coords.group_sizes == [0] * 6 and coords.per_level == [0, 0, 0]
    for values in (coords.level, coords.image, coords.y, coords.x, coords.cell, coords.group, coords.prior_inds):
        assert values.shape == (0,) and values.dtype == torch.int64
    assert coords.of_images([[1, 2], [3, 4]]).shape == (0, 2)


# LevelPredictions ---------------------------------------------------------------------------------------------------


FORMS = {
    'contiguous': lambda level: level,
    'channels-last': lambda level: level.to(memory_format=torch.channels_last),
    'transposed': lambda level: level.transpose(2, 3).contiguous().transpose(2, 3),
    'channels-sliced': lambda level: torch.cat((level, level), dim=1)[:, level.size(1) :],
    'rows-sliced': lambda level: torch.cat((level, level), dim=2)[:, :, : level.size(2)],
    'columns-sliced': lambda level: torch.cat((level, level), dim=3)[..., level.size(3) :],
    'every-second-column': lambda level: level.repeat_interleave(2, dim=3)[..., ::2],
    'images-expanded': lambda level: level[:1].expand_as(level),
    'columns-expanded': lambda level: level[..., :1].expand_as(level),
    'half': lambda level: level.half(),
    'bfloat16': lambda level: level.bfloat16(),
    'half-channels-last': lambda level: level.half().to(memory_format=torch.channels_last),
    'float64': lambda level: level.double(),
}
#: Forms whose rows do not lie behind one another.
NOT_DENSE = ('transposed', 'columns-sliced')


def random_levels(num_outputs, num_priors, num_images=2):
    return [torch.randn(num_images, a * num_outputs, *size) for a, size in zip(num_priors, SIZES)]


def predictions_of(form, num_priors, num_outputs=5):
    levels = random_levels(num_outputs, num_priors)
    forms = [form] * 3 if form in FORMS else form.split('+')
    levels = [FORMS[name](level).requires_grad_() for name, level in zip(forms, levels)]
    return LevelPredictions(levels, num_outputs, index_of(num_priors))


def test_memory_layouts_of_the_forms():
    levels = {form: FORMS[form](torch.randn(2, 3, 3, 4)) for form in FORMS}
    for form, level in levels.items():
        dense = level.stride(2) == level.size(3) * level.stride(3)
        assert dense != (form in NOT_DENSE) or form == 'columns-expanded', form
    assert not levels['columns-sliced'].is_contiguous() and levels['columns-expanded'].stride(3) == 0


@pytest.mark.parametrize('form', [*FORMS, 'contiguous+columns-sliced+channels-last'])
@each_number_of_priors
@pytest.mark.parametrize('step', [0, 5, 1], ids=['none', 'some', 'all'])
def test_gather_equals_flatten_in_value_and_gradient(form, num_priors, step):
    predictions = predictions_of(form, num_priors)
    index, levels = predictions.index, predictions.levels
    coords = index.coords(torch.arange(0, index.total, step) if step else torch.zeros(0, dtype=torch.long))
    gathered = predictions.gather(coords)
    expected = flattened(levels, 5)[coords.flat_inds]
    assert torch.equal(gathered, expected) and gathered.dtype == expected.dtype == predictions.dtype
    assert torch.equal(predictions.flatten()[coords.flat_inds], expected)
    weight = torch.randn_like(expected)
    grads = torch.autograd.grad((gathered * weight).sum(), levels)
    expected_grads = torch.autograd.grad((expected * weight).sum(), levels)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert torch.equal(grad, expected_grad) and grad.dtype == expected_grad.dtype


def test_rows_by_hand():
    # One cell with two priors of two outputs, then 1 x 2 cells with one: channels run priors first, then outputs.
    index = LocationIndex([(1, 1), (1, 2)], 1, [2, 1])
    levels = [torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1), torch.tensor([[5.0, 7], [6, 8]]).view(1, 2, 1, 2)]
    predictions = LevelPredictions(levels, 2, index)
    assert predictions.flatten().tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert predictions.gather(index.coords(torch.tensor([1, 3]))).tolist() == [[3, 4], [7, 8]]


def test_a_gradient_is_stored_as_its_level():
    for form, layout in (('contiguous', torch.contiguous_format), ('channels-last', torch.channels_last)):
        predictions = predictions_of(form, [1, 3, 2])
        gathered = predictions.gather(predictions.index.coords(torch.tensor([3, 30])))
        for grad in torch.autograd.grad(gathered.sum(), predictions.levels):
            assert grad.is_contiguous(memory_format=layout), form


def test_gather_backward_keeps_no_tensor_of_the_size_of_a_level():
    predictions = predictions_of('contiguous', [1, 1, 1])
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        predictions.gather(predictions.index.coords(torch.tensor([3, 25]))).sum()
    assert sum(sizes) == 0


def test_memory_layout_of_gathered_rows():
    predictions = predictions_of('contiguous', [1, 3, 2])
    coords = predictions.index.coords(torch.arange(0, 40, 3))
    assert predictions.gather(coords).is_contiguous()
    with torch.no_grad():
        assert predictions.gather(coords).t().is_contiguous()


def test_gather_twice_adds_the_gradients():
    predictions = predictions_of('contiguous', [1, 3, 2])
    one, two = (predictions.index.coords(torch.tensor(inds)) for inds in ([0, 3], [3, 40]))
    total = predictions.gather(one).sum() + 2 * predictions.gather(two).sum()
    grads = torch.cat([level.flatten() for level in torch.autograd.grad(total, predictions.levels)])
    assert grads.sum() == 5 * (2 + 4) and grads.max() == 3


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_gather_has_second_derivatives(layout):
    index = LocationIndex([(2, 3), (1, 2)], 2, [1, 2])
    coords = index.coords(torch.tensor([0, 4, 7, 13, 19]))
    sizes = [(2, 3, 2, 3), (2, 6, 1, 2)]
    levels = [torch.randn(size, dtype=torch.float64).to(memory_format=layout).requires_grad_() for size in sizes]
    assert torch.autograd.gradgradcheck(
        lambda *levels: LevelPredictions(levels, 3, index).gather(coords) ** 2, tuple(levels)
    )
