"""RTMDet's configs: MMDetection's in all but the head, and General boxes; their layers, checkpoints, quoted numbers."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import mmdet
import pytest
import torch
import yaml
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.structures import InstanceData
from test_released_models import ABSENT, layout, leaves

from mmdet_gfl.engine import launch

CONFIGS = Path(__file__).parents[1] / 'configs'
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'rtmdet'
#: Box AP on minival from MMDetection's metafile; channels of the head.
SIZES = {'tiny': (40.9, 96), 's': (44.5, 128), 'm': (49.1, 192), 'l': (51.3, 256)}
BASELINES = {f'rtmdet_{size}_8xb32-300e_coco': size for size in SIZES}
GENERAL = {f'rtmdet_{size}_general-dfl_8xb32-300e_coco': size for size in SIZES}
each_size = pytest.mark.parametrize('size', SIZES)
each_config = pytest.mark.parametrize('name', [*BASELINES, *GENERAL])


@cache
def _load(path: Path) -> Config:
    return Config.fromfile(path, import_custom_modules=False)


def load(name: str, folder: Path = CONFIGS / 'rtmdet') -> Config:
    """A config that the caller may change."""
    return copy.deepcopy(_load(folder / f'{name}.py'))


def baseline(size: str) -> str:
    return f'rtmdet_{size}_8xb32-300e_coco'


def general(size: str) -> str:
    return f'rtmdet_{size}_general-dfl_8xb32-300e_coco'


def test_the_configs_of_the_folder() -> None:
    assert {file.stem for file in (CONFIGS / 'rtmdet').glob('*.py')} == {*BASELINES, *GENERAL}


# Settings -----------------------------------------------------------------------------------------------------------

#: Every setting that is not MMDetection's: theirs and ours.
DIFFERENCES = {
    'model.bbox_head.type': ('RTMDetSepBNHead', 'mmdet_gfl.RTMDetSepBNGFLHead'),
    'model.bbox_head.quality.type': (ABSENT, 'mmdet_gfl.AssignedQuality'),
    'model.bbox_head.box.type': (ABSENT, 'mmdet_gfl.DiracBox'),
    'custom_imports.imports.0': (ABSENT, 'mmdet_gfl'),
    'custom_imports.allow_failed_imports': (ABSENT, False),
    'default_hooks.checkpoint.type': ('CheckpointHook', 'mmdet_gfl.SafeCheckpointHook'),
    # MMDetection's base_batch_size is that of another schedule.
    'auto_scale_lr.enable': (False, True),
    'auto_scale_lr.base_batch_size': (16, 256),
}
#: Hooks of this package's runtime, which come before RTMDet's.
ADDED_HOOKS = [dict(type='mmdet_gfl.NumClassCheckHook'), dict(type='mmdet_gfl.CheckGroundTruthHook')]


@each_size
def test_each_difference_to_mmdetection_is_listed(size: str) -> None:
    theirs, ours = load(baseline(size), STOCK).to_dict(), load(baseline(size)).to_dict()
    added, ours['custom_hooks'] = ours['custom_hooks'][:2], ours['custom_hooks'][2:]
    assert added == ADDED_HOOKS
    their_leaves, our_leaves = leaves(theirs), leaves(ours)
    found = {key: (their_leaves.get(key, ABSENT), our_leaves.get(key, ABSENT)) for key in their_leaves | our_leaves}
    assert {key: pair for key, pair in found.items() if pair[0] != pair[1]} == DIFFERENCES


@each_size
def test_general_boxes_differ_from_the_baseline_in_the_box_only(size: str) -> None:
    before, after = leaves(load(baseline(size)).to_dict()), leaves(load(general(size)).to_dict())
    found = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in before | after}
    assert {key: pair for key, pair in found.items() if pair[0] != pair[1]} == {
        'model.bbox_head.box.type': ('mmdet_gfl.DiracBox', 'mmdet_gfl.GeneralBox'),
        'model.bbox_head.box.reg_max': (ABSENT, 16),
    }


@each_config
def test_the_lr_is_for_256_images(name: str) -> None:
    cfg = load(name)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 256
    lr, how = launch.scaled_lr(Config(dict(cfg.to_dict(), launcher='none')))
    assert (lr, how) == (0.0005, '0.004 for a batch of 256, scaled to 32')


@each_size
def test_reg_max_reaches_the_sides_of_the_largest_object(size: str) -> None:
    """An object as large as the image, and boxes that fit it as well as n allows, with the same score everywhere.

    It is 10 strides of 32 px from its centre to its sides. The 13 locations (topk) nearest to the centre at that stride
    are at most 2 strides from it, so their sides are at most 12 strides away. At stride 16 the largest box, 32 strides
    or 512 px wide, has an IoU of 0.64, which costs more than the centre prior of 2 strides, 0.1.
    """
    model = load(general(size)).model
    reach = model.bbox_head.box.reg_max
    points = TASK_UTILS.build(model.bbox_head.anchor_generator)
    priors = torch.cat(points.grid_priors([(80, 80), (40, 40), (20, 20)], device='cpu', with_stride=True))
    centers, strides = priors[:, :2], priors[:, 2:3]
    gt = torch.tensor([[0.0, 0.0, 640.0, 640.0]])
    distances = torch.cat([centers - gt[:, :2], gt[:, 2:] - centers], dim=1) / strides
    decoded = distances.clamp(max=reach) * strides
    boxes = torch.cat([centers - decoded[:, :2], centers + decoded[:, 2:]], dim=1)
    assigned = TASK_UTILS.build(model.train_cfg.assigner).assign(
        InstanceData(scores=torch.zeros(len(priors), 80), bboxes=boxes, priors=priors),
        InstanceData(bboxes=gt, labels=torch.tensor([0])),
    )
    positive = assigned.gt_inds > 0
    assert positive.sum() == 13
    assert strides[positive].unique().tolist() == [32]
    assert distances[positive].max() == 12 <= reach - 0.1


# What is built ------------------------------------------------------------------------------------------------------


@each_config
def test_head(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for module in ('quality.joint', 'dense_heads.dense_gfl_mixin'):
        monkeypatch.setattr(f'mmdet_gfl.models.{module}.print_log', lambda message, **kwargs: said.append(message))
    model = load(name).model
    head = MODELS.build(model.bbox_head | dict(train_cfg=model.train_cfg, test_cfg=model.test_cfg))
    assert type(head).__name__ == 'RTMDetSepBNGFLHead'
    assert type(head.quality).__name__ == 'AssignedQuality'
    assert type(head.box).__name__ == ('GeneralBox' if name in GENERAL else 'DiracBox')
    assert said == [], 'no loss is named that is not used'
    assert (type(head.loss_cls).__name__, head.loss_cls.beta, head.loss_cls.loss_weight) == ('QualityFocalLoss', 2, 1)
    assert (type(head.loss_bbox).__name__, head.loss_bbox.loss_weight) == ('GIoULoss', 2.0)
    dfl = getattr(head, 'loss_dfl', None)
    assert (dfl and dfl.loss_weight) == (0.25 if name in GENERAL else None)
    channels = SIZES[{**BASELINES, **GENERAL}[name]][1]
    outputs = 4 * 17 if name in GENERAL else 4
    assert [tuple(conv.weight.shape) for conv in head.rtm_reg] == [(outputs, channels, 1, 1)] * 3
    assert [tuple(conv.weight.shape) for conv in head.rtm_cls] == [(80, channels, 1, 1)] * 3


@pytest.mark.parametrize('name', [baseline('tiny'), general('tiny')])
def test_detector(name: str) -> None:
    model = load(name).model
    model.backbone.init_cfg = None
    with torch.device('meta'), torch.no_grad():  # shapes are all that is looked at
        scores, sides, *_ = MODELS.build(model).eval()(torch.zeros(1, 3, 128, 128), mode='tensor')
    assert [tuple(level.shape[-2:]) for level in scores] == [(16, 16), (8, 8), (4, 4)]
    assert [level.shape[-2:] for level in sides] == [level.shape[-2:] for level in scores]


@each_size
def test_checkpoints_of_the_zoo_fit_strictly(size: str) -> None:
    theirs, ours, with_general = (
        layout(cfg) for cfg in (load(baseline(size), STOCK), load(baseline(size)), load(general(size)))
    )
    assert ours == theirs
    # General boxes start from all of it but the box layers.
    missing = {key for key, *_ in set(theirs) - set(with_general)}
    assert missing == {f'bbox_head.rtm_reg.{level}.{part}' for level in range(3) for part in ('weight', 'bias')}


# Comments, metafile, tables, README ---------------------------------------------------------------------------------


@each_config
def test_first_comment_names_the_row(name: str) -> None:
    lines = (CONFIGS / 'rtmdet' / f'{name}.py').read_text().splitlines()
    count = next(index for index, line in enumerate(lines) if not line.startswith('#'))
    comment = ' '.join(line.removeprefix('# ') for line in lines[:count])
    (label,) = re.findall(r'Table "rtmdet" "([^"]+)"', comment)
    rows = yaml.safe_load((CONFIGS / 'paper_tables.yml').read_text())['rtmdet']['rows']
    assert [row['label'] for row in rows if row['config'] == f'rtmdet/{name}.py'] == [label]
    assert ('not trained here' in comment) == (name in GENERAL)


def models() -> dict[str, dict[str, Any]]:
    return {model['Name']: model for model in yaml.safe_load((CONFIGS / 'rtmdet/metafile.yml').read_text())['Models']}


def test_quoted_numbers() -> None:
    assert list(models()) == [*BASELINES, *GENERAL]
    for name, model in models().items():
        assert model['Metadata']['Epochs'] == load(name).train_cfg.max_epochs == 300
        assert ('Results' in model) == ('Weights' in model) == (name in BASELINES)
    quoted = {name: SIZES[size][0] for name, size in BASELINES.items()}
    assert {name: models()[name]['Results'][0]['Metrics']['box AP'] for name in BASELINES} == quoted
    tables = yaml.safe_load((CONFIGS / 'paper_tables.yml').read_text())
    for table, expected in (('rtmdet', quoted), ('rtmdet-l', {baseline('l'): quoted[baseline('l')]})):
        rows = tables[table]['rows']
        assert {Path(row['config']).stem: row['paper']['AP'] for row in rows if 'paper' in row} == expected


def test_quoted_numbers_are_mmdetections() -> None:
    theirs = {model['Name']: model for model in yaml.safe_load((STOCK / 'metafile.yml').read_text())['Models']}
    for name in BASELINES:
        model = models()[name]
        assert model['Metadata']['Quoted From'] == 'MMDetection 3.3.0, configs/rtmdet/metafile.yml'
        assert {key: model[key] for key in ('Results', 'Weights')} == {
            key: theirs[name][key] for key in ('Results', 'Weights')
        }


def test_readme_lists_the_configs() -> None:
    text = (CONFIGS / 'rtmdet' / 'README.md').read_text()
    assert 'quoted from' in text
    cells = [[cell.strip() for cell in line.strip('| ').split('|')] for line in text.splitlines() if '](./' in line]
    assert cells == [[f'[{name}](./{name}.py)', *readme_row(model)] for name, model in models().items()]


def readme_row(model: dict[str, Any]) -> tuple[str, str, str]:
    """Box side, quoted AP, checkpoint."""
    if model['Name'] in GENERAL:
        return 'General w/ DFL', '–', 'not trained here'
    return 'Dirac delta', f'{model["Results"][0]["Metrics"]["box AP"]:.1f}', f'[model]({model["Weights"]})'
