"""MMDetection's assigners, and a user's: our heads take what the stock head of the same config takes."""

from typing import Any

import pytest
import torch
from cases import (
    DYNAMIC_HOSTS,
    assert_host_trains_the_same,
    build,
    features,
    gfl_config,
    loss_and_gradients,
    metas,
    objects,
    stock_config,
)
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS

SIZE = (96, 160)
MAX_IOU = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0)
ASSIGNERS: dict[str, dict[str, Any]] = dict(
    ATSSAssigner=dict(topk=5),
    MaxIoUAssigner=MAX_IOU,
    CenterRegionAssigner=dict(pos_scale=0.3, neg_scale=0.6, min_pos_iof=0.01),
    GridAssigner=dict(pos_iou_thr=0.5, neg_iou_thr=(0.0, 0.4)),
    PointAssigner=dict(scale=4, pos_num=3),
    RegionAssigner=dict(),
    SimOTAAssigner=dict(),
    TaskAlignedAssigner=dict(topk=13),
    DynamicSoftLabelAssigner=dict(topk=13),
    UniformAssigner=dict(pos_ignore_thr=0.15, neg_ignore_thr=0.7),
    ApproxMaxIoUAssigner=MAX_IOU,
)


#: Those with which MMDetection's GFLHead trains; the others need more than anchors, or other arguments.
TRAINED = ('ATSSAssigner', 'MaxIoUAssigner', 'CenterRegionAssigner', 'PointAssigner')


@TASK_UTILS.register_module()
class KeywordAssigner(MaxIoUAssigner):
    """An assigner with keywords of its own and no position for any."""

    def assign(self, *, gt_instances, num_level_priors, pred_instances, gt_instances_ignore=None) -> AssignResult:
        assert sum(num_level_priors) == len(pred_instances.priors)
        return super().assign(pred_instances, gt_instances, gt_instances_ignore)


def train_cfg(name: str, **args: Any) -> dict[str, Any]:
    sampler = dict(type='PseudoSampler')
    return dict(assigner=dict(args, type=name), sampler=sampler, allowed_border=-1, pos_weight=-1)


def outcome(head: Any, feats: list[torch.Tensor], *targets: Any) -> Any:
    """Losses and gradients, or the type of the error."""
    try:
        return loss_and_gradients(head, feats, *targets)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return type(error)


def assert_gfl_trains_the_same(name: str, **args: Any) -> bool:
    """True if MMDetection's ``GFLHead`` trains with the assigner; ours does the same."""
    targets = objects([3, 2], SIZE), metas(SIZE, 2)
    outcomes = []
    theirs = build(gfl_config('GFLHead', ours=False, train_cfg=train_cfg(name, **args)))
    ours = build(gfl_config(train_cfg=train_cfg(name, **args)))
    ours.load_state_dict(theirs.state_dict())
    for head in (ours, theirs):
        outcomes.append(outcome(head, features(SIZE, 2, requires_grad=True), *targets))
    mine, stock = outcomes
    if isinstance(stock, type):
        assert isinstance(mine, type), f'MMDetection raises {stock}'
        return False
    torch.testing.assert_close(mine[0], stock[0], rtol=1e-5, atol=1e-6)
    for key, gradient in stock[1].items():
        torch.testing.assert_close(mine[1][key], gradient, rtol=0, atol=1e-4 * gradient.abs().max().item() + 1e-9)
    return True


@pytest.mark.agreement
@pytest.mark.parametrize('name', ASSIGNERS)
def test_gfl_head_takes_each_assigner_that_mmdetections_takes(name):
    trained = assert_gfl_trains_the_same(
        name, **{key: value for key, value in ASSIGNERS[name].items() if key != 'type'}
    )
    assert trained == (name in TRAINED)


@pytest.mark.agreement
def test_gfl_head_calls_a_users_assigner_by_keyword():
    assert assert_gfl_trains_the_same('KeywordAssigner', **{k: v for k, v in MAX_IOU.items() if k != 'type'})


@pytest.mark.agreement
@pytest.mark.parametrize('name', ['MaxIoUAssigner', 'CenterRegionAssigner'])
@pytest.mark.parametrize('host', ['Retina', 'SSD'])
def test_hosts_with_anchors_take_the_assigners_of_the_stock_heads(host, name):
    rest = {key: value for key, value in stock_config(host).train_cfg.items() if key != 'assigner'}
    assigner = dict(ASSIGNERS[name], type=name)
    assert_host_trains_the_same(host, SIZE, [3, 0], train_cfg=dict(rest, assigner=assigner))


@pytest.mark.agreement
@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_rtmdet_takes_another_dynamic_assigner(host):
    assigner = dict(type='TaskAlignedAssigner', topk=13)
    assert_host_trains_the_same(host, SIZE, [3, 2], train_cfg=dict(assigner=assigner, allowed_border=-1, pos_weight=-1))
