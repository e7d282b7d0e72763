"""The losses of the paper and of its successors: a pure function and a registered module with its settings per file."""

from .classification_loss import classification_loss as classification_loss
from .classification_loss import takes_quality as takes_quality
from .distribution_focal_loss import DistributionFocalLoss as DistributionFocalLoss
from .distribution_focal_loss import distribution_focal_loss as distribution_focal_loss
from .distribution_focal_loss import side_loss as side_loss
from .gaussian_nll_loss import GaussianNLLLoss as GaussianNLLLoss
from .gaussian_nll_loss import gaussian_nll_loss as gaussian_nll_loss
from .gaussian_nll_loss import gaussian_std as gaussian_std
from .generalized_focal_loss import GeneralizedFocalLoss as GeneralizedFocalLoss
from .generalized_focal_loss import generalized_focal_loss as generalized_focal_loss
from .mal_loss import MatchabilityAwareLoss as MatchabilityAwareLoss
from .mal_loss import matchability_aware_loss as matchability_aware_loss
from .quality_focal_loss import QualityFocalLoss as QualityFocalLoss
from .quality_focal_loss import quality_focal_loss as quality_focal_loss
from .varifocal_loss import VarifocalLoss as VarifocalLoss
from .varifocal_loss import varifocal_loss as varifocal_loss
