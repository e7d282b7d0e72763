"""``python -m mmdet_gfl.datasets.shapes``, which is also ``tools/dataset_converters/make_shapes.py``."""

from .export import main

if __name__ == '__main__':
    main()
