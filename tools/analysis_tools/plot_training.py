"""Draw the losses and the AP of a training from what MMEngine wrote into its work dir.

Unlike MMDetection's analyze_logs.py it draws a training that was resumed as one, and losses beside any data set's AP.
"""

import argparse
import json
import re
from contextlib import suppress
from pathlib import Path

from matplotlib.figure import Figure

from mmdet_gfl.engine.files import PICTURE_SUFFIXES, make_folder_of

Scalars = list[dict[str, float]]
#: Average precision of COCO, LVIS, Pascal VOC, CrowdHuman, ..., but not of sizes or masks.
AP = re.compile(r'/(bbox_)?(m?AP)(_?50|_?75)?$')


def read_scalars(work_dir: Path) -> Scalars:
    """All lines of ``*/vis_data/scalars.json`` in order of time, those of a training that was resumed included.

    Raises:
        SystemExit: There are none.
    """
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    if not files:
        raise SystemExit(f'{work_dir} has no */vis_data/scalars.json; name the --work-dir of a training')
    scalars = []
    for line in (line for file in files for line in file.read_text().splitlines()):
        with suppress(json.JSONDecodeError):  # of a line that a kill has cut short, which may leave a number
            scalars.append(json.loads(line))
    return [line for line in scalars if isinstance(line, dict)]


def curve(scalars: Scalars, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one key; where a resumed training went over a step again, its value counts."""
    last = {line['step']: line[key] for line in scalars if key in line and 'step' in line}
    return sorted(last), [last[step] for step in sorted(last)]


def draw(scalars: Scalars) -> Figure:
    """Losses on the left, AP on the right."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    losses = sorted({key for line in scalars for key in line if key.startswith('loss')})
    for key in losses:
        left.plot(*curve([line for line in scalars if 'loss' in line], key), label=key)
    left.set(xlabel='iteration', ylabel='training loss', ylim=(0, None))
    if losses:
        left.legend()
    scores = dict.fromkeys(key for line in scalars for key in line if AP.search(key))
    for key in scores:
        right.plot(*curve(scalars, key), marker='o', label=key.rpartition('/')[2].removeprefix('bbox_'))
    right.set(xlabel='epoch', ylabel='AP', ylim=(0, 1))
    if scores:
        right.legend()
    return figure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work dir of a training')
    parser.add_argument('out', type=Path, help='picture to write, .png or .svg')
    args = parser.parse_args()
    make_folder_of('OUT', args.out, PICTURE_SUFFIXES)
    draw(read_scalars(args.work_dir)).savefig(args.out, dpi=100)
    print(args.out)


if __name__ == '__main__':
    main()
