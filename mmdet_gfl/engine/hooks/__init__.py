"""Hooks of a training."""

from .check_ground_truth_hook import CheckGroundTruthHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = ['CheckGroundTruthHook', 'SafeCheckpointHook']
