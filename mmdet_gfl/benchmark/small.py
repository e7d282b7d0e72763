"""The small preset: any config of the project on a ResNet-18 from ImageNet, on a fixed tenth of COCO.

Neck, head, losses, assignment and test settings are the row's own, at the paper's widths. For one GPU and an hour.
"""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mmdet_gfl.shipped_configs import CONFIG_DIR

from . import shrinking
from .shrinking import NORM, Parts

#: Images of a step, of all GPUs together, that the lr is for.
BATCH = 16
#: A tenth of train2017 by image id; val2017 stays whole.
EVERY = 10
#: Side of the square that an image is resized into with its aspect ratio kept, px.
SIZE = 640
BACKBONE = dict(
    type='ResNet',
    depth=18,
    num_stages=4,
    frozen_stages=1,
    norm_cfg=dict(NORM),
    norm_eval=True,
    style='pytorch',
    init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
)
PARTS = Parts(BACKBONE, (64, 128, 256, 512), channels=256, stacked_convs=4, size=SIZE, num_classes=80)


def shrink(cfg: Config, seed: int = 0) -> Config:
    """A config of the project as a run of the small preset; the given one stays as it is.

    Every row trains by the schedule of ``configs/_base_/schedules/schedule_1x.py``: 12 epochs of SGD.

    Args:
        cfg: Any config of ``configs/`` with a single-stage detector.
        seed: Of initialisation, order and augmentation.

    Returns:
        A config that stands alone, for one GPU.
    """
    schedule = Config.fromfile(CONFIG_DIR / '_base_' / 'schedules' / 'schedule_1x.py')
    schedule.train_cfg.val_interval = schedule.train_cfg.max_epochs
    small = shrinking.shrink(cfg, PARTS, _data() | schedule._cfg_dict.to_dict(), seed)
    return Config(small._cfg_dict)


def _data() -> dict[str, Any]:
    """The loaders and the evaluator of COCO, with a tenth of its training images."""
    coco = shrinking.read_data('coco_detection.py', SIZE)
    coco.train_dataloader.num_workers = coco.val_dataloader.num_workers = 4
    coco.train_dataloader.batch_size = BATCH
    coco.train_dataloader.dataset.update(type='mmdet_gfl.CocoSubset', every=EVERY)
    return coco
