"""Time the start of a training on a COCO-size annotation file, with our data checks and by MMDetection alone."""

import argparse
import contextlib
import gc
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmdet_gfl.engine.data_checks import build_dataset


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=int, default=118287, help='default: %(default)s, as COCO train2017')
    parser.add_argument('--objects', type=int, default=860001, help='default: %(default)s, as COCO train2017')
    parser.add_argument('--repeats', type=int, default=3, help='timed repetitions; default: %(default)s')
    args = parser.parse_args()
    if min(args.images, args.objects, args.repeats) < 1:
        parser.error('--images, --objects and --repeats must be at least 1')
    return args


def write_data(folder: Path, images: int, objects: int) -> None:
    """Write an annotation file of boxes without masks, which cost both the same, and an empty file per image."""
    generator = np.random.default_rng(0)
    corners, sizes = generator.uniform(0, 300, (objects, 2)).round(2), generator.uniform(1, 180, (objects, 2)).round(2)
    holders, labels = generator.integers(1, images + 1, objects), generator.integers(1, 81, objects)
    annotations = [
        dict(
            id=i + 1, image_id=image, category_id=label, bbox=[*xy, *wh], area=wh[0] * wh[1], iscrowd=int(i % 100 == 0)
        )
        for i, (image, label, xy, wh) in enumerate(
            zip(holders.tolist(), labels.tolist(), corners.tolist(), sizes.tolist())
        )
    ]
    names = [f'{number:012}.jpg' for number in range(1, images + 1)]
    listed = [dict(id=i, file_name=name, height=480, width=640) for i, name in enumerate(names, start=1)]
    categories = [dict(id=i, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'], start=1)]
    (folder / 'train').mkdir()
    for name in names:
        (folder / 'train' / name).touch()
    content = dict(images=listed, categories=categories, annotations=annotations)
    (folder / 'train.json').write_text(json.dumps(content))


def main() -> None:
    """Write the data, build the data set in turn, and print CPU seconds."""
    args = parse_args()
    init_default_scope('mmdet')
    dataset = dict(
        type='CocoDataset',
        ann_file='train.json',
        data_prefix=dict(img='train'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[],
    )
    seconds: dict[str, list[float]] = dict(MMDetection=[], ours=[])
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), args.images, args.objects)
        dataset['data_root'] = folder
        cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
        builds = dict(MMDetection=lambda: DATASETS.build(dict(dataset)), ours=lambda: build_dataset(cfg, 'train'))
        for _ in range(args.repeats):
            for name, build in builds.items():
                gc.collect()
                with open(os.devnull, 'w') as quiet, contextlib.redirect_stdout(quiet):
                    begin = time.process_time()
                    built = build()
                    seconds[name].append(time.process_time() - begin)
                del built
    for name, times in seconds.items():
        print(f'{name}: {np.median(times):.1f} s ({min(times):.1f}-{max(times):.1f}) of CPU')
    print(f'ours / MMDetection: {np.median(seconds["ours"]) / np.median(seconds["MMDetection"]):.2f}')


if __name__ == '__main__':
    main()
