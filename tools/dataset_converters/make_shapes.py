"""Makes the shapes data set, see docs/shapes.md: ``python -m mmdet_gfl.datasets.shapes`` from a checkout."""

import sys

from mmdet_gfl.datasets.shapes.__main__ import main

if __name__ == '__main__':
    sys.exit(main())
