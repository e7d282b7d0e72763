"""Typos in types and arguments are answered in a sentence, and what builds is never refused."""

import copy
import json
import re

import mmengine.registry as roots
import pytest
import torch
from cases import HOSTS, host_features, metas, objects, part, stock_config
from cases import build as build_head
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmdet_gfl.compat import mmcv_flavour
from mmdet_gfl.compat.operators import missing_operator
from mmdet_gfl.engine import launch, type_checks
from mmdet_gfl.models.losses import QualityFocalLoss


@pytest.fixture(scope='module')
def read(root):
    """A fresh config of ours."""
    cfg = Config.fromfile(root / 'configs' / 'gfl' / 'gfl_r50_fpn_1x_coco.py')
    return lambda: copy.deepcopy(cfg)


# Types --------------------------------------------------------------------------------------------------------------


def build(cfg, key, registry):
    """Build the part of a config at a key, as MMEngine does."""
    node = cfg
    for name in key.split('.'):
        node = node[int(name) if name.isdigit() else name]
    with (
        launch.friendly_errors(cfg),
        registry.switch_scope_and_registry(cfg.get('default_scope', 'mmengine')) as scoped,
    ):
        scoped.build(copy.deepcopy(node))


@pytest.mark.parametrize(
    'registry, key, name, meant',
    [
        (roots.MODELS, 'model.bbox_head', 'ATSSGFLHead', 'mmdet_gfl.ATSSGFLHead'),
        (roots.MODELS, 'model.bbox_head', 'mmdet_gfl.ATSSHead', 'mmdet_gfl.ATSSGFLHead'),
        (roots.MODELS, 'model.bbox_head', 'mmdet_gfl.models.dense_heads.GFLHaed', 'mmdet_gfl.GFLHead'),
        (roots.MODELS, 'model.bbox_head', 'ATSSHeadd', 'ATSSHead'),
        (roots.MODELS, 'model', 'Gfl', 'GFL'),
        (roots.MODELS, 'model.backbone', 'Resnet', 'ResNet'),
        (roots.MODELS, 'model.neck', 'FPNN', 'FPN'),
        (roots.MODELS, 'model.bbox_head.loss_cls', 'QualtyFocalLoss', 'QualityFocalLoss'),
        (roots.MODELS, 'model.backbone.norm_cfg', 'BNN', 'BN'),
        (roots.TASK_UTILS, 'model.bbox_head.anchor_generator', 'AnchorGenerater', 'AnchorGenerator'),
        (roots.TASK_UTILS, 'model.train_cfg.assigner', 'ATSSAsigner', 'ATSSAssigner'),
        (roots.DATASETS, 'train_dataloader.dataset', 'CocoDatset', 'CocoDataset'),
        (roots.TRANSFORMS, 'train_dataloader.dataset.pipeline.2', 'Rezise', 'Resize'),
        (roots.TRANSFORMS, 'train_dataloader.dataset.pipeline.0', 'LoadImagesFromFile', 'LoadImageFromFile'),
        (roots.DATA_SAMPLERS, 'train_dataloader.sampler', 'DefaultSample', 'DefaultSampler'),
        (roots.HOOKS, 'custom_hooks.0', 'NumClassChekHook', 'NumClassCheckHook'),
        (roots.HOOKS, 'default_hooks.checkpoint', 'SafeCheckpointHook', 'mmdet_gfl.SafeCheckpointHook'),
        (roots.PARAM_SCHEDULERS, 'param_scheduler.0', 'LinearLr', 'LinearLR'),
        (roots.OPTIM_WRAPPERS, 'optim_wrapper', 'OptimWraper', 'OptimWrapper'),
        (roots.OPTIMIZERS, 'optim_wrapper.optimizer', 'SDG', 'SGD'),
        (roots.METRICS, 'val_evaluator', 'CocoMetrics', 'CocoMetric'),
        (roots.LOOPS, 'train_cfg', 'EpochBasedTrainLop', 'EpochBasedTrainLoop'),
        (roots.VISBACKENDS, 'visualizer.vis_backends.0', 'LocalVis', 'LocalVisBackend'),
    ],
)
def test_a_typo_is_named_with_its_key_and_what_was_meant(read, registry, key, name, meant):
    cfg = read()
    cfg.merge_from_dict({f'{key}.type': name})
    with pytest.raises(launch.UserError, match=rf'^{key}\.type={name!r} is unknown; did you mean {meant}\? \(a class'):
        build(cfg, key, registry)


@pytest.mark.parametrize(
    'key, name, meant',
    [
        ('train_dataloader.dataset.pipeline.1', 'LoadAnotations', 'LoadAnnotations'),
        ('val_evaluator', 'CocoMetrics', 'CocoMetric'),
        ('param_scheduler.1', 'MultiStepLr', 'MultiStepLR'),
        ('optim_wrapper', 'OptimWraper', 'OptimWrapper'),
    ],
)
def test_faults_of_late_parts_are_named_before_the_first_step(read, tmp_path, monkeypatch, key, name, meant):
    image = dict(id=1, file_name='a.jpg', width=9, height=9)
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=[image], categories=[], annotations=[])))
    cfg = read()
    cfg.merge_from_dict({f'{key}.type': name, 'model.backbone.init_cfg': None, 'work_dir': str(tmp_path)})
    for node in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset, cfg.val_evaluator):
        node.ann_file = str(tmp_path / 'a.json')
    cfg.train_dataloader.dataset.filter_cfg = None
    cfg.experiment_name = f'late {key}'
    runner = launch.build_runner(cfg)
    monkeypatch.setattr(runner, 'call_hook', lambda *args, **options: pytest.fail('the training begins'))
    with pytest.raises(launch.UserError, match=rf'^{key}\.type={name!r} is unknown; did you mean {meant}\?'):
        launch.run(runner.train, cfg)


def test_a_name_without_a_close_match(read):
    cfg = read()
    cfg.model.backbone.type = 'Qwertyuiop'
    own = 'a class of your own must be registered, and its module be in custom_imports'
    with pytest.raises(launch.UserError, match=rf"^model\.backbone\.type='Qwertyuiop' is unknown; {own}$"):
        build(cfg, 'model.backbone', roots.MODELS)
    cfg.model.backbone.type = 'mmdet_gfl.Qwertyuiop'
    with pytest.raises(launch.UserError, match=rf"type='mmdet_gfl\.Qwertyuiop' is unknown; {own}$"):
        build(cfg, 'model.backbone', roots.MODELS)


def test_import_paths_and_classes_are_types_too(read):
    cfg = read()
    cfg.model.type = 'mmdet.models.detectors.GFL'
    cfg.model.backbone.update(type=MODELS.get('ResNet'), init_cfg=None)
    cfg.model.bbox_head.type = 'mmdet_gfl.models.dense_heads.GFLHead'
    build(cfg, 'model', roots.MODELS)


def test_a_config_without_the_scope_of_mmdetection(read):
    cfg = read()
    del cfg._cfg_dict['default_scope']
    said = r"^model\.type='GFL' is unknown; MMDetection has it, .*write default_scope = 'mmdet' in the config$"
    with pytest.raises(launch.UserError, match=said):
        build(cfg, 'model', roots.MODELS)


@pytest.mark.parametrize(
    'error',
    [
        KeyError('Mine is not in the mmdet::model registry. Please'),  # not in the config
        KeyError('GFL'),
        KeyError(),
        RuntimeError('Failed to get Mine'),
        RuntimeError('Failed to get up'),
    ],
    ids=repr,
)
def test_errors_of_other_types_are_left_as_they_are(read, error):
    with pytest.raises(type(error)) as caught:
        launch.run(lambda: raising(error), read())
    assert caught.value is error


# Losses -------------------------------------------------------------------------------------------------------------


def detector(head):
    return torch.nn.ModuleDict(dict(bbox_head=MODELS.build(head)))


@pytest.mark.parametrize('loss', ['QualityFocalLoss', 'mmdet_gfl.QualityFocalLoss', QualityFocalLoss])
@pytest.mark.parametrize('host', sorted(set(HOSTS) - {'SSD'}))  # whose stock head takes no class loss
def test_a_joint_loss_in_a_stock_head_is_refused_with_the_head_to_use(host, loss):
    cfg = stock_config(host, loss_cls=dict(type=loss, use_sigmoid=True))
    said = (
        rf'^model\.bbox_head\.loss_cls is a QualityFocalLoss .*; use model\.bbox_head\.type=.mmdet_gfl\.{host}GFLHead.'
    )
    with pytest.raises(launch.UserError, match=said):
        type_checks.check_losses(detector(cfg))
    type_checks.check_losses(detector(cfg | dict(type=f'mmdet_gfl.{host}GFLHead')))
    type_checks.check_losses(detector(stock_config(host)))


def test_a_stock_head_that_supplies_the_target_keeps_its_loss(read):
    head = read().model.bbox_head
    head.update(type='GFLHead', loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True))
    type_checks.check_losses(detector(head))
    type_checks.check_losses(detector(stock_config('RTMDet')))


def test_a_detector_is_validated_when_built(read, tmp_path):
    cfg = read()
    cfg.work_dir, cfg.model.backbone.init_cfg, cfg.experiment_name = str(tmp_path), None, 'losses'
    cfg.model.bbox_head = stock_config('ATSS', loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True))
    with pytest.raises(launch.UserError, match=r'which ATSSHead does not .*type=.mmdet_gfl\.ATSSGFLHead.'):
        launch.build_runner(cfg)


def test_an_error_of_an_own_loss_is_one_sentence(read):
    head = build_head(stock_config('Retina', loss_cls=part('QualityFocalLoss', use_sigmoid=True)))
    feats, size = host_features('Retina', (64, 64), 1), (64, 64)
    with pytest.raises(launch.UserError, match=r'QualityFocalLoss.* got .*mmdet_gfl\.RetinaGFLHead'):
        launch.run(lambda: head.loss_by_feat(*head(feats), objects([2], size), metas(size, 1)), read())


# Operators ----------------------------------------------------------------------------------------------------------


class Loss(torch.nn.Module):
    """A layer whose operator fails as compiled mmcv's or the stand-in's does."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def forward(self):
        return self.operator()


class Head(torch.nn.Module):
    def __init__(self, operator):
        super().__init__()
        self.bbox_head = torch.nn.ModuleDict(dict(other=torch.nn.ReLU(), loss_cls=Loss(operator)))

    def forward(self):
        return self.bbox_head['loss_cls']()


@pytest.mark.parametrize('device, built_for', [('cuda:0', 'cuda'), ('cpu', 'cpu'), ('cuda:11', 'cuda')])
def test_an_operator_that_mmcv_was_not_built_with_is_a_sentence(device, built_for):
    words = f'sigmoid_focal_loss_forward_impl: implementation for device {device} not found.\n'
    said = (
        rf'^model\.bbox_head\.loss_cls \(Loss\): the installed mmcv has no sigmoid_focal_loss_forward for {device}; '
        rf'use `pip uninstall -y mmcv && pip install "mmcv-lite<2\.2"`, .* or an mmcv built for {built_for}$'
    )
    with pytest.raises(launch.UserError, match=said):
        launch.run(Head(lambda: raising(RuntimeError(words))), Config())


@pytest.mark.agreement
@pytest.mark.skipif(mmcv_flavour() != 'compiled', reason='mmcv is installed without compiled operators')
def test_the_words_of_compiled_mmcv():
    from mmcv.ops import border_align

    operator = lambda: border_align(torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 4), 3)  # noqa: E731
    with pytest.raises(launch.UserError, match=r'^model\.bbox_head\.\S+ .*no border_align_forward for cpu; use'):
        launch.run(Head(operator), Config())


def test_the_layer_is_named_as_in_the_config_where_several_processes_train():
    class Wrapper(torch.nn.Module):  # as DistributedDataParallel
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self):
            return self.module()

    with pytest.raises(launch.UserError, match=r'^model\.bbox_head\.loss_cls \(Loss\): mmcv is installed here'):
        launch.run(Wrapper(Head(missing_operator('roi_align_forward'))), Config())


def test_the_layer_of_an_operator_that_the_stand_in_lacks_is_named():
    said = r"^model\.bbox_head\.loss_cls \(Loss\): mmcv is installed here without .*'roi_align_forward' is not in"
    with pytest.raises(launch.UserError, match=said):
        launch.run(Head(missing_operator('roi_align_forward')), Config())
    with pytest.raises(launch.UserError, match=r"^mmcv is installed here without .*'roi_align_backward' is not in"):
        launch.run(missing_operator('roi_align_backward'), Config())  # autograd calls it, no layer


# Arguments ----------------------------------------------------------------------------------------------------------


#: What Python 3.13 adds.
MEANT = r"(\. Did you mean '\w+'\?)?"


def failure(cfg, node, registry=MODELS):
    """The error of building this part of the config."""
    with pytest.raises(TypeError) as caught:
        registry.build(copy.deepcopy(node))  # a detector hands train_cfg on to its head, in place
    return type_checks.unknown_argument(cfg, caught.value)


@pytest.mark.parametrize(
    'key, owner',
    [
        ('bbox_head.reg_maxx', 'AnchorHead'),
        ('bbox_head.anchor_generator.strids', 'AnchorGenerator'),
        ('backbone.dept', 'ResNet'),
        ('train_cfg.assigner.top', 'ATSSAssigner'),
        ('foo', 'GFL'),
    ],
)
def test_pythons_error_on_an_argument_comes_with_its_key(read, key, owner):
    cfg = read()
    cfg.model.backbone.init_cfg = None
    cfg.merge_from_dict({f'model.{key}': 8})
    name = key.rpartition('.')[2]
    fault = rf"{owner}\.__init__\(\) got an unexpected keyword argument '{name}'{MEANT}"
    said = rf'{fault}; the config sets it in model\.{key}$'
    assert re.search(said, failure(cfg, cfg.model))


def test_an_argument_of_a_class_without_any_is_pythons_error(read):
    cfg = read()
    cfg.custom_hooks[0].foo = 3
    with pytest.raises(TypeError, match=r'NumClassCheckHook\(\) takes no arguments'):
        launch.run(lambda: HOOKS.build(cfg.custom_hooks[0]), cfg)


def test_an_argument_of_a_data_loader(read):
    cfg = read()
    cfg.val_dataloader.batchsize = 3
    with pytest.raises(
        launch.UserError, match=rf"'batchsize'{MEANT}; the config sets it in val_dataloader\.batchsize$"
    ):
        launch.run(lambda: DataLoader([], batchsize=3), cfg)


def raising(error):
    raise error


@pytest.mark.parametrize(
    'error',
    [
        TypeError("GFLHead.__init__() got an unexpected keyword argument 'other'"),  # not in the config
        TypeError("forward() got an unexpected keyword argument 'num_classes'"),
        TypeError("GFLHead.__init__() missing 1 required positional argument: 'num_classes'"),
        ValueError('of torch'),
        RuntimeError("GFLHead.__init__() got an unexpected keyword argument 'num_classes'"),
    ],
    ids=str,
)
def test_other_errors_are_left_as_they_are(read, error):
    with pytest.raises(type(error)) as caught:
        launch.run(lambda: raising(error), read())
    assert caught.value is error


def test_refusals_of_our_parts_are_one_sentence(read):
    cfg = read()
    cfg.model.bbox_head.reg_max = -3
    with pytest.raises(launch.UserError, match='reg_max must be an integer >= 1, got -3'):
        launch.run(lambda: MODELS.build(cfg.model.bbox_head), cfg)
    cfg = read()
    cfg.model.bbox_head.update(type='mmdet_gfl.ATSSGFLHead', quality=dict(type='JointQualty'))
    with pytest.raises(launch.UserError, match=r"quality\.type='JointQualty' .*did you mean mmdet_gfl\.JointQuality"):
        launch.run(lambda: MODELS.build(cfg.model.bbox_head), cfg)


def test_the_runner_is_built_under_the_same_watch(read, tmp_path):
    cfg = read()
    cfg.work_dir, cfg.model.backbone.init_cfg = str(tmp_path), None
    cfg.model.bbox_head.reg_maxx = 8
    with pytest.raises(
        launch.UserError, match=r"argument 'reg_maxx'; the config sets it in model\.bbox_head\.reg_maxx$"
    ):
        launch.build_runner(cfg)
