"""The class loss of a batch: which losses are fused, that they equal the module, and which take qualities."""

import pytest
import torch
from cases import flat_rows
from mmdet.models.losses import FocalLoss
from mmdet.models.losses import QualityFocalLoss as MMDetQualityFocalLoss
from mmdet.registry import MODELS
from torch import nn

from mmdet_gfl.models.losses import QualityFocalLoss, classification_loss, takes_quality
from mmdet_gfl.models.losses.soft_labels import SoftLabelForm, SoftLabelLoss
from mmdet_gfl.ops import LevelPredictions, LocationIndex

SIZES = [(5, 7), (3, 4), (1, 1)]
CLASSES = 4


def random_batch(num_priors=(1, 3, 2), num_positives=25, dtype=torch.float32):
    """Logits, coordinates, labels and qualities of the positives, and weights of all locations, of which some are 0."""
    index = LocationIndex(SIZES, 2, num_priors)
    levels = [(torch.randn(2, a * CLASSES, *size) * 3).to(dtype).requires_grad_() for a, size in zip(num_priors, SIZES)]
    flat_inds = torch.randperm(index.total)[:num_positives].sort().values
    weights = (torch.rand(index.total) > 0.3).float()
    weights[flat_inds] = 2.0
    labels, quality = torch.randint(CLASSES, (num_positives,)), torch.rand(num_positives)
    return LevelPredictions(levels, CLASSES, index), index.coords(flat_inds), labels, quality, weights


def dense_target(pos, labels, quality, total, background=CLASSES):
    """The target of the module itself: labels (R,), and with qualities the pair of both."""
    dense_labels = torch.full((total,), background).index_put((pos.flat_inds,), labels)
    if quality is None:
        return dense_labels
    return dense_labels, torch.zeros(total).index_put((pos.flat_inds,), quality)


def count_calls(loss, monkeypatch):
    """The list of arguments of each call of the loss from now on."""
    calls, forward = [], loss.forward

    def counted(*args, **kwargs):
        calls.append((args, kwargs))
        return forward(*args, **kwargs)

    monkeypatch.setattr(loss, 'forward', counted)
    return calls


def assert_same(logits, found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    grads, expected_grads = (torch.autograd.grad(value, logits.levels) for value in (found, expected))
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-6)


class OwnForm(SoftLabelLoss):
    """A user's loss by its formulas alone: cross entropy of the qualities, and a focused background."""

    @property
    def form(self):
        return SoftLabelForm(
            'OwnForm',
            lambda x, y: torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction='none'),
            lambda x: 0.5 * x.sigmoid() ** 1.5 * torch.nn.functional.softplus(x),
            beta=1.5,
            background_factor=0.5,
            zero_is_background=False,
        )


FUSED = {
    'ours': lambda: QualityFocalLoss(loss_weight=1.5),
    'ours-beta-0': lambda: QualityFocalLoss(beta=0.0),
    'ours-beta-0.5': lambda: QualityFocalLoss(beta=0.5),
    'mmdet': lambda: MMDetQualityFocalLoss(loss_weight=0.5),
    'mmdet-beta-0': lambda: MMDetQualityFocalLoss(beta=0.0),
    'mmdet-beta-1.5': lambda: MMDetQualityFocalLoss(beta=1.5, loss_weight=2.0),
    'own-form': lambda: OwnForm(loss_weight=1.5),
    'focal': lambda: FocalLoss(),
    'focal-gamma-1.5-alpha-0.4': lambda: FocalLoss(gamma=1.5, alpha=0.4, loss_weight=2.0),
    'focal-gamma-0': lambda: FocalLoss(gamma=0.0, alpha=0.5),
    'focal-alpha-1': lambda: FocalLoss(gamma=2.0, alpha=1.0, loss_weight=0.5),
    'focal-alpha-0': lambda: FocalLoss(gamma=2.0, alpha=0.0),
}


@pytest.mark.parametrize('name', FUSED)
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('num_priors, num_positives', [([1, 1, 1], 0), ([1, 1, 1], 10), ([1, 3, 2], 25)], ids=str)
def test_fused_equals_the_module(name, weighted, num_priors, num_positives, monkeypatch):
    logits, pos, labels, quality, weights = random_batch(num_priors, num_positives)
    loss, weights = FUSED[name](), weights if weighted else None
    quality = None if isinstance(loss, FocalLoss) else quality
    avg_factor = torch.tensor(7.0)
    target = dense_target(pos, labels, quality, logits.index.total)
    expected = loss(flat_rows(logits.levels, CLASSES), target, weight=weights, avg_factor=avg_factor)
    calls = count_calls(loss, monkeypatch)
    found = classification_loss(loss, logits, pos, labels, quality, weights, avg_factor)
    assert calls == []
    assert_same(logits, found, expected)


@pytest.mark.parametrize('avg_factor', [0.0, 3, torch.tensor(0.0), torch.tensor(2.5)], ids=repr)
@pytest.mark.parametrize('name', ['ours', 'mmdet', 'focal'])
def test_division_is_that_of_mmdetection(name, avg_factor):
    logits, pos, labels, quality, _ = random_batch()
    loss = FUSED[name]()
    quality = None if isinstance(loss, FocalLoss) else quality
    target = dense_target(pos, labels, quality, logits.index.total)
    expected = loss(flat_rows(logits.levels, CLASSES), target, avg_factor=avg_factor)
    found = classification_loss(loss, logits, pos, labels, quality, None, avg_factor)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class HalvedQualityFocalLoss(QualityFocalLoss):
    """A user's change of our formula."""

    def elementwise(self, *args, **kwargs):
        return 0.5 * super().elementwise(*args, **kwargs)


class HalvedMMDetQualityFocalLoss(MMDetQualityFocalLoss):
    """A user's change of MMDetection's."""

    def forward(self, *args, **kwargs):
        return 0.5 * super().forward(*args, **kwargs)


class HalvedFocalLoss(FocalLoss):
    """Likewise."""

    def forward(self, *args, **kwargs):
        return 0.5 * super().forward(*args, **kwargs)


class SquaredScore(nn.Module):
    """A loss of a user's own that takes qualities: Σ (σ - y)² over the classes."""

    takes_quality = True

    def forward(self, pred, target, weight=None, avg_factor=None):
        label, score = target
        y = torch.nn.functional.one_hot(label, pred.size(1) + 1)[:, :-1] * score[:, None]
        return ((pred.sigmoid() - y).square().sum(dim=1) * weight).sum() / avg_factor


NOT_FUSED = {
    'subclass-of-ours': lambda: HalvedQualityFocalLoss(loss_weight=1.5),
    'subclass-of-own-form': lambda: type('Other', (OwnForm,), {})(),
    'subclass-of-mmdet-qfl': lambda: HalvedMMDetQualityFocalLoss(),
    'subclass-of-focal': lambda: HalvedFocalLoss(gamma=1.5),
    'own': lambda: SquaredScore(),
    'softmax': lambda: MODELS.build(dict(type='CrossEntropyLoss', use_sigmoid=False)),
    'bce': lambda: MODELS.build(dict(type='CrossEntropyLoss', use_sigmoid=True)),
    'ghm': lambda: MODELS.build(dict(type='GHMC', momentum=0)),  # it calls its weights `label_weight`
}


@pytest.mark.parametrize('name', NOT_FUSED)
@pytest.mark.parametrize('weighted', [False, True])
def test_other_losses_are_called_with_rows_and_dense_targets(name, weighted, monkeypatch):
    logits, pos, labels, quality, weights = random_batch()
    loss, total = NOT_FUSED[name](), logits.index.total
    quality = quality if takes_quality(loss) else None
    background = CLASSES - (name == 'softmax')  # whose last output is the background's
    labels = labels % background
    target = dense_target(pos, labels, quality, total, background)
    rows, avg_factor = flat_rows(logits.levels, CLASSES), torch.tensor(7.0)
    expected_weights = weights if weighted else torch.ones(total)
    expected = loss(rows, target, expected_weights, avg_factor=avg_factor)
    calls = count_calls(loss, monkeypatch)
    num_classes = background if name == 'softmax' else None
    found = classification_loss(
        loss, logits, pos, labels, quality, weights if weighted else None, avg_factor, num_classes
    )
    assert len(calls) == 1
    (pred, _, given_weights), _ = calls[0]
    assert torch.equal(pred, rows) and torch.equal(given_weights, expected_weights)
    assert_same(logits, found, expected)


@pytest.mark.parametrize('reduction', ['sum', 'none'])
@pytest.mark.parametrize('kind', [QualityFocalLoss, MMDetQualityFocalLoss, FocalLoss], ids=['ours', 'mmdet', 'focal'])
def test_other_reductions_go_to_the_module(kind, reduction, monkeypatch):
    # An avg_factor does not go with a sum, so what the module answers is what the caller gets.
    logits, pos, labels, quality, weights = random_batch()
    loss = kind(reduction=reduction)
    quality = None if kind is FocalLoss else quality
    calls = count_calls(loss, monkeypatch)
    if reduction == 'sum':
        with pytest.raises(ValueError, match='avg_factor can not be used with reduction="sum"'):
            classification_loss(loss, logits, pos, labels, quality, weights, 7.0)
    else:
        found = classification_loss(loss, logits, pos, labels, quality, weights, 7.0)
        assert found.shape[0] == logits.index.total
        target = dense_target(pos, labels, quality, logits.index.total)
        torch.testing.assert_close(found, loss(flat_rows(logits.levels, CLASSES), target, weights))
    assert len(calls) >= 1


@pytest.mark.parametrize('kind', [QualityFocalLoss, MMDetQualityFocalLoss, FocalLoss], ids=['ours', 'mmdet', 'focal'])
def test_probabilities_go_to_the_module(kind, monkeypatch):
    logits, pos, labels, quality, weights = random_batch()
    probabilities = LevelPredictions([level.sigmoid() for level in logits.levels], CLASSES, logits.index)
    loss, quality = kind(activated=True), None if kind is FocalLoss else quality
    calls = count_calls(loss, monkeypatch)
    found = classification_loss(loss, probabilities, pos, labels, quality, weights, 7.0)
    assert len(calls) == 1
    target = dense_target(pos, labels, quality, logits.index.total)
    rows = flat_rows(probabilities.levels, CLASSES)
    torch.testing.assert_close(found, loss(rows, target, weight=weights, avg_factor=7.0))


def test_focal_loss_with_qualities_is_not_fused():
    # MMDetection's focal loss does not take the pair; it must say so, rather than ignore the qualities.
    logits, pos, labels, quality, _ = random_batch()
    with pytest.raises((AttributeError, TypeError)):
        classification_loss(FocalLoss(), logits, pos, labels, quality, None, 7.0)


@pytest.mark.parametrize('kind', [QualityFocalLoss, MMDetQualityFocalLoss], ids=['ours', 'mmdet'])
def test_a_wrong_quality_raises(kind):
    logits, pos, labels, quality, _ = random_batch()
    quality[3] = 1.5
    with pytest.raises(ValueError, match=r'scores \(IoU\) in \[0, 1\]'):
        classification_loss(kind(), logits, pos, labels, quality, None, 1.0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('name', ['ours', 'mmdet', 'focal', 'subclass-of-ours'])
def test_the_loss_is_at_least_float32(name, dtype):
    logits, pos, labels, quality, weights = random_batch(dtype=dtype)
    loss = (FUSED | NOT_FUSED)[name]()
    quality = None if name == 'focal' else quality
    found = classification_loss(loss, logits, pos, labels, quality, weights, 7.0)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    upcast = LevelPredictions([level.detach().double() for level in logits.levels], CLASSES, logits.index)
    expected = classification_loss(loss, upcast, pos, labels, quality, weights, 7.0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


# Losses that take qualities -----------------------------------------------------------------------------------------


@MODELS.register_module(force=True)
class OwnLossOfQualities(SquaredScore):
    """Registered by a user, with ``takes_quality = True``."""


@MODELS.register_module(force=True)
class OwnLossOfLabels(SquaredScore):
    """Registered by a user, without."""

    takes_quality = False


@pytest.mark.parametrize(
    'cfg, expected',
    [
        (dict(type='mmdet_gfl.QualityFocalLoss'), True),
        (dict(type='QualityFocalLoss'), True),
        (dict(type='QualityFocalLoss', activated=True), True),
        (dict(type='OwnLossOfQualities'), True),
        (dict(type='OwnLossOfLabels'), False),
        (dict(type='FocalLoss'), False),
        (dict(type='CrossEntropyLoss', use_sigmoid=True), False),
        (dict(type='VarifocalLoss'), False),
        (dict(type='GHMC'), False),
    ],
    ids=lambda value: '-'.join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_takes_quality(cfg, expected):
    assert takes_quality(cfg) is expected and takes_quality(MODELS.build(cfg)) is expected


@pytest.mark.parametrize('kind', [HalvedQualityFocalLoss, HalvedMMDetQualityFocalLoss])
def test_subclasses_take_qualities(kind):
    assert takes_quality(kind()) and takes_quality(dict(type=kind))
    assert not takes_quality(type('Without', (kind,), dict(takes_quality=False))())
