"""The rows of an ablation on each host, what makes two rows one, paired statistics, and the report's sentences."""

import json
import math
import shutil
import sys

import numpy as np
import pytest
from mmengine.config import Config
from scipy.stats import ttest_rel

from mmdet_gfl.benchmark import ablation, ablation_report, running
from mmdet_gfl.benchmark.commands import Launcher
from mmdet_gfl.benchmark.compare import Paired, half_width, paired, seeds_to_tell
from mmdet_gfl.benchmark.results import read, run_dir_of
from mmdet_gfl.benchmark.rows import RowError
from mmdet_gfl.benchmark.shorten import scale_span, shorten
from mmdet_gfl.benchmark.work_dir import check_settings, prepare
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.engine.files import write
from mmdet_gfl.shipped_configs import CONFIG_DIR

ALL = list(ablation.ROWS)
COCO = {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5, 'coco/bbox_mAP_l': -1.0}


def read_ablation(name, rows=tuple(ALL), own=(), **more):
    return ablation.read_ablation(name, ablation.choose_rows(rows, own), **more)


@pytest.fixture(scope='module')
def retina():
    return read_ablation('retinanet_r50_fpn_1x_coco')


def head(plan, row):
    return plan.config(plan.path_of(row), 0).model.bbox_head


# Rows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name, host, repeated',
    [
        ('retinanet_r50_fpn_1x_coco', 'RetinaGFLHead', {}),
        ('fcos_r50-caffe_fpn_gn-head_1x_coco', 'FCOSGFLHead', {}),
        ('ssd300_coco', 'SSDGFLHead', {}),
        ('gfl_r50_fpn_1x_coco', 'ATSSGFLHead', {'gfl': 'baseline'}),
    ],
)
def test_rows_of_a_host(name, host, repeated):
    plan = read_ablation(name, ALL[:4])
    assert plan.repeated() == repeated
    assert head(plan, 'baseline') == plan.cfg.model.bbox_head
    qfl, dfl = head(plan, 'qfl'), head(plan, 'dfl')
    assert qfl.type == dfl.type == f'mmdet_gfl.{host}'
    assert qfl.box.type == 'mmdet_gfl.DiracBox' and dfl.get('box', {}).get('type') != 'mmdet_gfl.DiracBox'


def test_rtmdet_has_qfl_already():
    plan = read_ablation('rtmdet_tiny_8xb32-300e_coco', ['baseline', 'qfl'])
    assert plan.repeated() == {'qfl': 'baseline'}
    assert head(plan, 'qfl').type == 'mmdet_gfl.RTMDetSepBNGFLHead' and head(plan, 'baseline').type == 'RTMDetSepBNHead'


@pytest.mark.parametrize(
    'name, repeated, heads',
    [
        ('gfl/gfl_r50_fpn_n18_1x_coco', {'gfl': 'baseline'}, ['ATSSGFLHead', 'ATSSGFLHead', 'GFLHead', 'GFocalHead']),
        ('gflv2/gflv2_r50_fpn_1x_coco', {'gflv2': 'baseline'}, ['ATSSGFLHead', 'ATSSGFLHead', 'GFLHead', 'GFocalHead']),
        ('atss/atss_r50_fpn_joint_1x_coco', {'qfl': 'baseline'}, ['ATSSGFLHead'] * 4),
        ('atss/atss_r50_fpn_gaussian_1x_coco', {}, ['ATSSGFLHead'] * 4),
        ('retinanet/retinanet_r50_fpn_gfl_1x_coco', {'gfl': 'baseline'}, ['RetinaGFLHead'] * 4),
        ('fcos/fcos_r50-caffe_fpn_gflv2_1x_coco', {'gflv2': 'baseline'}, ['FCOSGFLHead'] * 4),
        ('foveabox/fovea_r50_fpn_gfl_4xb4-1x_coco', {'gfl': 'baseline'}, ['FoveaGFLHead'] * 4),
        ('ssd/ssd512_joint_coco', {'qfl': 'baseline'}, ['SSDGFLHead'] * 4),
        ('rtmdet/rtmdet_l_8xb32-300e_coco', {'qfl': 'baseline', 'gfl': 'dfl'}, ['RTMDetSepBNGFLHead'] * 4),
    ],
)
def test_a_head_of_this_package_is_its_own_baseline(name, repeated, heads):
    plan = read_ablation(str(CONFIG_DIR / f'{name}.py'))
    assert plan.repeated() == repeated
    assert head(plan, 'baseline') == plan.cfg.model.bbox_head
    rows = [head(plan, row) for row in ALL[1:]]
    assert [row.type for row in rows] == [f'mmdet_gfl.{kind}' for kind in heads]
    boxes = [row.get('box', {}).get('type') for row in rows]
    assert boxes[0] == 'mmdet_gfl.DiracBox' and 'mmdet_gfl.DiracBox' not in boxes[1:]


def test_arguments_that_a_head_of_this_package_keeps_at_another_point():
    plan = read_ablation(str(CONFIG_DIR / 'gfl' / 'gfl_r50_fpn_n18_1x_coco.py'))
    assert head(plan, 'dfl').box.reg_max == head(plan, 'gflv2').reg_max == 18
    assert (
        head(plan, 'dfl').quality.type == 'mmdet_gfl.CenternessBranch'
        and head(plan, 'dfl').loss_cls.type == 'FocalLoss'
    )
    assert head(plan, 'qfl').bbox_coder.target_stds == [0.1, 0.1, 0.2, 0.2]
    assert plan.describe(plan.rows['baseline']) == 'GFLHead as in the config: JointQuality and GeneralBox'
    plan = read_ablation(str(CONFIG_DIR / 'gfl' / 'gfl_r50_fpn_delta2_1x_coco.py'))
    assert head(plan, 'dfl').box.delta == head(plan, 'gflv2').delta == 2

    box = dict(type='mmdet_gfl.GeneralBox', reg_max=24)
    options = {'model.bbox_head.box': box, 'model.bbox_head.quality': dict(type='mmdet_gfl.IoUBranch')}
    options['model.bbox_head.loss_cls'] = dict(_delete_=True, type='FocalLoss')
    plan = read_ablation(str(CONFIG_DIR / 'retinanet' / 'retinanet_r50_fpn_gfl_1x_coco.py'), options=options)
    assert plan.repeated() == {} and head(plan, 'gfl').box == head(plan, 'dfl').box == box
    assert head(plan, 'qfl').loss_bbox.type == 'SmoothL1Loss' and head(plan, 'gfl').loss_bbox.type == 'GIoULoss'


def test_rows_differ_from_the_users_config_in_the_head_alone(retina):
    stock, gfl = (retina.config(retina.path_of(row), 3) for row in ('baseline', 'gfl'))
    assert stock.model.bbox_head.type == 'RetinaHead' and gfl.model.bbox_head.type == 'mmdet_gfl.RetinaGFLHead'
    assert 'FocalLoss' not in gfl.pretty_text
    stock.model.bbox_head = gfl.model.bbox_head = None
    stock.custom_imports = gfl.custom_imports = None
    assert stock.pretty_text == gfl.pretty_text
    assert stock.randomness.seed == 3 and stock.train_cfg == retina.cfg.train_cfg
    assert stock.default_hooks.checkpoint.type == 'mmdet_gfl.SafeCheckpointHook'


def test_dfl_has_the_hosts_own_quality(retina):
    assert 'NoQuality and GeneralBox' in retina.describe(retina.rows['dfl'])
    gfl = read_ablation('gfl_r50_fpn_1x_coco', ['baseline', 'dfl'])
    assert 'CenternessBranch and GeneralBox' in gfl.describe(gfl.rows['dfl'])
    assert 'is GFL' in gfl.describe(gfl.rows['baseline'])


def test_a_user_defined_row_equals_a_named_one():
    own = ['same:quality=DistributionGuidedQuality', 'point:quality=baseline,box=DiracBox', 'iou:quality=IoUBranch']
    plan = read_ablation('retinanet_r50_fpn_1x_coco', ['baseline', 'gflv2'], own)
    assert plan.repeated() == {'same': 'gflv2', 'point': 'baseline'}
    assert head(plan, 'iou').quality.type == 'mmdet_gfl.IoUBranch'


@pytest.mark.parametrize('name', ['retinanet_r50_fpn_1x_coco', 'gfl_r50_fpn_1x_coco', 'rtmdet_tiny_8xb32-300e_coco'])
def test_a_row_may_have_other_box_weights(name):
    own = ['uniform:box_weight=uniform', 'iou:quality=IoUBranch,box=DiracBox,box_weight=quality']
    plan = read_ablation(name, ['baseline', 'gfl'], own)
    assert not plan.repeated().keys() & {'uniform', 'iou'}
    quality = 'AssignedQuality' if 'rtmdet' in name else 'JointQuality'
    assert head(plan, 'uniform').quality == dict(type=f'mmdet_gfl.{quality}', box_weight='uniform')
    assert f': {quality} with uniform box weights and GeneralBox' in plan.describe(plan.rows['uniform'])
    assert ': IoUBranch with quality box weights and DiracBox' in plan.describe(plan.rows['iou'])
    with pytest.raises(RowError, match=r"quality\.box_weight='flat'; accepted: auto, quality, score, uniform"):
        wrong = read_ablation(name, ['baseline'], ['flat:box_weight=flat'])
        wrong.config(wrong.path_of('flat'), 0)


@pytest.mark.parametrize(
    'name, row, same',
    [
        ('retinanet_r50_fpn_1x_coco', 'box_weight=score', 'gfl'),
        ('retinanet_r50_fpn_1x_coco', 'box=DiracBox,box_weight=uniform', 'qfl'),
        ('retinanet_r50_fpn_1x_coco', 'quality=baseline,box=DiracBox,box_weight=uniform', 'baseline'),
        ('fcos_r50-caffe_fpn_gn-head_1x_coco', 'box_weight=auto', 'gfl'),
        ('gfl_r50_fpn_1x_coco', 'box_weight=auto', 'baseline'),
    ],
)
def test_box_weights_that_a_row_has_anyway_make_no_other(name, row, same):
    plan = read_ablation(name, ['baseline', 'qfl', 'gfl'], [f'other:{row}'])
    assert plan.repeated()['other'] == same


def test_gflv2_keeps_its_arguments_under_other_box_weights():
    options = {'model.bbox_head.reg_topk': 2, 'model.bbox_head.reg_channels': 32, 'model.bbox_head.add_mean': False}
    own = ['uniform:quality=DistributionGuidedQuality,box_weight=uniform']
    plan = read_ablation('configs/gflv2/gflv2_r50_fpn_1x_coco.py', ['baseline'], own, options=options)
    assert head(plan, 'uniform').quality == dict(
        type='mmdet_gfl.DistributionGuidedQuality', box_weight='uniform', topk=2, channels=32, statistics=('topk',)
    )


def test_box_weights_are_added_to_a_quality_of_the_configs():
    options = {'model.bbox_head.quality': dict(type='mmdet_gfl.IoUGuided', box_weight='score')}
    own = ['same:quality=IoUGuided', 'uniform:quality=IoUGuided,box_weight=uniform']
    plan = read_ablation('configs/atss/atss_r50_fpn_iou-guided_1x_coco.py', ['baseline'], own, options=options)
    assert [head(plan, row).quality.box_weight for row in ('baseline', 'same', 'uniform')] == [
        'score',
        'score',
        'uniform',
    ]


def test_a_stock_head_with_another_loss_is_not_a_point_of_the_host():
    """Hard labels take the focal loss, so the stock head with QFL is not the host's point without quality."""
    options = {'model.bbox_head.loss_cls': dict(_delete_=True, type='QualityFocalLoss', use_sigmoid=True)}
    other = read_ablation(
        'retinanet_r50_fpn_1x_coco', ['baseline'], ['point:quality=baseline,box=DiracBox'], options=options
    )
    assert head(other, 'baseline').loss_cls.type == 'QualityFocalLoss' and other.repeated() == {}


@pytest.mark.parametrize(
    'names, own, words',
    [
        (['glf'], (), 'no such row; did you mean gfl?'),
        (['gfl', 'gfl'], (), 'row gfl is given twice'),
        (None, ['qfl:box=DiracBox'], 'row qfl is given twice'),
        (None, ['mine'], 'write NAME:quality=QUALITY,box=BOX'),
        (None, ['mine:quality='], 'write NAME:'),
        (None, ['mine:loss=QFL'], 'write NAME:'),
        (None, ['my/row:box=DiracBox'], 'write NAME:'),
    ],
)
def test_unknown_rows(names, own, words):
    with pytest.raises(RowError, match=words):
        ablation.choose_rows(names, own)


# What a config must have --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'options, words',
    [
        ({'val_evaluator': None}, 'has no val_evaluator'),
        ({'val_dataloader': None}, 'has no val_dataloader'),
        ({'val_evaluator.format_only': True}, 'gives no number to compare'),
        ({'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=9)}, 'has no max_epochs'),
        ({'model.rpn_head': dict(type='RetinaHead', num_classes=1, in_channels=256)}, 'has 2 heads'),
        ({'optim_wrapper.optimizer.lr': math.inf}, 'cannot hold inf'),
    ],
)
def test_a_config_that_cannot_be_compared(options, words):
    with pytest.raises(RowError, match=words):
        read_ablation('retinanet_r50_fpn_1x_coco', ['baseline'], options=options)


def test_a_config_without_a_head_that_can_change():
    with pytest.raises(UserError, match='has no GFL variant'):
        read_ablation('tood_r50_fpn_1x_coco')
    with pytest.raises(
        RowError,
        match='mine does not fit this config: --quality JointQualty is unknown; did you mean mmdet_gfl.JointQuality',
    ):
        read_ablation('retinanet_r50_fpn_1x_coco', [], ['mine:quality=JointQualty']).repeated()


@pytest.mark.parametrize('more, words', [(dict(fraction=0.0), '--fraction 0'), (dict(gpus=2, devices=1), '--gpus 2')])
def test_numbers_that_do_not_fit(more, words):
    with pytest.raises(RowError, match=words):
        read_ablation('retinanet_r50_fpn_1x_coco', **more)


def test_a_work_dir_of_another_config_is_refused(retina, tmp_path):
    prepare(tmp_path, retina, print)
    check_settings(tmp_path, read_ablation('retinanet_r50_fpn_1x_coco', ['gflv2']))  # other rows of the same
    other = read_ablation('retinanet_r50_fpn_1x_coco', options={'optim_wrapper.optimizer.lr': 0.5})
    with pytest.raises(RowError, match=r'lr is 0.01 there, 0.5 here'):
        check_settings(tmp_path, other)
    with pytest.raises(RowError, match=r'epochs is 12 there, 2 here'):
        check_settings(tmp_path, read_ablation('retinanet_r50_fpn_1x_coco', epochs=2))
    with pytest.raises(RowError, match=r"config is 'retinanet_r50_fpn_1x_coco' there, 'atss_r50_fpn_1x_coco' here"):
        check_settings(tmp_path, read_ablation('atss_r50_fpn_1x_coco'))


# A quick look -------------------------------------------------------------------------------------------------------


def test_the_schedule_is_scaled_with_the_epochs(retina):
    cfg = shorten(retina.cfg, 6, None)
    warm_up, steps = cfg.param_scheduler
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (6, 1)
    assert (steps.begin, steps.end, steps.milestones) == (0, 6, [4, 6])  # 8 and 11 of 12: halves to even
    assert (warm_up.begin, warm_up.end) == (0, 250)
    assert retina.cfg.param_scheduler[1].milestones == [8, 11]


def test_spans_stay_spans():
    scheduler = dict(begin=8, end=10, T_max=2, milestones=(1,))
    scale_span(scheduler, 0.1)
    assert scheduler == dict(begin=1, end=2, T_max=1, milestones=[1])


def test_a_share_of_the_images_is_the_same_for_all(tmp_path):
    images = [dict(id=number, file_name=f'{number}.jpg', width=64, height=64) for number in range(20)]
    boxes = [
        dict(id=number, image_id=number, category_id=0, bbox=[2, 2, 40, 40], area=1600, iscrowd=0)
        for number in range(20)
    ]
    categories = [dict(id=0, name='person')]
    (tmp_path / 'all.json').write_text(json.dumps(dict(images=images, annotations=boxes, categories=categories)))
    inner = dict(
        type='CocoDataset',
        ann_file=str(tmp_path / 'all.json'),
        data_prefix=dict(img=''),
        metainfo=dict(classes=('person',)),
    )
    cfg = Config(
        dict(
            train_cfg=dict(max_epochs=4),
            param_scheduler=[dict(type='LinearLR', by_epoch=False, begin=0, end=100)],
            train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=inner)),
        )
    )
    first, again = (shorten(cfg, None, 0.25).train_dataloader.dataset.dataset.indices for _ in range(2))
    assert first == again and len(set(first)) == 5 and first != list(range(5)) and max(first) < 20
    for indices, images in ((8, range(8)), (-8, range(12, 20)), ([3, 5, 7, 9], (3, 5, 7, 9))):
        cfg.train_dataloader.dataset.dataset.indices = indices
        chosen = shorten(cfg, None, 0.5).train_dataloader.dataset.dataset.indices
        assert set(chosen) < set(images) and len(set(chosen)) == len(images) // 2
    assert shorten(cfg, None, 0.25).param_scheduler[0].end == 25
    cfg.train_dataloader.dataset.dataset.indices = first
    assert set(shorten(cfg, None, 0.4).train_dataloader.dataset.dataset.indices) < set(first)


# Scores -------------------------------------------------------------------------------------------------------------


def test_scores_are_what_the_evaluator_gives(retina):
    logged = dict(COCO, data_time=0.1, time=0.2, step=3)
    assert list(retina.scores_of(logged).items()) == [
        ('coco/bbox_mAP', 0.25),
        ('coco/bbox_mAP_50', 0.5),
        ('coco/bbox_mAP_l', None),
    ]
    assert retina.scores_of(dict(time=0.2, step=3)) == {'coco/bbox_mAP': 0.0}  # no detection on any image
    voc = {'val_evaluator': dict(_delete_=True, type='VOCMetric', metric='mAP')}
    plan = read_ablation('retinanet_r50_fpn_1x_coco', options=voc)
    assert plan.scores_of({'pascal_voc/mAP': 0.4, 'pascal_voc/AP50': 0.4, 'step': 1})['pascal_voc/mAP'] == 0.4
    with pytest.raises(ValueError, match='val_evaluator gives no number'):
        plan.scores_of(dict(time=0.2, step=3))


# Statistics ---------------------------------------------------------------------------------------------------------


def test_a_paired_difference_by_hand():
    """Differences 1, 2, 3: mean 2, deviation 1, t of 2 degrees of freedom 4.3027."""
    found = paired({0: 11, 1: 22, 2: 33, 7: 99}, {0: 10, 1: 20, 2: 30, 8: 1})
    assert (found.seeds, found.mean, found.std) == ([0, 1, 2], 2, 1)
    assert found.half_width == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4)
    assert found.differs is False and found.more_seeds == 1  # of four: 3.1824 / 2 = 1.59 < 2
    assert paired({0: 1.0}, {1: 1.0}) is None
    assert paired({0: 3.0}, {0: 1.0}) == Paired([0], 2.0, None, None)


def test_the_interval_agrees_with_the_t_test():
    row, base = [31.0, 33.5, 30.2, 35.1], [30.0, 31.0, 30.5, 32.0]
    found = paired(dict(enumerate(row)), dict(enumerate(base)))
    interval = ttest_rel(row, base).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(interval.low)
    assert found.mean + found.half_width == pytest.approx(interval.high)


def test_the_least_number_of_seeds():
    for mean, std in ((2.0, 1.0), (-0.5, 1.0), (0.3, 0.2)):
        count = seeds_to_tell(mean, std)
        assert half_width(std, count) < abs(mean) <= half_width(std, count - 1)
    assert seeds_to_tell(0.0, 1.0) is None and seeds_to_tell(1e-6, 1.0) is None
    assert seeds_to_tell(1.0, 0.0) == 2


@pytest.mark.parametrize(
    'mean, half, shown, interval',
    [
        (2.0, 2.5, '+2.0 ± 2.5', '-0.5 to +4.5'),
        (-0.64, 0.62, '-0.64 ± 0.62', '-1.3 to -0.02'),  # worse: with one digit, -0.6 ± 0.6 and -1.3 to +0.0
        (-0.62, 0.64, '-0.62 ± 0.64', '-1.3 to +0.02'),  # not told apart
        (0.02, 0.04, '+0.02 ± 0.04', '-0.02 to +0.1'),
        (0.0, 0.0, '+0.0 ± 0.0', '+0.0 to +0.0'),
        (-0.01, 3.0, '+0.0 ± 3.0', '-3.0 to +3.0'),
    ],
)
def test_an_interval_shows_on_which_side_of_zero_its_ends_are(mean, half, shown, interval):
    found = Paired([0, 1], mean, 1.0, half)
    assert (found.show(1), found.show_interval(1)) == (shown, interval)
    assert Paired([0], -0.64, None, None).show(1) == '-0.6'


# The report ---------------------------------------------------------------------------------------------------------


def save(work_dir, row, seed, **scores):
    run_dir = run_dir_of(f'my/{row}', seed, work_dir)
    run_dir.mkdir(parents=True)
    result = dict(config=f'my/{row}', seed=seed, scores=scores, seconds=60, parameters=1_500_000, gpus=1)
    result['image_seconds'] = 0.01 * (seed + 1) ** 2
    (run_dir / 'result.json').write_text(json.dumps(result))


@pytest.fixture
def work_dir(tmp_path):
    rows = {name: dict(path=f'my/{name}', head=f'head of {name}', same_as=None) for name in ('qfl', 'baseline', 'gfl')}
    rows['v2'] = dict(path='my/v2', head='another', same_as='gfl')
    write(tmp_path / 'rows.json', json.dumps(rows))
    write(tmp_path / 'settings.json', json.dumps(dict(epochs=3, images_per_step=8, fraction=0.5)))
    return tmp_path


def test_report_of_three_seeds(work_dir):
    for seed, (base, qfl, gfl) in enumerate([(0.1, 0.11, 0.15), (0.2, 0.22, 0.25), (0.3, 0.33, 0.351)]):
        for row, value in (('baseline', base), ('qfl', qfl), ('gfl', gfl)):
            save(work_dir, row, seed, **{'coco/bbox_mAP': value, 'coco/bbox_mAP_l': None})
    text = ablation_report.write_report(work_dir)
    assert (
        '**qfl** is not told apart from the baseline: +2.0 mAP, 95% interval -0.5 to +4.5 over 3 seeds; 1 more seed '
        'would tell'
    ) in text
    assert '**gfl** is better than the baseline: +5.0 mAP, 95% interval +4.9 to +5.2 over 3 seeds.' in text
    assert '**v2** is `gfl` on this host' in text
    assert '| baseline | head of baseline | 3 | 20.0 ± 10.0 | - | 1.50 M | 40 |' in text
    assert '| qfl | +2.0 ± 2.5 | - |' in text and '| baseline | +' not in text
    assert 'Epochs: 3, 50% of the training images; images per step: 8' in text and 'select_thresholds' in text
    assert (work_dir / 'report.png').is_file()
    kept = read(work_dir / 'report.json')
    assert kept['metric'] == 'coco/bbox_mAP' and len(kept['results']) == 9
    assert kept['rows'][0]['differences']['coco/bbox_mAP']['more_seeds'] == 1


def test_the_picture_has_seeds_means_and_intervals(work_dir, monkeypatch):
    figures = []
    draw = ablation_report.draw
    monkeypatch.setattr(ablation_report, 'draw', lambda *given: figures.append(draw(*given)) or figures[0])
    for seed, (base, gfl) in enumerate([(0.1, 0.15), (0.2, 0.25), (0.3, 0.351)]):
        for row, value in (('baseline', base), ('gfl', gfl)):
            save(work_dir, row, seed, **{'coco/bbox_mAP': value})
    ablation_report.write_report(work_dir)
    left, right = figures[0].axes
    assert [label.get_text() for label in left.get_yticklabels()] == ['baseline', 'gfl']
    assert left.get_ylim() == (1.5, -0.5)  # the baseline above
    dots = [line.get_xydata().tolist() for line in left.lines]
    expected = [[[10, 0], [20, 0], [30, 0]], [[20, 0]], [[15, 1], [25, 1], [35.1, 1]], [[25.0333, 1]]]
    assert [np.round(line, 4).tolist() for line in dots] == expected
    (bar,) = right.containers
    (segment,) = bar.lines[2][0].get_segments()
    half = 4.30265 * 0.057735 / math.sqrt(3)  # differences 5, 5, 5.1
    np.testing.assert_allclose(segment, [[5.0333 - half, 1], [5.0333 + half, 1]], atol=1e-3)


def test_report_of_one_seed_claims_nothing(work_dir):
    save(work_dir, 'baseline', 0, **{'my/score': 12.5})
    save(work_dir, 'qfl', 0, **{'my/score': 15.0})
    save(work_dir, 'gfl', 1, **{'my/score': 3.0})
    text = ablation_report.write_report(work_dir)
    assert '**qfl**: +2.5 score with one seed, which shows no spread' in text
    assert '**gfl**: no seed in common with the baseline' in text
    assert 'better' not in text.partition('## Scores')[0] and '15.0 |' in text  # no fraction: as it is given
    assert 'Not measured: qfl seed 1 (not run); baseline seed 1 (not run); gfl seed 0 (not run).' in text


def test_report_of_a_worse_row_and_of_equal_ones(work_dir):
    for seed in range(2):
        save(work_dir, 'baseline', seed, **{'x/mAP': 0.5 + 0.1 * seed})
        save(work_dir, 'qfl', seed, **{'x/mAP': 0.4 + 0.1 * seed})
        save(work_dir, 'gfl', seed, **{'x/mAP': 0.5 + 0.1 * seed})
    text = ablation_report.write_report(work_dir)
    assert '**qfl** is worse than the baseline: -10.0 mAP' in text
    assert (
        '**gfl** is not told apart from the baseline: +0.0 mAP' in text
        and 'too small for any feasible number of seeds' in text
    )


def test_a_miss_rate_is_better_where_it_is_lower(work_dir):
    for seed in range(2):
        save(work_dir, 'baseline', seed, **{'crowd_human/mMR': 0.5 + 0.1 * seed, 'crowd_human/JI': 0.7})
        save(work_dir, 'qfl', seed, **{'crowd_human/mMR': 0.4 + 0.1 * seed, 'crowd_human/JI': 0.7})
        save(work_dir, 'gfl', seed, **{'crowd_human/mMR': 0.6 + 0.1 * seed, 'crowd_human/JI': 0.7})
    text = ablation_report.write_report(work_dir)
    assert '**qfl** is better than the baseline: -10.0 mMR' in text and '**gfl** is worse than the baseline' in text
    assert 'by crowd_human/mMR, of which lower is better' in text and '| mMR (lower is better) | JI |' in text
    assert read(work_dir / 'report.json')['lower_is_better'] is True


def test_the_direction_of_a_user_defined_metric_can_be_given(work_dir):
    for seed in range(2):
        save(work_dir, 'baseline', seed, **{'mine/misses': 5.0 + seed, 'mine/hits': 2.0})
        save(work_dir, 'qfl', seed, **{'mine/misses': 4.0 + seed, 'mine/hits': 3.0})
    assert '**qfl** is worse' in ablation_report.write_report(work_dir)
    text = ablation_report.write_report(work_dir, lower=True)
    assert '**qfl** is better' in text and '| misses (lower is better) | hits |' in text  # the first column alone


def test_report_without_results(work_dir, tmp_path_factory):
    assert 'Nothing was measured yet.' in ablation_report.write_report(work_dir)
    save(work_dir, 'baseline', 0, **{'x/mAP': 0.0})
    assert 'Every score is 0' in ablation_report.write_report(work_dir)
    with pytest.raises(RowError, match='is not the work dir of an ablation'):
        ablation_report.write_report(tmp_path_factory.mktemp('other'))
    with pytest.raises(RowError, match='does not exist'):
        ablation_report.write_report(work_dir / 'none')


# The runner ---------------------------------------------------------------------------------------------------------

TRAINING = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[1]).parent / '20240101_000000' / 'vis_data'
folder.mkdir(parents=True)
(folder / 'scalars.json').write_text(json.dumps({'coco/bbox_mAP': 0.25, 'time': 1.0, 'step': 12}))
"""


class FastLauncher(Launcher):
    """Starts what stands for a training."""

    def command(self, tool, arguments, name):
        return [sys.executable, '-S', '-c', TRAINING, arguments[0]]


def test_the_runner_trains_the_rows(retina, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, 'missing', lambda cfg: None)  # COCO is not needed for what stands for a training
    paths = [retina.path_of(row) for row in ('baseline', 'gfl')]
    assert running.run_all(paths, [1], tmp_path, retina, FastLauncher('none', 1), jobs=2) == 0
    assert capsys.readouterr().out.count('seed 1: coco/bbox_mAP 0.25') == 2
    kept = read(tmp_path / 'retinanet_r50_fpn_1x_coco' / 'gfl' / 'seed-1' / 'result.json')
    assert kept['scores'] == {'coco/bbox_mAP': 0.25} and kept['preset'] == 'ablation' and kept['epochs'] == 12
    ablation.write_rows(retina, tmp_path)
    assert '| gfl | mmdet_gfl.RetinaGFLHead: JointQuality and GeneralBox | 1 | 25.0 |' in (
        ablation_report.write_report(tmp_path)
    )
    assert running.open_runs(paths, [1], tmp_path) == ([], 2)


def test_load_from_is_where_a_training_begins_and_not_where_it_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(running, 'missing', lambda cfg: None)
    started = []

    class Recorder(FastLauncher):
        def command(self, tool, arguments, name):
            started.append('--resume' in arguments)
            return super().command(tool, arguments, name)

    plan = read_ablation('retinanet_r50_fpn_1x_coco', ['baseline'], options={'load_from': 'coco.pth'})
    assert plan.config(plan.path_of('baseline'), 0).load_from == 'coco.pth'
    run_dir = run_dir_of(plan.path_of('baseline'), 0, tmp_path)
    running.run_all([plan.path_of('baseline')], [0], tmp_path, plan, Recorder('none', 1))
    (run_dir / 'result.json').unlink()
    shutil.rmtree(run_dir / '20240101_000000')
    (run_dir / 'last_checkpoint').write_text(str(run_dir / 'epoch_1.pth'))
    (run_dir / 'epoch_1.pth').touch()
    running.run_all([plan.path_of('baseline')], [0], tmp_path, plan, Recorder('none', 1))
    assert started == [False, True]
