"""Varifocal and matchability-aware loss: values by hand and by formula, MMDetection's, limits, messages, heads."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
import torch.nn.functional as F
from cases import build, host_config, host_features, metas, objects, positives_of
from mmdet.models.losses import VarifocalLoss as MMDetVarifocalLoss
from torch import Tensor

from mmdet_gfl.models.losses import (
    MatchabilityAwareLoss,
    VarifocalLoss,
    classification_loss,
    matchability_aware_loss,
    takes_quality,
    utils,
    varifocal_loss,
)
from mmdet_gfl.models.losses.classification_loss import _fused_form
from mmdet_gfl.models.task_modules import Positives
from mmdet_gfl.ops import LevelPredictions, LocationIndex
from mmdet_gfl.registry import MODELS

INF = math.inf
SIZE = (96, 160)


def varifocal(
    logit: Tensor, q: Tensor, positive: Tensor, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True
) -> Tensor:
    """Element by element in float64: log-sigmoid, no special cases. A positive of quality 0 is background."""
    cross_entropy = -(q * F.logsigmoid(logit) + (1 - q) * F.logsigmoid(-logit))
    return torch.where(q > 0, q if iou_weighted else 1.0, alpha * logit.sigmoid() ** gamma) * cross_entropy


def matchability_aware(logit: Tensor, q: Tensor, positive: Tensor, gamma: float = 1.5) -> Tensor:
    """The same; a positive of quality 0 does not count as background, where it is known."""
    target = torch.where(positive, q**gamma, 0.0)
    cross_entropy = -(target * F.logsigmoid(logit) + (1 - target) * F.logsigmoid(-logit))
    return torch.where(positive, 1.0, logit.sigmoid() ** gamma) * cross_entropy


class Case(NamedTuple):
    """A loss with settings, and its formula."""

    kind: type
    function: Callable[..., Tensor]
    formula: Callable[..., Tensor]
    settings: dict[str, Any]

    def loss(self, *args: Any) -> Tensor:
        return self.function(*args, **self.settings)

    def expected(self, logit: Tensor, q: Tensor, positive: Tensor) -> Tensor:
        """By the formula, (N, C)."""
        return self.formula(logit.double(), q.double(), positive, **self.settings)


VARIFOCAL = [
    Case(VarifocalLoss, varifocal_loss, varifocal, settings)
    for settings in (
        dict(),
        dict(alpha=0.4, gamma=0.5),
        dict(alpha=1.0, gamma=0.0),
        dict(gamma=1.5, iou_weighted=False),
    )
]
MATCHABILITY_AWARE = [
    Case(MatchabilityAwareLoss, matchability_aware_loss, matchability_aware, dict(gamma=gamma))
    for gamma in (0.0, 0.5, 1.0, 1.5, 2.0)
]
each_setting = pytest.mark.parametrize(
    'case', VARIFOCAL + MATCHABILITY_AWARE, ids=lambda case: f'{case.kind.__name__}-{case.settings}'
)
each_loss = pytest.mark.parametrize('case', [VARIFOCAL[0], MATCHABILITY_AWARE[3]], ids=lambda case: case.kind.__name__)


def sample(seed: int, n: int = 40, num_classes: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels of which half are background, and scores of which some are 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(n, num_classes, generator=generator) * 3
    label = torch.randint(num_classes, (n,), generator=generator)
    label[torch.rand(n, generator=generator) > 0.5] = num_classes
    score = torch.rand(n, generator=generator)
    score[:4], score[4:6] = 0.0, 1.0
    label[:5] = torch.arange(5) % num_classes
    return pred, label, score


def dense(label: Tensor, score: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Qualities and positives, (N, C)."""
    positive = F.one_hot(label, num_classes + 1)[:, :num_classes].bool()
    return positive * score[:, None], positive


def value_and_grad(loss: Callable[..., Tensor], pred: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    value.sum().backward()
    return value.detach(), leaf.grad


# --------------------------------------------------------------------------------------------------------------- values
def test_varifocal_by_hand():
    # At logit 0, σ = 1/2 and both logarithms are -ln 2. Row 0: 0.8 · ln 2 at its label, 0.75 · 0.25 · ln 2 beside it;
    # row 1 is background, 2 · 0.1875 · ln 2; so is row 2, a positive of quality 0.
    loss = varifocal_loss(torch.zeros(3, 2), (torch.tensor([0, 2, 1]), torch.tensor([0.8, 0.3, 0.0])))
    torch.testing.assert_close(loss, torch.tensor([0.9875, 0.375, 0.375]) * math.log(2))
    # σ = 1/4, q = 1/2: cross-entropy (ln 4 + ln 4/3) / 2; weight q, or 1.
    logit, target = torch.tensor([[math.log(1 / 3)]]), (torch.tensor([0]), torch.tensor([0.5]))
    cross_entropy = torch.tensor([(math.log(4) + math.log(4 / 3)) / 2])
    torch.testing.assert_close(varifocal_loss(logit, target), 0.5 * cross_entropy)
    torch.testing.assert_close(varifocal_loss(logit, target, iou_weighted=False), cross_entropy)


def test_matchability_aware_by_hand():
    # At logit 0, σ = 1/2 and both logarithms are -ln 2, so each positive costs ln 2, whatever its quality; an entry of
    # the background costs 0.5^1.5 ln 2.
    target = (torch.tensor([0, 2, 1]), torch.tensor([0.64, 0.3, 0.0]))
    beside = 0.5**1.5
    loss = matchability_aware_loss(torch.zeros(3, 2), target)
    torch.testing.assert_close(loss, torch.tensor([1 + beside, 2 * beside, 1 + beside]) * math.log(2))
    assert torch.equal(MatchabilityAwareLoss(reduction='none', loss_weight=2.0)(torch.zeros(3, 2), target), 2 * loss)
    # σ = 1/4, q = 0.64: the target is 0.64^1.5 = 0.512
    loss = matchability_aware_loss(torch.tensor([[math.log(1 / 3)]]), (torch.tensor([0]), torch.tensor([0.64])))
    torch.testing.assert_close(loss, torch.tensor([0.512 * math.log(4) + 0.488 * math.log(4 / 3)]))


@each_setting
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_equals_the_formula_in_float64(case, form):
    pred, label, score = sample(0)
    y, positive = dense(label, score, 7)
    positive = positive if form == 'label' else y > 0
    want, want_grad = value_and_grad(lambda x: case.expected(x, y, positive).sum(dim=1), pred.double())
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        target = (label, score.to(dtype)) if form == 'label' else y.to(dtype)
        value, grad = value_and_grad(case.loss, pred.to(dtype), target)
        assert value.dtype == grad.dtype == dtype and value.shape == (40,)
        torch.testing.assert_close(value.double(), want, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(grad.double(), want_grad, rtol=tolerance, atol=tolerance)


@each_setting
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_gradcheck(case, form):
    pred, label, score = sample(1, n=8, num_classes=3)
    target = (label, score) if form == 'label' else dense(label, score, 3)[0]
    assert torch.autograd.gradcheck(lambda x: case.loss(x, target), (pred.double().requires_grad_(),))


@pytest.mark.parametrize('q', [0.0, 0.25, 0.6, 1.0])
def test_the_minimum_lies_at_the_quality_or_its_power(q):
    sigma = torch.linspace(0.005, 0.995, 199, dtype=torch.float64)
    target = (torch.zeros(199, dtype=torch.long), torch.full((199,), q, dtype=torch.float64))
    for function, lowest in ((varifocal_loss, q), (matchability_aware_loss, q**1.5)):
        assert abs(sigma[function(sigma.logit()[:, None], target).argmin()].item() - lowest) < 0.0051


@pytest.mark.parametrize('case', VARIFOCAL, ids=lambda case: str(case.settings))
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_varifocal_equals_mmdetection(case, seed):
    pred, label, score = sample(seed)
    (y, _), weight = dense(label, score, 7), torch.rand(40)
    theirs = MMDetVarifocalLoss(**case.settings, loss_weight=1.7)
    ours = VarifocalLoss(**case.settings, loss_weight=1.7)
    for target in (y, (label, score)):
        for call in (dict(avg_factor=3.5), dict(avg_factor=3.5, weight=weight), dict(reduction_override='sum')):
            their_call = dict(call, weight=weight[:, None]) if 'weight' in call else call
            want, want_grad = value_and_grad(theirs, pred, y, **their_call)
            value, grad = value_and_grad(ours, pred, target, **call)
            torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(grad, want_grad, rtol=1e-5, atol=1e-6)
    want = theirs(pred, y, reduction_override='none').sum(dim=1)  # theirs is not summed over the classes
    torch.testing.assert_close(ours(pred, y, reduction_override='none'), want)


# ---------------------------------------------------------------------------------------------------------------- edges
def limits(case: Case) -> dict[tuple[float, float], tuple[float, float]]:
    """Loss and gradient at infinite logits by logit and quality."""
    if case.kind is VarifocalLoss:
        of_background, target = case.settings.get('alpha', 0.75), 0.4
        weight = target if case.settings.get('iou_weighted', True) else 1.0
    else:
        of_background, target, weight = 1, 0.4 ** case.settings['gamma'], 1.0
    return {
        (-INF, 0.0): (0, 0),
        (INF, 0.0): (INF, of_background),
        (INF, 1.0): (0, 0),
        (-INF, 1.0): (INF, -1),
        (INF, 0.4): (INF, weight * (1 - target)),
        (-INF, 0.4): (INF, -weight * target),
    }


@pytest.mark.parametrize(
    'case',
    [*VARIFOCAL, MATCHABILITY_AWARE[1], MATCHABILITY_AWARE[3]],
    ids=lambda case: f'{case.kind.__name__}-{case.settings}',
)
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_infinite_logits_give_the_limit(case, form):
    for (logit, q), expected in limits(case).items():
        target = (torch.tensor([0]), torch.tensor([q])) if form == 'label' else torch.tensor([[q]])
        value, grad = value_and_grad(case.loss, torch.tensor([[logit]]), target)
        assert (value.item(), grad.item()) == pytest.approx(expected), (logit, q)


@each_loss
def test_precision_autocast_and_graph(case):
    pred, label, score = sample(5)
    for dtype in (torch.half, torch.bfloat16):
        value, grad = value_and_grad(case.loss, pred.to(dtype), (label, score))
        want, want_grad = value_and_grad(case.loss, pred.to(dtype).float(), (label, score))
        assert value.dtype == torch.float32 and grad.dtype == dtype
        assert torch.equal(value, want) and torch.equal(grad, want_grad.to(dtype))
        with torch.autocast('cpu', dtype=dtype):
            cast = case.loss(pred, (label, score))
        assert torch.equal(cast, case.loss(pred, (label, score)))
    score.requires_grad_()
    y = torch.rand(40, 7, requires_grad=True)
    pred.requires_grad_()
    (case.loss(pred, (label, score)).sum() + case.loss(pred, y).sum()).backward()
    assert score.grad is None and y.grad is None and pred.grad.abs().max() > 0
    for target in ((torch.zeros(0, dtype=torch.long), torch.zeros(0)), torch.zeros(0, 5)):
        empty = torch.zeros(0, 5, requires_grad=True)
        loss = case.kind()(empty, target)
        loss.backward()
        assert loss.item() == 0 and empty.grad.shape == (0, 5)


@each_loss
def test_off_the_cpu_wrong_values_become_nan(case, monkeypatch):
    monkeypatch.setattr(utils, 'on_cpu', lambda tensor: False)
    label, score = torch.tensor([-1, 0, 3, 1, 2, 99]), torch.tensor([0.5, 0.5, 0.5, 1.2, 1.2, 0.5])
    loss = case.loss(torch.randn(6, 2), (label, score))
    assert loss.isnan().tolist() == [True, False, True, True, False, True]
    assert case.loss(torch.randn(2, 1), torch.tensor([[1.2], [0.3]])).isnan().tolist() == [True, False]


@each_loss
@pytest.mark.parametrize(
    'call, match',
    [
        (lambda case: case.loss(torch.zeros(2, 3), torch.zeros(3, 2)), r'{} needs target=.*got a torch'),
        (lambda case: case.loss(torch.zeros(2, 3), torch.zeros(2)), '{} needs target='),
        (lambda case: case.loss(torch.zeros(2, 3), None), 'got None'),
        (lambda case: case.loss(torch.zeros(2, 3).long(), torch.zeros(2, 3)), '{} needs a floating-point'),
        (lambda case: case.loss(torch.zeros(1, 3), (torch.tensor([4]), torch.ones(1))), r'labels in \[0, 3\]'),
        (lambda case: case.loss(torch.zeros(1, 3), (torch.tensor([1]), torch.tensor([1.1]))), r'scores \(IoU\) in'),
        (lambda case: case.loss(torch.zeros(1, 1), torch.tensor([[1.1]])), r'dense targets in \[0, 1\]'),
        (lambda case: case.loss(torch.zeros(1, 1), torch.tensor([[-0.1]])), r'dense targets in \[0, 1\]'),
        (lambda case: case.function(torch.zeros(1, 1), torch.zeros(1, 1), gamma=INF), 'gamma must be a finite'),
        (lambda case: case.function(torch.zeros(1, 1), torch.zeros(1, 1), gamma=-1), 'gamma must be a finite'),
        (lambda case: case.kind(gamma=-1), 'gamma must be a finite number >= 0'),
        (lambda case: case.kind(use_sigmoid=False), '{} scores classes with a sigmoid'),
        (lambda case: case.kind(reduction='max'), 'reduction must be one of'),
    ],
)
def test_wrong_inputs_and_settings_raise(case, call, match):
    with pytest.raises(ValueError, match=match.replace('{}', case.kind.__name__)):
        call(case)


def test_a_wrong_alpha_raises():
    with pytest.raises(ValueError, match='alpha must be a finite number >= 0'):
        VarifocalLoss(alpha=-1)
    with pytest.raises(ValueError, match='alpha must be a finite'):
        varifocal_loss(torch.zeros(1, 1), torch.zeros(1, 1), alpha=-0.5)


# ------------------------------------------------------------------------------------------------------------- in heads
@each_setting
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('num_priors, positives', [(1, 0), (1, 10), (3, 25)])
def test_fused_is_plain(num_priors, positives, weighted, case, monkeypatch):
    index = LocationIndex([(5, 7), (3, 4), (1, 1)], 2, [num_priors] * 3)
    levels = [(torch.randn(2, num_priors * 4, *size) * 3).requires_grad_() for size in index.featmap_sizes]
    logits = LevelPredictions(levels, 4, index)
    pos = index.coords(torch.randperm(index.total)[:positives].sort().values)
    labels, quality = torch.randint(4, (positives,)), torch.rand(positives)
    quality[::3] = 0.0  # which is background to one of the losses, and not to the other
    weights = torch.rand(index.total) if weighted else None
    loss = case.kind(**case.settings, loss_weight=1.5)
    other = type('Other', (case.kind,), {})(**case.settings, loss_weight=1.5)  # a subclass has no fused form
    with monkeypatch.context() as patch:
        patch.setattr(case.kind, 'elementwise', lambda *_: pytest.fail('not fused'))
        value = classification_loss(loss, logits, pos, labels, quality, weights, torch.tensor(7.0))
    want = classification_loss(other, logits, pos, labels, quality, weights, torch.tensor(7.0))
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
    for grad, want_grad in zip(torch.autograd.grad(value, levels), torch.autograd.grad(want, levels)):
        torch.testing.assert_close(grad, want_grad, rtol=1e-5, atol=1e-6)


@each_loss
def test_only_qualities_and_the_mean_are_fused(case):
    kind, labels, quality = case.kind, torch.zeros(3, dtype=torch.long), torch.rand(3)
    assert _fused_form(kind(), labels, quality, 4) is not None
    assert _fused_form(kind(), labels, None, 4) is None
    assert _fused_form(type('Other', (kind,), {})(), labels, quality, 4) is None
    assert _fused_form(kind(reduction='none'), labels, quality, 4) is None
    assert _fused_form(kind(reduction='sum'), labels, quality, 4) is None
    with pytest.raises(ValueError, match=f'{kind.__name__} needs scores'):
        _fused_form(kind(), labels, quality + 1, 4)


@pytest.mark.parametrize(
    'host, case', [('ATSS', VARIFOCAL[1]), ('ATSS', MATCHABILITY_AWARE[1]), ('SSD', MATCHABILITY_AWARE[1])]
)
def test_it_is_a_loss_of_the_joint_kind(host, case):
    name = case.kind.__name__
    loss_cls = dict(type=f'mmdet_gfl.{name}', **case.settings)
    assert MODELS.get(name) is case.kind and takes_quality(loss_cls)
    head = build(host_config(host) | dict(quality=dict(type='mmdet_gfl.JointQuality', loss_cls=loss_cls)))
    assert type(head.loss_cls) is case.kind and head.cls_out_channels == 5
    gts = objects([3, 0], SIZE)
    feats = host_features(host, SIZE, 2)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    targets, (logits, bbox_pred) = positives_of(head, SIZE, gts, feats)
    inds = targets.pos.flat_inds
    positives = Positives(logits[inds], head.box.decode(bbox_pred[inds], targets.locations, head), targets)
    y, positive = torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool)
    y[inds, targets.labels], positive[inds, targets.labels] = positives.iou, True
    want = case.expected(logits, y, positive)
    if targets.label_weights is not None:
        want = want * targets.label_weights[:, None]
    assert len(inds) > 3 and positives.iou.max() > 0.1
    torch.testing.assert_close(losses['loss_cls'].double(), want.sum() / float(targets.avg_factor), rtol=1e-5, atol=0)
