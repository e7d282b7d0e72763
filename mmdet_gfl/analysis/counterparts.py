"""Which head of MMDetection a head of ours is held against."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config, ConfigDict

from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.models.boxes.dirac import DiracBox
from mmdet_gfl.models.boxes.general import GeneralBox
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.quality.base import takes_quality_targets
from mmdet_gfl.registry import MODELS

#: Our hosts: MMDetection's head, and the quality with which, and Dirac boxes, ours computes the same.
HOSTS = dict(
    ATSSGFLHead=('ATSSHead', 'CenternessBranch'),
    FCOSGFLHead=('FCOSHead', 'CenternessBranch'),
    RetinaGFLHead=('RetinaHead', 'NoQuality'),
    FoveaGFLHead=('FoveaHead', 'NoQuality'),
    SSDGFLHead=('SSDHead', 'NoQuality'),
)
#: Hosts whose own box loss looks at other numbers than boxes.
LOSS_ON_NUMBERS = ('RetinaGFLHead', 'FoveaGFLHead')
#: What the baselines of all hosts but SSD train their classes with, but for FoveaBox's other gamma and alpha.
FOCAL_LOSS = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
#: What MMDetection's ``GFLHead`` takes of a config of ``ATSSGFLHead``.
GFL_ARGUMENTS = (
    'num_classes',
    'in_channels',
    'feat_channels',
    'stacked_convs',
    'conv_cfg',
    'norm_cfg',
    'anchor_generator',
    'loss_bbox',
    'train_cfg',
    'test_cfg',
)


@dataclass(frozen=True)
class Pair:
    """A head of ours and the one of MMDetection to hold it against.

    Attributes:
        ours: Ours.
        theirs: MMDetection's.
        equal: Whether both compute the same.
        names: What each is, for the report.
        note: What to know about the comparison; empty where they compute the same.
    """

    ours: DenseGFLMixin
    theirs: Any
    equal: bool
    names: tuple[str, str]
    note: str


def build_pair(cfg: Config, num_classes: int | None, device: torch.device) -> Pair:
    """The head of a config of ours and its counterpart in MMDetection.

    Args:
        cfg: The whole config of a detector.
        num_classes: Replaces the config's.
        device: Where the heads live.

    Raises:
        UserError: The config has no head of ours, or one of the heads cannot be built from it.
    """
    model = cfg.get('model') or {}
    given = model.get('bbox_head')
    if not isinstance(given, dict) or str(given.get('type')).rpartition('.')[2] not in (*HOSTS, 'GFLHead'):
        kind = given.get('type') if isinstance(given, dict) else None
        raise UserError(
            f'model.bbox_head.type={kind!r}: a config with a head of ours is needed, mmdet_gfl.GFLHead or '
            f'mmdet_gfl.{", mmdet_gfl.".join(HOSTS)}'
        )
    head_cfg = ConfigDict(dict(given, train_cfg=model.get('train_cfg'), test_cfg=model.get('test_cfg')))
    if num_classes is not None:
        head_cfg.num_classes = num_classes
    ours = _build(head_cfg, device)
    their_cfg, equal, note = counterpart(head_cfg, ours)
    theirs = _build(their_cfg, device)
    if their_cfg.type == 'mmdet.SSDHead' and not hasattr(theirs, 'loss_cls'):
        theirs.loss_cls = ours.loss_cls  # MMDetection 3.3 asks for it when it predicts, and does not make it
    point = f'{type(ours).__name__} ({type(ours.quality).__name__}, {type(ours.box).__name__})'
    return Pair(ours, theirs, equal, (point, f"MMDetection's {type(theirs).__name__}"), note)


def _build(cfg: ConfigDict, device: torch.device) -> Any:
    try:
        return MODELS.build(copy.deepcopy(cfg)).to(device)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f'{cfg.type} cannot be built from model.bbox_head: {error}') from error


def counterpart(cfg: ConfigDict, head: DenseGFLMixin) -> tuple[ConfigDict, bool, str]:
    """Config of the head of MMDetection to hold a head of ours against.

    Args:
        cfg: Config of our head, with ``train_cfg`` and ``test_cfg``.
        head: The same, built.

    Returns:
        The config, whether both compute the same, and a sentence where they do not.
    """
    host = type(head).__name__
    if host == 'GFLHead' or is_gfl_point(head):
        return _gfl_counterpart(cfg, head), True, ''
    stock, quality = HOSTS[host]
    rest = {key: value for key, value in cfg.items() if key not in ('quality', 'box')}
    equal = (
        type(head.quality).__name__ == quality
        and type(head.box) is DiracBox
        and head.quality.box_weight == type(head.quality)().box_weight
    )
    if not equal:
        rest = _without_superseded_losses(rest, host)
    note = (
        f'MMDetection has no counterpart of {host} with {type(head.quality).__name__} and {type(head.box).__name__}; '
        f'it is held against the baseline, {stock}, which computes something else: nothing is checked to be equal.'
    )
    return ConfigDict(dict(rest, type=f'mmdet.{stock}')), equal, '' if equal else note


def is_gfl_point(head: DenseGFLMixin) -> bool:
    """Whether an ``ATSSGFLHead`` computes what MMDetection's ``GFLHead`` does."""
    box, quality = head.box, head.quality
    return (
        type(head).__name__ == 'ATSSGFLHead'
        and type(quality).__name__ == 'JointQuality'
        and quality.box_weight in ('auto', 'score')
        and type(head.loss_cls).__name__ == 'QualityFocalLoss'
        and type(box) is GeneralBox
        and box.delta == 1
        and box.loss_dfl is not None
        and type(head.loss_dfl).__name__ == 'DistributionFocalLoss'
        and head.num_base_priors == 1
    )


def _gfl_counterpart(cfg: ConfigDict, head: DenseGFLMixin) -> ConfigDict:
    arguments = {key: cfg[key] for key in GFL_ARGUMENTS if key in cfg}
    if 'IoU' not in str((cfg.get('loss_bbox') or {}).get('type')):
        arguments['loss_bbox'] = dict(type='GIoULoss', loss_weight=2.0)  # the default of a general box
    return ConfigDict(
        dict(
            arguments,
            type='mmdet.GFLHead',
            loss_cls=dict(
                type='mmdet.QualityFocalLoss',
                use_sigmoid=True,
                beta=head.loss_cls.beta,
                loss_weight=head.loss_cls.loss_weight,
            ),
            loss_dfl=dict(type='mmdet.DistributionFocalLoss', loss_weight=head.loss_dfl.loss_weight),
            reg_max=head.box.channels - 1,
        )
    )


def _without_superseded_losses(cfg: dict[str, Any], host: str) -> dict[str, Any]:
    """Gives the host losses of its own in place of those that it cannot take."""
    kept = dict(cfg)
    loss_cls = kept.pop('loss_cls', None)
    if host != 'SSDGFLHead':
        superseded = loss_cls is None or takes_quality_targets(MMDET_MODELS.build(loss_cls))
        kept['loss_cls'] = FOCAL_LOSS if superseded else loss_cls
    on_numbers = host in LOSS_ON_NUMBERS and 'IoU' in str((kept.get('loss_bbox') or {}).get('type'))
    if host == 'SSDGFLHead' or on_numbers:
        kept.pop('loss_bbox', None)
    return kept
