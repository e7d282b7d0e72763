import math

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
import torch.nn.functional as F
from cases import build, host_config, host_features, metas, objects, positives_of
from torch import Tensor

from mmdet_gfl.models.losses import (
    MatchabilityAwareLoss,
    classification_loss,
    matchability_aware_loss,
    takes_quality,
    utils,
)
from mmdet_gfl.models.losses.classification_loss import _fused_form
from mmdet_gfl.models.task_modules import Positives
from mmdet_gfl.ops import LevelPredictions, LocationIndex
from mmdet_gfl.registry import MODELS

GAMMAS = (0.0, 0.5, 1.0, 1.5, 2.0)
INF = math.inf
SIZE = (96, 160)


def formula(logit: Tensor, q: Tensor, positive: Tensor, gamma: float = 1.5) -> Tensor:
    """Element by element in float64: log-sigmoid, no special cases."""
    logit, q = logit.double(), q.double()
    target = torch.where(positive, q**gamma, 0.0)
    cross_entropy = -(target * F.logsigmoid(logit) + (1 - target) * F.logsigmoid(-logit))
    return torch.where(positive, 1.0, logit.sigmoid() ** gamma) * cross_entropy


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


def value_and_grad(loss, pred: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    value.sum().backward()
    return value.detach(), leaf.grad


# --------------------------------------------------------------------------------------------------------------- values
def test_by_hand():
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


@pytest.mark.parametrize('gamma', GAMMAS)
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_equals_the_formula_in_float64(gamma, form):
    pred, label, score = sample(0)
    y, positive = dense(label, score, 7)
    positive = positive if form == 'label' else y > 0
    want, want_grad = value_and_grad(lambda x: formula(x, y, positive, gamma).sum(dim=1), pred.double())
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        target = (label, score.to(dtype)) if form == 'label' else y.to(dtype)
        value, grad = value_and_grad(matchability_aware_loss, pred.to(dtype), target, gamma=gamma)
        assert value.dtype == grad.dtype == dtype and value.shape == (40,)
        torch.testing.assert_close(value.double(), want, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(grad.double(), want_grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('gamma', GAMMAS)
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_gradcheck(gamma, form):
    pred, label, score = sample(1, n=8, num_classes=3)
    target = (label, score) if form == 'label' else dense(label, score, 3)[0]
    assert torch.autograd.gradcheck(
        lambda x: matchability_aware_loss(x, target, gamma), (pred.double().requires_grad_(),)
    )


@pytest.mark.parametrize('q', [0.0, 0.25, 0.6, 1.0])
def test_the_minimum_lies_at_the_power_of_the_quality(q):
    sigma = torch.linspace(0.005, 0.995, 199, dtype=torch.float64)
    target = (torch.zeros(199, dtype=torch.long), torch.full((199,), q, dtype=torch.float64))
    loss = matchability_aware_loss(sigma.logit()[:, None], target)
    assert abs(sigma[loss.argmin()].item() - q**1.5) < 0.0051


# ---------------------------------------------------------------------------------------------------------------- edges
@pytest.mark.parametrize('gamma', [0.5, 1.5])
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_infinite_logits_give_the_limit(gamma, form):
    def run(logit: float, q: float) -> tuple[float, float]:
        target = (torch.tensor([0]), torch.tensor([q])) if form == 'label' else torch.tensor([[q]])
        value, grad = value_and_grad(matchability_aware_loss, torch.tensor([[logit]]), target, gamma=gamma)
        return value.item(), grad.item()

    assert run(-INF, 0.0) == (0, 0)
    assert run(INF, 0.0) == (INF, 1)
    assert run(INF, 1.0) == (0, 0)
    assert run(-INF, 1.0) == (INF, -1)
    assert run(INF, 0.4) == (INF, pytest.approx(1 - 0.4**gamma))
    assert run(-INF, 0.4) == (INF, pytest.approx(-(0.4**gamma)))


def test_precision_autocast_and_graph():
    pred, label, score = sample(5)
    for dtype in (torch.half, torch.bfloat16):
        value, grad = value_and_grad(matchability_aware_loss, pred.to(dtype), (label, score))
        want, want_grad = value_and_grad(matchability_aware_loss, pred.to(dtype).float(), (label, score))
        assert value.dtype == torch.float32 and grad.dtype == dtype
        assert torch.equal(value, want) and torch.equal(grad, want_grad.to(dtype))
        with torch.autocast('cpu', dtype=dtype):
            cast = matchability_aware_loss(pred, (label, score))
        assert torch.equal(cast, matchability_aware_loss(pred, (label, score)))
    score.requires_grad_()
    y = torch.rand(40, 7, requires_grad=True)
    pred.requires_grad_()
    (matchability_aware_loss(pred, (label, score)).sum() + matchability_aware_loss(pred, y).sum()).backward()
    assert score.grad is None and y.grad is None and pred.grad.abs().max() > 0
    for target in ((torch.zeros(0, dtype=torch.long), torch.zeros(0)), torch.zeros(0, 5)):
        empty = torch.zeros(0, 5, requires_grad=True)
        loss = MatchabilityAwareLoss()(empty, target)
        loss.backward()
        assert loss.item() == 0 and empty.grad.shape == (0, 5)


def test_off_the_cpu_wrong_values_become_nan(monkeypatch):
    monkeypatch.setattr(utils, 'on_cpu', lambda tensor: False)
    label, score = torch.tensor([-1, 0, 3, 1, 2, 99]), torch.tensor([0.5, 0.5, 0.5, 1.2, 1.2, 0.5])
    loss = matchability_aware_loss(torch.randn(6, 2), (label, score))
    assert loss.isnan().tolist() == [True, False, True, True, False, True]


@pytest.mark.parametrize(
    'call, match',
    [
        (lambda: matchability_aware_loss(torch.zeros(2, 3), torch.zeros(3, 2)), 'MatchabilityAwareLoss needs target='),
        (lambda: matchability_aware_loss(torch.zeros(2, 3), None), 'got None'),
        (lambda: matchability_aware_loss(torch.zeros(2, 3).long(), torch.zeros(2, 3)), 'needs a floating-point'),
        (lambda: matchability_aware_loss(torch.zeros(1, 3), (torch.tensor([4]), torch.ones(1))), r'labels in \[0, 3\]'),
        (lambda: matchability_aware_loss(torch.zeros(1, 1), torch.tensor([[1.1]])), r'dense targets in \[0, 1\]'),
        (lambda: matchability_aware_loss(torch.zeros(1, 1), torch.zeros(1, 1), -1), 'gamma must be a finite'),
        (lambda: MatchabilityAwareLoss(gamma=-1), 'gamma must be a finite number >= 0'),
        (lambda: MatchabilityAwareLoss(use_sigmoid=False), 'MatchabilityAwareLoss scores classes with a sigmoid'),
    ],
)
def test_wrong_inputs_and_settings_raise(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# ------------------------------------------------------------------------------------------------------------- in heads
@pytest.mark.parametrize('gamma', GAMMAS)
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('num_priors, positives', [(1, 0), (1, 10), (3, 25)])
def test_fused_is_plain(num_priors, positives, weighted, gamma, monkeypatch):
    index = LocationIndex([(5, 7), (3, 4), (1, 1)], 2, [num_priors] * 3)
    levels = [(torch.randn(2, num_priors * 4, *size) * 3).requires_grad_() for size in index.featmap_sizes]
    logits = LevelPredictions(levels, 4, index)
    pos = index.coords(torch.randperm(index.total)[:positives].sort().values)
    labels, quality = torch.randint(4, (positives,)), torch.rand(positives)
    quality[::3] = 0.0  # a positive of quality 0 is not background
    weights = torch.rand(index.total) if weighted else None
    loss = MatchabilityAwareLoss(gamma=gamma, loss_weight=1.5)
    other = type('Other', (MatchabilityAwareLoss,), {})(gamma=gamma, loss_weight=1.5)  # a subclass has no fused form
    with monkeypatch.context() as patch:
        patch.setattr(MatchabilityAwareLoss, 'elementwise', lambda *_: pytest.fail('not fused'))
        value = classification_loss(loss, logits, pos, labels, quality, weights, torch.tensor(7.0))
    want = classification_loss(other, logits, pos, labels, quality, weights, torch.tensor(7.0))
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
    for grad, want_grad in zip(torch.autograd.grad(value, levels), torch.autograd.grad(want, levels)):
        torch.testing.assert_close(grad, want_grad, rtol=1e-5, atol=1e-6)


def test_only_qualities_and_the_mean_are_fused():
    labels, quality = torch.zeros(3, dtype=torch.long), torch.rand(3)
    assert _fused_form(MatchabilityAwareLoss(), labels, quality, 4) is not None
    assert _fused_form(MatchabilityAwareLoss(), labels, None, 4) is None
    assert _fused_form(type('Other', (MatchabilityAwareLoss,), {})(), labels, quality, 4) is None
    assert _fused_form(MatchabilityAwareLoss(reduction='none'), labels, quality, 4) is None
    with pytest.raises(ValueError, match='MatchabilityAwareLoss needs scores'):
        _fused_form(MatchabilityAwareLoss(), labels, quality + 1, 4)


@pytest.mark.parametrize('host', ['ATSS', 'SSD'])
def test_it_is_a_loss_of_the_joint_kind(host):
    assert MODELS.get('MatchabilityAwareLoss') is MatchabilityAwareLoss
    loss_cls = dict(type='mmdet_gfl.MatchabilityAwareLoss', gamma=1.25)
    assert takes_quality(loss_cls)
    head = build(host_config(host) | dict(quality=dict(type='mmdet_gfl.JointQuality', loss_cls=loss_cls)))
    assert type(head.loss_cls) is MatchabilityAwareLoss and head.cls_out_channels == 5
    gts = objects([3, 0], SIZE)
    feats = host_features(host, SIZE, 2)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    targets, (logits, bbox_pred) = positives_of(head, SIZE, gts, feats)
    inds = targets.pos.flat_inds
    positives = Positives(logits[inds], head.box.decode(bbox_pred[inds], targets.locations, head), targets)
    y, positive = torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool)
    y[inds, targets.labels], positive[inds, targets.labels] = positives.iou, True
    want = formula(logits, y, positive, gamma=1.25)
    if targets.label_weights is not None:
        want = want * targets.label_weights[:, None]
    assert len(inds) > 3 and positives.iou.max() > 0.1
    torch.testing.assert_close(losses['loss_cls'].double(), want.sum() / float(targets.avg_factor), rtol=1e-5, atol=0)
