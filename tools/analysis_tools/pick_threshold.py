"""Former name of ``select_thresholds.py``, for one release."""

import runpy
import sys
from pathlib import Path

print('pick_threshold.py is now called select_thresholds.py; the next release drops the old name', file=sys.stderr)
runpy.run_path(str(Path(__file__).with_name('select_thresholds.py')), run_name='__main__')
