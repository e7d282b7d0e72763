"""Former name of ``evaluate_uncertainty.py``, for one release."""

import runpy
import sys
from pathlib import Path

print(
    'judge_uncertainty.py is now called evaluate_uncertainty.py; the next release drops the old name',
    file=sys.stderr,
)
runpy.run_path(str(Path(__file__).with_name('evaluate_uncertainty.py')), run_name='__main__')
