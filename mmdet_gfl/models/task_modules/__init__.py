"""What target assignment gives to the loss steps."""

from .numbering import by_number, numbered
from .targets import Locations, Positives, Targets, check_ground_truth

__all__ = ['Locations', 'Positives', 'Targets', 'by_number', 'check_ground_truth', 'numbered']
