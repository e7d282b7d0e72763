"""Turn a config with one of MMDetection's dense heads into one with the GFL head that stands for it.

Which heads these are, and what a GFL head takes, is asked of the registered hosts and of the head when it is built;
no host is named here. Heads are built on torch's ``meta`` device, which takes no memory and no time.
"""

from .convert import FOCAL_LOSS, PREFIX, Conversion, apply, convert_config, free_host
from .files import child_config, find_config, read
from .heads import class_of

__all__ = [
    'FOCAL_LOSS',
    'PREFIX',
    'Conversion',
    'apply',
    'child_config',
    'class_of',
    'convert_config',
    'find_config',
    'free_host',
    'read',
]
