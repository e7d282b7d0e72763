"""JointQuality: which loss it builds, and which losses it accepts."""

import pytest
import torch
from cases import FOCAL, host_config, host_features, metas, objects
from mmdet.registry import MODELS
from torch import nn

from mmdet_gfl.models.quality.joint import JointQuality


class SquaredScore(nn.Module):
    """Σ (σ - y)² over the classes."""

    def __init__(self, use_sigmoid=True):
        super().__init__()
        self.use_sigmoid = use_sigmoid

    def forward(self, pred, target, weight=None, avg_factor=None):
        label, score = target
        y = nn.functional.one_hot(label, pred.size(1) + 1)[:, :-1] * score[:, None]
        return ((pred.sigmoid() - y).square().sum(dim=1) * weight).sum() / avg_factor


@MODELS.register_module(force=True)
class SquaredScoreOfQualities(SquaredScore):
    """A user's loss that declares what it takes."""

    takes_quality = True


@MODELS.register_module(force=True)
class SquaredScoreUndeclared(SquaredScore):
    """The same without the declaration."""


@pytest.mark.parametrize('loss', ['FocalLoss', 'SquaredScoreUndeclared', 'VarifocalLoss'])
def test_a_loss_that_takes_no_qualities_raises(loss):
    message = (
        rf"loss_cls=\{{'type': '{loss}'\}} does not take the \(labels, qualities\) of a joint representation; use "
        r"dict\(type='mmdet_gfl.QualityFocalLoss', beta=2.0, loss_weight=1.0\). A loss of your own that takes them "
        r'says so by the class attribute takes_quality = True'
    )
    with pytest.raises(ValueError, match=message):
        JointQuality(loss_cls=dict(type=loss))


@pytest.mark.parametrize('where', ['quality', 'head'])
def test_a_loss_of_a_users_own_learns_the_quality(where):
    loss = dict(type='SquaredScoreOfQualities')
    changes = dict(loss_cls=loss) if where == 'head' else {}
    quality = dict(type='mmdet_gfl.JointQuality', **(dict(loss_cls=loss) if where == 'quality' else {}))
    head = MODELS.build(dict(host_config('ATSS', **changes), quality=quality))
    assert type(head.loss_cls) is SquaredScoreOfQualities
    feats = host_features('ATSS', (96, 160), 1)
    losses = head.loss_by_feat(*head(feats), objects([3], (96, 160)), metas((96, 160), 1))
    assert losses['loss_cls'] > 0


def test_a_users_loss_of_the_head_that_declares_nothing_is_superseded():
    head = MODELS.build(host_config('ATSS', loss_cls=dict(type='SquaredScoreUndeclared')))
    assert type(head.loss_cls).__name__ == 'QualityFocalLoss'


@pytest.mark.parametrize(
    'own, head, chosen',
    [
        (None, None, dict(type='mmdet_gfl.QualityFocalLoss', beta=2.0, loss_weight=1.0)),
        (None, FOCAL, dict(type='mmdet_gfl.QualityFocalLoss', beta=2.0, loss_weight=1.0)),
        (None, dict(type='QualityFocalLoss', beta=1.0), dict(type='QualityFocalLoss', beta=1.0)),
        (None, dict(type='SquaredScoreOfQualities'), dict(type='SquaredScoreOfQualities')),
        (dict(type='QualityFocalLoss', beta=0.0), None, dict(type='QualityFocalLoss', beta=0.0)),
        (dict(type='QualityFocalLoss', beta=0.0), FOCAL, dict(type='QualityFocalLoss', beta=0.0)),
        (
            dict(type='QualityFocalLoss', beta=0.0),
            dict(type='QualityFocalLoss', beta=1.0),
            dict(type='QualityFocalLoss', beta=0.0),
        ),
    ],
    ids=['default', 'one-hot-superseded', "head's", "user's-in-head", 'own', 'own-before-one-hot', "own-before-head's"],
)
def test_the_loss_that_is_built(own, head, chosen):
    assert JointQuality(loss_cls=own).loss_cls_cfg(head) == dict(chosen, use_sigmoid=True)


def test_it_holds_no_state():
    assert not any(isinstance(value, (torch.nn.Module, torch.Tensor)) for value in vars(JointQuality()).values())
