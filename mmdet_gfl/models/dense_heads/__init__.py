"""The hosts. Each is one thin file; the loss and predict steps they share are ``dense_gfl_mixin``."""

from mmdet_gfl.utils import import_submodules

from .atss_gfl_head import ATSSGFLHead
from .dense_gfl_mixin import DenseGFLMixin
from .gfl_head import GFLHead

import_submodules(__name__)

__all__ = ['ATSSGFLHead', 'DenseGFLMixin', 'GFLHead']
