"""The benchmark of the heads: what it compares, how it measures, what it writes."""

import importlib.util
import json
import re
import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
import torch
from cases import DYNAMIC_HOSTS, HOSTS, gfl_config, host_config, part, stock_config
from mmengine.config import Config

from mmdet_gfl.analysis import benchmark_head, benchmark_report, measuring
from mmdet_gfl.analysis.benchmark_head import FLOOR, OURS, THEIRS, TYPE_CHANGED, Case, Work, check_equal, measure
from mmdet_gfl.analysis.counterparts import build_heads
from mmdet_gfl.analysis.ideal_predictions import grid_sizes
from mmdet_gfl.analysis.measuring import Allocation, Spread
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.models.dense_heads import GFLHead

ROOT = Path(__file__).parents[2]
CPU = torch.device('cpu')
CASE = Case(size=(64, 96), batch=2, boxes=5, device=CPU)
JOINT = ('JointQuality', 'dfl')
FOCAL = dict(type='FocalLoss', use_sigmoid=True)


def config(head):
    """A detector's config with this head."""
    head = dict(head)
    return Config(
        dict(model=dict(train_cfg=head.pop('train_cfg', None), test_cfg=head.pop('test_cfg'), bbox_head=head))
    )


# Heads --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('head', 'theirs', 'equal'),
    [
        (gfl_config(), 'GFLHead', True),
        (gfl_config(ours=False, reg_max=12), 'GFLHead', True),
        (host_config('ATSS', *JOINT), 'GFLHead', True),
        (host_config('ATSS', 'CenternessBranch', 'dirac'), 'ATSSHead', True),
        (host_config('FCOS', 'CenternessBranch', 'dirac'), 'FCOSHead', True),
        (host_config('Retina', 'NoQuality', 'dirac'), 'RetinaHead', True),
        (host_config('Fovea', 'NoQuality', 'dirac'), 'FoveaHead', True),
        (host_config('SSD', 'NoQuality', 'dirac'), 'SSDHead', True),
        (host_config('RTMDet', 'AssignedQuality', 'dirac'), 'RTMDetHead', True),
        (host_config('RTMDetSepBN', 'AssignedQuality', 'dirac'), 'RTMDetSepBNHead', True),
        (host_config('ATSS', 'IoUGuided', 'dirac'), 'ATSSHead', False),
        (host_config('ATSS', 'JointQuality', 'general'), 'ATSSHead', False),
        (host_config('FCOS', *JOINT), 'FCOSHead', False),
        (host_config('Retina', *JOINT, loss_bbox=dict(type='GIoULoss')), 'RetinaHead', False),
        (host_config('Fovea', *JOINT, loss_cls=None), 'FoveaHead', False),
        (host_config('SSD', *JOINT), 'SSDHead', False),
        (host_config('SSD', 'NoQuality', 'dirac', loss_bbox=dict(type='L1Loss')), 'SSDHead', False),
        (host_config('RTMDet', *JOINT), 'RTMDetHead', False),
        (host_config('RTMDet', 'NoQuality', 'dirac', loss_cls=FOCAL), 'RTMDetHead', False),
        (gfl_config('mmdet_gfl.GFocalHead'), 'GFLHead', False),
        (gfl_config(delta=0.5), 'GFLHead', False),
        (gfl_config(loss_cls=part('VarifocalLoss')), 'GFLHead', False),
        (host_config('ATSS', 'DistributionGuidedQuality', 'dfl'), 'GFLHead', False),
        (host_config('FCOS', 'DistributionGuidedQuality', 'dfl'), 'FCOSHead', False),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else str(value),
)
def test_each_head_meets_its_counterpart(head, theirs, equal):
    heads = build_heads(config(head), None, CPU)
    assert type(heads.theirs).__name__ == theirs and type(heads.theirs).__module__.startswith('mmdet.')
    assert heads.equal is equal and ('no counterpart' in heads.note) is not equal
    like = heads.type_changed or heads.ours
    assert type(like.loss_cls).__module__.startswith('mmdet.')
    works = [Work(heads.ours, CASE), Work(heads.theirs, CASE, like=like)]
    for head in [heads.ours] * equal + [heads.type_changed] * (heads.type_changed is not None):
        check_equal(Work(head, CASE), works[1])
    for work in works:
        for name in benchmark_head.PARTS:
            if name != 'class_logits' or work.learns_class_logits:
                work.part(name)()
    guided = type(heads.ours.quality).__name__ == 'DistributionGuidedQuality'
    assert works[0].learns_class_logits is guided and not works[1].learns_class_logits


@pytest.mark.parametrize(
    ('head', 'changed'),
    [
        (gfl_config(), 'GFLHead'),
        (gfl_config(ours=False), None),  # its losses are MMDetection's already
        (host_config('ATSS', *JOINT), 'GFLHead'),
        (gfl_config('mmdet_gfl.GFocalHead'), 'GFLHead'),
        (host_config('ATSS', 'CenternessBranch', 'dirac'), None),
        (host_config('ATSS', 'IoUBranch', 'dirac'), 'ATSSGFLHead'),
        (host_config('SSD', *JOINT), 'SSDGFLHead'),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else str(value),
)
def test_the_third_head_is_the_stock_config_with_the_type_changed(head, changed):
    heads = build_heads(config(head), None, CPU)
    if changed is None:
        assert heads.type_changed is None and heads.equal
        assert heads.note.startswith("Ours is MMDetection's config with `type=")
        return
    assert type(heads.type_changed).__name__ == changed
    for name, loss in heads.theirs.named_children():
        if name.startswith('loss_'):
            assert type(getattr(heads.type_changed, name)) is type(loss)
    point = '' if changed == 'GFLHead' else f'and ({heads.type_changed.baseline_quality}, DiracBox)'
    assert f"Type changed: MMDetection's config with `type=mmdet_gfl.{changed}` {point or 'alone'}" in heads.note


@pytest.mark.parametrize('host', [*HOSTS, *DYNAMIC_HOSTS])
def test_a_stock_config_has_its_head_replaced(host):
    heads = build_heads(config(stock_config(host)), None, CPU)
    assert type(heads.ours).__name__ == f'{host}GFLHead' and type(heads.theirs).__name__ == f'{host}Head'
    assert heads.equal and heads.type_changed is None


def test_number_of_classes_can_be_replaced():
    heads = build_heads(config(gfl_config()), 7, CPU)
    assert heads.ours.num_classes == heads.theirs.num_classes == heads.type_changed.num_classes == 7


@pytest.mark.parametrize('kind', ['YOLOV3Head', 'NonsenseHead'])
def test_a_config_without_a_head_of_ours_is_refused(kind):
    with pytest.raises(
        UserError,
        match=f"type='{kind}' is not a GFL head, .* replaces it; accepted: ATSSHead or mmdet_gfl.ATSS",
    ):
        build_heads(config(dict(type=kind, test_cfg={})), None, CPU)


# Inputs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', [*HOSTS, *DYNAMIC_HOSTS])
def test_units_of_distances(host):
    """FCOS has strides in training and pixels after, RTMDet pixels; the others code boxes otherwise."""
    head = build_heads(config(stock_config(host)), None, CPU).ours
    training, testing = (benchmark_head.distance_units(head.train(mode)) for mode in (True, False))
    if host == 'FCOS':
        assert training == head.level_strides and testing == [1] * 5
    else:
        assert training == testing == ([1] * 3 if host in DYNAMIC_HOSTS else None)


@pytest.mark.parametrize('host', ['FCOS', 'RTMDet'])
def test_distances_are_four_strides_large(host):
    head = build_heads(config(stock_config(host)), None, CPU).ours
    work = Work(head, CASE._replace(size=(640, 640)))
    for level, stride in enumerate((8, 16)):
        distances = work.predictions[1][level].detach() / (1 if host == 'FCOS' else stride)
        assert distances.min() >= 0 and distances.square().mean().sqrt() == pytest.approx(4, rel=0.05)
        torch.testing.assert_close(work.test_predictions[1][level], distances * stride)
    assert work.test_predictions[0] is work.predictions[0]


def test_the_assignment_of_a_stock_head_is_what_get_targets_gives():
    heads = build_heads(config(stock_config('ATSS')), None, CPU)
    work = Work(heads.theirs, CASE, like=heads.ours)
    sizes = grid_sizes(heads.ours, CASE.size)
    anchors, flags = heads.theirs.get_anchors(sizes, work.metas, device='cpu')
    expected = heads.theirs.get_targets(anchors, flags, work.gts, work.metas)
    found = work.assignment()
    for ours, theirs in zip(found[1], expected[1]):
        assert torch.equal(ours, theirs)
    assert found[-1] == expected[-1] and 'get_targets' not in vars(heads.theirs)


def test_objects_lie_in_the_image_and_come_in_all_sizes():
    case = CASE._replace(size=(320, 480), boxes=400)
    (boxes, labels), (others, _) = [(gt.bboxes, gt.labels) for gt in benchmark_head.random_objects(case, 5)]
    assert boxes.min() >= 0 and boxes[:, 0::2].max() <= 480 and boxes[:, 1::2].max() <= 320
    areas = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    assert areas.min() < 12 and areas.max() > 180 and 35 < areas.median() < 60  # sqrt(8 * 256) = 45
    assert labels.unique().tolist() == [0, 1, 2, 3, 4] and not torch.equal(boxes, others)


# The check ----------------------------------------------------------------------------------------------------------


def broken(method, change):
    """A class of heads whose results of one method are changed."""

    def changed(self, *args, **kwargs):
        return change(getattr(GFLHead, method)(self, *args, **kwargs))

    return type('Broken', (GFLHead,), {method: changed})


def larger_gradient(losses):
    loss = losses['loss_cls']
    return losses | dict(loss_cls=loss.detach() + 1.01 * (loss - loss.detach()))


@pytest.mark.parametrize(
    ('method', 'change', 'message'),
    [
        ('loss_by_feat', lambda losses: losses | dict(loss_dfl=losses['loss_dfl'] * 1.001), 'loss_dfl differs'),
        (
            'loss_by_feat',
            lambda losses: losses | dict(loss_cls=losses['loss_cls'] * torch.nan),
            'loss_cls differs: nan',
        ),
        ('loss_by_feat', larger_gradient, 'the gradient to prediction 0 of 10'),
        ('loss_by_feat', lambda losses: losses | dict(loss_more=losses['loss_cls']), 'different losses'),
        ('predict_by_feat', lambda results: [result[1:] for result in results], 'image 0 has .* detections here'),
        ('predict_by_feat', lambda results: [results[1], results[0]], 'image 0'),
    ],
)
def test_a_head_that_computes_something_else_is_not_timed(method, change, message, monkeypatch):
    heads = build_heads(config(gfl_config()), None, CPU)
    heads.ours.__class__ = broken(method, change)
    monkeypatch.setattr(benchmark_head, 'times_in_turn', lambda *args, **kwargs: pytest.fail('timed'))
    with pytest.raises(UserError, match=message):
        measure(heads, CASE, 1, ['step'])


def test_mixed_precision_is_held_to_its_own_limits():
    heads = build_heads(config(gfl_config()), None, CPU)
    case = CASE._replace(amp=True)
    ours, theirs = (Work(head, case, like=heads.ours) for head in (heads.ours, heads.theirs))
    assert [levels[0].dtype for levels in ours.predictions] == [torch.bfloat16, torch.float32]
    check_equal(ours, theirs)
    result = measure(heads, case, 1, ['class_logits', 'step'])
    assert list(result.times) == ['step'] and list(result.host_syncs['step']) == [THEIRS, OURS]


@pytest.mark.parametrize('name', ['theirs', 'ours'])
def test_under_mixed_precision_ours_is_compared_with_float32(name):
    heads = build_heads(config(gfl_config()), None, CPU)
    head = getattr(heads, name)

    def imprecise(self, *args, **kwargs):
        losses = type(self).__base__.loss_by_feat(self, *args, **kwargs)
        one = torch.ones(1, 1)
        factor = 1 if (one @ one).dtype is torch.float32 else 2  # under autocast
        return {key: factor * benchmark_head._total(value) for key, value in losses.items()}

    head.__class__ = type('Imprecise', (type(head),), dict(loss_by_feat=imprecise))
    case = CASE._replace(amp=True)
    ours, theirs = Work(heads.ours, case), Work(heads.theirs, case, like=heads.ours)
    if name == 'theirs':
        check_equal(ours, theirs)
    else:
        with pytest.raises(UserError, match='loss_cls differs'):
            check_equal(ours, theirs)


# Measuring ----------------------------------------------------------------------------------------------------------


def test_spread_and_ratios_are_those_of_the_samples():
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert measuring.ratios([10.0, 30.0, 20.0], [5.0, 10.0, 20.0]) == Spread(2.0, 1.5, 2.5)  # of 2, 3, 1
    with pytest.raises(ValueError):
        measuring.ratios([1.0, 2.0], [1.0])


def test_functions_are_timed_in_turn(monkeypatch):
    calls, seconds = [], dict(a=1.0, b=0.25, c=0.5)
    functions = {name: lambda name=name: calls.append(name) for name in seconds}
    monkeypatch.setattr(measuring.benchmark, 'timer', lambda: sum(seconds[name] for name in calls))
    samples = measuring.times_in_turn(functions, repeats=2, warm_up=1)
    assert ''.join(calls) == 'abc' + 'bca' + 'cab'
    assert samples == dict(a=[1000, 1000], b=[250, 250], c=[500, 500])


def test_bytes_kept_for_backward():
    x = torch.ones(1000, requires_grad=True)
    assert measuring.bytes_kept_for_backward(lambda: x.exp().sum()) == 4000  # its result
    assert measuring.bytes_kept_for_backward(lambda: (x.sin() * x.view(10, 100).view(-1)).sum()) == 8000  # x once
    assert measuring.bytes_kept_for_backward(lambda: (x.exp().sum(), x.cos())[0].detach()) == 0  # both graphs gone
    assert measuring.bytes_kept_for_backward(lambda: x.detach().exp().sum()) == 0


def test_allocation():
    def work():
        first = torch.empty(1000)  # 4000
        second = torch.empty(3000)  # 16000
        del first  # 12000
        third = torch.empty(500)  # 14000
        del second
        return third

    assert measuring.allocation(work, CPU) == Allocation(peak=16000, alive=2000)
    assert measuring.running_sum([]) == Allocation(0, 0)


def test_the_errors_of_a_measured_function_are_seen(capfd):
    def work():
        raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        measuring.allocation(work, CPU)
    print('here', file=sys.stderr)
    assert 'here' in capfd.readouterr().err


def test_host_synchronizations_are_counted_without_a_gpu():
    heads = build_heads(config(gfl_config()), None, CPU)
    counts = []
    for head in (heads.ours, heads.theirs):
        work = Work(head, CASE, like=heads.ours)
        before = [level.clone() for level in work.leaves]
        counts.append(work.host_syncs(benchmark_head.SYNCHRONIZING))
        assert all(type(parameter) is torch.nn.Parameter for parameter in head.parameters())
        assert all(torch.equal(level, leaf) for level, leaf in zip(before, work.leaves))
    assert counts[0] == dict(assignment=2, step=4, decode=6)
    assert all(theirs > 4 * counts[0][part] for part, theirs in counts[1].items())


# Report -------------------------------------------------------------------------------------------------------------


def result(**times):
    """A result of hand-made numbers."""
    memory, other = ({THEIRS: Allocation(8 * 2**20, 5000), OURS: Allocation(2 * 2**20, 1000)} for _ in range(2))
    syncs = dict(step={THEIRS: 75, OURS: 4})
    return benchmark_head.Result(times, {THEIRS: 5000, OURS: 1000}, memory, other, 1000, 3 * 2**20, syncs)


def test_tables_hold_medians_quartiles_and_ratios():
    step = {THEIRS: [90.0, 100.0, 110.0], OURS: [10.0, 20.0, 10.0], FLOOR: [2.0, 2.0, 2.0]}
    table = benchmark_report.time_table('objects', {'40': result(step=step)}).splitlines()
    assert table[2] == (
        '| targets + losses + backward | 40 | 100 (95.0-105) | 10.0 (10.0-15.0) | **9.00x (7.00-10.0)** |'
    )
    assert table[3] == (
        '| floor: one read and one write of the predictions (3.00 MiB) | 40 | step: 50.0x this | step: 5.00x this | '
        '2.00 (2.00-2.00) ms |'
    )
    memory = benchmark_report.memory_table('objects', {'40': result(step=step)}).splitlines()
    assert memory[2] == '| kept for backward, over the class logits | 40 | 5.00 | 1.00 | **5.00x** |'
    assert memory[-1] == '| peak of assignment | 40 | 8.00 MiB | 2.00 MiB | **4.00x** |'
    syncs = benchmark_report.host_syncs_table('objects', {'40': result(step=step)}).splitlines()
    assert syncs[2:] == ['| targets + losses + backward | 40 | 75 | 4 |']


def test_a_third_head_has_a_column():
    step = {THEIRS: [90.0], OURS: [10.0], TYPE_CHANGED: [15.0], FLOOR: [2.0]}
    found = result(step=step, assignment={THEIRS: [4.0], OURS: [2.0]}, class_logits={OURS: [3.0]})
    found = found._replace(kept=found.kept | {TYPE_CHANGED: 2000}, kept_in_forward=1500)
    found.losses[TYPE_CHANGED] = Allocation(4 * 2**20, 2000)
    table = benchmark_report.time_table('objects', {'40': found}).splitlines()
    assert table[:2] == [
        '| part, ms | objects | MMDetection | ours | MMDetection / ours | type changed |',
        '|---|---|---|---|---|---|',
    ]
    cells = [[cell.strip() for cell in line.strip('|').split('|')][2:] for line in table[2:]]
    assert cells[0] == ['-', '3.00 (3.00-3.00)', '-', '-']
    assert cells[1] == ['4.00 (4.00-4.00)', '2.00 (2.00-2.00)', '**2.00x (2.00-2.00)**', '-']
    assert cells[2][2:] == ['**9.00x (9.00-9.00)**', '15.0 (15.0-15.0): **6.00x (6.00-6.00)**']
    assert cells[3] == ['step: 45.0x this', 'step: 5.00x this', '2.00 (2.00-2.00) ms', 'step: 7.50x this']
    memory = benchmark_report.memory_table('objects', {'40': found}).splitlines()
    assert memory[2].endswith('class logits, over them | 40 | - | 1.50 | - | - |')
    assert memory[3].endswith('| 40 | 5.00 | 1.00 | **5.00x** | 2.00: **2.50x** |')
    numbers = benchmark_report.as_dict(found)
    assert numbers['ms']['step']['ratio_type_changed']['median'] == 6 and 'ratio' not in numbers['ms']['class_logits']
    assert numbers['bytes']['kept_by_class_logits'] == 1500


@pytest.mark.parametrize(('value', 'text'), [(1234.5, '1234'), (91.24, '91.2'), (9.996, '10.00'), (0.1234, '0.123')])
def test_three_digits(value, text):
    assert benchmark_report.digits(value) == text


def test_curves_grow_with_what_is_swept():
    quartiles = (0.5, 1, 3)  # of three samples: 0.75 and 2
    samples = [
        {name: [k * scale * part for part in quartiles] for k, name in enumerate((THEIRS, OURS, FLOOR), 1)}
        for scale in (10.0, 30.0)
    ]
    results = [result(step=times, assignment=times) for times in samples]
    axes = benchmark_report.draw('objects', [4, 40], results, 'title').axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes[0].lines}
    assert lines == {
        THEIRS: [[4, 10], [40, 30]],
        OURS: [[4, 20], [40, 60]],
        'one read and one write of the predictions': [[4, 30], [40, 90]],
    }
    bands = [area.get_paths()[0].get_extents().get_points().tolist() for area in axes[0].collections]
    assert bands == [[[4, 7.5 * k], [40, 60 * k]] for k in (1, 2, 3)]
    kept = {line.get_label(): line.get_ydata().tolist() for line in axes[2].lines}
    assert kept[THEIRS] == [5000 / 2**20] * 2 and kept[OURS] == [1000 / 2**20] * 2


def test_paste_replaces_its_place_alone(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\nkept\n<!-- /y -->\n')
    benchmark_report.paste(page, 'x', r'new \1')
    assert page.read_text() == 'a\n<!-- x -->\nnew \\1\n<!-- /x -->\nb\n<!-- y -->\nkept\n<!-- /y -->\n'
    with pytest.raises(UserError, match='<!-- z -->'):
        benchmark_report.paste(page, 'z', 'new')


TABLES = (ROOT / 'docs' / 'benchmarks_tables.md').read_text(encoding='utf-8')
MEASURED = dict(
    GFL='gfl', ATSS='atss', FCOS='fcos', RetinaNet='retinanet', FoveaBox='foveabox', SSD='ssd', RTMDet='rtmdet'
)


def test_the_tables_have_a_place_for_every_command():
    page = (ROOT / 'docs' / 'benchmarks.md').read_text(encoding='utf-8')
    places = re.findall(r'^<!-- ([\w-]+) -->$', TABLES, flags=re.MULTILINE)
    assert re.findall(r'^<!-- /([\w-]+) -->$', TABLES, flags=re.MULTILINE) == places
    folders = [f'{folder}-cpu' for folder in re.findall(r'(\w+)/\w[\w-]+_coco(?= |;)', page)]
    assert places == ['gfl-cpu', *folders, 'gfl-cpu--compile'] and len(folders) == 7


def summary_cells(tables, place, counts):
    """Ratios of losses, decoding and bytes kept for these numbers of objects, and waits at 40, as a page gives them."""
    text = tables.split(f'<!-- {place} -->')[1].split('<!-- /')[0]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line[:1] == '|']
    parts = (
        'targets + losses + backward',
        'decode before NMS, 0.5% of the scores pass',
        'kept for backward, over the class',
    )
    cells = []
    for name in parts:
        ratios = {row[1]: row[4] for row in rows if row[0].startswith(name) and len(row) > 4}
        values = [Decimal(re.match(r'\*\*([\d.]+)x', ratios[count])[1]) for count in counts]
        cells.append(
            ', '.join(f'{value.quantize(Decimal("1" if value > 10 else "0.1"), ROUND_HALF_UP)}x' for value in values)
        )
    (waits,) = (row[2:] for row in rows if row[:2] == [parts[0], '40'] and len(row) == 4)
    return [*cells, ' / '.join(waits)]


def line_of(page, host):
    (line,) = re.findall(rf'^\| {host} \| (.*x .*) \|$', (ROOT / 'docs' / page).read_text('utf-8'), flags=re.MULTILINE)
    return re.sub(r' \(.*?\)', '', line).split(' | ')


@pytest.mark.parametrize('host', MEASURED)
def test_the_summary_is_computed_from_the_tables(host):
    assert line_of('benchmarks.md', host) == summary_cells(TABLES, f'{MEASURED[host]}-cpu', ('4', '40'))


@pytest.mark.parametrize('host', [*MEASURED, 'GFLv2'])
def test_the_summary_of_the_gpu_is_computed_from_its_tables(host):
    tables = (ROOT / 'docs' / 'benchmarks_gpu_tables.md').read_text(encoding='utf-8')
    place = f'{MEASURED.get(host, "gflv2")}-cuda'
    amp = f'{place}--amp'
    half = summary_cells(tables, amp, ('40',))[:3] if f'<!-- {amp} -->' in tables else ['-'] * 3
    assert line_of('gpu.md', host) == [*summary_cells(tables, place, ('40',)), *half]


# The tool -----------------------------------------------------------------------------------------------------------


def test_the_tool_from_config_to_curves(warm_python, tmp_path):
    path, page = tmp_path / 'tiny.py', tmp_path / 'page.md'
    config(gfl_config()).dump(path)
    page.write_text('<!-- here -->\n<!-- /here -->\n')
    files = ['--json', tmp_path / 'out.json', '--png', tmp_path / 'out.png', '--into', f'{page}#here']
    small = ['--size', 64, 96, '--repeats', 2, '--threads', 1, '--device', 'cpu']
    command = [
        warm_python,
        'tools/analysis_tools/benchmark_head.py',
        path,
        *small,
        '--sweep',
        'boxes',
        '--points',
        1,
        3,
    ]
    done = subprocess.run([*map(str, command + files)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'all three give the same losses, gradients and detections' in done.stdout
    assert page.read_text() == f'<!-- here -->\n{done.stdout}<!-- /here -->\n'
    found = json.loads((tmp_path / 'out.json').read_text())
    assert list(found['results']) == ['1', '3'] and found['machine']['threads'] == 1
    step = found['results']['3']['ms']['step']
    assert set(step) == {OURS, THEIRS, TYPE_CHANGED, FLOOR, 'ratio', 'ratio_type_changed'}
    assert step['ratio']['low'] <= step['ratio']['median']
    assert found['results']['3']['bytes']['class_logits'] == 4 * 2 * 5 * (96 + 24 + 6 + 2 + 1)
    assert (tmp_path / 'out.png').read_bytes().startswith(b'\x89PNG')


@pytest.fixture
def tool():
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location(
        'benchmark_head_tool', ROOT / 'tools/analysis_tools/benchmark_head.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--batch', '0'], '--batch 0: needs whole numbers from 1 on'),
        (['--boxes', '4', '-1'], r'--boxes \[4, -1\]: needs whole numbers from 0 on'),
        (['--points', '4'], 'add --sweep'),
        (['--into', 'nowhere.md'], 'needs PAGE#NAME'),
        (['--into', 'nowhere.md#here'], 'needs one place in nowhere.md from <!-- here -->'),
        (['--device', 'meta'], 'cpu and cuda are what can be measured'),
    ],
)
def test_bad_arguments_are_one_sentence(tool, args, message, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['benchmark_head.py', 'any.py', *args])
    with pytest.raises(UserError, match=message):
        arguments = tool.parse_args()
        tool.check_arguments(arguments)
        tool.device_of(arguments)


@pytest.mark.parametrize(
    ('path', 'args', 'size'),
    [
        ('gfl/gfl_r50_fpn_1x_coco.py', [], (800, 1344)),
        ('ssd/ssd512_coco.py', [], (512, 512)),
        ('ssd/ssd512_coco.py', ['--size', '320', '480'], (320, 480)),
    ],
)
def test_size_of_the_images(tool, path, args, size, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['benchmark_head.py', 'any.py', *args])
    assert tool.image_size(tool.parse_args(), Config.fromfile(ROOT / 'configs' / path)) == size
