"""Statistics of distributions: values by hand, agreement with the plain form, gradients, ties, edges and errors."""

import importlib

import pytest
import torch

from mmdet_gfl.models.layers import distribution_statistics

MODULE = importlib.import_module('mmdet_gfl.models.layers.distribution_statistics')
ALL = ('topk', 'mean', 'var')


def plain(logits, bins, topk, statistics):
    """The same from a full sort, and the variance from its moments."""
    p = logits.unflatten(1, (-1, bins)).softmax(dim=2)
    top = p.sort(dim=2, descending=True).values[:, :, :topk]
    number = torch.arange(bins).to(p).view(-1, 1, 1)
    variance = (p * number.square()).sum(2, keepdim=True) - (p * number).sum(2, keepdim=True).square()
    parts = dict(topk=top, mean=top.sum(2, keepdim=True) / topk, var=variance)
    return torch.cat([parts[name] for name in statistics], dim=2).flatten(1, 2)


@pytest.fixture(params=['blockwise', 'plain'])
def path(request, monkeypatch):
    """Both paths, as on a CPU and as on another device."""
    blockwise = request.param == 'blockwise'
    monkeypatch.setattr(MODULE, '_is_blockwise', lambda sides: blockwise)


def test_values_by_hand(path):
    # Side 1, bins 0 to 2: 0.1, 0.6, 0.3; mean 1.2, variance 0.6 + 1.2 - 1.44 = 0.36. Side 2: 0.5, 0, 0.5; variance 1.
    logits = torch.tensor([0.1, 0.6, 0.3, 0.5, 0, 0.5]).log().view(1, 6, 1, 1)
    found = distribution_statistics(logits, 3, topk=2, statistics=ALL)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.6, 0.3, 0.45, 0.36, 0.5, 0.5, 0.5, 1.0]))
    found = distribution_statistics(logits, 3, topk=1, statistics=['var', 'mean'])
    torch.testing.assert_close(found.flatten(), torch.tensor([0.36, 0.6, 1.0, 0.5]))


def test_gradient_by_hand(path):
    # d p_max / d z_i = p_max (δ_i - p_i) with p = 0.6, 0.3, 0.1
    logits = torch.tensor([0.3, 0.6, 0.1]).log().view(1, 3, 1, 1).requires_grad_()
    distribution_statistics(logits, 3, topk=1, statistics=['topk']).sum().backward()
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([-0.18, 0.24, -0.06]))


@pytest.mark.parametrize('statistics', [('topk', 'mean'), ('topk',), ('var', 'mean'), ('mean', 'var', 'topk')])
@pytest.mark.parametrize('bins, topk', [(17, 4), (5, 5), (2, 1), (1, 1), (33, 8), (20, 9), (70, 3), (64, 64)])
def test_agrees_with_a_sort(bins, topk, statistics, path):
    logits = 3 * torch.randn(2, 3 * bins, 7, 5, dtype=torch.float64)
    wanted = plain(logits, bins, topk, statistics)
    for x in (logits, logits.clone().requires_grad_()):
        found = distribution_statistics(x, bins, topk, statistics)
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-12, atol=1e-12 if 'var' in statistics else 0)
        found = distribution_statistics(x.float(), bins, topk, statistics)
        torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('statistics', [('topk',), ('mean',), ('var',), ('mean', 'topk', 'var')])
def test_gradcheck(statistics, path):
    logits = torch.randn(2, 2 * 6, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: distribution_statistics(x, 6, 3, statistics), logits)


def _both_paths(logits, monkeypatch):
    """Features and gradient to the logits, blockwise and plain."""
    weight = torch.randn(2, 4 * 5, 9, 14)
    results = []
    for blockwise in (True, False):
        monkeypatch.setattr(MODULE, '_is_blockwise', lambda sides, answer=blockwise: answer)
        leaf = logits.clone().requires_grad_()
        found = distribution_statistics(leaf, 17)
        (found * weight).sum().backward()
        results.append((found.detach(), leaf.grad.float()))
    return results


def test_paths_agree(monkeypatch):
    one, other = _both_paths(3 * torch.randn(2, 4 * 17, 9, 14), monkeypatch)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_paths_agree_where_many_logits_are_equal(monkeypatch):
    # Which of equal bins gets which gradient is open: those of a side agree as a set.
    logits = torch.randint(0, 4, (2, 4 * 17, 9, 14)).to(torch.bfloat16)
    (one, one_grad), (other, other_grad) = _both_paths(logits, monkeypatch)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    one_grad, other_grad = (grad.unflatten(1, (-1, 17)).sort(dim=2).values for grad in (one_grad, other_grad))
    torch.testing.assert_close(one_grad, other_grad, rtol=1e-2, atol=1e-4)


def test_training_and_inference_give_the_same_values():
    logits = torch.randn(2, 4 * 17, 11, 6)
    trained = distribution_statistics(logits.clone().requires_grad_(), 17)
    assert torch.equal(trained.detach(), distribution_statistics(logits, 17))


@pytest.mark.parametrize('block', [1, 200, 2**19])
def test_blocks_change_nothing(block, monkeypatch):
    logits, weight = torch.randn(3, 4 * 17, 6, 5), torch.randn(3, 4 * 5, 6, 5)
    results = []
    for size in (MODULE.BLOCK, block):
        monkeypatch.setattr(MODULE, 'BLOCK', size)
        leaf = logits.clone().requires_grad_()
        found = distribution_statistics(leaf, 17)
        (found * weight).sum().backward()
        results.append((found, leaf.grad, distribution_statistics(logits, 17)))
    assert all(torch.equal(*pair) for pair in zip(*results))


@pytest.mark.parametrize('level', [0.0, -7.5])
def test_each_of_equal_probabilities_passes_one_gradient(level, path):
    # Four equal bins, three of them taken: each weight goes to a bin of its own, d p_j / d z_i = p (δ_ij - p).
    logits = torch.full((1, 4, 1, 1), level, dtype=torch.float64, requires_grad=True)
    found = distribution_statistics(logits, 4, 3, ['topk'])
    torch.testing.assert_close(found.flatten(), torch.full((3,), 0.25, dtype=torch.float64))
    (found.flatten() * torch.tensor([8.0, 16.0, 32.0])).sum().backward()
    wanted = [0.25 * weight - 56 / 16 for weight in (0.0, 8.0, 16.0, 32.0)]
    assert sorted(logits.grad.flatten().tolist()) == pytest.approx(wanted)


def test_nearly_equal_probabilities_stay_in_order():
    # Neighbouring float32 numbers: what is largest is told exactly, also where the gradient is taken.
    base = torch.zeros(64, 17, 1, 1)
    base[:, :] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)) * torch.rand(64, 17, 1, 1).mul(4).floor() * 2e-7
    for logits in (base, base.clone().requires_grad_()):
        top = distribution_statistics(logits, 17, 4, ['topk']).detach()
        assert torch.equal(top, distribution_statistics(logits, 17, 17, ['topk']).detach()[:, :4])
        assert (top[:, :-1] >= top[:, 1:]).all()


def test_probabilities_of_zero(path):
    # exp(-200) is 0 in float32, exp(500) infinity: two bins share everything, and the gradient of the others is 0.
    logits = torch.tensor([500.0, 300, 500, 200, -torch.inf]).view(1, 5, 1, 1).requires_grad_()
    found = distribution_statistics(logits, 5, 4, ALL)
    assert torch.equal(found.flatten(), torch.tensor([0.5, 0.5, 0, 0, 0.25, 1.0]))
    found[0, 2:4].sum().backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_variance_of_a_sharp_distribution(path):
    # Nearly all in bin 14; moments cancel to rounding (196 · 6e-8), squared differences do not.
    logits = torch.zeros(1, 17, 1, 1)
    logits[0, 14] = 30.0
    found = distribution_statistics(logits, 17, statistics=['var']).double()
    wanted = distribution_statistics(logits.double(), 17, statistics=['var'])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize('size', [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty_maps(size, path):
    n, h, w = size
    logits = torch.randn(n, 34, h, w, requires_grad=True)
    found = distribution_statistics(logits, 17, 4, ALL)
    assert found.shape == (n, 12, h, w)
    found.sum().backward()
    assert logits.grad.shape == logits.shape
    assert distribution_statistics(logits.detach(), 17).shape == (n, 10, h, w)


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_nan_stays_in_its_side(bad, path):
    logits = torch.randn(1, 2 * 5, 3, 3)
    logits[0, 2, 1, 1] = bad
    for x in (logits, logits.clone().requires_grad_()):
        found = distribution_statistics(x, 5, 2, ALL)
        assert found[0, :4, 1, 1].isnan().all() and found.isnan().sum() == 4
    found.sum().backward()
    assert x.grad[0, :5, 1, 1].isnan().all() and x.grad.isnan().sum() == 5


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype, path):
    logits = torch.randn(1, 34, 3, 3).to(dtype)
    wanted = distribution_statistics(logits.float(), 17, 4, ALL)
    leaf = logits.clone().requires_grad_()
    with torch.autocast('cpu', dtype=dtype):
        found = distribution_statistics(leaf, 17, 4, ALL)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    found.sum().backward()
    assert leaf.grad.dtype == dtype and leaf.grad.isfinite().all()


def test_the_memory_layout_of_logits_does_not_matter(path):
    logits, weight = torch.randn(2, 34, 6, 8), torch.randn(2, 10, 6, 4)
    strided = torch.empty(2, 34, 6, 8).copy_(logits)[..., ::2]
    results = []
    for x in (logits[..., ::2].contiguous(), strided, strided.to(memory_format=torch.channels_last)):
        leaf = x.detach().requires_grad_()
        found = distribution_statistics(leaf, 17)
        assert found.is_contiguous()
        (found * weight).sum().backward()
        results.append((found.detach(), leaf.grad, distribution_statistics(x, 17)))
    for result in results[1:]:
        for one, other in zip(result, results[0]):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_nothing_is_kept_without_a_graph(monkeypatch):
    monkeypatch.setattr(MODULE._LargestProbabilities, 'apply', None)
    logits = torch.randn(1, 34, 2, 2, requires_grad=True)
    with torch.no_grad():
        assert not distribution_statistics(logits, 17).requires_grad
    with torch.inference_mode():
        assert distribution_statistics(logits, 17).is_inference()
    distribution_statistics(logits.detach(), 17)


@pytest.mark.skipif(torch.__version__.startswith('2.1.'), reason='torch 2.1 fails to trace torch.promote_types')
def test_traced_code_is_the_plain_form():
    logits = torch.randn(2, 34, 3, 3)
    traced = torch.jit.trace(lambda x: distribution_statistics(x, 17, 4, ALL), logits)
    assert 'topk' in str(traced.graph) and 'clamp' not in str(traced.graph)
    other = torch.randn(3, 34, 5, 2)
    torch.testing.assert_close(traced(other), distribution_statistics(other, 17, 4, ALL))
    compiled = torch.compile(distribution_statistics, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(other, 17), distribution_statistics(other, 17))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(topk=0), r'topk=0; accepted: 1 to 17'),
        (dict(topk=18), r'topk=18; accepted: 1 to 17'),
        (dict(statistics=('max',)), r"statistics=\('max',\); accepted: a list of topk, mean, var"),
        (dict(statistics=()), r'statistics=\(\)'),
        (dict(statistics=('mean', 'mean')), 'at most once'),
        (dict(statistics='mean'), "statistics='mean'"),
    ],
)
def test_arguments_that_are_not_accepted(arguments, message):
    with pytest.raises(ValueError, match=message):
        distribution_statistics(torch.randn(1, 34, 1, 1), 17, **arguments)


@pytest.mark.parametrize('channels', [35, 16, 0])
def test_channels_that_do_not_fit(channels):
    with pytest.raises(ValueError, match=f'{channels} channels; needs a multiple of bins=17'):
        distribution_statistics(torch.randn(1, channels, 1, 1), 17)


def test_second_derivatives():
    logits = torch.randn(2, 4 * 5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: distribution_statistics(x, 5, 3, ('topk', 'mean', 'var')), (logits,))
