"""Hooks of a training."""

from .check_ground_truth_hook import CheckGroundTruthHook
from .num_class_check_hook import NumClassCheckHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = ['CheckGroundTruthHook', 'NumClassCheckHook', 'SafeCheckpointHook']
