"""Distribution-guided quality: the product formula, its gradient, its layers on every host, and its errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import HOSTS, build, host_config, host_features, metas, objects, part, totals
from mmdet.registry import MODELS
from torch import nn

from mmdet_gfl.models.quality.distribution_guided import DistributionGuidedQuality

SIZE = (96, 160)
each_host = pytest.mark.parametrize('host', HOSTS)


def guided(host, **args):
    """A head with random weights, its ``reg_conf`` too."""
    head = build(host_config(host, box='dfl') | dict(quality=part('DistributionGuidedQuality', **args)))
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in head.reg_conf.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return head


def joint_twin(head, host):
    """The same head without the network: its outputs are class logits c and box outputs."""
    twin = MODELS.build(host_config(host, 'JointQuality', 'dfl'))
    missing, unexpected = twin.load_state_dict(head.state_dict(), strict=False)
    assert not missing and all(name.startswith('reg_conf.') for name in unexpected)
    return twin.train(head.training)


def score_by_the_paper(cls_score, bbox_pred, reg_conf, bins=17, topk=4):
    """J = σ(c) · I in float64, location by location as GFLv2 describes it: sides l, t, r, b, each [p1..p4, mean]."""
    n, channels, h, w = bbox_pred.shape
    priors, classes = channels // (4 * bins), cls_score.size(1) * 4 * bins // channels
    sides = bbox_pred.double().reshape(n, priors, 4, bins, h, w).permute(0, 1, 4, 5, 2, 3).softmax(dim=-1)
    largest = sides.sort(dim=-1, descending=True).values[..., :topk]
    inputs = torch.cat((largest, largest.mean(dim=-1, keepdim=True)), dim=-1).flatten(-2)  # (n, priors, h, w, 20)
    first, last = reg_conf[0], reg_conf[2]
    hidden = F.relu(inputs @ first.weight.double().flatten(1).t() + first.bias.double())
    quality = torch.sigmoid(hidden @ last.weight.double().flatten(1).t() + last.bias.double())
    score = cls_score.double().reshape(n, priors, classes, h, w).permute(0, 1, 3, 4, 2).sigmoid() * quality
    return score.permute(0, 1, 4, 2, 3).reshape(cls_score.shape)


@each_host  # RetinaNet has nine priors per cell, SSD four or six
def test_the_score_is_the_product_of_the_paper(host):
    head = guided(host)
    feats = host_features(host, SIZE, 2)
    with torch.no_grad():
        logits, bbox_preds = head(feats)
        plain_logits, plain_preds = joint_twin(head, host)(feats)
    for level, plain, bbox_pred, plain_pred in zip(logits, plain_logits, bbox_preds, plain_preds, strict=True):
        assert torch.equal(bbox_pred, plain_pred)
        expected = score_by_the_paper(plain, bbox_pred, head.reg_conf)
        torch.testing.assert_close(level.double().sigmoid(), expected, rtol=1e-5, atol=1e-9)


def test_the_logit_by_hand():
    # A flat distribution over 3 bins: each probability 1/3. The network is 3 · (sum of its 8 inputs) - 8 = 0: q = 0.
    head = nn.Module()
    head.box = type('Box', (), dict(channels=3, statistics=('full',)))()
    quality = DistributionGuidedQuality(topk=1, channels=1)
    head.reg_conf = quality.build_modules(head)['reg_conf']
    for parameter, value in zip(head.reg_conf.parameters(), (3.0, 0.0, 1.0, -8.0)):
        nn.init.constant_(parameter, value)
    logits = quality.class_logits(torch.zeros(1, 2, 1, 1), torch.zeros(1, 12, 1, 1), head)
    # σ(0) σ(0) = 1/4, whose logit is log(1/3)
    torch.testing.assert_close(logits, torch.full((1, 2, 1, 1), math.log(1 / 3)))


def test_the_logit_is_stable_where_the_product_is_not():
    c, q = (
        axis.flatten()
        for axis in torch.meshgrid(torch.linspace(-90, 90, 37), torch.linspace(-90, 90, 37), indexing='ij')
    )
    z = q - F.softplus(F.softplus(q) - c)
    exact = -torch.stack((-c.double(), -q.double(), -c.double() - q.double())).logsumexp(dim=0)
    torch.testing.assert_close(z.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('statistics', [('topk', 'mean'), ('var',)])
def test_the_gradient_goes_through_the_statistics(statistics):
    torch.manual_seed(0)
    head = nn.Module()
    head.box = type('Box', (), dict(channels=5, statistics=('full',)))()
    quality = DistributionGuidedQuality(channels=3, statistics=statistics)
    head.reg_conf = quality.build_modules(head)['reg_conf'].double()
    cls_score, bbox_pred = torch.randn(1, 4, 2, 1), torch.randn(1, 2 * 4 * 5, 2, 1)  # two priors per cell
    inputs = [tensor.double().requires_grad_() for tensor in (cls_score, bbox_pred)]
    assert torch.autograd.gradcheck(lambda *pair: quality.class_logits(*pair, head), inputs)
    (gradient,) = torch.autograd.grad(quality.class_logits(*inputs, head).sum(), inputs[1])
    assert gradient.abs().max() > 1e-4


@each_host
def test_the_network_has_the_names_and_sizes_of_the_released_code(host):
    head = guided(host)
    shapes = {name: tuple(value.shape) for name, value in head.reg_conf.state_dict(prefix='reg_conf.').items()}
    assert shapes == {
        'reg_conf.0.weight': (64, 20, 1, 1),
        'reg_conf.0.bias': (64,),
        'reg_conf.2.weight': (1, 64, 1, 1),
        'reg_conf.2.bias': (1,),
    }
    assert sum(parameter.numel() for parameter in head.reg_conf.parameters()) == 1409
    assert {name for name in head.state_dict() if name.startswith('reg_conf')} == set(shapes)


@pytest.mark.parametrize('initialize', [False, True], ids=['built', 'init_weights'])
@each_host
def test_the_network_starts_small_whatever_the_host_does(host, initialize):
    torch.manual_seed(0)
    head = MODELS.build(host_config(host, box='dfl') | dict(quality=part('DistributionGuidedQuality')))
    if initialize:
        head.init_weights()
    first, last = head.reg_conf[0], head.reg_conf[2]
    assert 0.009 < first.weight.std() < 0.011 and 0.007 < last.weight.std() < 0.013
    assert first.bias.abs().max() == last.bias.abs().max() == 0
    with torch.no_grad():
        quality = head.reg_conf(torch.rand(1, 20, 8, 8)).sigmoid()
    assert (quality - 0.5).abs().max() < 0.01


def test_the_additive_variant_starts_as_the_plain_class_logit():
    head = MODELS.build(host_config('ATSS', box='dfl') | dict(quality=part('DistributionGuidedQuality', additive=True)))
    head.init_weights()
    feats = host_features('ATSS', SIZE, 1)
    twin = joint_twin(head, 'ATSS')
    for level, plain in zip(head(feats)[0], twin(feats)[0], strict=True):
        torch.testing.assert_close(level, plain)
    nn.init.constant_(head.reg_conf[2].bias, 2.0)
    for level, plain in zip(head(feats)[0], twin(feats)[0], strict=True):
        torch.testing.assert_close(level, plain + 2)


@pytest.mark.parametrize('statistics, inputs', [(('topk',), 16), (('mean',), 4), (('topk', 'mean', 'var'), 24)])
def test_statistics_set_the_inputs(statistics, inputs):
    assert guided('ATSS', statistics=statistics).reg_conf[0].in_channels == inputs


@each_host
@pytest.mark.parametrize('counts', [[3, 0], [0, 0]], ids=['objects', 'no objects'])
def test_a_step_trains_every_parameter(host, counts):
    head = guided(host)
    feats = host_features(host, SIZE, 2)
    losses = head.loss_by_feat(*head(feats), objects(counts, SIZE), metas(SIZE, 2))
    sum(totals(losses).values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(parameter.grad.abs().max() > 0 for parameter in head.reg_conf.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_logits(dtype):
    head = guided('ATSS')
    c, bbox = (torch.randn(2, channels, 3, 4) for channels in (5, 68))
    expected = head.quality.class_logits(c.to(dtype).float(), bbox.to(dtype).float(), head)
    half = head.quality.class_logits(c.to(dtype), bbox.to(dtype), head)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=1e-5, atol=1e-5)


def test_boxes_weigh_their_score():
    assert guided('ATSS').box_weight == 'score'


@pytest.mark.parametrize('box', ['dirac', 'gaussian'])
def test_a_box_without_bins_is_refused(box):
    with pytest.raises(ValueError, match=r'needs the distribution of a box side .* use box=.*GeneralBox'):
        MODELS.build(host_config('ATSS', 'DistributionGuidedQuality', box))


def test_more_probabilities_than_bins_are_refused():
    with pytest.raises(ValueError, match=r'quality\.topk=18 exceeds the 17 bins'):
        guided('ATSS', topk=18)


@pytest.mark.parametrize(
    'argument, value',
    [('topk', 0), ('topk', 2.0), ('topk', True), ('channels', 0), ('statistics', ('max',)), ('statistics', ())],
)
def test_arguments_that_are_not_accepted(argument, value):
    with pytest.raises(ValueError, match=rf'quality\.{argument}'):
        DistributionGuidedQuality(**{argument: value})
