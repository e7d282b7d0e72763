"""The six released models: their settings, by hand from the paper and against MMDetection's, and the zoo's checkpoints.

MMDetection's zoo holds what MMDetection's own configs of these names make, so a model of ours with the same names and
shapes takes the zoo's checkpoint strictly.
"""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cases
import cv2
import mmdet
import numpy as np
import pytest
import torch
import yaml
from mmcv.transforms import Compose
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_gfl.engine import launch

CONFIGS = Path(__file__).parents[1] / 'configs' / 'gfl'
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'gfl'


class Model(NamedTuple):
    """Features of a released model, and its quoted numbers."""

    backbone: tuple[str, int, str]  # class, depth, weights to start from
    groups: tuple[int, int] | None  # of ResNeXt: groups and their width
    deformable: tuple[bool, bool, bool, bool] | None  # in stages C2 to C5
    multi_scale: bool  # and 2x
    zoo: float  # box AP on minival, MMDetection's
    authors: tuple[float, float, float]  # box AP on minival and test-dev, frames per second


RESNET50 = ('ResNet', 50, 'torchvision://resnet50')
RESNET101 = ('ResNet', 101, 'torchvision://resnet101')
RESNEXT101 = ('ResNeXt', 101, 'open-mmlab://resnext101_32x4d')
RELEASED = {
    'gfl_r50_fpn_1x_coco': Model(RESNET50, None, None, False, 40.2, (40.2, 40.3, 19.4)),
    'gfl_r50_fpn_ms-2x_coco': Model(RESNET50, None, None, True, 42.9, (42.8, 43.1, 19.4)),
    'gfl_r101_fpn_ms-2x_coco': Model(RESNET101, None, None, True, 44.7, (44.9, 45.0, 14.6)),
    'gfl_r101-dconv-c3-c5_fpn_ms-2x_coco': Model(
        RESNET101, None, (False, True, True, True), True, 47.1, (47.2, 47.3, 12.7)
    ),
    'gfl_x101-32x4d_fpn_ms-2x_coco': Model(RESNEXT101, (32, 4), None, True, 45.9, (45.7, 46.0, 12.2)),
    'gfl_x101-32x4d-dconv-c4-c5_fpn_ms-2x_coco': Model(
        RESNEXT101, (32, 4), (False, False, True, True), True, 48.1, (48.3, 48.2, 10.0)
    ),
}
each_model = pytest.mark.parametrize('name', RELEASED)


@cache
def _load(folder: Path, name: str) -> Config:
    return Config.fromfile(folder / f'{name}.py', import_custom_modules=False)


def load(name: str, folder: Path = CONFIGS) -> Config:
    """A config that the caller may change: a copy in depth, where ``Config.copy`` would share what is inside."""
    return copy.deepcopy(_load(folder, name))


# Settings -----------------------------------------------------------------------------------------------------------

#: What all six have, from the paper ("Training and testing", "Equations") and, for the network, from its code.
PAPER: dict[str, Any] = {
    'optimizer': ('SGD', 0.01, 0.9, 1e-4),  # lr, momentum, weight decay
    'images per batch': (16, 2),  # in all, a GPU
    'warm-up': ('LinearLR', 500, False),
    'drops': (0.1, True),
    'losses': (('QualityFocalLoss', 2.0, 1.0), ('DistributionFocalLoss', 0.25), ('GIoULoss', 2.0)),  # β and λ
    'n': 16,
    'tower': (4, 256),
    'levels': ([8, 16, 32, 64, 128], 5, 1, 'on_output'),
    'assigner': dict(type='ATSSAssigner', topk=9),
    'anchors': ([1.0], 8, 1),
    'test': (0.05, 1000, dict(type='nms', iou_threshold=0.6), 100),
    'test scale': (1333, 800),
    'batch norm': (1, True, True),  # frozen stages, in eval mode, learns
    'stages': (4, (0, 1, 2, 3), 'pytorch'),
    'classes': 80,
}


def settings(cfg: Config) -> dict[str, Any]:
    """The entries of :data:`PAPER`, read from a config."""
    optimizer, (warm_up, drops) = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    head, backbone, neck, test = cfg.model.bbox_head, cfg.model.backbone, cfg.model.neck, cfg.model.test_cfg
    anchors = head.anchor_generator
    losses = (head.loss_cls, ('type', 'beta', 'loss_weight')), (head.loss_dfl, ('type', 'loss_weight'))
    losses = *losses, (head.loss_bbox, ('type', 'loss_weight'))
    return {
        'optimizer': tuple(optimizer[key] for key in ('type', 'lr', 'momentum', 'weight_decay')),
        'images per batch': (cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size),
        'warm-up': (warm_up.type, warm_up.end - warm_up.begin, warm_up.by_epoch),
        'drops': (drops.gamma, drops.by_epoch),
        'losses': tuple(
            tuple(loss[key].removeprefix('mmdet_gfl.') if key == 'type' else loss[key] for key in keys)
            for loss, keys in losses
        ),
        'n': head.reg_max,
        'tower': (head.stacked_convs, head.feat_channels),
        'levels': (anchors.strides, neck.num_outs, neck.start_level, neck.add_extra_convs),
        'assigner': cfg.model.train_cfg.assigner,
        'anchors': (anchors.ratios, anchors.octave_base_scale, anchors.scales_per_octave),
        'test': (test.score_thr, test.nms_pre, test.nms, test.max_per_img),
        'test scale': next(step.scale for step in cfg.test_pipeline if step.type == 'Resize'),
        'batch norm': (backbone.frozen_stages, backbone.norm_eval, backbone.norm_cfg.requires_grad),
        'stages': (backbone.num_stages, backbone.out_indices, backbone.style),
        'classes': head.num_classes,
    }


@each_model
def test_settings_of_the_paper(name: str) -> None:
    cfg, model = load(name), RELEASED[name]
    assert settings(cfg) == PAPER
    epochs, steps = (24, [16, 22]) if model.multi_scale else (12, [8, 11])
    drops = cfg.param_scheduler[1]
    assert (cfg.train_cfg.max_epochs, drops.end, drops.milestones) == (epochs, epochs, steps)
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.depth, backbone.init_cfg.checkpoint) == model.backbone
    groups = (backbone.groups, backbone.base_width) if 'groups' in backbone else None
    assert groups == model.groups
    assert backbone.get('stage_with_dcn') == model.deformable
    assert ('dcn' in backbone) == (model.deformable is not None)


@each_model
def test_parts_that_this_package_adds(name: str) -> None:
    cfg = load(name)
    assert 'mmdet_gfl.NumClassCheckHook' in [hook.type for hook in cfg.custom_hooks]
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=35, norm_type=2)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)
    lr, how = launch.scaled_lr(Config(dict(cfg.to_dict(), launcher='none')))
    assert (lr, how) == (0.00125, '0.01 for a batch of 16, scaled to 2')


def test_the_note_on_one_gpu() -> None:
    note = ' '.join((CONFIGS / 'README.md').read_text().partition('**One GPU.**')[2].partition('```')[0].split())
    said = re.match(
        r'The lr, (\S+), is for (\d+) images per batch, .* ([\d.]+) for (\d+) images on one GPU, ([\d.]+) for (\d+)',
        note,
    )
    assert said, note
    lr, batch, *scaled = map(float, said.groups())
    cfg = load('gfl_r50_fpn_1x_coco')
    assert (lr, batch) == (cfg.optim_wrapper.optimizer.lr, cfg.auto_scale_lr.base_batch_size)
    for value, images in zip(scaled[::2], scaled[1::2]):
        cfg.train_dataloader.batch_size = int(images)
        assert launch.scaled_lr(Config(dict(cfg.to_dict(), launcher='none')))[0] == pytest.approx(value)


@each_model
def test_a_head_of_other_classes_than_the_data_is_refused(name: str) -> None:
    cfg = load(name)
    (hook,) = [HOOKS.build(hook) for hook in cfg.custom_hooks if hook.type == 'mmdet_gfl.NumClassCheckHook']
    head = MODELS.build(cfg.model.bbox_head | head_arguments(cfg, 'bbox_head'))

    def check(classes: int) -> None:
        dataset = SimpleNamespace(metainfo=dict(classes=[str(number) for number in range(classes)]))
        model = torch.nn.ModuleDict(dict(bbox_head=head))
        hook.before_train_epoch(SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=dataset)))

    check(80)
    with pytest.raises(ValueError, match=r'model\.bbox_head\.num_classes=80, but the data set .* has 79 classes'):
        check(79)


ABSENT = '(absent)'
#: Every setting that is not MMDetection's: theirs and ours.
DIFFERENCES = {
    # Our parts, under their prefix; losses, gradients and state dicts are compared in tests/test_models
    'model.bbox_head.type': ('GFLHead', 'mmdet_gfl.GFLHead'),
    'model.bbox_head.loss_cls.type': ('QualityFocalLoss', 'mmdet_gfl.QualityFocalLoss'),
    'model.bbox_head.loss_dfl.type': ('DistributionFocalLoss', 'mmdet_gfl.DistributionFocalLoss'),
    # mmcv-lite: the package is imported before MMDetection
    'custom_imports.imports.0': (ABSENT, 'mmdet_gfl'),
    'custom_imports.allow_failed_imports': (ABSENT, False),
    # Against the explosions and the wrong lr that users run into
    'optim_wrapper.clip_grad.max_norm': (ABSENT, 35),
    'optim_wrapper.clip_grad.norm_type': (ABSENT, 2),
    'auto_scale_lr.enable': (False, True),
    # Classes of head and data agree; boxes are finite; a kill leaves the checkpoint before
    'custom_hooks.0.type': (ABSENT, 'mmdet_gfl.NumClassCheckHook'),
    'custom_hooks.1.type': (ABSENT, 'mmdet_gfl.CheckGroundTruthHook'),
    'default_hooks.checkpoint.type': ('CheckpointHook', 'mmdet_gfl.SafeCheckpointHook'),
}


def leaves(value: Any, key: str = '') -> dict[str, Any]:
    """Every value inside dicts and lists by its dotted key; one that is empty is a value itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found = {}
    for name, child in items:
        found |= leaves(child, f'{key}.{name}' if key else str(name))
    return found or {key: value}


@each_model
def test_each_difference_to_mmdetection_is_listed(name: str) -> None:
    theirs, ours = (leaves(load(name, folder).to_dict()) for folder in (STOCK, CONFIGS))
    found = {key: (theirs.get(key, ABSENT), ours.get(key, ABSENT)) for key in theirs | ours}
    assert {key: pair for key, pair in found.items() if pair[0] != pair[1]} == DIFFERENCES


@pytest.mark.parametrize('size', [(480, 640), (640, 427), (300, 1000)])
def test_multi_scale_training_images(size: tuple[int, int], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((*size, 3), np.uint8))
    read, _, *rest, pack = load('gfl_r50_fpn_ms-2x_coco').train_pipeline
    steps = Compose([read, *rest, pack])
    seen = [steps(dict(img_path=str(tmp_path / 'image.png')))['inputs'].shape[1:] for _ in range(25)]
    for height, width in seen:
        assert height / width == pytest.approx(size[0] / size[1], rel=5e-3)
        assert max(height, width) <= 1333
        # The shorter side is between 480 and 800, but where the longer would pass 1333
        assert min(height, width) <= 800
        assert min(height, width) >= 479 or max(height, width) >= 1332
    assert len(set(seen)) > (10 if max(size) / min(size) < 1.6 else 0)


# Checkpoints --------------------------------------------------------------------------------------------------------


def layout(cfg: Config) -> list[tuple[str, torch.Size, torch.dtype]]:
    """Names, shapes and kinds of a detector's state dict in order; backbone and neck without memory."""
    parts = []
    for part in ('backbone', 'neck', 'bbox_head'):
        with torch.device('cpu' if part == 'bbox_head' else 'meta'):
            built = MODELS.build(cfg.model[part] | head_arguments(cfg, part))
        parts += [(f'{part}.{key}', value.shape, value.dtype) for key, value in built.state_dict().items()]
    return parts


def head_arguments(cfg: Config, part: str) -> dict[str, Any]:
    """The features that a detector hands to its head."""
    return dict(train_cfg=cfg.model.train_cfg, test_cfg=cfg.model.test_cfg) if part == 'bbox_head' else {}


#: Of the 3, 4, 23, 3 blocks of a network of depth 101, those of C3-C5 and of C4-C5.
DEFORMABLE_BLOCKS = {
    'gfl_r101-dconv-c3-c5_fpn_ms-2x_coco': 4 + 23 + 3,
    'gfl_x101-32x4d-dconv-c4-c5_fpn_ms-2x_coco': 23 + 3,
}


@pytest.mark.agreement
@each_model
def test_checkpoints_of_the_zoo_fit_strictly(name: str) -> None:
    ours, theirs = layout(load(name)), layout(load(name, STOCK))
    assert ours == theirs
    deformable = sum(key.endswith('conv_offset.weight') for key, _, _ in theirs)
    assert deformable == DEFORMABLE_BLOCKS.get(name, 0)


@pytest.fixture(scope='module')
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """MMDetection's R50 model, of its own config, and its checkpoint as the zoo has them: weights and plain facts."""
    register_all_modules(init_default_scope=True)  # before the fixture that does it for each test
    cfg = load('gfl_r50_fpn_1x_coco', STOCK).model
    cfg.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    file = tmp_path_factory.mktemp('zoo') / 'gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth'
    torch.save(dict(meta=dict(mmdet_version='2.1.0', epoch=12, iter=87960), state_dict=model.state_dict()), file)
    return model, file


@pytest.mark.agreement
def test_a_checkpoint_of_mmdetection_detects_the_same(zoo: tuple[torch.nn.Module, Path]) -> None:
    theirs, file = zoo
    cfg = load('gfl_r50_fpn_1x_coco').model
    cfg.backbone.init_cfg = None
    ours = MODELS.build(cfg).eval()
    launch.check_checkpoint(str(file))
    launch.check_fit(ours, str(file))
    ours.load_state_dict(torch.load(file, weights_only=True)['state_dict'], strict=True)
    found = []
    for model in (ours, theirs):
        model.bbox_head.test_cfg.score_thr = 0.009  # untrained scores are all about 0.01
        sample = DetDataSample(metainfo=dict(img_shape=(128, 160), ori_shape=(128, 160), scale_factor=(1.0, 1.0)))
        image = torch.randint(0, 256, (3, 128, 160), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
        with torch.no_grad():
            found += [
                [result.pred_instances for result in model.test_step(dict(inputs=[image], data_samples=[sample]))]
            ]
    cases.assert_same_detections(*found, least=50)


@pytest.mark.slow
@pytest.mark.agreement
def test_the_tool_tests_a_checkpoint_of_mmdetection(
    zoo: tuple[torch.nn.Module, Path], coco128: Path, root: Path, tmp_path: Path, warm_python: str
) -> None:
    annotations = 'annotations/instances_train2017.json'
    options = [
        *(f'test_dataloader.{key}' for key in ('num_workers=0', 'persistent_workers=False', 'dataset.indices=3')),
        f'test_dataloader.dataset.data_root={coco128}',
        f'test_dataloader.dataset.ann_file={annotations}',
        'test_dataloader.dataset.data_prefix.img=train2017/',
        'test_dataloader.dataset.pipeline.1.scale=(128,128)',
        f'test_evaluator.ann_file={coco128 / annotations}',
        'model.test_cfg.score_thr=0.009',
    ]
    command = ['tools/test.py', 'configs/gfl/gfl_r50_fpn_1x_coco.py', zoo[1], '--work-dir', tmp_path]
    command += ['--out', tmp_path / 'found.pkl', '--cfg-options', *options]
    result = subprocess.run(
        [warm_python, *map(str, command)],
        cwd=root,
        env=dict(os.environ, PYTHONPATH=str(root)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    said = result.stdout + result.stderr
    assert 'coco/bbox_mAP' in said
    assert 'do not match exactly' not in said  # what MMEngine says of missing, unexpected and misshapen keys
    with open(tmp_path / 'found.pkl', 'rb') as file:
        assert [len(image['pred_instances']['scores']) for image in pickle.load(file)] == [100] * 3


# Deformable convolutions --------------------------------------------------------------------------------------------


# Metafile, README ---------------------------------------------------------------------------------------------------


@cache
def metafile(folder: Path) -> dict[str, dict[str, Any]]:
    """The models of a metafile by their names."""
    return {model['Name']: model for model in yaml.safe_load((folder / 'metafile.yml').read_text())['Models']}


@each_model
def test_weights_and_numbers_are_those_of_the_zoo(name: str) -> None:
    ours, theirs = metafile(CONFIGS)[name], metafile(STOCK)[name]
    for key in ('Config', 'In Collection', 'Weights', 'Results'):
        assert ours[key] == theirs[key], key
    assert ours['Metadata']['Epochs'] == theirs['Metadata']['Epochs'] == load(name).train_cfg.max_epochs
    assert ours['Results'][0]['Metrics'] == {'box AP': RELEASED[name].zoo}
    source = 'arXiv:2006.04388, tables 2b, 2c, 3' if name == 'gfl_r50_fpn_1x_coco' else 'MMDetection 3.3.0'
    assert ours['Metadata']['Quoted From'].startswith(source)


def test_the_readme_quotes_each_model() -> None:
    text = (CONFIGS / 'README.md').read_text()
    section = text[text.index('## Released models') : text.index('## Rows of the paper')]
    assert 'All numbers are **quoted**, none is measured with this package' in section
    rows = [[cell.strip() for cell in line.strip('| ').split('|')] for line in section.splitlines() if '](./' in line]
    assert {row[0]: row[1:] for row in rows} == {f'[{name}](./{name}.py)': readme_row(name) for name in RELEASED}


def readme_row(name: str) -> list[str]:
    """Backbone, deformable stages, schedule, AP of the zoo, of the authors, their speed, links."""
    model, weights = RELEASED[name], metafile(CONFIGS)[name]['Weights']
    stages = [f'C{stage}' for stage, used in enumerate(model.deformable or (), 2) if used]
    minival, test_dev, speed = model.authors
    return [
        f'X-{model.backbone[1]} 32x4d' if model.groups else f'R-{model.backbone[1]}',
        f'{stages[0]}-{stages[-1]}' if stages else '–',
        '2x, scales' if model.multi_scale else '1x',
        f'{model.zoo}',
        f'{minival} / {test_dev}',
        f'{speed}',
        f'[model]({weights}) · [log]({weights.rpartition("-")[0]}.log.json)',
    ]
