"""Validation of a batch's objects while they are on the CPU."""

from __future__ import annotations

import sys
from typing import Any

from mmdet.models.detectors import RPN
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmdet_gfl.models.task_modules import validate_ground_truth
from mmdet_gfl.registry import HOOKS


@HOOKS.register_module()
class CheckGroundTruthHook(Hook):
    """Hook that raises for a training batch with a non-finite box or a label outside the classes, and names the image.

    The heads look themselves where the boxes are on the CPU; on a GPU they would have to wait for the answer at every
    step, so this looks before the batch is copied there.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None) -> None:
        """Validate one batch; see :func:`validate_ground_truth` for what it raises."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        num_classes = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        if data_batch is None or num_classes is None:
            return
        if isinstance(model, RPN):  # which gives all objects the label 0
            num_classes = sys.maxsize
        samples = data_batch['data_samples']
        validate_ground_truth(
            [sample.gt_instances for sample in samples], [sample.metainfo for sample in samples], num_classes
        )
