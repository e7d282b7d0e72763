"""Seeds by epoch, losses and weights that are not finite."""

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import IterTimerHook
from mmengine.model import BaseModule
from torch import nn

from mmdet_gfl.benchmark import hooks
from mmdet_gfl.benchmark.mini import shrink
from mmdet_gfl.benchmark.progress import Progress, progress_of

CONFIGS = Path(__file__).parents[2] / 'configs'


def test_a_stock_ssd_head_predicts():
    generator = dict(
        type='SSDAnchorGenerator', scale_major=False, strides=[8, 16], ratios=[[2], [2]], min_sizes=[16, 32],
        max_sizes=[32, 64],
    )  # fmt: skip
    test_cfg = ConfigDict(nms_pre=10, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5)
    head = MODELS.build(
        dict(type='SSDHead', num_classes=2, in_channels=(4, 4), anchor_generator=generator, test_cfg=test_cfg)
    )
    maps = head((torch.rand(1, 4, 8, 8), torch.rand(1, 4, 4, 4)))
    metas = [dict(img_shape=(64, 64), scale_factor=(1.0, 1.0))]
    if not hasattr(head, 'loss_cls'):  # MMDetection 3.3
        with pytest.raises(AttributeError, match="'SSDHead' object has no attribute 'loss_cls'"):
            head.predict_by_feat(*maps, batch_img_metas=metas)
    hooks.StockSSDHook().before_run(SimpleNamespace(model=nn.Sequential(head)))
    assert len(head.predict_by_feat(*maps, batch_img_metas=metas)[0]) == 5


def drawn():
    return [random.random(), np.random.rand(), torch.rand(1).item()]


@pytest.fixture
def restored():
    yield
    torch.use_deterministic_algorithms(False)
    if hasattr(torch.utils, 'deterministic'):
        torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.deterministic = False


def test_an_epoch_draws_the_same_whatever_came_before():
    found = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 1)):
        drawn()
        hooks.EpochSeedHook(seed).before_train_epoch(SimpleNamespace(epoch=epoch))
        found.setdefault((seed, epoch), []).append(drawn())
    assert found[0, 1][0] == found[0, 1][1]
    assert len({tuple(values[0]) for values in found.values()}) == 3
    assert len(set(found[0, 0][0])) == 3  # the three generators have seeds of their own


def test_ranks_draw_different_numbers(monkeypatch):
    found = []
    for rank in (0, 1):
        monkeypatch.setattr(hooks, 'get_rank', lambda rank=rank: rank)
        hooks.EpochSeedHook(0).before_train_epoch(SimpleNamespace(epoch=2))
        found.append(drawn())
    assert all(first != second for first, second in zip(*found))


def test_workers_follow_the_seed_of_their_epoch():
    found = []
    for seed in (5, 5, 2**40 + 5, 6):
        torch.manual_seed(seed)
        hooks.seed_worker(0)
        found.append((random.random(), np.random.rand()))
    assert found[0] == found[1] == found[2] != found[3]


class Net(BaseModule):
    """Layers with the same initialization, of which the first may be built and initialized last."""

    def __init__(self, names):
        super().__init__(init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'))
        for name in names:
            self.add_module(name, nn.Linear(4, 4))


def initialized(seed, names='ab'):
    net = Net(names)
    hooks.EpochSeedHook(seed).before_run(SimpleNamespace(model=net))
    net.init_weights()
    return net.state_dict()


def test_repeatable_operators(restored):
    hooks.EpochSeedHook(0).before_run(SimpleNamespace(model=Net('a')))
    assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic


def test_a_layer_starts_by_seed_and_name(restored):
    found, behind = initialized(0), initialized(0, 'cba')
    assert all(torch.equal(found[name], behind[name]) for name in found)
    assert not torch.equal(found['a.weight'], found['b.weight'])
    assert not torch.equal(found['a.weight'], initialized(1)['a.weight'])


ROWS = [
    ('atss/atss_r50_fpn_1x_coco', 'gfl/gfl_r50_fpn_1x_coco'),
    ('fcos/fcos_r50-caffe_fpn_1x_coco', 'fcos/fcos_r50-caffe_fpn_gfl_1x_coco'),
    ('retinanet/retinanet_r50_fpn_1x_coco', 'retinanet/retinanet_r50_fpn_gfl_1x_coco'),
    ('foveabox/fovea_r50_fpn_4xb4-1x_coco', 'foveabox/fovea_r50_fpn_gfl_4xb4-1x_coco'),
    ('ssd/ssd512_coco', 'ssd/ssd512_joint_coco'),
]


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[0].split('/')[0])
def test_rows_start_alike(row, restored):
    """Whatever a row and its baseline share by name and shape has the same values, in whatever order they draw."""
    states = []
    for config in row:
        model = MODELS.build(shrink(Config.fromfile(CONFIGS / f'{config}.py')).model)
        hooks.EpochSeedHook(3).before_run(SimpleNamespace(model=model))
        model.init_weights()
        names = dict(gfl_cls='atss_cls', gfl_reg='atss_reg')
        state = model.state_dict().items()
        states.append({'.'.join(names.get(part, part) for part in name.split('.')): value for name, value in state})
    first, second = states
    shared = [name for name in first if name in second and first[name].shape == second[name].shape]
    assert any('reg_convs' in name for name in shared) and any('neck' in name for name in shared)
    assert 'atss' not in row[0] or 'bbox_head.atss_cls.weight' in shared
    assert [name for name in shared if not torch.equal(first[name], second[name])] == []


def runner():
    return SimpleNamespace(train_dataloader=range(25), epoch=1, model=nn.Linear(1, 1))


@pytest.mark.parametrize('loss', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_ends_the_training(loss):
    hook, outputs = hooks.FiniteHook(interval=10), dict(loss=torch.tensor(loss))
    for index in (0, 8, 10, 23):  # it looks at every tenth iteration and at the last of the epoch
        hook.after_train_iter(runner(), index, outputs=outputs)
    for index in (9, 19, 24):
        with pytest.raises(FloatingPointError, match=f'the loss is {loss} in epoch 2, iteration {index + 1}'):
            hook.after_train_iter(runner(), index, outputs=outputs)
        hook.after_train_iter(runner(), index, outputs=dict(loss=torch.tensor(1.0)))


def test_weights_that_are_not_finite_end_it_before_the_checkpoint():
    hook, broken = hooks.FiniteHook(), runner()
    hook.after_train_epoch(broken)
    broken.model.bias.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match='bias is not finite after epoch 2'):
        hook.after_train_epoch(broken)
    from mmdet_gfl.engine.hooks import SafeCheckpointHook

    order = ['VERY_HIGH', 'HIGH', 'ABOVE_NORMAL', 'NORMAL', 'BELOW_NORMAL', 'LOW', 'VERY_LOW']
    assert order.index(hook.priority) < order.index(SafeCheckpointHook.priority)


def test_progress_is_noted_now_and_then(tmp_path):
    hub, trained = SimpleNamespace(get_info=lambda key: {'eta': 61.5}[key]), runner()
    trained.work_dir, trained.message_hub = str(tmp_path), hub
    hook, notes = hooks.ProgressHook(interval=10), []
    hook.after_val_epoch(trained, {'coco/bbox_mAP': 0.5})  # a test: there is no progress to speak of
    assert progress_of(tmp_path) is None
    for index in range(25):
        hook.after_train_iter(trained, index)
        notes.append(progress_of(tmp_path))
    assert [notes.index(note) for note in dict.fromkeys(notes)] == [0, 9, 19, 24]
    assert notes[9] == Progress(epoch=2, iteration=10, iterations=25, eta=61.5, ap=None)
    hook.after_val_epoch(trained, {'pascal_voc/mAP': 0.5})
    hook.after_val_epoch(trained, {'coco/bbox_mAP': 0.125})
    assert progress_of(tmp_path) == Progress(2, 25, 25, 61.5, 12.5)
    trained.epoch = 2
    hook.after_train_iter(trained, 9)
    assert progress_of(tmp_path) == Progress(3, 10, 25, 61.5, 12.5)  # the last evaluation's


def test_progress_that_cannot_be_noted_does_not_end_a_training(tmp_path):
    trained = runner()
    trained.work_dir, trained.message_hub = str(tmp_path / 'none'), SimpleNamespace(get_info=lambda key: 1.0)
    hooks.ProgressHook(interval=1).after_train_iter(trained, 0)


def test_the_time_left_is_known_when_progress_is_noted():
    order = ['VERY_HIGH', 'HIGH', 'ABOVE_NORMAL', 'NORMAL', 'BELOW_NORMAL', 'LOW', 'VERY_LOW']
    assert order.index(hooks.ProgressHook.priority) > order.index(IterTimerHook.priority)
