"""Write the shapes data set as files, see docs/shapes.md: ``python -m mmdet_gfl.datasets.shapes`` from a checkout."""

from mmdet_gfl.datasets.shapes.export import main

if __name__ == '__main__':
    main()
