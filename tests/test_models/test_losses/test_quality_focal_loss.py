"""Quality Focal Loss: values by hand and by eq. (2), agreement with MMDetection, limits, precision, and messages."""

import math

import mmdet_gfl  # noqa: F401  # first: it makes MMDetection importable without compiled mmcv

# isort: split
import pytest
import torch
import torch.nn.functional as F
from cases import metas, objects
from mmdet.models.dense_heads import DETRHead
from mmdet.models.losses import QualityFocalLoss as MMDetQualityFocalLoss
from torch import Tensor

from mmdet_gfl.models.losses import QualityFocalLoss, quality_focal_loss, utils
from mmdet_gfl.registry import MODELS

BETAS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 4.0)
INF = math.inf


def equation_2(logit: Tensor, y: Tensor, beta: float) -> Tensor:
    """Eq. (2) in float64, by another route than the package: log-sigmoid, no special cases."""
    logit, y = logit.double(), y.double()
    return -((y - logit.sigmoid()).abs() ** beta) * ((1 - y) * F.logsigmoid(-logit) + y * F.logsigmoid(logit))


def sample(seed: int, n: int = 40, num_classes: int = 7, positive: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(n, num_classes, generator=generator) * 3
    label = torch.randint(num_classes, (n,), generator=generator)
    label[torch.rand(n, generator=generator) > positive] = num_classes
    return pred, label, torch.rand(n, generator=generator)


def dense(label: Tensor, score: Tensor, num_classes: int) -> Tensor:
    return F.one_hot(label, num_classes + 1)[:, :num_classes].to(score) * score[:, None]


def value_and_grad(loss, pred: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    value.sum().backward()
    return value.detach(), leaf.grad


# --------------------------------------------------------------------------------------------------------------- values
def test_by_hand():
    # At logit 0, σ = 1/2 and both logarithms are -ln 2. Row 0: |0.8 - 0.5|² ln 2 + 0.5² ln 2; row 1 is background.
    loss = quality_focal_loss(torch.zeros(2, 2), (torch.tensor([0, 2]), torch.tensor([0.8, 0.3])))
    torch.testing.assert_close(loss, torch.tensor([0.34 * math.log(2), 0.5 * math.log(2)]))


def test_a_probability_by_hand():
    # σ = 0.25, y = 0.75, β = 1: 0.5 · (0.25 ln 4/3 + 0.75 ln 4)
    loss = quality_focal_loss(torch.tensor([[0.25]]), torch.tensor([[0.75]]), beta=1.0, activated=True)
    torch.testing.assert_close(loss, torch.tensor([0.5 * (0.25 * math.log(4 / 3) + 0.75 * math.log(4))]))


@pytest.mark.parametrize('beta', BETAS)
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_equals_equation_2_in_float64(beta, form):
    pred, label, score = sample(0)
    y = dense(label, score, pred.size(1))
    want, want_grad = value_and_grad(lambda logit: equation_2(logit, y, beta).sum(dim=1), pred.double())
    target = (label, score) if form == 'label' else y
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        value, grad = value_and_grad(quality_focal_loss, pred.to(dtype), target, beta=beta)
        assert value.dtype == grad.dtype == dtype
        torch.testing.assert_close(value.double(), want, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(grad.double(), want_grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('beta', BETAS)
@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_gradcheck(beta, activated, form):
    pred, label, score = sample(1, n=6, num_classes=3)
    pred = (pred.sigmoid() if activated else pred).double().requires_grad_()
    target = (label, score) if form == 'label' else dense(label, score, 3)
    assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, target, beta, activated), (pred,))


def test_dense_target_with_further_dimensions_sums_over_dimension_1():
    pred, y = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    loss = quality_focal_loss(pred, y)
    assert loss.shape == (2, 4, 5)
    torch.testing.assert_close(loss.double(), equation_2(pred, y, 2.0).sum(dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('y', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('beta', [0.5, 1.0, 2.0])
def test_the_minimum_is_zero_at_the_quality(y, beta):
    sigma = torch.linspace(0.005, 0.995, 199, dtype=torch.float64)  # the grid holds 0.3
    loss = quality_focal_loss(sigma.logit()[:, None], torch.full((199, 1), y, dtype=torch.float64), beta)
    assert (loss >= 0).all()
    best = loss.argmin()
    assert abs(sigma[best].item() - y) < 0.0051
    if y == 0.3:
        assert loss[best].item() < 1e-5
    quality = torch.tensor([[y]], dtype=torch.float64)
    assert quality_focal_loss(quality.logit(), quality, beta).item() < 1e-7


# ------------------------------------------------------------------------------------------------- agreement with MMDet
@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('form', ['label', 'dense'])
@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0, 2.5])
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_equals_mmdetection(activated, form, beta, seed):
    pred, label, score = sample(seed)
    pred = pred.sigmoid() if activated else pred
    target = (label, score) if form == 'label' else dense(label, score, pred.size(1))
    weight = torch.rand(len(pred))
    settings = dict(beta=beta, activated=activated, loss_weight=1.7)
    calls = [
        dict(),
        dict(weight=weight),
        dict(avg_factor=3.5),
        dict(weight=weight, avg_factor=torch.tensor(0.0)),
        dict(weight=weight, reduction_override='sum'),
        dict(weight=weight, reduction_override='none'),
        dict(avg_factor=2.0, reduction_override='none'),
    ]
    for call in calls:
        value, grad = value_and_grad(QualityFocalLoss(**settings), pred, target, **call)
        want, want_grad = value_and_grad(MMDetQualityFocalLoss(**settings), pred, target, **call)
        torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(grad, want_grad, rtol=1e-5, atol=1e-6 * want_grad.abs().max().item())


@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0])
def test_equals_mmdetection_at_the_ends(beta):
    """Logits of ±200 and probabilities of 0 and 1 against every quality."""
    for pred, activated in (((-200.0, 0.0, 200.0), False), ((0.0, 1e-6, 0.5, 1.0), True)):
        grid = torch.cartesian_prod(torch.tensor(pred), torch.tensor([0.0, 0.4, 1.0]))
        settings = dict(beta=beta, activated=activated, reduction='none')
        value, grad = value_and_grad(QualityFocalLoss(**settings), grid[:, :1], grid[:, 1:])
        want, want_grad = value_and_grad(MMDetQualityFocalLoss(**settings), grid[:, :1], grid[:, 1:])
        torch.testing.assert_close(value, want)
        if activated and beta == 0:  # at p = y = 0 and 1 the slope is ±1; PyTorch's floor makes it 0
            want_grad = torch.where((grid[:, :1] == grid[:, 1:]), grad, want_grad)
            assert grad[0].item() == 1 and grad[-1].item() == -1
        torch.testing.assert_close(grad, want_grad)


def test_it_is_an_instance_of_mmdetections():
    loss = MODELS.build(dict(type='mmdet_gfl.QualityFocalLoss', beta=1.5, loss_weight=0.5))
    assert isinstance(loss, MMDetQualityFocalLoss) and type(loss) is QualityFocalLoss
    assert (loss.beta, loss.loss_weight, loss.reduction, loss.use_sigmoid, loss.activated) == (
        1.5, 0.5, 'mean', True, False,
    )  # fmt: skip
    assert loss.state_dict() == {}


@pytest.mark.parametrize('counts', [[3, 2], [0, 1]])
def test_in_detr_it_equals_mmdetections(counts):
    """DETR's head gives qualities to instances of MMDetection's Quality Focal Loss, and labels to any other loss."""
    assigner = dict(type='HungarianAssigner', match_costs=[dict(type='BBoxL1Cost', weight=5.0, box_format='xywh')])
    cls_scores, bbox_preds = torch.randn(2, 6, 4), torch.rand(2, 6, 4) * 0.5 + 0.2
    gts = objects(counts, (96, 160), num_classes=4)
    results = []
    for name in ('mmdet_gfl.QualityFocalLoss', 'QualityFocalLoss'):
        loss_cls = dict(type=name, use_sigmoid=True, beta=2.0, loss_weight=1.5)
        head = DETRHead(4, embed_dims=8, loss_cls=loss_cls, train_cfg=dict(assigner=assigner))
        leaf = cls_scores.clone().requires_grad_()
        loss, *_ = head.loss_by_feat_single(leaf, bbox_preds, gts, metas((96, 160), 2))
        results.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert results[0][0] > 0


# ---------------------------------------------------------------------------------------------------------------- edges
@pytest.mark.parametrize('beta', BETAS)
@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_finite_gradient_of_a_prediction_equal_to_the_quality(beta, activated, form):
    pred = torch.full((3, 2), 0.5) if activated else torch.zeros(3, 2)  # σ = 0.5 exactly
    label, score = torch.tensor([0, 1, 2]), torch.full((3,), 0.5)
    target = (label, score) if form == 'label' else dense(label, score, 2)
    value, grad = value_and_grad(quality_focal_loss, pred, target, beta=beta, activated=activated)
    assert grad.isfinite().all()
    assert grad[0, 0] == grad[1, 1] == 0  # the factor's slope is 0, and so is the cross-entropy's where σ = y
    at_label = math.log(2) if beta == 0 else 0.0
    torch.testing.assert_close(value[0], torch.tensor(at_label + 0.5**beta * math.log(2)))


@pytest.mark.parametrize('form', ['label', 'dense'])
def test_beta_0_is_binary_cross_entropy(form):
    pred, label, score = sample(3)
    pred[0] = torch.tensor([0.0, 200.0, -200.0, 30.0, -30.0, 1.0, -1.0])
    y = dense(label, score, 7)
    value, grad = value_and_grad(quality_focal_loss, pred, (label, score) if form == 'label' else y, beta=0)
    want, want_grad = value_and_grad(
        lambda x: F.binary_cross_entropy_with_logits(x, y, reduction='none').sum(dim=1), pred
    )
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(grad, want_grad)


@pytest.mark.parametrize('beta', BETAS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_large_logits(beta, dtype):
    logits = torch.tensor([-200, -120, -104, -95, -88, -50, -20, 20, 50, 88, 95, 104, 120, 200], dtype=dtype)
    grid = torch.cartesian_prod(logits, torch.tensor([0.0, 1e-3, 0.5, 1.0], dtype=dtype))
    pred, y = grid[:, :1], grid[:, 1:]
    value, grad = value_and_grad(quality_focal_loss, pred, y, beta=beta)
    want, want_grad = value_and_grad(lambda x: equation_2(x, y, beta).sum(dim=1), pred.double())
    assert grad.isfinite().all()
    # float32: σ rounds to 1 above 17, so |1 - σ| is 0 there; what is lost is below (6e-8)^β · 1e-7
    atol = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=atol)
    exact = want_grad.isfinite()  # the reference has σ = y and β < 1 too
    torch.testing.assert_close(grad.double()[exact], want_grad[exact], rtol=1e-5, atol=atol)


@pytest.mark.parametrize('beta', BETAS)
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_infinite_logits_give_the_limit(beta, form):
    def run(logit: float, y: float) -> tuple[float, float]:
        target = (torch.tensor([0]), torch.tensor([y])) if form == 'label' else torch.tensor([[y]])
        value, grad = value_and_grad(quality_focal_loss, torch.tensor([[logit]]), target, beta=beta)
        return value.item(), grad.item()

    assert run(-INF, 0.0) == (0, 0)
    assert run(INF, 1.0) == (0, 0)
    assert run(INF, 0.0) == (INF, 1)
    assert run(-INF, 1.0) == (INF, -1)
    assert run(INF, 0.4) == (INF, pytest.approx(0.6**beta * 0.6))
    assert run(-INF, 0.4) == (INF, pytest.approx(-(0.4**beta) * 0.4))


def test_infinite_logit_at_another_class_of_a_positive():
    pred = torch.tensor([[-INF, 1.0, -INF]])
    value, grad = value_and_grad(quality_focal_loss, pred, (torch.tensor([1]), torch.tensor([0.9])))
    torch.testing.assert_close(value.double(), equation_2(torch.tensor([1.0]), torch.tensor([0.9]), 2.0))
    assert grad[0, 0] == grad[0, 2] == 0 and grad.isfinite().all()


@pytest.mark.parametrize('activated', [False, True])
def test_positive_of_score_0_is_background(activated):
    pred = sample(4)[0]
    pred = pred.sigmoid() if activated else pred
    n, num_classes = pred.shape
    label = torch.arange(n) % num_classes
    zero = value_and_grad(quality_focal_loss, pred, (label, torch.zeros(n)), activated=activated)
    background = value_and_grad(
        quality_focal_loss, pred, (torch.full_like(label, num_classes), torch.rand(n)), activated=activated
    )
    for one, other in zip(zero, background, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)  # two ways to the same number


def test_the_score_of_background_does_not_matter():
    pred, label = torch.randn(3, 2), torch.full((3,), 2)
    scores = [torch.tensor(row) for row in ([0.0, 0.0, 0.0], [0.5, 1.0, 7.0], [math.nan, INF, -INF])]
    results = [value_and_grad(quality_focal_loss, pred, (label, score)) for score in scores]
    for value, grad in results[1:]:
        assert torch.equal(value, results[0][0]) and torch.equal(grad, results[0][1])


def test_rounding_of_the_iou_is_tolerated():
    pred = torch.randn(2, 3)
    label = torch.tensor([0, 2])
    loss = quality_focal_loss(pred, (label, torch.tensor([1 + 1e-6, -1e-6])))
    assert torch.equal(loss, quality_focal_loss(pred, (label, torch.tensor([1.0, 0.0]))))
    half = quality_focal_loss(pred, (label, torch.tensor([1.001, 0.0], dtype=torch.half)))
    assert torch.equal(loss, half)


def test_nan_stays_visible_and_local():
    pred = torch.randn(3, 2)
    value, grad = value_and_grad(quality_focal_loss, pred, (torch.tensor([0, 1, 2]), torch.tensor([math.nan, 0.5, 0])))
    assert value.isnan().tolist() == [True, False, False]
    assert grad[1:].isfinite().all()
    pred[2, 0] = math.nan
    assert quality_focal_loss(pred, (torch.tensor([0, 1, 2]), torch.rand(3))).isnan().tolist() == [False, False, True]


def test_targets_get_no_gradient():
    pred = torch.randn(4, 3, requires_grad=True)
    score, y = torch.rand(4, requires_grad=True), torch.rand(4, 3, requires_grad=True)
    (quality_focal_loss(pred, (torch.arange(4), score)).sum() + quality_focal_loss(pred, y).sum()).backward()
    assert score.grad is None and y.grad is None and pred.grad is not None


@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_empty_input_keeps_the_graph(activated, reduction):
    for target in ((torch.zeros(0, dtype=torch.long), torch.zeros(0)), torch.zeros(0, 5)):
        pred = torch.zeros(0, 5, requires_grad=True)
        loss = QualityFocalLoss(reduction=reduction, activated=activated)(pred, target)
        loss.sum().backward()
        assert loss.sum().item() == 0 and pred.grad.shape == (0, 5)


# ------------------------------------------------------------------------------------------------------------ precision
@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('form', ['label', 'dense'])
def test_half_precision_is_computed_in_float32(dtype, activated, form):
    pred, label, score = sample(5)
    pred = ((pred / 2).sigmoid() if activated else pred).to(dtype)  # above float16's smallest normal number
    y = dense(label, score, 7)
    target = (label, score) if form == 'label' else y
    value, grad = value_and_grad(quality_focal_loss, pred, target, activated=activated)
    want, want_grad = value_and_grad(quality_focal_loss, pred.float(), target, activated=activated)
    assert value.dtype == torch.float32 and grad.dtype == dtype
    assert torch.equal(value, want) and torch.equal(grad, want_grad.to(dtype))


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
@pytest.mark.parametrize('activated', [False, True])
def test_autocast_changes_nothing(dtype, activated):
    pred, label, score = sample(6)
    pred = pred.sigmoid() if activated else pred
    want, want_grad = value_and_grad(quality_focal_loss, pred, (label, score), activated=activated)
    with torch.autocast('cpu', dtype=dtype):
        value, grad = value_and_grad(quality_focal_loss, pred, (label, score), activated=activated)
    assert torch.equal(value, want) and torch.equal(grad, want_grad)


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('beta', BETAS)
def test_probabilities_of_0_and_1(dtype, beta):
    grid = torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.4, 1.0])).to(dtype)
    pred, y = grid[:, :1], grid[:, 1:]
    value, grad = value_and_grad(quality_focal_loss, pred, y, beta=beta, activated=True)
    y = y.squeeze(1).to(value)
    wrong = (pred.squeeze(1).to(value) - y).abs()
    torch.testing.assert_close(value, wrong**beta * 100 * wrong if beta else 100 * wrong)
    assert grad.isfinite().all()
    assert (grad[wrong > 0].sign() == torch.tensor([-1, -1, 1, 1]).view(4, 1).to(grad)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('activated', [False, True])
def test_no_synchronization_on_a_gpu_under_autocast(activated):
    pred, label, score = sample(7)
    pred = pred.sigmoid() if activated else pred
    want, want_grad = value_and_grad(quality_focal_loss, pred, (label, score), activated=activated)
    pred, label, score = pred.cuda(), label.cuda(), score.cuda()
    torch.cuda.set_sync_debug_mode('error')
    try:
        with torch.autocast('cuda', dtype=torch.half):
            value, grad = value_and_grad(quality_focal_loss, pred, (label, score), activated=activated)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    torch.testing.assert_close(value.cpu(), want)
    torch.testing.assert_close(grad.cpu(), want_grad)


def test_wrong_values_become_nan_off_the_cpu(monkeypatch):
    monkeypatch.setattr(utils, 'on_cpu', lambda tensor: False)
    pred = torch.randn(6, 2)
    label, score = torch.tensor([-1, 0, 3, 1, 2, 99]), torch.tensor([0.5, 0.5, 0.5, 1.2, 1.2, 0.5])
    loss = quality_focal_loss(pred, (label, score))
    assert loss.isnan().tolist() == [True, False, True, True, False, True]
    assert quality_focal_loss(pred, torch.full((6, 2), 1.5)).isnan().all()
    assert quality_focal_loss(torch.tensor([[2.0]]), torch.tensor([[1.0]]), activated=True).isnan().all()


# ------------------------------------------------------------------------------------------------------------- messages
def test_labels_alone_raise_with_the_names_of_the_hosts():
    loss = MODELS.build(dict(type='mmdet_gfl.QualityFocalLoss'))
    with pytest.raises(ValueError, match=r'needs target=\(label, score\)') as error:
        loss(torch.randn(8, 3), torch.zeros(8, dtype=torch.long), torch.ones(8), avg_factor=2)
    assert 'got a torch.int64 tensor of shape (8,)' in str(error.value)
    for head in ('GFLHead', 'ATSSGFLHead', 'FCOSGFLHead', 'RetinaGFLHead', 'FoveaGFLHead', 'SSDGFLHead'):
        assert f'mmdet_gfl.{head}' in str(error.value)


LABEL, SCORE = torch.tensor([0, 3, 1, 2]), torch.tensor([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    'target, words',
    [
        (None, r'got None'),
        ((LABEL,), r'got a tuple of a torch.int64 tensor of shape \(4,\)\. '),
        ((LABEL, 0.5), r'got a tuple of a torch.int64 tensor of shape \(4,\), 0.5 \(float\)'),
        ((LABEL[:3], SCORE), r'int64 tensor of shape \(3,\).*for pred \(4, 3\)'),
        ((LABEL, SCORE[:, None]), r'float32 tensor of shape \(4, 1\).*for pred \(4, 3\)'),
        ((SCORE, LABEL), r'label must be integer and score floating'),
        ((SCORE, SCORE), r'label must be integer'),
        ((LABEL > 1, SCORE), r'label must be integer'),
        ((LABEL, LABEL), r'score floating'),
        (torch.rand(4, 2), r'float32 tensor of shape \(4, 2\) for pred \(4, 3\)'),
        ((torch.tensor([0, 4, 1, -1]), SCORE), r'labels in \[0, 3\].*num_classes.*got 4, -1 \(wrong: 2 of 4\)'),
        ((LABEL, SCORE + 0.75), r'scores \(IoU\) in \[0, 1\]; got 1.05, 1.15 \(wrong: 2 of 4\)'),
        ((LABEL, SCORE - 0.5), r'scores \(IoU\) in \[0, 1\]; got -0.4, -0.2, -0.1'),
        (torch.full((4, 3), 2), r'dense targets in \[0, 1\]; got 2, 2, 2 \(wrong: 12 of 12\)'),
    ],
)
def test_wrong_targets_raise(target, words):
    with pytest.raises(ValueError, match=words):
        quality_focal_loss(torch.randn(4, 3), target)


def test_wrong_predictions_raise():
    with pytest.raises(ValueError, match='floating-point tensor as pred, got a torch.int64'):
        quality_focal_loss(torch.zeros(4, 3, dtype=torch.long), (LABEL, SCORE))
    with pytest.raises(ValueError, match=r'for pred \(4, 3, 1\)'):
        quality_focal_loss(torch.randn(4, 3, 1), (LABEL, SCORE))
    with pytest.raises(ValueError, match=r'for pred \(4, 0\)'):
        quality_focal_loss(torch.randn(4, 0), (LABEL, SCORE))
    with pytest.raises(ValueError, match=r'for pred \(4,\)'):
        quality_focal_loss(torch.randn(4), SCORE)
    with pytest.raises(ValueError, match=r'activated=True needs probabilities in \[0, 1\].*got 3, -2 '):
        quality_focal_loss(torch.tensor([[3.0], [-2.0]]), torch.ones(2, 1), activated=True)


@pytest.mark.parametrize('beta', [-0.1, math.nan, INF, '2', None, True])
def test_a_wrong_beta_raises(beta):
    with pytest.raises(ValueError, match='beta must be a finite number >= 0, got'):
        QualityFocalLoss(beta=beta)
    with pytest.raises(ValueError, match='beta must be a finite number >= 0, got'):
        quality_focal_loss(torch.randn(4, 3), (LABEL, SCORE), beta=beta)


def test_use_sigmoid_must_be_true():
    with pytest.raises(ValueError, match='use_sigmoid=True, got False'):
        QualityFocalLoss(use_sigmoid=False)
