"""Hooks of a training."""

from .check_ground_truth_hook import CheckGroundTruthHook

__all__ = ['CheckGroundTruthHook']
