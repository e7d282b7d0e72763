"""Distances worked out by hand, against the heads' own losses, and against MMDetection's assigners."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases import DYNAMIC_HOSTS, HOSTS, build, gfl_config, host_config, host_features, metas, objects, stock_config
from mmdet.registry import DATASETS, MODELS
from mmdet.structures.bbox import distance2bbox
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

from mmdet_gfl.analysis import regression_targets as tool
from mmdet_gfl.analysis.counterparts import build_head, head_config
from mmdet_gfl.analysis.ideal_predictions import ideal_predictions, with_dirac_box
from mmdet_gfl.analysis.regression_targets import add_image, new_report, training_dataset
from mmdet_gfl.analysis.target_counts import RESOLUTION, TargetHistogram, by_area, density
from mmdet_gfl.analysis.target_report import PERCENTILES, as_dict, as_text
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.models.boxes.general import GeneralBox
from mmdet_gfl.models.task_modules import Locations
from mmdet_gfl.visualization.regression_targets import draw


def gfl_head(model):
    return build_head(head_config(model))


NONE = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))


def histogram(*distances, reg_max=16, delta=1.0):
    counts = TargetHistogram(GeneralBox(reg_max=reg_max, delta=delta))
    counts.add(torch.tensor(distances, dtype=torch.float32).reshape(-1, 1))
    return counts


# Counting -----------------------------------------------------------------------------------------------------------


def test_percentiles_by_hand():
    counts = histogram(*range(1, 101))  # 1, 2, ..., 100
    assert [counts.percentile(p) for p in (1, 50, 90, 99, 99.9, 100)] == [1, 50, 90, 99, 100, 100]
    assert counts.clipped_share == 0.84 and counts.largest == 100 and counts.targets == counts.positives == 100
    assert histogram(0.3).percentile(50) == pytest.approx(0.3)  # never beyond the largest


def test_percentiles_are_numpys_to_a_bin():
    values = torch.rand(5000) ** 2 * 20
    counts = histogram(*values.tolist())
    for percent in PERCENTILES:
        exact = np.percentile(values.numpy(), percent, method='inverted_cdf')
        assert 0 <= counts.percentile(percent) - exact <= 1 / RESOLUTION


@pytest.mark.parametrize(
    'distance, delta, least',
    [(0, 1, 1), (0.9, 1, 1), (0.91, 1, 2), (15.9, 1, 16), (15.91, 1, 17), (16, 1, 17), (3.9, 0.5, 8), (3.9, 2, 3)],
)
def test_the_smallest_reg_max_of_one_target(distance, delta, least):
    # DFL keeps targets below n - 0.1: the least n is the first that leaves distance / delta alone.
    counts = histogram(distance, delta=delta)
    assert counts.smallest_reg_max(0) == least
    kept = [
        n for n in range(1, 30) if torch.tensor(distance / delta).clamp(max=n - 0.1) == torch.tensor(distance / delta)
    ]
    assert kept[0] == least


def test_a_share_may_be_cut():
    counts = histogram(*[1.5] * 990, *[5.5] * 9, 30.5)
    assert [counts.smallest_reg_max(share) for share in (0, 0.0005, 0.001, 0.009, 0.01, 0.5)] == [31, 31, 6, 6, 2, 2]
    beyond = counts.beyond()
    assert beyond[64 * 5] == pytest.approx(0.01) and beyond[64 * 6] == pytest.approx(0.001) and beyond[-1] == 0


def test_targets_outside_of_the_object_count_as_zero():
    counts = histogram(-1.0, 2.0)
    assert counts.outside == 1 and counts.percentile(50) == 0 and counts.largest == 2


def test_no_targets():
    counts = histogram()
    assert counts.smallest_reg_max(0.001) is None and counts.clipped_share == 0
    assert np.isnan(counts.percentile(50))


def test_counts_in_steps_are_those_at_once():
    steps, joint = histogram(0.5, 3.0, -1.0), histogram(0.5, 3.0, -1.0, 20.0, 7.0)
    assert len(steps.bins) == 3 * RESOLUTION + 1
    steps.add(torch.tensor([[20.0], [7.0]]))
    steps.add(torch.tensor([[]]).reshape(0, 1))
    for key in ('positives', 'targets', 'clipped', 'outside', 'largest'):
        assert getattr(steps, key) == getattr(joint, key), key
    assert np.array_equal(steps.bins, joint.bins) and np.array_equal(steps.needs, joint.needs)


def test_density_is_one_in_all():
    edges, heights = density(histogram(0.0, 0.25, 0.26, 3.9), 0.25)
    assert heights.sum() * 0.25 == 1 and len(edges) == 16
    assert heights[0] == 2 and heights[1] == 1 and heights[15] == 1  # (0, 0.25], with 0 itself; (0.25, 0.5]; (3.75, 4]


# Targets ------------------------------------------------------------------------------------------------------------


def one_object(*box):
    return InstanceData(bboxes=torch.tensor([box], dtype=torch.float32), labels=torch.tensor([0]))


def test_one_object_one_level_by_hand():
    # One level of stride 16 on 64 x 64 px: FCOS's points at 8, 24, 40, 56. The object, 16 to 48 px, holds those at 24
    # and 40, and without center sampling each of the four learns it.
    head = MODELS.build(
        host_config('FCOS', strides=[16], regress_ranges=((-1, 1e8),), center_sampling=False, norm_on_bbox=True)
    )
    report = new_report(head, 1)
    add_image(report, head, (64, 64), one_object(16, 16, 48, 48), metas((64, 64), 1)[0], NONE)
    (level,) = report.levels
    # 24 is 8 px from the left side and 24 px from the right one: half a stride, and one and a half.
    assert level.positives == 4 and level.targets == 16 and level.bins.sum() == 16
    assert level.bins[RESOLUTION // 2] == level.bins[3 * RESOLUTION // 2] == 8
    assert report.longest.targets == 4 and report.longest.bins[3 * RESOLUTION // 2] == 4
    assert level.smallest_reg_max(0) == 2 and report.objects == [0, 1, 0]  # 32 x 32 px is medium


def test_the_first_location_of_a_level_is_the_levels():
    # The point at (8, 8) of stride 16 is 12 px from two sides; those of stride 8 may learn 8 px at most.
    ranges = ((-1, 8), (8, 1e8))
    head = MODELS.build(host_config('FCOS', strides=[8, 16], regress_ranges=ranges, center_sampling=False))
    first, second = tool.distance_targets(head, (64, 64), one_object(0, 0, 20, 20), metas((64, 64), 1)[0], NONE)[0]
    assert len(first) == 0 and second.tolist() == [[0.5, 0.5, 0.75, 0.75]]


@pytest.mark.parametrize('host', HOSTS)
def test_a_positive_is_counted_on_its_level(host):
    head = MODELS.build(host_config(host))
    size = (300, 300) if host == 'SSD' else (256, 320)
    gts, meta = objects([12], size)[0], metas(size, 1)[0]
    distances, learned = tool.distance_targets(head, size, gts, meta, NONE)
    sizes = [tuple(level.shape[-2:]) for level in host_features(host, size, 1)]
    targets = head.targets(head.assignment_batch(sizes, [gts], [meta], [NONE]))
    strides = [stride[0] for stride in head.prior_generator.strides]
    assert len(learned) == sum(len(level) for level in distances) == len(targets.pos) > 0
    for stride, level in zip(strides, distances):
        on_level = targets.locations.strides == stride
        assert len(level) == on_level.sum()
        # Back to pixels from the centres they were taken at, the distances are the objects.
        boxes = distance2bbox(targets.locations.centers[on_level], level * stride)
        torch.testing.assert_close(boxes, targets.gt_bboxes[on_level], rtol=0, atol=1e-3)


# Assigners that depend on predictions -------------------------------------------------------------------------------


@pytest.mark.parametrize('host', DYNAMIC_HOSTS)
def test_ideal_predictions_are_the_objects(host):
    head = MODELS.build(host_config(host))
    assigning = with_dirac_box(head)
    assert isinstance(head.box, GeneralBox) and assigning.rtm_reg is head.rtm_reg
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 160, 160], [32, 32, 96, 96]]), labels=torch.tensor([0, 1]))
    sizes = [(20, 32), (10, 16), (5, 8)]
    class_logits, outputs = ideal_predictions(head, sizes, gts)
    batch = assigning.assignment_batch(sizes, [gts], metas((160, 256), 1), None, class_logits, outputs)
    logits, codes = batch.predictions()
    assert not logits.any() and logits.shape == (1, 840, 5) and codes.shape == (1, 840, 4)
    points = torch.cat(head.prior_generator.grid_priors(sizes, device='cpu'))
    strides = torch.tensor([8.0, 16, 32]).repeat_interleave(torch.tensor([640, 160, 40]))
    boxes = assigning.box.decode(codes[0], Locations.of_priors(points, strides), assigning)
    inner = ((points >= 32) & (points <= 96)).all(dim=1)
    outer = (points <= 160).all(dim=1) & ~inner
    assert torch.equal(boxes[inner], gts.bboxes[1].expand(int(inner.sum()), 4))
    near = outer & (strides > 8)  # n = 16 strides of 8 px reach 128 px
    assert torch.equal(boxes[near], gts.bboxes[0].expand(int(near.sum()), 4))
    far = (outer & (strides == 8)).nonzero().squeeze(1)
    assert torch.equal(
        boxes[far], points[far].repeat(1, 2) + torch.cat([-points[far], 160 - points[far]], 1).clamp(-128, 128)
    )
    outside = ~(inner | outer)
    assert torch.equal(boxes[outside], points[outside].repeat(1, 2))


@pytest.mark.parametrize('reg_max', [16, 3])
def test_one_object_of_a_dynamic_assigner(reg_max):
    """An object of 192 px is 6, 12 and 24 strides wide: with n = 3 only locations at stride 32 can reach its sides."""
    head = MODELS.build(host_config('RTMDet', box=None) | dict(box=dict(type='mmdet_gfl.GeneralBox', reg_max=reg_max)))
    distances, learned = tool.distance_targets(
        head, (320, 320), one_object(64, 64, 256, 256), metas((320, 320), 1)[0], NONE
    )
    counts = [len(level) for level in distances]
    assert 'each location predicts the smallest object around it' in as_text(new_report(head, 1), 0.001)
    assert torch.equal(learned, torch.tensor([[64.0, 64, 256, 256]]).expand(sum(counts), 4))
    # 13 candidates, the largest number, each of an IoU of 1; with n = 3, in the middle of stride 32 only.
    assert counts[:2] == [0, 0] and 0 < counts[2] <= 9 if reg_max == 3 else sum(counts) == 13 and min(counts) > 0
    assert all(level.max() <= 12 / 2**index + 1 for index, level in enumerate(distances) if len(level))


def test_the_verdict_of_a_dynamic_assigner_does_not_follow_reg_max():
    """The counts of all levels do: with a larger n, an object of 512 px is matched at stride 8 too, 32 strides away."""
    safe_of_all = []
    for reg_max in (4, 16, 64):
        box = dict(type='mmdet_gfl.GeneralBox', reg_max=reg_max)
        report = new_report(head := MODELS.build(host_config('RTMDet') | dict(box=box)), 1)
        add_image(report, head, (640, 640), one_object(64, 64, 576, 576), metas((640, 640), 1)[0], NONE)
        safe_of_all.append(report.all.smallest_reg_max(0))
        # At stride 32 the object is 16 strides wide, and the locations around its middle reach 8 to 10 of them.
        safe = report.decisive.smallest_reg_max(0)
        assert 9 <= safe <= 11 and as_dict(report, 0)['smallest_safe_reg_max'] == safe
        assert f'with delta=1: {safe}, which cuts at most 0.00% of the targets short at the coarsest level' in as_text(
            report, 0
        )
    assert safe_of_all == sorted(safe_of_all) and safe_of_all[0] < 12 and safe_of_all[2] > 32
    report = new_report(head := MODELS.build(host_config('FCOS')), 1)
    for end in (100, 576):  # matched on two levels
        add_image(report, head, (640, 640), one_object(64, 64, end, end), metas((640, 640), 1)[0], NONE)
    assert sum(level.targets > 0 for level in report.levels) > 1
    assert report.decisive.targets == report.all.targets and 'coarsest' not in as_text(report, 0)


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('box', [dict(reg_max=4), dict(reg_max=4, delta=0.5)], ids=['1', '0.5'])
def test_the_share_is_the_heads_own(host, box):
    head = build(host_config(host, box=None) | dict(box=dict(type='mmdet_gfl.GeneralBox', **box)))
    size = (300, 300) if host == 'SSD' else (256, 320)
    report = new_report(head, 3)
    gts = objects([3, 0, 7], size)
    for gt, meta in zip(gts, metas(size, 3)):
        add_image(report, head, size, gt, meta, NONE)
    features = host_features(host, size, 3)
    losses = head.loss_by_feat(*head(features), gts, metas(size, 3))
    assert report.all.clipped_share == pytest.approx(float(losses['clipped_share'])) and report.all.clipped > 0
    assert report.images == 3 and report.empty_images == 1 and sum(report.objects) == 10


def test_targets_are_those_of_the_stock_atss_head():
    # MMDetection's own head and assigner, over a batch of three images at once.
    stock = MODELS.build(stock_config('ATSS'))
    head = gfl_head(ConfigDict(bbox_head=stock_config('ATSS'), train_cfg=stock_config('ATSS').train_cfg))
    size, gts = (256, 320), objects([5, 0, 9], (256, 320))
    sizes = [tuple(level.shape[-2:]) for level in host_features('ATSS', size, 3)]
    anchors, flags = stock.get_anchors(sizes, metas(size, 3), device='cpu')
    of_levels, labels, _, boxes_of, _, _ = stock.get_targets(anchors, flags, gts, metas(size, 3))
    images = [tool.distance_targets(head, size, gt, meta, NONE)[0] for gt, meta in zip(gts, metas(size, 3))]
    for index, stride in enumerate(stock.prior_generator.strides):
        pos = labels[index].flatten() < 5
        priors = of_levels[index].reshape(-1, 4)[pos]
        boxes = boxes_of[index].reshape(-1, 4)[pos]
        centers = (priors[:, :2] + priors[:, 2:]) / 2
        expected = torch.cat((centers - boxes[:, :2], boxes[:, 2:] - centers), dim=1) / stride[0]
        found = torch.cat([image[index] for image in images])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert sum(len(image[0]) for image in images) > 0


@pytest.mark.parametrize('host', HOSTS)
def test_a_stock_head_has_the_targets_of_ours(host):
    size = (300, 300) if host == 'SSD' else (256, 320)
    found = []
    for cfg in (stock_config(host), host_config(host)):
        model = ConfigDict(bbox_head=cfg, train_cfg=cfg.get('train_cfg'), test_cfg=cfg.test_cfg)
        head = gfl_head(model)
        report = new_report(head, 1)
        add_image(report, head, size, objects([8], size)[0], metas(size, 1)[0], NONE)
        assert report.assumed == (cfg.type == f'{host}Head')
        found.append(as_dict(report, 0.001))
    assert found[0].pop('reg_max_is_assumed') and not found[1].pop('reg_max_is_assumed')
    assert found[0] == found[1] and found[0]['all']['positives'] > 0


def test_the_stock_gfl_head_keeps_its_reg_max():
    cfg = gfl_config('GFLHead', ours=False, reg_max=7)
    head = gfl_head(ConfigDict(bbox_head=cfg, train_cfg=cfg.train_cfg, test_cfg=cfg.test_cfg))
    report = new_report(head, 1)
    assert head.box.reg_max == 7 and not report.assumed


def test_a_foveabox_with_deformable_convolution_is_measured():
    cfg = stock_config('Fovea', with_deform=True)
    assert gfl_head(ConfigDict(bbox_head=cfg)).strides[0] == 8


@pytest.mark.parametrize(
    'model, words',
    [
        (dict(type='FasterRCNN', rpn_head=dict()), r"model\.type='FasterRCNN'.*accepted: ATSSHead"),
        (dict(bbox_head=[dict(type='ATSSHead')]), 'is not one head'),
        (dict(bbox_head=dict(type='YOLOV3Head')), "type='YOLOV3Head' is not a GFL head.* or mmdet_gfl.SSDGFLHead"),
        (dict(bbox_head=dict(type='Nonsense')), "type='Nonsense' is not a GFL head"),
        (dict(bbox_head=dict(type='mmdet_gfl.GFLHead')), 'cannot be built from model.bbox_head: .*num_classes'),
    ],
)
def test_other_heads_are_refused(model, words):
    with pytest.raises(UserError, match=words):
        gfl_head(ConfigDict(model))


def test_objects_that_no_location_learns():
    # 2 px around (13, 13), between the points of every level: no point is inside.
    head = MODELS.build(host_config('FCOS', center_sampling=False))
    report = new_report(head, 1)
    gts = InstanceData(
        bboxes=torch.tensor([[13.0, 13.0, 15.0, 15.0], [100.0, 100.0, 220.0, 230.0]]), labels=torch.tensor([0, 1])
    )
    crowd = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 50.0, 50.0]]), labels=torch.tensor([1]))
    add_image(report, head, (256, 256), gts, metas((256, 256), 1)[0], crowd)
    assert report.unassigned == [1, 0, 0] and report.objects == [1, 0, 1] and report.ignored == 1
    text = as_text(report, 0.001)
    assert '1 objects, 1 of them small, are matched to no location' in text
    assert '2 objects, 1 ignored regions' in text


def test_an_ignored_region_takes_anchors_away():
    head = MODELS.build(host_config('ATSS', train_cfg=dict(stock_config('ATSS').train_cfg)))
    head.assigner.ignore_iof_thr = 0.5
    gts, meta = one_object(64, 64, 128, 128), metas((256, 256), 1)[0]
    crowd = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 256.0, 256.0]]), labels=torch.tensor([0]))
    free, taken = (len(tool.distance_targets(head, (256, 256), gts, meta, region)[1]) for region in (NONE, crowd))
    assert taken < free


def test_areas():
    boxes = torch.tensor([[0, 0, 31, 32], [0, 0, 32, 32], [0, 0, 95, 96], [0, 0, 96, 96.0]])
    assert by_area(boxes) == [1, 2, 1] and by_area(boxes[:0]) == [0, 0, 0]


def test_a_broken_box_is_named():
    head = MODELS.build(host_config('FCOS'))
    with pytest.raises(UserError, match=r'image image-0\.jpg: box 0 of 1'):
        add_image(new_report(head, 1), head, (64, 64), one_object(0, 0, float('nan'), 9), metas((64, 64), 1)[0], NONE)


# Data sets ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    from mmdet_gfl.datasets.shapes import Parameters, make_shapes

    place = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(place, Parameters(train=12, val=6, width=160, height=160))
    return place


@pytest.fixture
def cfg(root, shapes, monkeypatch):
    monkeypatch.setenv('SHAPES_ROOT', str(shapes))
    data = Config.fromfile(root / 'configs/_base_/datasets/shapes_detection.py')
    head = host_config('ATSS', num_classes=10)
    return Config(dict(data._cfg_dict, model=dict(bbox_head=head, train_cfg=head.pop('train_cfg'))))


def test_the_same_whatever_the_number_of_workers(cfg):
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline.insert(3, dict(type='RandomCrop', crop_size=(0.7, 0.7), crop_type='relative_range'))
    alone = tool.measure(cfg, images=8)
    assert alone.images == 8 and alone.available == 12
    shared = tool.measure(cfg, images=8, workers=2)
    assert as_dict(alone, 0.001) == as_dict(shared, 0.001)
    assert as_dict(alone, 0.001) != as_dict(tool.measure(cfg, images=8, seed=1), 0.001)


def test_the_pipeline_of_the_training_counts(cfg):
    small = tool.measure(cfg)
    cfg.train_dataloader.dataset.pipeline[2].scale = (640, 640)
    large = tool.measure(cfg)
    assert small.images == large.images == 12 and small.empty_images == large.empty_images
    assert large.objects[2] > small.objects[2] and sum(large.objects) == sum(small.objects)
    assert small.ignored == large.ignored


def test_the_split_for_validation_takes_the_pipeline_too(cfg):
    report = tool.measure(cfg, 'val')
    assert report.images == 6
    # A test pipeline leaves the boxes in the file's pixels; these are twice as large.
    boxes = training_dataset(cfg, 'val')[0]['data_samples'].gt_instances.bboxes.tensor
    cfg.train_dataloader.dataset.pipeline[2].scale = (160, 160)
    half = training_dataset(cfg, 'val')[0]['data_samples'].gt_instances.bboxes.tensor
    torch.testing.assert_close(boxes[:, 3] - boxes[:, 1], 2 * (half[:, 3] - half[:, 1]))


def test_images_that_the_data_preprocessor_resizes(cfg):
    unchanged = tool.measure(cfg, images=6)
    resize = dict(type='BatchSyncRandomResize', random_size_range=(640, 640), size_divisor=32, interval=1)
    cfg.model.data_preprocessor = dict(type='DetDataPreprocessor', batch_augments=[resize])
    report = tool.measure(cfg, images=6)  # the first as it is, the others of twice the size
    assert report.images == 6 and sum(report.objects) == sum(unchanged.objects)
    assert report.objects[2] > unchanged.objects[2]
    cfg.model.data_preprocessor.batch_augments[0].random_size_range = (160, 640)
    assert as_dict(tool.measure(cfg, images=6), 0.001) == as_dict(tool.measure(cfg, images=6, workers=1), 0.001)


def test_repeated_and_joined_data_sets(cfg):
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, inner])
    )
    assert tool.measure(cfg, images=3).available == 48
    assert tool.measure(cfg, 'val', images=2).images == 2


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_cannot_be_read(cfg, workers, shapes, tmp_path):
    for image in json.loads((shapes / cfg.train_dataloader.dataset.ann_file).read_text())['images']:
        (tmp_path / image['file_name']).write_text('no image')
    cfg.train_dataloader.dataset.data_prefix.img = f'{tmp_path}/'
    with pytest.raises(UserError, match=r'image 0 of the data set cannot be read: '):
        tool.measure(cfg, workers=workers)


@DATASETS.register_module(force=True)
class NoImages(Dataset):
    """A data set that does not inherit from MMEngine's."""

    metainfo: ClassVar = dict(classes=('a', 'b'))

    def __init__(self, **_):
        super().__init__()

    def __len__(self):
        return 0


EMPTY = dict(_delete_=True, type='NoImages')


@pytest.mark.parametrize(
    'change, split, words',
    [
        (dict(val_dataloader=None), 'val', 'no val_dataloader'),
        (dict(train_dataloader=None), 'val', 'takes the pipeline of train_dataloader'),
        (dict(train_dataloader=dict(dataset=dict(ann_file='no.json'))), 'train', 'no.json does not exist'),
        (
            dict(train_dataloader=dict(dataset=dict(filter_cfg=dict(min_size=999)))),
            'train',
            'gives no image under',
        ),
        (dict(train_dataloader=dict(dataset=dict(data_prefix=dict(img='nowhere/')))), 'train', '12 of the 12 images'),
        (
            dict(train_dataloader=dict(dataset=dict(nonsense=1))),
            'train',
            "argument 'nonsense'; the config sets it in train_dataloader.dataset.nonsense",
        ),
        (dict(train_dataloader=dict(dataset=dict(pipeline=[]))), 'train', 'does not end in PackDetInputs'),
        (dict(val_dataloader=dict(dataset=EMPTY)), 'val', '^val_dataloader.dataset: NoImages gives no image'),
        (dict(train_dataloader=dict(dataset=EMPTY)), 'train', '^train_dataloader.dataset: NoImages gives no image'),
    ],
)
def test_data_sets_that_cannot_be_measured(cfg, change, split, words):
    cfg.merge_from_dict(change)
    with pytest.raises(UserError, match=words):
        tool.measure(cfg, split)


# Telling ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def report():
    head = MODELS.build(host_config('FCOS', strides=[8, 64], regress_ranges=((-1, 64), (64, 1e8))))
    report = new_report(head, 5)
    report.images, report.objects = 2, [1, 1, 2]
    report.add([torch.full((250, 4), 2.5), torch.zeros(0, 4)])
    report.add([torch.tensor([[20.25, 2.5, 2.5, -0.5]]), torch.zeros(0, 4)])
    return report


def test_the_table(report):
    lines = as_text(report, 0.001).splitlines()
    assert lines[0] == '2 of 5 images, 0 of them without objects; 4 objects, 0 ignored regions'
    assert lines[1].startswith('of the objects 25.0% small, 25.0% medium, 50.0% large')
    assert '0.10% of the targets are below 0 and count as 0' in lines
    first, second, total = (next(line.split() for line in lines if line.split()[:1] == [n]) for n in ('0', '1', 'all'))
    assert first == ['0', '8', '251', '2.5', '2.5', '2.5', '2.5', '20.2', '0.10%', '3']
    assert second == ['1', '64', '0', *'-------'] and total == ['all', *first[2:]]
    assert lines[-2].endswith(
        'now reg_max=16, delta=1 reaches 16 strides, 128 to 1024 px: 0.100% of the targets are clipped'
    )
    assert lines[-1] == 'smallest safe reg_max with delta=1: 3, which cuts at most 0.10% of the targets short'
    assert as_text(report, 0).splitlines()[-1].startswith('smallest safe reg_max with delta=1: 21')


def test_a_training_without_targets_is_reported(report):
    text = as_text(new_report(MODELS.build(host_config('FCOS')), 1), 0.001)
    assert text.endswith('check the classes, the boxes and the image size')


def test_an_assumed_reg_max_is_reported():
    report = new_report(MODELS.build(host_config('FCOS', 'CenternessBranch', 'dirac')), 1)
    report.add([torch.full((1, 4), 2.5), *[torch.zeros(0, 4)] * 4])
    assert "the head has no reg_max; with GeneralBox's default reg_max=16" in as_text(report, 0.001)


def test_the_json(report):
    content = json.loads(json.dumps(as_dict(report, 0.001)))
    assert content['smallest_safe_reg_max'] == 3 and content['objects'] == dict(small=1, medium=1, large=2)
    first, second = content['levels']
    assert first['stride'] == 8 and first['percentiles']['99.9'] == 2.5 and first['max'] == 20.25
    assert first['clipped_share'] == 1 / 1004 and first['below_zero'] == 1
    counts = np.array(first['histogram']['counts'])
    edges = np.arange(len(counts)) * first['histogram']['width']
    assert counts.sum() == 1004 and counts[edges == 2.5] == 1002 and counts[edges == 20.25] == 1
    assert second['max'] is None and second['smallest_safe_reg_max'] is None


def curves(axes):
    """Data of the lines by their label, in the order of the legend's; those without a label are marks."""
    return {line.get_label(): line.get_xydata() for line in axes.lines if not line.get_label().startswith('_')}


def test_the_picture(report):
    report.add([torch.zeros(0, 4), torch.tensor([[8.0, 8.0, 0.0, 0.1]])])
    figure = draw(report, 0.002, 'a title')
    left, right = figure.axes
    assert figure.get_suptitle() == 'Distance targets: a title, 2 images'

    # All 1,008 targets in bars of a quarter stride: bin k holds those in (k, k + 1] / 4.
    bars = {bar.get_x(): bar.get_height() for bar in left.patches if bar.get_height()}
    found = {0.0: 3, 2.25: 1002, 7.75: 2, 20.0: 1}
    assert bars == pytest.approx({x: 4 * count / 1008 for x, count in found.items()})
    assert {bar.get_width() for bar in left.patches} == {0.25}
    # Each level in bins of half a stride, drawn at their middle, as a share of its own targets.
    assert list(curves(left)) == ['stride 8', 'stride 64']
    for line, found in zip(curves(left).values(), ({0.25: 1, 2.25: 1002, 20.25: 1}, {0.25: 2, 7.75: 2})):
        filled = line[line[:, 1] > 0]
        assert dict(filled.tolist()) == pytest.approx({x: 2 * n / sum(found.values()) for x, n in found.items()})

    (share,) = (text for text in right.texts if '%' in text.get_text())
    assert share.get_text() == '0.20%' and share.xy[1] == 0.002

    # The share beyond x strides.
    assert list(curves(right)) == ['all levels', 'stride 8', 'stride 64']
    for line, below, total in zip(
        curves(right).values(), ((3, 1005, 1007), (1, 1003, 1003), (2, 2, 4)), (1008, 1004, 4)
    ):
        shares = dict(line.tolist())
        expected = [max(1 - count / total, 1e-9) for count in below]
        assert [shares[x] for x in (1.0, 2.5, 8.0) if x in shares] == pytest.approx(expected)
    assert right.get_yscale() == 'log'
    (clipped,) = (line for line in right.lines if line.get_linestyle() == '--')
    assert set(clipped.get_ydata()) == {0.002}


@pytest.mark.parametrize('delta, name', [(1.0, 'reg_max=16'), (0.5, 'reg_max=32, delta=0.5')])
def test_the_picture_marks_the_reach(report, delta, name):
    report.levels = [histogram(2.5, 3.5, reg_max=round(16 / delta), delta=delta) for _ in range(2)]
    report.all = report.levels[0]
    for axes in draw(report, 0.001, '').axes:
        (mark,) = (line for line in axes.lines if line.get_linestyle() == ':')
        assert list(mark.get_xdata()) == [16.0, 16.0]
        (text,) = (text for text in axes.texts if 'reg_max' in text.get_text())
        assert text.get_text() == name and text.xy[0] == 16.0
        assert axes.get_xlim() == pytest.approx((0, 1.1 * 16))


def test_a_picture_of_no_targets():
    left, right = draw(new_report(MODELS.build(host_config('FCOS')), 1), 0.001, '').axes
    assert curves(left) == {} and list(curves(right)) == ['all levels']
