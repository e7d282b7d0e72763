"""Report on ``reg_max`` from counts of distance targets: a table with its verdict, and a dict for a JSON file."""

from __future__ import annotations

from typing import Any

from mmdet_gfl.analysis.target_counts import RESOLUTION, Report, TargetHistogram
from mmdet_gfl.utils.tables import aligned

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def as_text(report: Report, share: float) -> str:
    """The report as a table and what follows from it; ``share`` of the targets may be cut short."""
    head = ['level', 'stride', 'positives', *(f'{percent:g}%' for percent in PERCENTILES), 'max', 'clipped', 'reg_max']
    names = [(str(index), str(stride)) for index, stride in enumerate(report.strides)]
    rows = [[*name, *_cells(level, share)] for name, level in zip(names, report.levels)]
    lines = [head, *rows, ['all', '', *_cells(report.all, share)], ['longest', '', *_cells(report.longest, share)]]
    return '\n'.join([_what_was_read(report), '', aligned(lines), '', _verdict(report, share)])


def _cells(histogram: TargetHistogram, share: float) -> list[str]:
    if not histogram.targets:
        return ['0', *('-' for _ in PERCENTILES), '-', '-', '-']
    values = [*(histogram.percentile(percent) for percent in PERCENTILES), histogram.largest]
    return [
        str(histogram.positives),
        *(f'{value:.1f}' for value in values),
        f'{histogram.clipped_share:.2%}',
        str(histogram.smallest_reg_max(share)),
    ]


def _what_was_read(report: Report) -> str:
    total = sum(report.objects)
    lines = [
        f'{report.images} of {report.available} images, {report.empty_images} of them without objects; '
        f'{total} objects, {report.ignored} ignored regions'
    ]
    sizes = ', '.join(
        f'{count / max(total, 1):.1%} {name}' for name, count in zip(('small', 'medium', 'large'), report.objects)
    )
    lines.append(f"of the objects {sizes} (COCO's areas, in the network's input)")
    alone = sum(report.unassigned)
    if alone:
        lines.append(f'{alone} objects, {report.unassigned[0]} of them small, are matched to no location')
    outside = report.all.outside
    if outside:
        lines.append(f'{outside / report.all.targets:.2%} of the targets are below 0 and count as 0')
    if report.ideal_predictions:
        lines.append('the assigner depends on predictions: each location predicts the smallest object around it')
    lines.append('distances in strides of the level; reg_max: the smallest that is safe for the line alone')
    lines.append("longest: of each positive's four sides the longest only")
    return '\n'.join(lines)


def _verdict(report: Report, share: float) -> str:
    box, total = report.box, report.all
    safe = report.decisive.smallest_reg_max(share)
    if safe is None:
        return 'no object is matched to a location: check the classes, the boxes and the image size'
    now = f'reg_max={box.reg_max}, delta={box.delta:g}'
    origin = "the head has no reg_max; with GeneralBox's default" if report.assumed else 'now'
    low, high = (box.max_distance * report.strides[level] for level in (0, -1))
    largest = f'{box.max_distance:g} strides, {low:g} to {high:g} px'
    where = ''
    if report.ideal_predictions:
        where = ' at the coarsest level; objects that a finer level does not reach are matched on a coarser one'
    return (
        f'{origin} {now} reaches {largest}: {total.clipped_share:.3%} of the targets are clipped\n'
        f'smallest safe reg_max with delta={box.delta:g}: {safe}, which cuts at most {share:.2%} of the targets short'
        f'{where}'
    )


def as_dict(report: Report, share: float) -> dict[str, Any]:
    """The report for a JSON file; see the attributes of :class:`Report` and :class:`TargetHistogram`."""
    sizes = ('small', 'medium', 'large')
    return dict(
        reg_max=report.box.reg_max,
        delta=report.box.delta,
        reg_max_is_assumed=report.assumed,
        smallest_safe_reg_max=report.decisive.smallest_reg_max(share),
        safe_share=share,
        images=report.images,
        images_available=report.available,
        images_without_objects=report.empty_images,
        objects=dict(zip(sizes, report.objects)),
        objects_without_location=dict(zip(sizes, report.unassigned)),
        ignored_regions=report.ignored,
        all=_level_dict(report.all, share),
        longest_sides=_level_dict(report.longest, share),
        levels=[
            dict(stride=stride, **_level_dict(level, share)) for stride, level in zip(report.strides, report.levels)
        ],
    )


def _level_dict(histogram: TargetHistogram, share: float) -> dict[str, Any]:
    return dict(
        positives=histogram.positives,
        percentiles={
            f'{percent:g}': histogram.percentile(percent) if histogram.targets else None for percent in PERCENTILES
        },
        max=histogram.largest if histogram.targets else None,
        clipped_share=histogram.clipped_share,
        below_zero=histogram.outside,
        smallest_safe_reg_max=histogram.smallest_reg_max(share),
        histogram=dict(width=1 / RESOLUTION, counts=histogram.bins.tolist()),
    )
