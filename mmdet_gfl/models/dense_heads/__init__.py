"""The hosts. Each is one thin file; the loss and predict steps they share are ``dense_gfl_mixin``."""

from mmdet_gfl.utils import import_submodules

from .atss_gfl_head import ATSSGFLHead
from .dense_gfl_mixin import DenseGFLMixin
from .fcos_gfl_head import FCOSGFLHead
from .fovea_gfl_head import FoveaGFLHead
from .gfl_head import GFLHead
from .retina_gfl_head import RetinaGFLHead
from .ssd_gfl_head import SSDGFLHead

import_submodules(__name__)

__all__ = ['ATSSGFLHead', 'DenseGFLMixin', 'FCOSGFLHead', 'FoveaGFLHead', 'GFLHead', 'RetinaGFLHead', 'SSDGFLHead']
