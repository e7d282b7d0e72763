"""Measure what a head costs beside its convolutions, in turn with MMDetection's on the same inputs.

The column "type changed" is MMDetection's config with only its type changed to ours, or also with the quality and the
box that mean the same, so it has MMDetection's own losses; it is left out where ours is such a head already. A quality
with class logits of its own, as GFLv2's, is measured too. Before anything is timed, heads that should compute the same
have to give the same losses, gradients and detections. Prints Markdown.
"""

import argparse
import contextlib
import json
import logging
import shlex
import sys
import warnings
from pathlib import Path

# Before MMDetection: with mmcv-lite, the package puts the stand-in for the compiled operators in place.
import mmdet_gfl  # noqa: F401  # isort: skip

import torch
from mmdet.utils import register_all_modules, setup_cache_size_limit_of_dynamo
from mmengine.logging import MMLogger

from mmdet_gfl.analysis import benchmark_report as report
from mmdet_gfl.analysis import detector
from mmdet_gfl.analysis.benchmark_head import PARTS, Case, Result, measure
from mmdet_gfl.analysis.counterparts import Heads, build_heads
from mmdet_gfl.engine import launch
from mmdet_gfl.engine.checkout import commit
from mmdet_gfl.engine.files import PICTURE_SUFFIXES, make_folder_of

SWEEPS = {
    'boxes': ('objects per image', [1, 4, 16, 64, 250, 500, 1000, 2000]),
    'classes': ('classes', [3, 20, 80, 365, 1203]),
    'size': ('shorter side of the image, px', [256, 400, 600, 800, 1200, 1600]),
}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="config file with a head of ours, or one of MMDetection's that ours replaces")
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='height and width of the images in pixels, default: 800 1344',
    )
    parser.add_argument('--batch', type=int, default=2, help='images per batch; default: %(default)s')
    parser.add_argument(
        '--boxes',
        nargs='+',
        type=int,
        default=[4, 40, 500],
        help='objects per image, one table row each; default: 4 40 500',
    )
    parser.add_argument('--classes', type=int, help="number of classes; default: the config's")
    parser.add_argument('--repeats', type=int, default=15, help='timed repetitions; default: %(default)s')
    parser.add_argument('--threads', type=int, help="number of CPU threads; default: torch's")
    parser.add_argument('--device', help='cpu, cuda or cuda:1; default cuda where there is one')
    parser.add_argument('--amp', action='store_true', help='logits in half precision, losses under autocast')
    parser.add_argument('--compile', action='store_true', help='losses and decoding through torch.compile')
    parser.add_argument(
        '--sweep',
        choices=SWEEPS,
        help='measure along one quantity, from small to large; objects per image are 40 but for boxes',
    )
    parser.add_argument('--points', nargs='+', type=int, help='values of the quantity at which the sweep measures')
    parser.add_argument('--json', type=Path, metavar='FILE', help='JSON file for the numbers')
    parser.add_argument(
        '--png', type=Path, metavar='FILE', help='picture of the curves of a sweep, default: benchmark_SWEEP.png'
    )
    parser.add_argument('--into', metavar='PAGE#NAME', help='put the Markdown into a page, from <!-- NAME --> on')
    parser.add_argument('--cfg-options', nargs='+', action=launch.OptionsAction, help=launch.CFG_OPTIONS_HELP)
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> None:
    """Raise for numbers that mean nothing, and pages that cannot be written into, before any work.

    Raises:
        UserError: Names the option, the value and what is accepted.
    """
    for name in ('size', 'batch', 'boxes', 'classes', 'repeats', 'threads', 'points'):
        value = getattr(args, name)
        least = 0 if name == 'boxes' else 1
        if value is not None and min(value if isinstance(value, list) else [value]) < least:
            raise launch.UserError(f'--{name} {value}: needs whole numbers from {least} on')
    if args.points and not args.sweep:
        raise launch.UserError('--points says where a sweep measures; add --sweep boxes, classes or size')
    if args.into is not None:
        page, _, name = args.into.rpartition('#')
        if not page or not name:
            raise launch.UserError(f'--into {args.into}: needs PAGE#NAME with a Markdown file that is there')
        report.place_of(Path(page), name)
    if args.json:
        make_folder_of('--json', args.json)
    if args.png:
        make_folder_of('--png', args.png, PICTURE_SUFFIXES)


def device_of(args: argparse.Namespace) -> torch.device:
    """The device to measure on.

    Raises:
        UserError: It is not there.
    """
    device = detector.device_of(args.device)
    if device.type not in ('cpu', 'cuda'):
        raise launch.UserError(f'--device {args.device}: cpu and cuda are what can be measured')
    if device.index is not None and device.type == 'cuda':
        torch.cuda.set_device(device)  # torch's timer waits for the current one
    return device


def image_size(args: argparse.Namespace, cfg: launch.Config) -> tuple[int, int]:
    """Height and width: as told, else what the anchors of SSD are made for, else 800 x 1344."""
    if args.size:
        return tuple(args.size)
    head = (cfg.get('model') or {}).get('bbox_head') or {}
    side = (head.get('anchor_generator') or {}).get('input_size') if isinstance(head, dict) else None
    return (side, side) if side else (800, 1344)


def run(args: argparse.Namespace, cfg: launch.Config, device: torch.device) -> tuple[Heads, dict[str, Result]]:
    """Measure every row: a number of objects, or a point of the sweep."""
    size = image_size(args, cfg)
    parts = ['step', 'assignment'] if args.sweep else list(PARTS)
    points = (args.points or SWEEPS[args.sweep][1]) if args.sweep else args.boxes
    results = {}
    for point in points:
        shape, boxes, classes = size, 40 if args.sweep else point, args.classes
        if args.sweep == 'boxes':
            boxes = point
        elif args.sweep == 'classes':
            classes = point
        elif args.sweep == 'size':
            shape = (point, round(point * size[1] / size[0] / 32) * 32 or 32)
        heads = build_heads(cfg, classes, device)
        print(f'{args.sweep or "boxes"} {point} ...', file=sys.stderr, flush=True)
        case = Case(shape, args.batch, boxes, device, args.amp)
        results[str(point)] = measure(heads, case, args.repeats, parts, args.compile)
    return heads, results


def describe(args: argparse.Namespace, cfg: launch.Config, device: torch.device, heads: Heads) -> dict[str, object]:
    """Text of the report around its tables."""
    high, wide = image_size(args, cfg)
    kind = [f'{args.batch} images' + (f' of {high} x {wide}' if args.sweep != 'size' else '')]
    kind += [f'{args.classes or cfg.model.bbox_head.num_classes} classes'] if args.sweep != 'classes' else []
    kind += ['40 objects per image'] if args.sweep in ('classes', 'size') else []
    kind += ['mixed precision' if args.amp else 'float32']
    kind += ['losses and decoding compiled'] if args.compile else []
    what = 'losses and gradients' if args.amp else 'losses, gradients and detections'
    if not heads.equal:
        who = "MMDetection's and the type changed"
    else:
        who = 'both' if heads.type_changed is None else 'all three'
    return dict(
        config=Path(args.config).stem,
        names=heads.names,
        note=heads.note,
        settings=', '.join(kind) + f'. Medians (quartiles) of {args.repeats} turns.',
        checked=f'Checked first: {who} give the same {what}.',
        rows=SWEEPS[args.sweep][0] if args.sweep else 'objects per image',
        machine=report.machine(device),
        commit=commit(7),
        command=shlex.join(['python', *sys.argv]),
    )


def main() -> None:
    """Checks, measures and writes."""
    args = parse_args()
    check_arguments(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = device_of(args)
    warnings.simplefilter('ignore')
    MMLogger.get_instance('benchmark', log_level=logging.ERROR)
    register_all_modules()
    setup_cache_size_limit_of_dynamo()
    cfg = launch.read_config(args.config, args.cfg_options)
    cfg.setdefault('default_scope', 'mmdet')  # a part of a config is enough here
    with contextlib.redirect_stdout(sys.stderr):
        heads, results = run(args, cfg, device)
    header = describe(args, cfg, device, heads)
    text = report.markdown(header, results)
    print(text)
    if args.sweep:
        args.png = args.png or Path(f'benchmark_{args.sweep}.png')
        title = f'{header["config"]}: {header["settings"].partition(". ")[0]}'
        figure = report.draw(header['rows'], list(map(int, results)), list(results.values()), title)
        figure.savefig(args.png, dpi=100)
        print(args.png, file=sys.stderr)
    if args.into:
        page, _, name = args.into.rpartition('#')
        report.paste(Path(page), name, text)
    if args.json:
        rows = {row: report.as_dict(result) for row, result in results.items()}
        args.json.write_text(json.dumps(dict(header, results=rows), indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
