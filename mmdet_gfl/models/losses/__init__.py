"""The losses of the paper and of its successors: a pure function and a registered module with its settings per file."""

from .classification_loss import classification_loss, takes_quality
from .distribution_focal_loss import DistributionFocalLoss, distribution_focal_loss, side_loss
from .gaussian_nll_loss import GaussianNLLLoss, gaussian_nll_loss, gaussian_std
from .generalized_focal_loss import GeneralizedFocalLoss, generalized_focal_loss
from .mal_loss import MatchabilityAwareLoss, matchability_aware_loss
from .quality_focal_loss import QualityFocalLoss, quality_focal_loss
from .varifocal_loss import VarifocalLoss, varifocal_loss

__all__ = [
    'DistributionFocalLoss',
    'GaussianNLLLoss',
    'GeneralizedFocalLoss',
    'MatchabilityAwareLoss',
    'QualityFocalLoss',
    'VarifocalLoss',
    'classification_loss',
    'distribution_focal_loss',
    'gaussian_nll_loss',
    'gaussian_std',
    'generalized_focal_loss',
    'matchability_aware_loss',
    'quality_focal_loss',
    'side_loss',
    'takes_quality',
    'varifocal_loss',
]
