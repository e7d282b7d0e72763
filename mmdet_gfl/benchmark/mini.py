"""The mini preset: any config of the project on a small backbone, with narrow heads, on the built-in shapes.

The row stays what it is: host, quality, box representation, losses, assignment, test settings. What shrinks is what
costs time: backbone, widths, images, schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmdet_gfl.datasets.shapes import Parameters

from . import shrinking
from .shrinking import NORM, Parts


@dataclass(frozen=True)
class Mini:
    """The size of a mini run.

    Attributes:
        size: Side of the square images, px.
        train: Training images.
        val: Validation images.
        epochs: Epochs; the lr follows half a cosine down to a hundredth.
        batch_size: Images per step.
        lr: Learning rate of AdamW; from scratch, SGD would need a schedule of days.
        channels: Channels of the neck's outputs and of the heads.
        stacked_convs: Convolutions of a head's tower.
        ema: Momentum of averaged weights, which are validated in place of the last ones; 0 for none. The checkpoint
            holds both.
        rare: Number of classes that are rare and always small, the last ones of :data:`CLASSES`.
        pretrained: 1 for a frozen backbone from ImageNet, :class:`.frozen.FrozenEfficientNetLite0`; 0 for the ResNet.
    """

    size: int = 160
    train: int = 800
    val: int = 250
    epochs: int = 16
    batch_size: int = 8
    lr: float = 2e-3
    channels: int = 64
    stacked_convs: int = 2
    ema: float = 0.0
    rare: int = 0
    pretrained: int = 0

    @property
    def shapes(self) -> Parameters:
        """The data set that a run needs."""
        rare = CLASSES[max(0, len(CLASSES) - self.rare) :]
        return Parameters(self.train, self.val, self.size, self.size, clutter=CLUTTER, classes=CLASSES, rare=rare)

    @property
    def parts(self) -> Parts:
        """Parts of the detectors."""
        sizes = (self.channels, self.stacked_convs, self.size, len(CLASSES))
        if not self.pretrained:
            return Parts(dict(RESNET), WIDTHS, *sizes)
        from . import frozen  # imports MMDetection's layers, which takes seconds

        backbone = dict(type='mmdet_gfl.FrozenEfficientNetLite0')
        return Parts(backbone, frozen.WIDTHS, *sizes, frozen.MEAN, frozen.STD, learns=False)


#: Channels of the stages of a ResNet-18 of quarter width.
WIDTHS = (16, 32, 64, 128)
RESNET = dict(
    type='ResNet',
    depth=18,
    base_channels=WIDTHS[0],
    num_stages=4,
    norm_cfg=dict(NORM),
    norm_eval=False,
    frozen_stages=-1,
    style='pytorch',
)
#: What the shapes are: easy to tell apart, since nothing is pretrained, and with sides as ambiguous as ever.
CLASSES, CLUTTER = ('ellipse', 'rectangle', 'star'), 0.0


def shrink(cfg: Config, mini: Mini = Mini(), seed: int = 0) -> Config:  # noqa: B008  frozen
    """A config of the project as a mini run; the given one stays as it is.

    Args:
        cfg: Any config of ``configs/`` with a single-stage detector.
        mini: The size.
        seed: Of initialisation, order and augmentation.

    Returns:
        A config that stands alone.
    """
    small = shrinking.shrink(cfg, mini.parts, _data(mini) | _schedule(mini), seed)
    if mini.ema:
        small.custom_hooks.append(dict(type='EMAHook', momentum=mini.ema, update_buffers=True))
    if mini.pretrained:
        imports = [*small.custom_imports.imports, 'mmdet_gfl.benchmark.frozen']
        small.custom_imports = dict(imports=imports, allow_failed_imports=False)
    small.default_hooks.logger.interval = 10
    return Config(small._cfg_dict)


def _data(mini: Mini) -> dict[str, Any]:
    """The loaders and the evaluator of the shapes, at the run's size."""
    shapes = shrinking.read_data('shapes_detection.py', mini.size)
    for key, node in shapes.items():
        if key.endswith('_dataloader'):
            node.update(batch_size=mini.batch_size, num_workers=0, persistent_workers=False)
            node.dataset.update(data_root=mini.shapes.address, metainfo=dict(classes=CLASSES))
        else:
            node.update(classwise=mini.rare > 0, ann_file=f'{mini.shapes.address}annotations/instances_val.json')
    return shapes


def _schedule(mini: Mini) -> dict[str, Any]:
    steps = -(-mini.train // mini.batch_size) * mini.epochs
    warm_up = max(1, min(100, steps // 2))
    return dict(
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=mini.epochs, val_interval=mini.epochs),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=mini.lr, weight_decay=1e-4),
            clip_grad=dict(max_norm=10, norm_type=2),
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warm_up),
            dict(
                type='CosineAnnealingLR',
                by_epoch=False,
                begin=warm_up,
                end=max(steps, warm_up + 1),
                eta_min=0.01 * mini.lr,
            ),
        ],
        auto_scale_lr=dict(enable=False, base_batch_size=mini.batch_size),
    )
