"""Typos in types and arguments are answered in a sentence; what is right, or not ours to judge, passes."""

import copy
from pathlib import Path

import mmdet
import pytest
from cases import HOSTS, build, host_features, metas, objects, part, stock_config
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.losses import QualityFocalLoss as StockQualityFocalLoss
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmdet_gfl import shipped_configs
from mmdet_gfl.engine import launch, type_checks
from mmdet_gfl.models.losses import QualityFocalLoss

STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
#: Cannot be tested with MMDetection itself: its metric is called MOTChallengeMetric.
MISTYPED = {'bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py'}
MISTYPED |= {'bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot20train_test-mot20test.py'}


@pytest.fixture(scope='module')
def read(root):
    """A fresh config of ours."""
    cfg = Config.fromfile(root / 'configs' / 'gfl' / 'gfl_r50_fpn_1x_coco.py')
    return lambda: copy.deepcopy(cfg)


# Types --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'key, name, meant',
    [
        ('model.bbox_head', 'ATSSGFLHead', 'mmdet_gfl.ATSSGFLHead'),
        ('model.bbox_head', 'mmdet_gfl.ATSSHead', 'mmdet_gfl.ATSSGFLHead'),
        ('model.bbox_head', 'ATSSHeadd', 'ATSSHead'),
        ('model', 'Gfl', 'GFL'),
        ('model.backbone', 'Resnet', 'ResNet'),
        ('model.neck', 'FPNN', 'FPN'),
        ('model.bbox_head.loss_cls', 'QualtyFocalLoss', 'QualityFocalLoss'),
        ('model.bbox_head.anchor_generator', 'AnchorGenerater', 'AnchorGenerator'),
        ('model.train_cfg.assigner', 'ATSSAsigner', 'ATSSAssigner'),
        ('train_dataloader.dataset', 'CocoDatset', 'CocoDataset'),
        ('train_dataloader.dataset.pipeline.2', 'Rezise', 'Resize'),
        ('train_dataloader.dataset.pipeline.0', 'LoadImagesFromFile', 'LoadImageFromFile'),
        ('train_dataloader.sampler', 'DefaultSample', 'DefaultSampler'),
        ('custom_hooks.0', 'NumClassChekHook', 'NumClassCheckHook'),
        ('default_hooks.checkpoint', 'SafeCheckpointHook', 'mmdet_gfl.SafeCheckpointHook'),
        ('param_scheduler.0', 'LinearLr', 'LinearLR'),
        ('optim_wrapper', 'OptimWraper', 'OptimWrapper'),
        ('optim_wrapper.optimizer', 'SDG', 'SGD'),
        ('val_evaluator', 'CocoMetrics', 'CocoMetric'),
        ('train_cfg', 'EpochBasedTrainLop', 'EpochBasedTrainLoop'),
        ('visualizer.vis_backends.0', 'LocalVis', 'LocalVisBackend'),
    ],
)
def test_a_typo_is_named_with_its_key_and_what_was_meant(read, key, name, meant):
    cfg = read()
    cfg.merge_from_dict({f'{key}.type': name})
    with pytest.raises(launch.UserError, match=rf'^{key}\.type={name!r} is unknown; did you mean {meant}\?'):
        launch.check_types(cfg)


def test_a_name_that_is_near_to_none(read):
    cfg = read()
    cfg.model.backbone.type = 'Qwertyuiop'
    assert type_checks.unknown_type(cfg) == (
        "model.backbone.type='Qwertyuiop' is unknown; a class of your own must be registered, and its module be in "
        'custom_imports'
    )
    cfg.model.backbone.type = 'mmdet_gfl.Qwertyuiop'
    assert 'known: mmdet_gfl.ATSSGFLHead, ' in type_checks.unknown_type(cfg)


@pytest.mark.parametrize(
    'changes',
    [
        {'model.backbone.norm_cfg': dict(type='MyNorm')},
        {'model.test_cfg.nms': dict(type='my_nms')},
        {'model.bbox_head.my_option': dict(type='anything')},
        {'model.backbone': dict(type='timm.Thing', _delete_=True)},
        {'model.backbone': dict(type='elsewhere.models.Thing', _delete_=True)},
        {'model.backbone': dict(_scope_='mmpretrain', type='ConvNeXt', neck=dict(type='Thing'), _delete_=True)},
        {'optim_wrapper': dict(constructor='Mine', optimizer=dict(type='Mine'))},
        {'train_dataloader.collate_fn': dict(type='my_collate')},
        {'val_evaluator': dict(type='Evaluator', metrics=[dict(type='CocoMetric')], _delete_=True)},
        {'model.bbox_head': None},
    ],
    ids=str,
)
def test_what_is_not_ours_to_judge_passes(read, changes):
    cfg = read()
    cfg.merge_from_dict(changes)
    launch.check_types(cfg)


def test_classes_pass_too(read):
    cfg = read()
    cfg.model.backbone.type = MODELS.get('ResNet')
    launch.check_types(cfg)


def test_import_paths_are_types_too(read):
    cfg = read()
    cfg.model.type = 'mmdet.models.detectors.GFL'
    cfg.model.bbox_head.type = 'mmdet_gfl.models.dense_heads.GFLHead'
    launch.check_types(cfg)
    cfg.model.bbox_head.type = 'mmdet_gfl.models.dense_heads.GFLHaed'
    with pytest.raises(launch.UserError, match=r"dense_heads\.GFLHaed' is unknown; did you mean mmdet_gfl\.GFLHead\?"):
        launch.check_types(cfg)


def test_a_config_without_the_scope_of_mmdetection(read):
    cfg = read()
    del cfg._cfg_dict['default_scope']
    said = r"^model\.type='GFL' is unknown; MMDetection has it, .*write default_scope = 'mmdet' in the config$"
    with pytest.raises(launch.UserError, match=said):
        launch.check_types(cfg)


def test_modules_of_ones_own_are_imported_first(tmp_path, monkeypatch, root):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'my_neck_of_a_test.py').write_text(
        'from mmdet.registry import MODELS, TRANSFORMS\n'
        '@MODELS.register_module()\nclass MyNeckOfATest: pass\n'
        '@TRANSFORMS.register_module()\nclass MyStepOfATest: pass\n'
    )
    config = tmp_path / 'mine.py'
    text = (
        f"_base_ = '{root}/configs/gfl/gfl_r50_fpn_1x_coco.py'\n"
        "model = dict(neck=dict(_delete_=True, type='MyNeckOfATest'))\n"
        "train_dataloader = dict(dataset=dict(pipeline=[dict(type='MyStepOfATest')]))\n"
    )
    config.write_text(text)
    with pytest.raises(launch.UserError, match=r'neck\.type=.MyNeckOfATest. is unknown; .*custom_imports'):
        launch.check_types(launch.read_config(str(config)))
    config.write_text(f"{text}custom_imports = dict(imports=['mmdet_gfl', 'my_neck_of_a_test'])\n")
    try:
        launch.check_types(launch.read_config(str(config)))
    finally:
        MODELS.module_dict.pop('MyNeckOfATest')
        TRANSFORMS.module_dict.pop('MyStepOfATest')


@pytest.mark.parametrize('loss', ['QualityFocalLoss', 'mmdet_gfl.QualityFocalLoss'])
@pytest.mark.parametrize('host', HOSTS)
def test_a_joint_loss_in_a_stock_head_is_refused_with_the_head_to_use(read, host, loss):
    cfg = read()
    cfg.model.bbox_head = stock_config(host, loss_cls=dict(type=loss, use_sigmoid=True))
    said = rf'loss_cls\.type={loss!r} learns the IoU .*; use model\.bbox_head\.type=.mmdet_gfl\.{host}GFLHead.'
    with pytest.raises(launch.UserError, match=said):
        launch.check_types(cfg)
    cfg.model.bbox_head.type = f'mmdet_gfl.{host}GFLHead'
    launch.check_types(cfg)


@pytest.mark.parametrize('head', ['mmdet.models.RetinaHead', 'mmdet.RetinaHead', RetinaHead])
@pytest.mark.parametrize('loss', ['mmdet_gfl.models.losses.QualityFocalLoss', QualityFocalLoss, StockQualityFocalLoss])
def test_a_joint_loss_in_a_stock_head_by_path_or_class(read, head, loss):
    cfg = read()
    cfg.model.bbox_head = stock_config('Retina', type=head, loss_cls=dict(type=loss, use_sigmoid=True))
    with pytest.raises(launch.UserError, match=r'which RetinaHead does not .*type=.mmdet_gfl\.RetinaGFLHead.'):
        launch.check_types(cfg)


def test_a_loss_of_ours_that_nobody_could_see_coming_is_one_sentence(read):
    head = build(stock_config('Retina', loss_cls=part('QualityFocalLoss', use_sigmoid=True)))
    feats, size = host_features('Retina', (64, 64), 1), (64, 64)
    with pytest.raises(launch.UserError, match=r'QualityFocalLoss.* got .*mmdet_gfl\.RetinaGFLHead'):
        launch.run(lambda: head.loss_by_feat(*head(feats), objects([2], size), metas(size, 1)), read())


@pytest.mark.agreement
def test_mmdetections_configs_pass():
    files = sorted(file for file in STOCK.rglob('*.py') if '_base_' not in file.parts)
    names = {str(file.relative_to(STOCK)) for file in files[::10]} | MISTYPED
    checked = 0
    for name in sorted(names):
        try:
            cfg = Config.fromfile(STOCK / name)
        except (ImportError, FileNotFoundError):  # of another package, or broken in this release
            continue
        sentence = type_checks.unknown_type(cfg) or type_checks.misplaced_loss(cfg)
        if name in MISTYPED:
            assert 'did you mean MOTChallengeMetric?' in sentence
        else:
            assert sentence is None, f'{name}: {sentence}'
        checked += 1
    assert checked > 75


@pytest.mark.parametrize('name', shipped_configs.names())
def test_our_configs_pass(name):
    assert type_checks.unknown_type(Config.fromfile(shipped_configs.find(name))) is None


# Arguments ----------------------------------------------------------------------------------------------------------


def failure(cfg, node, registry=MODELS):
    """What building this part of the config fails on."""
    with pytest.raises(TypeError) as caught:
        registry.build(copy.deepcopy(node))  # a detector hands train_cfg on to its head, in place
    return type_checks.unknown_argument(cfg, caught.value)


@pytest.mark.parametrize(
    'key, said',
    [
        ('bbox_head.reg_maxx', 'GFLHead takes no reg_maxx; did you mean model.bbox_head.reg_max?'),
        ('bbox_head.num_clases', 'GFLHead takes no num_clases; did you mean model.bbox_head.num_classes?'),
        (
            'bbox_head.anchor_generator.strids',
            'AnchorGenerator takes no strids; did you mean model.bbox_head.anchor_generator.strides?',
        ),
        ('backbone.dept', 'ResNet takes no dept; did you mean model.backbone.depth?'),
        ('train_cfg.assigner.top', 'ATSSAssigner takes no top; did you mean model.train_cfg.assigner.topk?'),
        (
            'foo',
            'GFL takes no foo; it takes backbone, neck, bbox_head, train_cfg, test_cfg, data_preprocessor, init_cfg',
        ),
    ],
)
def test_an_unknown_argument_is_named_with_the_nearest(read, key, said):
    cfg = read()
    cfg.model.backbone.init_cfg = None
    cfg.merge_from_dict({f'model.{key}': 8})
    assert failure(cfg, cfg.model) == f'model.{key}=8: {said}'


def test_an_argument_of_a_class_without_any(read):
    from mmdet.registry import HOOKS

    cfg = read()
    cfg.custom_hooks[0].foo = 3
    said = 'custom_hooks.0.foo=3: NumClassCheckHook takes no arguments'
    assert failure(cfg, cfg.custom_hooks[0], HOOKS) == said


def test_an_argument_of_a_data_loader(read):
    cfg = read()
    cfg.val_dataloader.batchsize = 3
    with pytest.raises(launch.UserError, match='takes no batchsize; did you mean val_dataloader.batch_size?'):
        launch.run(lambda: DataLoader([], batchsize=3), cfg)


def raising(error):
    raise error


@pytest.mark.parametrize(
    'error',
    [
        TypeError("GFLHead.__init__() got an unexpected keyword argument 'other'"),  # not in the config
        TypeError("SomethingElse.__init__() got an unexpected keyword argument 'num_classes'"),
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


def test_what_our_parts_refuse_is_one_sentence(read):
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
    with pytest.raises(launch.UserError, match=r'^model\.bbox_head\.reg_maxx=8: GFLHead takes no reg_maxx'):
        launch.build_runner(cfg)
