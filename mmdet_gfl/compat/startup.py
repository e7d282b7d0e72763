"""Put the stand-in in place when Python starts, for programs that import MMDetection before this package.

MMDetection's own ``tools/test.py`` is one: with ``mmcv-lite`` it fails in its first lines, before it reads a config and
its ``custom_imports``. A ``.pth`` file beside the installed packages is what Python reads first of all.
"""

import sysconfig
from pathlib import Path

__all__ = ['install', 'installed', 'remove']

# One line, as .pth files want it; silent, since it runs at every start of Python: import errors are said later, by the
# import that needs the package.
_LINE = (
    "import warnings; exec(\"with warnings.catch_warnings():\\n warnings.simplefilter('ignore')\\n try:\\n"
    '  import mmdet_gfl.compat\\n  mmdet_gfl.compat.activate()\\n except Exception:\\n  pass")\n'
)


def _file() -> Path:
    # Python reads .pth files by name: behind the "__editable__…" files of packages installed from a checkout.
    return Path(sysconfig.get_path('purelib')) / 'mmdet_gfl_stand_in.pth'


def installed() -> bool:
    """True if this Python puts the stand-in in place when it starts."""
    return _file().is_file()


def install() -> Path:
    """Write the file and return its path.

    Raises:
        OSError: The folder of packages cannot be written.
    """
    _file().write_text(_LINE)
    return _file()


def remove() -> Path:
    """Remove the file, if it is there, and return its path."""
    _file().unlink(missing_ok=True)
    return _file()
