"""A shipped detector on a small ResNet: the same host, quality, box representation, losses and assignment."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

#: Batch norm per process, also in place of RTMDet's SyncBN, which works on GPUs only.
NORM = dict(type='BN', requires_grad=True)
#: SSD on a small input: four levels, and the anchors' smaller side from a tenth to three quarters of the image.
SSD_STRIDES = (8, 16, 32, 64)
SSD_SIZES = (0.1, 0.25, 0.5, 0.75, 1.0)


#: Hooks of RTMDet's schedule of 300 epochs: averaged weights, and a pipeline without mosaic for the last epochs.
SCHEDULE_HOOKS = ('EMAHook', 'PipelineSwitchHook')


@dataclass(frozen=True)
class Parts:
    """Parts of a shrunk detector.

    Attributes:
        backbone: Config of a backbone with four stages, strides 4 to 32, without ``out_indices``.
        widths: Channels of its stages.
        channels: Channels of the neck's outputs and of the heads.
        stacked_convs: Convolutions of a head's tower.
        size: Side of the square that the images fit into, px.
        num_classes: Classes of the data.
        mean: Of the images' RGB channels.
        std: Likewise.
    """

    backbone: dict[str, Any]
    widths: tuple[int, int, int, int]
    channels: int
    stacked_convs: int
    size: int
    num_classes: int
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def stages(self, first: int) -> dict[str, Any]:
        """The backbone with the outputs of the stages from this one on."""
        return dict(self.backbone, out_indices=tuple(range(first, 4)))


def shrink_model(model: ConfigDict, parts: Parts) -> None:
    """Put a small backbone, and a neck and heads of its widths, into the config of a single-stage detector.

    Args:
        model: The detector of a shipped config; changed.
        parts: What it is made of from now on.
    """
    kind = KINDS.get(model.neck.type, KINDS['FPN'])
    replace_entries(model, kind.trunk(model.neck, parts))
    replace_entries(model.bbox_head, kind.head(parts))
    model.bbox_head.num_classes = parts.num_classes
    model.data_preprocessor = dict(
        type='DetDataPreprocessor',
        mean=list(parts.mean),
        std=list(parts.std),
        bgr_to_rgb=True,
        pad_size_divisor=kind.pad_size_divisor,
    )


def start_afresh(cfg: Config, seed: int) -> None:
    """Have a shrunk config train from its own start, with this seed and without the hooks of another schedule.

    A checkpoint is written after each epoch, and the last is kept.
    """
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks', []) if hook.type not in SCHEDULE_HOOKS]
    cfg.default_hooks.checkpoint = dict(type='mmdet_gfl.SafeCheckpointHook', interval=1, max_keep_ckpts=1)
    cfg.randomness = dict(seed=seed)
    cfg.load_from, cfg.resume = None, False


def replace_entries(node: Config | ConfigDict, values: dict[str, Any]) -> None:
    """Set the entries as they are given; ``update`` would merge them into what is there."""
    for key, value in values.items():
        node[key] = value


def _fpn_trunk(neck: ConfigDict, parts: Parts) -> dict[str, Any]:
    """The stages that the row's own FPN uses; its levels, and where the extra ones start, are kept."""
    neck, first = copy.deepcopy(neck), neck.get('start_level', 0)
    neck.update(in_channels=list(parts.widths[first:]), out_channels=parts.channels, start_level=0)
    return dict(backbone=parts.stages(first), neck=neck)


def _fpn_head(parts: Parts) -> dict[str, Any]:
    return dict(in_channels=parts.channels, feat_channels=parts.channels, stacked_convs=parts.stacked_convs)


def _rtmdet_trunk(neck: ConfigDict, parts: Parts) -> dict[str, Any]:
    """Three stages, instead of CSPNeXt's, and the row's own PAFPN with one block per stage."""
    neck = copy.deepcopy(neck)
    neck.update(in_channels=list(parts.widths[1:]), out_channels=parts.channels, num_csp_blocks=1, norm_cfg=dict(NORM))
    return dict(backbone=parts.stages(1), neck=neck, use_syncbn=False)


def _rtmdet_head(parts: Parts) -> dict[str, Any]:
    return dict(_fpn_head(parts), norm_cfg=dict(NORM))


def _ssd_trunk(neck: ConfigDict, parts: Parts) -> dict[str, Any]:
    """Three stages and a level more, instead of VGG-16."""
    small = dict(
        type=neck.type,
        in_channels=parts.widths[1:],
        out_channels=(*parts.widths[1:], parts.channels),
        level_strides=(2,),
        level_paddings=(1,),
        l2_norm_scale=None,
    )
    return dict(backbone=parts.stages(1), neck=small)


def _ssd_head(parts: Parts) -> dict[str, Any]:
    sizes = [round(share * parts.size) for share in SSD_SIZES]
    generator = dict(
        type='SSDAnchorGenerator',
        scale_major=False,
        strides=list(SSD_STRIDES),
        ratios=[[2], [2, 3], [2, 3], [2]],
        min_sizes=sizes[:-1],
        max_sizes=sizes[1:],
    )
    return dict(in_channels=(*parts.widths[1:], parts.channels), anchor_generator=generator)


class Kind(NamedTuple):
    """Functions that shrink detectors with one kind of neck.

    Attributes:
        trunk: Gives backbone and neck, from the row's neck.
        head: Gives arguments of the head.
        pad_size_divisor: The preprocessor's.
    """

    trunk: Callable[[ConfigDict, Parts], dict[str, Any]]
    head: Callable[[Parts], dict[str, Any]]
    pad_size_divisor: int = 32


#: By the type of the neck, which the head's widths and levels follow from; any other neck is shrunk as an FPN.
KINDS = dict(
    FPN=Kind(_fpn_trunk, _fpn_head),
    CSPNeXtPAFPN=Kind(_rtmdet_trunk, _rtmdet_head),
    SSDNeck=Kind(_ssd_trunk, _ssd_head, pad_size_divisor=1),
)
