"""A shipped detector on a small ResNet: the same host, quality, box representation, losses and assignment."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config, ConfigDict

from mmdet_gfl.shipped_configs import CONFIG_DIR

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
        learns: Whether the backbone learns.
    """

    backbone: dict[str, Any]
    widths: tuple[int, int, int, int]
    channels: int
    stacked_convs: int
    size: int
    num_classes: int
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    learns: bool = True

    def stages(self, first: int) -> dict[str, Any]:
        """The backbone with the outputs of the stages from this one on."""
        return dict(self.backbone, out_indices=tuple(range(first, 4)))


def shrink(cfg: Config, parts: Parts, values: dict[str, Any], seed: int) -> Config:
    """A shipped config with a small backbone, and a neck and heads of its widths; the given one stays as it is.

    It trains from its own start, without the hooks of another schedule. A checkpoint is written after each epoch, and
    the last is kept.

    Args:
        cfg: Any config of ``configs/`` with a single-stage detector.
        parts: What the detector is made of.
        values: Entries that replace the config's: data and schedule.
        seed: Of initialisation, order and augmentation.
    """
    small = copy.deepcopy(cfg)
    model = small.model
    kind = model.neck.type
    replace_entries(model, KINDS.get(kind, _fpn)(model.neck, parts))
    replace_entries(model.bbox_head, _head(kind, parts))
    model.data_preprocessor = dict(
        type='DetDataPreprocessor',
        mean=list(parts.mean),
        std=list(parts.std),
        bgr_to_rgb=True,
        pad_size_divisor=1 if kind == 'SSDNeck' else 32,
    )
    replace_entries(small, values)
    small.custom_hooks = [hook for hook in small.get('custom_hooks', []) if hook.type not in SCHEDULE_HOOKS]
    small.default_hooks.checkpoint = dict(type='mmdet_gfl.SafeCheckpointHook', interval=1, max_keep_ckpts=1)
    small.randomness = dict(seed=seed)
    small.load_from, small.resume = None, False
    return small


def read_data(name: str, size: int) -> ConfigDict:
    """Loaders and evaluators of a file of ``configs/_base_/datasets``; images fit into a square of ``size`` px."""
    file = Config.fromfile(CONFIG_DIR / '_base_' / 'datasets' / name)
    data = ConfigDict({key: file[key] for key in file if key.endswith(('_dataloader', '_evaluator'))})
    for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader):
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (size, size)
    return data


def replace_entries(node: Config | ConfigDict, values: dict[str, Any]) -> None:
    """Set the entries as they are given; ``update`` would merge them into what is there."""
    for key, value in values.items():
        node[key] = value


def _fpn(neck: ConfigDict, parts: Parts) -> dict[str, Any]:
    """The stages that the row's own FPN uses; its levels, and where the extra ones start, are kept."""
    first = neck.get('start_level', 0)
    widths = dict(in_channels=list(parts.widths[first:]), out_channels=parts.channels)
    return dict(backbone=parts.stages(first), neck=dict(neck, **widths, start_level=0))


def _rtmdet(neck: ConfigDict, parts: Parts) -> dict[str, Any]:
    """Three stages, instead of CSPNeXt's, and the row's own PAFPN with one block per stage."""
    widths = dict(in_channels=list(parts.widths[1:]), out_channels=parts.channels)
    return dict(
        backbone=parts.stages(1), neck=dict(neck, **widths, num_csp_blocks=1, norm_cfg=dict(NORM)), use_syncbn=False
    )


def _ssd(neck: ConfigDict, parts: Parts) -> dict[str, Any]:
    """Three stages and a level more, instead of VGG-16.

    The head is one convolution per level, which is too little where the backbone does not learn: an FPN stands there.
    """
    small: dict[str, Any]
    if parts.learns:
        small = dict(type=neck.type, level_strides=(2,), level_paddings=(1,), l2_norm_scale=None)
        small |= dict(in_channels=parts.widths[1:], out_channels=_ssd_widths(parts))
    else:
        small = dict(type='FPN', num_outs=len(SSD_STRIDES), add_extra_convs='on_output')
        small |= dict(in_channels=list(parts.widths[1:]), out_channels=parts.channels)
    return dict(backbone=parts.stages(1), neck=small)


def _ssd_widths(parts: Parts) -> tuple[int, ...]:
    """Channels of the levels of SSD."""
    return (*parts.widths[1:], parts.channels) if parts.learns else (parts.channels,) * len(SSD_STRIDES)


#: Backbone and neck by the type of a shipped config's neck; any other is like an FPN.
KINDS = dict(CSPNeXtPAFPN=_rtmdet, SSDNeck=_ssd)


def _head(neck: str, parts: Parts) -> dict[str, Any]:
    """Arguments of a head whose shipped config has a neck of this type."""
    if neck == 'SSDNeck':
        sizes = [round(share * parts.size) for share in SSD_SIZES]
        generator = dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            strides=list(SSD_STRIDES),
            ratios=[[2], [2, 3], [2, 3], [2]],
            min_sizes=sizes[:-1],
            max_sizes=sizes[1:],
        )
        return dict(in_channels=_ssd_widths(parts), anchor_generator=generator, num_classes=parts.num_classes)
    norm = dict(norm_cfg=dict(NORM)) if neck == 'CSPNeXtPAFPN' else {}
    return dict(
        in_channels=parts.channels,
        feat_channels=parts.channels,
        stacked_convs=parts.stacked_convs,
        num_classes=parts.num_classes,
        **norm,
    )
