"""What target assignment gives to the loss steps."""

from .targets import Locations, Positives, Targets, check_ground_truth

__all__ = ['Locations', 'Positives', 'Targets', 'check_ground_truth']
