import math

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
import torch.nn.functional as F
from cases import build, host_config, host_features, metas, objects, positives_of
from mmdet.models.losses import VarifocalLoss as MMDetVarifocalLoss
from torch import Tensor

from mmdet_gfl.models.losses import VarifocalLoss, classification_loss, takes_quality, utils, varifocal_loss
from mmdet_gfl.models.losses.classification_loss import _fused_form
from mmdet_gfl.models.task_modules import Positives
from mmdet_gfl.ops import LevelPredictions, LocationIndex
from mmdet_gfl.registry import MODELS

SETTINGS = [dict(), dict(alpha=0.4, gamma=0.5), dict(alpha=1.0, gamma=0.0), dict(gamma=1.5, iou_weighted=False)]
INF = math.inf
SIZE = (96, 160)


def formula(logit: Tensor, q: Tensor, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True) -> Tensor:
    """Element by element in float64: log-sigmoid, no special cases."""
    logit, q = logit.double(), q.double()
    cross_entropy = -(q * F.logsigmoid(logit) + (1 - q) * F.logsigmoid(-logit))
    weight = torch.where(q > 0, q if iou_weighted else 1.0, alpha * logit.sigmoid() ** gamma)
    return weight * cross_entropy


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


def dense(label: Tensor, score: Tensor, num_classes: int) -> Tensor:
    return F.one_hot(label, num_classes + 1)[:, :num_classes].to(score) * score[:, None]


def value_and_grad(loss, pred: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    value.sum().backward()
    return value.detach(), leaf.grad


# --------------------------------------------------------------------------------------------------------------- values
def test_by_hand():
    # At logit 0, σ = 1/2 and both logarithms are -ln 2. Row 0: 0.8 · ln 2 at its label, 0.75 · 0.25 · ln 2 beside it;
    # row 1 is background, 2 · 0.1875 · ln 2; so is row 2, a positive of quality 0.
    loss = varifocal_loss(torch.zeros(3, 2), (torch.tensor([0, 2, 1]), torch.tensor([0.8, 0.3, 0.0])))
    torch.testing.assert_close(loss, torch.tensor([0.9875, 0.375, 0.375]) * math.log(2))
    # σ = 1/4, q = 1/2: cross-entropy (ln 4 + ln 4/3) / 2; weight q, or 1.
    logit, target = torch.tensor([[math.log(1 / 3)]]), (torch.tensor([0]), torch.tensor([0.5]))
    cross_entropy = torch.tensor([(math.log(4) + math.log(4 / 3)) / 2])
    torch.testing.assert_close(varifocal_loss(logit, target), 0.5 * cross_entropy)
    torch.testing.assert_close(varifocal_loss(logit, target, iou_weighted=False), cross_entropy)


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_equals_the_formula_in_float64(settings, form):
    pred, label, score = sample(0)
    y = dense(label, score, 7)
    want, want_grad = value_and_grad(lambda x: formula(x, y, **settings).sum(dim=1), pred.double())
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        target = (label, score) if form == 'label' else y
        value, grad = value_and_grad(varifocal_loss, pred.to(dtype), target, **settings)
        assert value.dtype == grad.dtype == dtype and value.shape == (40,)
        torch.testing.assert_close(value.double(), want, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(grad.double(), want_grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_gradcheck(settings, form):
    pred, label, score = sample(1, n=8, num_classes=3)
    target = (label, score) if form == 'label' else dense(label, score, 3)
    assert torch.autograd.gradcheck(lambda x: varifocal_loss(x, target, **settings), (pred.double().requires_grad_(),))


@pytest.mark.parametrize('q', [0.25, 0.6, 1.0])
def test_the_minimum_lies_at_the_quality(q):
    sigma = torch.linspace(0.005, 0.995, 199, dtype=torch.float64)
    loss = varifocal_loss(sigma.logit()[:, None], torch.full((199, 1), q, dtype=torch.float64))
    assert abs(sigma[loss.argmin()].item() - q) < 0.0051


@pytest.mark.agreement
@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_equals_mmdetection(settings, seed):
    pred, label, score = sample(seed)
    y, weight = dense(label, score, 7), torch.rand(40)
    theirs = MMDetVarifocalLoss(**settings, loss_weight=1.7)
    ours = VarifocalLoss(**settings, loss_weight=1.7)
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
@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_infinite_logits_give_the_limit(settings, form):
    def run(logit: float, q: float) -> tuple[float, float]:
        target = (torch.tensor([0]), torch.tensor([q])) if form == 'label' else torch.tensor([[q]])
        value, grad = value_and_grad(varifocal_loss, torch.tensor([[logit]]), target, **settings)
        return value.item(), grad.item()

    alpha = settings.get('alpha', 0.75)
    weight = 0.4 if settings.get('iou_weighted', True) else 1.0
    assert run(-INF, 0.0) == (0, 0)
    assert run(INF, 1.0) == (0, 0)
    assert run(INF, 0.0) == (INF, pytest.approx(alpha))
    assert run(-INF, 1.0) == (INF, -1)
    assert run(INF, 0.4) == (INF, pytest.approx(weight * 0.6))
    assert run(-INF, 0.4) == (INF, pytest.approx(-weight * 0.4))


def test_precision_autocast_and_graph():
    pred, label, score = sample(5)
    for dtype in (torch.half, torch.bfloat16):
        value, grad = value_and_grad(varifocal_loss, pred.to(dtype), (label, score))
        want, want_grad = value_and_grad(varifocal_loss, pred.to(dtype).float(), (label, score))
        assert value.dtype == torch.float32 and grad.dtype == dtype
        assert torch.equal(value, want) and torch.equal(grad, want_grad.to(dtype))
        with torch.autocast('cpu', dtype=dtype):
            assert torch.equal(varifocal_loss(pred, (label, score)), varifocal_loss(pred.float(), (label, score)))
    score.requires_grad_()
    y = torch.rand(40, 7, requires_grad=True)
    pred.requires_grad_()
    (varifocal_loss(pred, (label, score)).sum() + varifocal_loss(pred, y).sum()).backward()
    assert score.grad is None and y.grad is None and pred.grad.abs().max() > 0
    for target in ((torch.zeros(0, dtype=torch.long), torch.zeros(0)), torch.zeros(0, 5)):
        empty = torch.zeros(0, 5, requires_grad=True)
        loss = VarifocalLoss()(empty, target)
        loss.backward()
        assert loss.item() == 0 and empty.grad.shape == (0, 5)


def test_off_the_cpu_wrong_values_become_nan(monkeypatch):
    monkeypatch.setattr(utils, 'on_cpu', lambda tensor: False)
    label, score = torch.tensor([-1, 0, 3, 1, 2, 99]), torch.tensor([0.5, 0.5, 0.5, 1.2, 1.2, 0.5])
    loss = varifocal_loss(torch.randn(6, 2), (label, score))
    assert loss.isnan().tolist() == [True, False, True, True, False, True]
    assert varifocal_loss(torch.randn(2, 1), torch.tensor([[1.2], [0.3]])).isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    'call, match',
    [
        (lambda: varifocal_loss(torch.zeros(2, 3), torch.zeros(3, 2)), r'VarifocalLoss needs target=.*got a torch'),
        (lambda: varifocal_loss(torch.zeros(2, 3), torch.zeros(2)), 'VarifocalLoss needs target='),
        (lambda: varifocal_loss(torch.zeros(2, 3), None), 'got None'),
        (lambda: varifocal_loss(torch.zeros(2, 3).long(), torch.zeros(2, 3)), 'VarifocalLoss needs a floating-point'),
        (lambda: varifocal_loss(torch.zeros(1, 3), (torch.tensor([4]), torch.ones(1))), r'labels in \[0, 3\]'),
        (lambda: varifocal_loss(torch.zeros(1, 3), (torch.tensor([1]), torch.tensor([1.1]))), r'scores \(IoU\) in'),
        (lambda: varifocal_loss(torch.zeros(1, 1), torch.tensor([[-0.1]])), r'dense targets in \[0, 1\]'),
        (lambda: VarifocalLoss(alpha=-1), 'alpha must be a finite number >= 0'),
        (lambda: VarifocalLoss(gamma=-1), 'gamma must be a finite number >= 0'),
        (lambda: varifocal_loss(torch.zeros(1, 1), torch.zeros(1, 1), gamma=INF), 'gamma must be a finite'),
        (lambda: varifocal_loss(torch.zeros(1, 1), torch.zeros(1, 1), alpha=-0.5), 'alpha must be a finite'),
        (lambda: VarifocalLoss(use_sigmoid=False), 'VarifocalLoss scores classes with a sigmoid'),
        (lambda: VarifocalLoss(reduction='max'), 'reduction must be one of'),
    ],
)
def test_wrong_inputs_and_settings_raise(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# ------------------------------------------------------------------------------------------------------------- in heads
@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('num_priors, positives', [(1, 0), (1, 10), (3, 25)])
def test_fused_is_plain(num_priors, positives, weighted, settings, monkeypatch):
    index = LocationIndex([(5, 7), (3, 4), (1, 1)], 2, [num_priors] * 3)
    levels = [(torch.randn(2, num_priors * 4, *size) * 3).requires_grad_() for size in index.featmap_sizes]
    logits = LevelPredictions(levels, 4, index)
    pos = index.coords(torch.randperm(index.total)[:positives].sort().values)
    labels, quality = torch.randint(4, (positives,)), torch.rand(positives)
    quality[::3] = 0.0
    weights = torch.rand(index.total) if weighted else None
    loss = VarifocalLoss(**settings, loss_weight=1.5)
    other = type('Other', (VarifocalLoss,), {})(**settings, loss_weight=1.5)  # a subclass has no fused form
    with monkeypatch.context() as patch:
        patch.setattr(VarifocalLoss, 'elementwise', lambda *_: pytest.fail('not fused'))
        value = classification_loss(loss, logits, pos, labels, quality, weights, torch.tensor(7.0))
    want = classification_loss(other, logits, pos, labels, quality, weights, torch.tensor(7.0))
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
    for grad, want_grad in zip(torch.autograd.grad(value, levels), torch.autograd.grad(want, levels)):
        torch.testing.assert_close(grad, want_grad, rtol=1e-5, atol=1e-6)


def test_only_qualities_and_the_mean_are_fused():
    labels, quality = torch.zeros(3, dtype=torch.long), torch.rand(3)
    assert _fused_form(VarifocalLoss(), labels, quality, 4) is not None
    assert _fused_form(VarifocalLoss(), labels, None, 4) is None
    assert _fused_form(type('Other', (VarifocalLoss,), {})(), labels, quality, 4) is None
    assert _fused_form(VarifocalLoss(reduction='sum'), labels, quality, 4) is None
    with pytest.raises(ValueError, match='VarifocalLoss needs scores'):
        _fused_form(VarifocalLoss(), labels, quality + 1, 4)


def test_it_is_a_loss_of_the_joint_kind():
    assert MODELS.get('VarifocalLoss') is VarifocalLoss and takes_quality(dict(type='mmdet_gfl.VarifocalLoss'))
    loss_cls = dict(type='mmdet_gfl.VarifocalLoss', alpha=0.5)
    head = build(host_config('ATSS') | dict(quality=dict(type='mmdet_gfl.JointQuality', loss_cls=loss_cls)))
    assert type(head.loss_cls) is VarifocalLoss and head.cls_out_channels == 5
    gts = objects([3, 0], SIZE)
    feats = host_features('ATSS', SIZE, 2)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    targets, (logits, bbox_pred) = positives_of(head, SIZE, gts, feats)
    inds = targets.pos.flat_inds
    positives = Positives(logits[inds], head.box.decode(bbox_pred[inds], targets.locations, head), targets)
    y = torch.zeros_like(logits)
    y[inds, targets.labels] = positives.iou
    want = formula(logits, y, alpha=0.5)
    if targets.label_weights is not None:
        want = want * targets.label_weights[:, None]
    assert len(inds) > 5 and positives.iou.max() > 0.1
    torch.testing.assert_close(losses['loss_cls'].double(), want.sum() / float(targets.avg_factor), rtol=1e-5, atol=0)
