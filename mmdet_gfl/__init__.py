"""Generalized Focal Loss for the dense detectors of MMDetection.

Importing the package checks that its neighbours' versions fit and, where mmcv comes without compiled operators, puts
the stand-in for them in place. Nothing heavy is imported: MMEngine finds the registered parts through
``mmdet_gfl.registry`` when a config names one.
"""

import sys
import warnings

from mmdet_gfl.version import __version__
from mmdet_gfl.versions import VersionError, check_versions

__all__ = ['__version__']


def _is_doctor() -> bool:
    """True if this import is ``python -m mmdet_gfl``, which has to run where nothing fits.

    While Python looks for the module of ``-m``, ``sys.argv`` is ``['-m', *arguments]``, so the module's name stands in
    ``sys.orig_argv`` that many places from the end; it may be joined to the option, as in ``-mmmdet_gfl``.
    """
    if sys.argv[:1] != ['-m'] or len(sys.orig_argv) < len(sys.argv):
        return False
    module = sys.orig_argv[-len(sys.argv)]
    return module == __name__ or (module.startswith('-') and module.endswith(f'm{__name__}'))


def prepare() -> None:
    """Check the versions, then put the stand-in for ``mmcv._ext`` in place where it is needed."""
    try:
        check_versions()
    except VersionError as error:
        # For a config that names `mmdet_gfl.X`, MMEngine imports the package and drops the ImportError.
        warnings.warn(f'mmdet_gfl is not available: {error.summary}', stacklevel=3)
        raise
    from mmdet_gfl import compat

    compat.activate()


if not _is_doctor():
    prepare()
