"""Registries of the package: children of MMEngine's roots with the scope ``mmdet_gfl``.

A part is named ``type='mmdet_gfl.Name'`` in a config. MMEngine imports this module by itself when it meets the
prefix, and ``locations`` imports the modules that register the parts on the first look-up.

The parents are MMEngine's roots and not MMDetection's registries: a look-up of ``mmdet_gfl.Name`` starts at the
registry in use (MMDetection's, as a rule), goes up to the root, and comes down only to the root's own children.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from mmdet_gfl.compat.checkpoint import install_checkpoint_support

# MMEngine is imported by now, and whoever builds a part of this package may load a checkpoint into it next.
install_checkpoint_support()

#: Heads, losses, layers and the two axes of the paper, quality and box representation.
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmdet_gfl', locations=['mmdet_gfl.models'])
#: What watches a training.
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmdet_gfl', locations=['mmdet_gfl.engine.hooks'])
#: Steps of data pipelines.
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='mmdet_gfl', locations=['mmdet_gfl.datasets.transforms']
)
