"""The losses of the paper, one file each: a pure function and a registered module that holds its settings."""

from .distribution_focal_loss import DistributionFocalLoss, distribution_focal_loss
from .gaussian_nll_loss import GaussianNLLLoss, gaussian_nll_loss, gaussian_std
from .generalized_focal_loss import GeneralizedFocalLoss, generalized_focal_loss
from .quality_focal_loss import QualityFocalLoss, quality_focal_loss

__all__ = [
    'DistributionFocalLoss',
    'GaussianNLLLoss',
    'GeneralizedFocalLoss',
    'QualityFocalLoss',
    'distribution_focal_loss',
    'gaussian_nll_loss',
    'gaussian_std',
    'generalized_focal_loss',
    'quality_focal_loss',
]
