"""The six released models of GFLv2: their settings beside GFL's, their layers, official checkpoints, quoted numbers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmdet
import numpy as np
import pytest
import torch
import yaml
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_state_dict
from test_released_models import ABSENT, PAPER, RESNET50, RESNET101, RESNEXT101, leaves, settings

from mmdet_gfl.engine import launch

CONFIGS = Path(__file__).parents[1] / 'configs'
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'


class Model(NamedTuple):
    """Settings that differ between the models, from the authors' configs, and the numbers of their README."""

    gfl: str  # the GFL config with the same backbone, or without one the nearest
    backbone: tuple[str, int, str]  # class, depth, pretrained weights
    more: dict[str, int]  # of ResNeXt and Res2Net
    deformable: tuple[bool, bool, bool, bool] | None  # in stages C2 to C5
    offsets: int  # deformable convolutions
    multi_scale: bool  # and 2x
    authors: tuple[float, float, float]  # box AP on minival and test-dev, frames per second
    twin: float | None  # box AP of GFL with the same backbone and schedule, from MMDetection


RES2NET101 = ('Res2Net', 101, 'open-mmlab://res2net101_v1d_26w_4s')
C3_TO_C5, C4_TO_C5 = (False, True, True, True), (False, False, True, True)
# A network of depth 101 has 3, 4, 23, 3 blocks in C2 to C5; a block has one 3x3 convolution, of Res2Net three.
RELEASED = {
    'gflv2_r50_fpn_1x_coco': Model('gfl_r50_fpn_1x_coco', RESNET50, {}, None, 0, False, (41.0, 41.1, 19.4), 40.2),
    'gflv2_r50_fpn_ms-2x_coco': Model('gfl_r50_fpn_ms-2x_coco', RESNET50, {}, None, 0, True, (43.9, 44.4, 19.4), 42.9),
    'gflv2_r101_fpn_ms-2x_coco': Model(
        'gfl_r101_fpn_ms-2x_coco', RESNET101, {}, None, 0, True, (45.8, 46.0, 14.6), 44.7
    ),
    'gflv2_r101-dconv-c3-c5_fpn_ms-2x_coco': Model(
        'gfl_r101-dconv-c3-c5_fpn_ms-2x_coco', RESNET101, {}, C3_TO_C5, 30, True, (48.0, 48.2, 12.7), 47.1
    ),
    'gflv2_x101-32x4d-dconv-c4-c5_fpn_ms-2x_coco': Model(
        'gfl_x101-32x4d-dconv-c4-c5_fpn_ms-2x_coco',
        RESNEXT101,
        dict(groups=32, base_width=4),
        C4_TO_C5,
        26,
        True,
        (48.8, 49.0, 10.7),
        48.1,
    ),
    'gflv2_res2net101-dconv-c4-c5_fpn_ms-2x_coco': Model(
        'gfl_r101_fpn_ms-2x_coco',
        RES2NET101,
        dict(scales=4, base_width=26),
        C4_TO_C5,
        78,
        True,
        (49.9, 50.5, 10.9),
        None,
    ),
}
each_model = pytest.mark.parametrize('name', RELEASED)
#: The authors' arguments of the head that GFL's head does not have.
HEAD = dict(reg_topk=4, reg_channels=64, add_mean=True)


@cache
def _load(path: Path) -> Config:
    return Config.fromfile(path, import_custom_modules=False)


def load(name: str) -> Config:
    """A shipped config that the caller may change."""
    return copy.deepcopy(_load(CONFIGS / name.partition('_')[0] / f'{name}.py'))


def build_head(name: str, **changes: Any) -> torch.nn.Module:
    model = load(name).model
    return MODELS.build(model.bbox_head | dict(train_cfg=model.train_cfg, test_cfg=model.test_cfg) | changes)


def test_the_models_are_the_configs_of_the_folder() -> None:
    assert sorted(file.stem for file in (CONFIGS / 'gflv2').glob('*.py')) == sorted(RELEASED)


# Settings -----------------------------------------------------------------------------------------------------------


@each_model
def test_settings(name: str) -> None:
    cfg, model = load(name), RELEASED[name]
    assert settings(cfg) == PAPER
    assert cfg.model.bbox_head.type == 'mmdet_gfl.GFocalHead'
    assert {key: cfg.model.bbox_head[key] for key in HEAD} == HEAD
    epochs, steps = (24, [16, 22]) if model.multi_scale else (12, [8, 11])
    drops = cfg.param_scheduler[1]
    assert (cfg.train_cfg.max_epochs, drops.end, drops.milestones) == (epochs, epochs, steps)
    (resize,) = [step for step in cfg.train_dataloader.dataset.pipeline if 'Resize' in step.type]
    assert resize.keep_ratio
    assert resize.scale == ([(1333, 480), (1333, 960)] if model.multi_scale else (1333, 800))
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.depth, backbone.init_cfg.checkpoint) == model.backbone
    assert {key: backbone[key] for key in ('groups', 'scales', 'base_width') if key in backbone} == model.more
    assert backbone.get('stage_with_dcn') == model.deformable
    dcn = dict(type='DCN', deform_groups=1, fallback_on_stride=False)  # the authors'; the first version, without masks
    assert backbone.get('dcn') == (dcn if model.deformable else None)


@each_model
def test_each_difference_to_gfl_is_listed(name: str) -> None:
    theirs, ours = (leaves(load(config).to_dict()) for config in (RELEASED[name].gfl, name))
    differences: dict[str, tuple[Any, Any]] = {
        'model.bbox_head.type': ('mmdet_gfl.GFLHead', 'mmdet_gfl.GFocalHead'),
        **{f'model.bbox_head.{key}': (ABSENT, value) for key, value in HEAD.items()},
    }
    if RELEASED[name].multi_scale:
        pipelines = ('train_pipeline', 'train_dataloader.dataset.pipeline')
        differences |= {f'{pipeline}.2.scale.1.1': (800, 960) for pipeline in pipelines}
    if 'res2net' in name:  # GFL has no such model: beside ResNet-101
        dcn = dict(type='DCN', deform_groups=1, fallback_on_stride=False)
        added = {**RELEASED[name].more, 'dcn': dcn, 'stage_with_dcn': C4_TO_C5}
        differences |= {key: (ABSENT, value) for key, value in leaves(added, 'model.backbone').items()}
        differences['model.backbone.type'] = ('ResNet', 'Res2Net')
        differences['model.backbone.init_cfg.checkpoint'] = (RESNET101[2], RES2NET101[2])
    found = {key: (theirs.get(key, ABSENT), ours.get(key, ABSENT)) for key in theirs | ours}
    assert {key: pair for key, pair in found.items() if pair[0] != pair[1]} == differences


def test_res2net_is_mmdetections() -> None:
    theirs = Config.fromfile(STOCK / 'res2net' / 'faster-rcnn_res2net-101_fpn_2x_coco.py').model.backbone
    ours = load('gflv2_res2net101-dconv-c4-c5_fpn_ms-2x_coco').model.backbone
    deformable = {key: ours.pop(key) for key in ('dcn', 'stage_with_dcn')}
    assert ours == theirs
    assert deformable['stage_with_dcn'] == C4_TO_C5


@pytest.mark.parametrize('size', [(480, 640), (640, 427)])
def test_multi_scale_training_images(size: tuple[int, int], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((*size, 3), np.uint8))
    read, _, *rest, pack = load('gflv2_r50_fpn_ms-2x_coco').train_pipeline
    steps = Compose([read, *rest, pack])
    seen = [min(steps(dict(img_path=str(tmp_path / 'image.png')))['inputs'].shape[1:]) for _ in range(40)]
    limit = 1333 * min(size) / max(size)  # the longer side is at most 1333
    assert all(479 <= side <= min(960, limit) + 1 for side in seen)
    assert max(seen) > 800, 'GFL stops at 800'


# Layers and checkpoints ---------------------------------------------------------------------------------------------


@each_model
def test_layers(name: str) -> None:
    """GFL's state dict, and the four tensors of the quality network under the authors' names."""
    layout = {key: tuple(value.shape) for key, value in build_head(name).state_dict().items()}
    gfl = {key: tuple(value.shape) for key, value in build_head(RELEASED[name].gfl).state_dict().items()}
    added = {key: shape for key, shape in layout.items() if key not in gfl}
    assert {key: shape for key, shape in layout.items() if key in gfl} == gfl
    assert added == {
        'reg_conf.0.weight': (64, 20, 1, 1),
        'reg_conf.0.bias': (64,),
        'reg_conf.2.weight': (1, 64, 1, 1),
        'reg_conf.2.bias': (1,),
    }
    assert sum(np.prod(shape) for shape in added.values()) == 1409


@each_model
def test_deformable_layers(name: str) -> None:
    with torch.device('meta'):
        state = MODELS.build(load(name).model.backbone).state_dict()
    offsets = [value for key, value in state.items() if key.endswith('conv_offset.weight')]
    assert len(offsets) == RELEASED[name].offsets
    assert {len(value) for value in offsets} <= {18}, 'x and y of nine places; DCNv2 has 27, with masks'


NARROW = dict(in_channels=32, feat_channels=32)


def official_state(head: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The head's weights as the authors' code saves them: the class layer has one unused row more."""
    state = {f'bbox_head.{key}': value.clone() for key, value in head.state_dict().items()}
    for key in ('bbox_head.gfl_cls.weight', 'bbox_head.gfl_cls.bias'):
        state[key] = torch.cat((state[key], torch.full_like(state[key][:1], 7.0)))
    return state


class Model1x(torch.nn.Module):
    """A model with the head of ``gflv2_r50_fpn_1x_coco``, narrow, and nothing else."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.bbox_head = build_head('gflv2_r50_fpn_1x_coco', **NARROW)
        self.bbox_head.init_weights()


@pytest.mark.parametrize('load_weights', [torch.nn.Module.load_state_dict, load_state_dict], ids=['torch', 'mmengine'])
def test_an_official_checkpoint_loads_without_its_last_class_row(load_weights: Callable[..., Any]) -> None:
    source, model = Model1x(0), Model1x(1)
    state = official_state(source.bbox_head)
    assert state['bbox_head.gfl_cls.weight'].shape == (81, 32, 3, 3)
    given = {key: value.clone() for key, value in state.items()}
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        load_weights(model, state, strict=True)
    finally:
        logger.removeHandler(handler)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, given[key]) for key, value in state.items()), 'the caller keeps its state dict'
    assert len([message for message in messages if '81' in message]) == 1, messages


def test_the_tools_accept_an_official_checkpoint(tmp_path: Path) -> None:
    """``tools/test.py`` refuses a checkpoint of other shapes before it loads it; this one it may not refuse."""
    source, model = Model1x(0), Model1x(1)
    file = tmp_path / 'gfocal_r50_fpn_1x.pth'
    torch.save(dict(meta=dict(mmdet_version='2.6.0', epoch=12), state_dict=official_state(source.bbox_head)), file)
    launch.check_checkpoint(str(file))
    launch.check_fit(model, str(file))
    state = official_state(source.bbox_head)
    state['bbox_head.gfl_cls.weight'] = torch.cat(2 * [state['bbox_head.gfl_cls.weight']])
    torch.save(dict(state_dict=state), file)
    with pytest.raises(launch.UserError, match=r'size mismatch for \S*gfl_cls\.weight'):
        launch.check_fit(model, str(file))


def test_the_authors_class_loss_is_taken_as_logits() -> None:
    """``use_sigmoid=False`` stands for "already a probability" there; it adds neither a class nor a second sigmoid."""
    loss = dict(type='QualityFocalLoss', use_sigmoid=False, beta=2.0, loss_weight=1.0)
    heads = [build_head('gflv2_r50_fpn_1x_coco', **NARROW, **more) for more in ({}, dict(loss_cls=loss))]
    heads[1].load_state_dict(heads[0].state_dict(), strict=True)
    assert [head.cls_out_channels for head in heads] == [80, 80]
    levels = [torch.randn(1, 32, size, size) for size in (8, 4, 2, 2, 2)]
    with torch.no_grad():
        scores, others = (head(levels)[0] for head in heads)
    for one, other in zip(scores, others):
        assert one.shape[1] == 80
        assert torch.equal(one, other)
    assert min(level.min() for level in scores) < 0, 'logits, not probabilities'


# Metafile, README ---------------------------------------------------------------------------------------------------


@cache
def metafile() -> dict[str, dict[str, Any]]:
    """The models of the metafile by their names."""
    content = yaml.safe_load((CONFIGS / 'gflv2' / 'metafile.yml').read_text())
    (collection,) = content['Collections']
    assert collection['Paper']['URL'] == 'https://arxiv.org/abs/2011.12885'
    assert collection['README'] == 'configs/gflv2/README.md'
    assert all(model['In Collection'] == collection['Name'] for model in content['Models'])
    return {model['Name']: model for model in content['Models']}


def test_the_metafile_names_each_model() -> None:
    assert list(metafile()) == list(RELEASED)


@each_model
def test_numbers_are_quoted_from_the_authors(name: str) -> None:
    entry = metafile()[name]
    assert entry['Config'] == f'configs/gflv2/{name}.py'
    assert entry['Metadata'] == {
        'Epochs': load(name).train_cfg.max_epochs,
        'Quoted From': 'github.com/implus/GFocalV2, README.md',
    }
    assert entry['Results'] == [
        {'Task': 'Object Detection', 'Dataset': 'COCO', 'Metrics': {'box AP': RELEASED[name].authors[0]}}
    ]


def test_the_readme_quotes_each_model() -> None:
    text = (CONFIGS / 'gflv2' / 'README.md').read_text()
    section = text[text.index('## Released models') :]
    assert 'All numbers are **quoted**, none is measured with this package' in section
    rows = [[cell.strip() for cell in line.strip('| ').split('|')] for line in section.splitlines() if '](./' in line]
    assert {row[0]: row[1:-1] for row in rows} == {f'[{name}](./{name}.py)': readme_row(name) for name in RELEASED}
    assert len({row[-1] for row in rows if row[-1].startswith('[Google Drive](https://drive.google.com/file/d/')}) == 6


def readme_row(name: str) -> list[str]:
    """Backbone, deformable stages, schedule, AP and speed of the authors, AP of GFL."""
    model = RELEASED[name]
    backbone = {'ResNet': 'R-{}', 'ResNeXt': 'X-{} 32x4d', 'Res2Net': 'R2-{} 26w 4s'}[model.backbone[0]]
    stages = [f'C{stage}' for stage, used in enumerate(model.deformable or (), 2) if used]
    minival, test_dev, speed = model.authors
    return [
        backbone.format(model.backbone[1]),
        f'{stages[0]}-{stages[-1]}' if stages else '–',
        '2x, scales' if model.multi_scale else '1x',
        f'{minival} / {test_dev}',
        f'{speed}',
        '–' if model.twin is None else f'{model.twin}',
    ]
