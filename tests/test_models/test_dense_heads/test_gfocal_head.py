"""GFLv2's head: the released code's arguments, its checkpoints, and GFL's checkpoints as a start."""

import logging

import pytest
import torch
from cases import build, features, gfl_config, metas, objects, totals
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_state_dict

SIZE = (96, 160)


def gfocal_config(**changes):
    return gfl_config('mmdet_gfl.GFocalHead', **changes)


def released_state(head):
    """The state dict in the shape of the released models: one class row more."""
    state = head.state_dict()
    for name in ('gfl_cls.weight', 'gfl_cls.bias'):
        state[name] = torch.cat((state[name], torch.full_like(state[name][:1], 7.0)))
    return state


def test_the_released_arguments_choose_the_quality():
    released = dict(type='mmdet_gfl.QualityFocalLoss', use_sigmoid=False, beta=1.5, loss_weight=2.0)
    head = MODELS.build(gfocal_config(reg_topk=3, reg_channels=32, add_mean=False, loss_cls=released))
    quality = head.quality
    assert type(quality).__name__ == 'DistributionGuidedQuality'
    assert (quality.topk, quality.channels, quality.statistics) == (3, 32, ('topk',))
    assert head.reg_conf[0].in_channels == 12 and head.reg_conf[0].out_channels == 32
    assert (head.loss_cls.use_sigmoid, head.loss_cls.beta, head.loss_cls.loss_weight) == (True, 1.5, 2.0)
    assert head.cls_out_channels == head.num_classes == 5


def test_the_defaults_are_those_of_the_released_models():
    quality = MODELS.build(gfocal_config()).quality
    assert (quality.topk, quality.channels, quality.statistics) == (4, 64, ('topk', 'mean'))


@pytest.mark.parametrize('key', ['quality', 'box'])
def test_the_axes_are_not_free(key):
    with pytest.raises(ValueError, match=f'GFocalHead has no {key}'):
        MODELS.build(gfocal_config(**{key: dict(type='mmdet_gfl.NoQuality')}))


@pytest.mark.parametrize('through_mmengine', [False, True])
def test_a_released_checkpoint_loads_without_its_last_class_row(through_mmengine, caplog):
    saved = build(gfocal_config())
    head = MODELS.build(gfocal_config())
    state = released_state(saved)
    MMLogger.get_current_instance().propagate = True
    with caplog.at_level(logging.INFO):
        if through_mmengine:
            load_state_dict(head, state, strict=True)
        else:
            head.load_state_dict(state, strict=True)
    for name, value in saved.state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name
    assert len(state['gfl_cls.weight']) == 6  # the caller's is not changed


def test_another_number_of_rows_is_refused():
    state = released_state(build(gfocal_config()))
    with pytest.raises(RuntimeError, match='size mismatch for gfl_cls.weight'):
        MODELS.build(gfocal_config(num_classes=4)).load_state_dict(state)


def test_a_checkpoint_of_gfl_loads_all_but_the_network():
    head = MODELS.build(gfocal_config())
    missing, unexpected = head.load_state_dict(build(gfl_config()).state_dict(), strict=False)
    assert not unexpected and sorted(missing) == sorted(n for n in head.state_dict() if n.startswith('reg_conf'))


def test_it_trains_and_detects_with_its_distributions():
    head = build(gfocal_config())
    feats = features(SIZE, 2)
    losses = totals(head.loss_by_feat(*head(feats), objects([3, 0], SIZE), metas(SIZE, 2)))
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_dfl'}
    head.test_cfg.update(with_distribution='full', score_thr=0.01)
    with torch.no_grad():
        found = head.eval().predict_by_feat(*head(feats), batch_img_metas=metas(SIZE, 2))
    assert sum(map(len, found)) > 0
    assert found[0].bbox_distribution.shape == (len(found[0]), 4, 17)
