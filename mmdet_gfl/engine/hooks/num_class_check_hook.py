"""Validation of the number of classes of a detector against its data set."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import VGG
from mmdet.engine.hooks import NumClassCheckHook as StockNumClassCheckHook
from mmdet.models.detectors import RPN
from mmdet.models.roi_heads.mask_heads import FusedSemanticHead
from mmengine.runner import Runner
from torch import nn

from mmdet_gfl.registry import HOOKS


@HOOKS.register_module()
class NumClassCheckHook(StockNumClassCheckHook):
    """MMDetection's hook, which refuses an RPN of one class for all; this one takes it, and names keys and numbers."""

    def _check_head(self, runner: Runner, mode: str) -> None:
        loader = runner.train_dataloader if mode == 'train' else runner.val_dataloader
        check_num_classes(runner.model, loader.dataset, f'{mode}_dataloader.dataset')


def check_num_classes(model: nn.Module, dataset: Any, key: str) -> None:
    """Raise for a part of a detector with more or fewer classes than the data set.

    Parts that tell objects from background only, as ``RPN`` and ``rpn_head``, have one class whatever the data has.

    Args:
        model: The detector, wrapped or not.
        dataset: The data set, or several in one; one that names no classes passes.
        key: The data set's key in the config.

    Raises:
        ValueError: Names both numbers and the keys.
    """
    while isinstance(inner := getattr(model, 'module', None), nn.Module):
        model = inner
    metainfo = getattr(dataset, 'metainfo', {})
    several = isinstance(metainfo, list)  # ConcatDataset of parts that differ
    for number, part in enumerate(metainfo if several else [metainfo]):
        where = f'{key}.datasets.{number}' if several else key
        classes = part.get('classes')
        if classes is None or isinstance(model, RPN):
            continue
        if isinstance(classes, str):
            raise ValueError(f'{where}.metainfo.classes={classes!r} is one text; a single class is ({classes!r},)')
        for name, module in model.named_modules():
            if name.endswith('rpn_head') or isinstance(module, (VGG, FusedSemanticHead)):
                continue
            if getattr(module, 'num_classes', len(classes)) != len(classes):
                raise ValueError(
                    f'model.{name}.num_classes={module.num_classes}, but the data set of {where} has {len(classes)} '
                    f'classes; set num_classes={len(classes)}, or {where}.metainfo.classes'
                )
