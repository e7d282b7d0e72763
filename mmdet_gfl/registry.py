"""Registries of the package: children of MMEngine's roots with the scope ``mmdet_gfl``.

A part is named ``type='mmdet_gfl.Name'`` in a config. MMEngine imports this module by itself when it meets the
prefix, and ``locations`` imports the modules that register the parts on the first look-up.

The parents are MMEngine's roots and not MMDetection's registries: a look-up of ``mmdet_gfl.Name`` starts at the
registry in use (MMDetection's, as a rule), goes up to the root, and comes down only to the root's own children.
"""

from typing import Any

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

#: Heads, losses, layers and the two axes of the paper, quality and box representation.
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmdet_gfl', locations=['mmdet_gfl.models'])
#: What watches a training.
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmdet_gfl', locations=['mmdet_gfl.engine.hooks'])
#: The built-in data set, and a fixed part of COCO.
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='mmdet_gfl',
    locations=['mmdet_gfl.datasets.shapes.dataset', 'mmdet_gfl.datasets.coco_subset'],
)


def registered_hosts() -> dict[str, type]:
    """Every registered host by its name: the heads that name the MMDetection head they stand for, ``stock_head``."""
    MODELS.import_from_location()
    hosts = ((name, cls) for name, cls in MODELS.module_dict.items() if getattr(cls, 'stock_head', None) is not None)
    return dict(sorted(hosts))


def hosts_of_stock_heads() -> dict[type, Any]:
    """MMDetection's heads, and the host that stands for each: the first that names it in its own class."""
    hosts: dict[type, Any] = {}
    for host in registered_hosts().values():
        if 'stock_head' in vars(host):
            hosts.setdefault(vars(host)['stock_head'], host)
    return hosts


def host_names() -> str:
    """``mmdet_gfl.GFLHead, mmdet_gfl.ATSSGFLHead, …``, for messages."""
    return ', '.join(f'mmdet_gfl.{name}' for name in registered_hosts())
