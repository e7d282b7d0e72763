"""The shapes data set: what is drawn is annotated, it depends on its parameters alone, and files equal addresses."""

import functools
import math
import pickle
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine import fileio
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from pycocotools import mask as rle
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from mmdet_gfl.benchmark.mini import Mini
from mmdet_gfl.datasets.shapes import CLASSES, Parameters, drawing, export, make_shapes
from mmdet_gfl.datasets.shapes.coco_format import annotation, side_visible
from mmdet_gfl.datasets.shapes.dataset import ShapesDataset
from mmdet_gfl.datasets.shapes.drawing import draw
from mmdet_gfl.datasets.shapes.edges import Side, coverage, random_side
from mmdet_gfl.datasets.shapes.export import main
from mmdet_gfl.datasets.shapes.items import Item, rendered
from mmdet_gfl.datasets.shapes.outlines import area, bounding_box, moved, random_outline
from mmdet_gfl.datasets.shapes.parameters import parse
from mmdet_gfl.datasets.shapes.scene import CROWD_AT, EMPTY_EVERY, Scene, random_scene
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.engine.launch import check_data

SMALL = Parameters(train=20, val=6, width=64, height=48, seed=5)
SHARP = (Side(),) * 4
SMEARED = [Side('blur', 3.0), Side('fade', 4.0), Side('ghost', 5.0), Side('blur', 1.0), Side('fade', 1.3)]
PIPELINE = (dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs'))


@functools.cache
def annotations_of(length: int, count: int) -> list[dict]:
    """The annotations of the first ``count`` pictures of ``length`` x ``length`` px."""
    parameters = Parameters(width=length, height=length)
    return [fields for index in range(count) for fields in draw('train', index, parameters)[1]]


@pytest.fixture(scope='module')
def exported(tmp_path_factory) -> Path:
    """The small set as files."""
    root = tmp_path_factory.mktemp('exported') / 'shapes'
    make_shapes(root, SMALL)
    return root


def dataset(split='train', root=SMALL.address, pipeline=PIPELINE, **options) -> ShapesDataset:
    """A split of the small set."""
    return ShapesDataset(
        data_root=str(root),
        ann_file=f'annotations/instances_{split}.json',
        data_prefix=dict(img=f'{split}/'),
        pipeline=list(pipeline),
        **options,
    )


# --- outlines and edges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', CLASSES)
def test_outlines_have_area_1_and_the_raster_agrees_with_area_and_box(name):
    rng = np.random.default_rng(1)
    for _ in range(5):
        outline = moved(random_outline(name, rng), 60, 90.3, 89.6)
        assert area(outline) == pytest.approx(60**2)
        mask = coverage(outline, (0, 0), (180, 180))
        assert mask.sum() == pytest.approx(60**2, rel=0.02)
        touched = mask > 0.05
        columns, rows = np.flatnonzero(touched.any(axis=0)), np.flatnonzero(touched.any(axis=1))
        raster = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.allclose(raster, bounding_box(outline), atol=1.3)  # a pixel, and tips too thin to be seen


def test_coverage_of_a_rectangle_is_right_to_a_quarter_of_a_pixel():
    outline = [np.array([[2.25, 3.5], [7.75, 3.5], [7.75, 6.0], [2.25, 6.0]])]
    mask = coverage(outline, (1, 2), (6, 9))
    expected = np.outer([0, 0.5, 1, 1, 0, 0], [0, 0.75, 1, 1, 1, 1, 0.75, 0, 0])
    assert abs(mask - expected).max() <= 0.26
    assert mask.sum() == pytest.approx(5.5 * 2.5, rel=0.04)


@pytest.mark.parametrize('side', SMEARED, ids=str)
def test_kernel_and_labels_have_the_recorded_standard_deviation(side):
    weights = side.kernel()
    at = np.arange(-side.radius, side.radius + 1)
    assert weights.sum() == pytest.approx(1) and weights @ at == pytest.approx(0, abs=1e-9)
    assert math.sqrt(weights @ at**2) == pytest.approx(side.std, rel=0.03)
    rng = np.random.default_rng(0)
    errors = np.array([side.label_error(rng) for _ in range(20000)])
    assert errors.mean() == pytest.approx(0, abs=0.03 * side.std)
    assert errors.std() == pytest.approx(side.std, rel=0.02)
    assert abs(errors).max() <= side.radius


@pytest.mark.parametrize('where', range(4))
@pytest.mark.parametrize('side', SMEARED, ids=str)
def test_the_smear_that_is_drawn_is_the_one_recorded(side, where):
    box = np.array([40.0, 30.0, 120.0, 100.0])
    outline = [np.array([box[[0, 1]], box[[2, 1]], box[[2, 3]], box[[0, 3]]])]
    sides = tuple(side if index == where else Side() for index in range(4))
    corner, _, opacity = rendered(outline, sides, (200, 200))
    for index in range(4):
        profile, start = (opacity[35], corner[0]) if index % 2 == 0 else (opacity[:, 40], corner[1])
        profile = profile[: len(profile) // 2] if index < 2 else profile[len(profile) // 2 :]
        start += 0 if index < 2 else (opacity.shape[1 - index % 2]) // 2
        slope = abs(np.diff(profile))
        at = start + 1 + np.arange(len(slope))  # where two pixels meet
        edge = slope @ at / slope.sum()
        std = math.sqrt(slope @ (at - edge) ** 2 / slope.sum())
        assert edge == pytest.approx(box[index], abs=0.2)
        assert std == pytest.approx(side.std if index == where else 0, rel=0.04, abs=0.4)


def test_random_sides_are_as_ambiguous_as_promised():
    rng = np.random.default_rng(2)
    for length in (12.0, 50.0, 200.0):
        sides = [random_side(length, rng) for _ in range(200)]
        assert all(1 <= side.std <= max(1, 0.11 * length) + 0.5 for side in sides)
        assert {side.kind for side in sides} == ({'blur', 'fade'} if length == 12 else {'blur', 'fade', 'ghost'})


# --- annotations --------------------------------------------------------------------------------------------------


def item_of(box, sides=SHARP, size=(100, 80)):
    x1, y1, x2, y2 = box
    outline = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=float)]
    return Item(1, [outline], sides, *rendered(outline, sides, size))


def test_annotation_of_a_rectangle_worked_out_by_hand():
    fields = annotation(item_of((10, 20, 50, 45)), (100, 80), np.random.default_rng(0))
    segmentation = fields.pop('segmentation')
    assert fields.pop('area') == pytest.approx(1000, rel=0.01)
    box = [10.0, 20.0, 40.0, 25.0]
    expected = dict(category_id=2, bbox=box, true_bbox=box, iscrowd=0, visible=1.0)
    sides = dict(side_std=[0.0] * 4, side_kind=['sharp'] * 4, side_visible=[1.0] * 4)
    assert fields == expected | sides
    assert rle.toBbox(segmentation) == pytest.approx(box)


def test_a_side_cut_off_by_the_image_is_the_border_without_doubt():
    sides = (Side('blur', 3.0), Side('blur', 2.0), Side('blur', 3.0), Side())
    fields = annotation(item_of((-10, 20, 50, 95), sides), (100, 80), np.random.default_rng(0))
    assert fields['true_bbox'] == [0, 20, 50, 60]
    assert fields['side_kind'] == ['border', 'blur', 'blur', 'border']
    assert fields['side_std'] == [0, 2.0, 3.0, 0]
    x, y, width, height = fields['bbox']
    assert x == 0 and y != 20 and x + width != 50 and y + height == pytest.approx(80)


def test_labels_stay_in_the_image_and_on_its_border():
    rng = np.random.default_rng(0)
    outside, inside = item_of((-1, 20, 50, 45), (SMEARED[0],) * 4), item_of((1, 20, 50, 45), (SMEARED[0],) * 4)
    assert {annotation(outside, (100, 80), rng)['bbox'][0] for _ in range(50)} == {0}
    left = [annotation(inside, (100, 80), rng)['bbox'][0] for _ in range(50)]
    assert min(left) == 0 and max(left) > 3


def test_labels_scatter_around_the_true_edges_as_recorded():
    sides = (Side('ghost', 4.0), Side(), Side('fade', 2.0), Side('blur', 3.0))
    item, rng = item_of((20, 15, 80, 60), sides), np.random.default_rng(0)
    boxes = np.array([annotation(item, (100, 80), rng)['bbox'] for _ in range(2000)])
    boxes[:, 2:] += boxes[:, :2]
    assert np.allclose(boxes.mean(axis=0), [20, 15, 80, 60], atol=0.3)
    assert np.allclose(boxes.std(axis=0), [4, 0, 2, 3], rtol=0.06)


def test_side_visible_by_hand():
    opacity = np.ones((10, 20), np.float32)
    visible = opacity.copy()
    visible[:, :1] = 0
    assert side_visible(visible, opacity, np.array([0, 0, 20, 10])) == [0.5, 0.95, 1.0, 0.95]


def test_covered_parts_of_an_item_are_not_visible():
    item = item_of((10, 10, 30, 30))
    visible = item.visible_under((20, 0), np.ones((80, 80), np.float32))
    assert visible.sum() == pytest.approx(item.opacity.sum() / 2, rel=0.02)
    assert item.visible is item.opacity


def test_masks_in_the_annotations_agree_with_the_true_boxes_where_no_side_is_smeared():
    found = annotations_of(320, 30)
    clear = [fields for fields in found if set(fields['side_kind']) == {'sharp'} and not fields['iscrowd']]
    assert len(clear) > 50
    for fields in clear:
        assert fields['bbox'] == fields['true_bbox']
        assert rle.area(fields['segmentation']) == pytest.approx(fields['area'], rel=0.03, abs=8)
        error = abs(np.array(corners(rle.toBbox(fields['segmentation']))) - corners(fields['true_bbox'])).max()
        pointed = CLASSES[fields['category_id'] - 1] in ('star', 'arrow', 'triangle', 'crescent', 'heart')
        assert error <= (4 if pointed else 1.5), (fields, error)


def corners(box) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length, count', [(320, 30), (160, 40)])
def test_all_sizes_kinds_and_classes_are_there(length, count):
    found = annotations_of(length, count)
    sizes = np.array([fields['area'] for fields in found if not fields['iscrowd']])
    shares = np.histogram(sizes, [0, 32**2, 96**2, np.inf])[0] / len(sizes)
    assert (shares > 0.08).all(), shares
    assert {fields['category_id'] for fields in found} == set(range(1, len(CLASSES) + 1))
    kinds = [kind for fields in found for kind in fields['side_kind']]
    assert set(kinds) == {'sharp', 'blur', 'fade', 'ghost', 'border'}
    assert 0.15 < sum(kind in ('blur', 'fade', 'ghost') for kind in kinds) / len(kinds) < 0.4
    hidden = np.array([fields['visible'] for fields in found])
    assert 0.1 < (hidden < 0.9).mean() < 0.6 and hidden.min() > 0.4


@pytest.mark.parametrize('size', [(32, 32), (33, 400), (500, 120), (640, 480)])
def test_any_size(size):
    for index in (0, CROWD_AT):
        picture, items = random_scene(size, index, np.random.default_rng(index))
        assert picture.shape == (size[1], size[0], 3) and picture.std() > 5
        assert items and any(item.crowd for item in items) == (index == CROWD_AT)
        for item in items:
            fields = annotation(item, size, np.random.default_rng(0))
            for x1, y1, x2, y2 in (corners(fields['bbox']), corners(fields['true_bbox'])):
                assert 0 <= x1 < x2 <= size[0] + 1e-6 and 0 <= y1 < y2 <= size[1] + 1e-6


@pytest.mark.parametrize('box', [(60, 60, 140, 140), (-20, 60, 60, 140), (130, 140, 210, 220)])
def test_a_shadow_is_soft_all_around_also_where_the_image_cuts_it(box):
    """Its slope is at most that of a blur of 2.1 px: 0.6 x 100 / (2.1 x sqrt(2 pi)) = 11 per pixel."""
    item = item_of(box, size=(200, 200))
    for seed in range(20):
        scene = Scene((200, 200), np.random.default_rng(seed))
        scene.picture[:] = 100
        scene._paint_shadow(item, 80)
        plane = scene.picture[0]
        assert plane.min() < 75 and plane.max() == 100
        assert max(abs(np.diff(plane, axis=0)).max(), abs(np.diff(plane, axis=1)).max()) < 15


def test_only_the_classes_asked_for_are_drawn():
    parameters = Parameters(width=160, height=160, classes=('star', 'ring'))
    drawn = [fields for index in range(12) for fields in draw('train', index, parameters)[1]]
    assert {CLASSES[fields['category_id'] - 1] for fields in drawn} == {'star', 'ring'}


def test_rare_classes_are_a_seventh_of_the_small_objects_and_none_of_the_others():
    parameters = Parameters(
        width=160, height=160, clutter=0, classes=('ellipse', 'star', 'ring'), rare=('star', 'ring')
    )
    items = [item for index in range(200) for item in draw('train', index, parameters)[1]]
    small = [item['category_id'] for item in items if not item['iscrowd'] and item['area'] < 900]
    names = [CLASSES[number - 1] for number in small]
    assert len(names) > 250 and abs(names.count('star') / len(names) - 1 / 14) < 0.04
    assert abs(names.count('ring') / len(names) - 1 / 14) < 0.04
    others = {CLASSES[item['category_id'] - 1] for item in items if item['iscrowd'] or item['area'] > 1100}
    assert others == {'ellipse'}


def test_without_clutter_the_ground_is_calm_and_sides_are_as_ambiguous_as_ever():
    """The empty picture shows the ground alone: what changes from pixel to pixel there is texture, lines and blobs."""

    def roughness(clutter: float) -> float:
        picture = random_scene((160, 160), EMPTY_EVERY - 1, np.random.default_rng(3), clutter)[0].astype(float)
        blocks = picture.reshape(20, 8, 20, 8, 3).mean(axis=(1, 3))  # noise averages out
        return float(np.abs(np.diff(blocks, axis=0)).mean() + np.abs(np.diff(blocks, axis=1)).mean())

    assert roughness(0.0) < 0.5 * roughness(1.0)
    smeared = [
        np.mean([std > 0 for index in range(60) for item in draw('train', index, parameters)[1]
                 if not item['iscrowd'] for std in item['side_std']])
        for parameters in (Parameters(width=160, height=160), Parameters(width=160, height=160, clutter=0))
    ]  # fmt: skip
    assert smeared[0] == pytest.approx(smeared[1], abs=0.05)


# --- addresses and files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'parameters, address',
    [
        (Parameters(), 'shapes://'),
        (SMALL, 'shapes://train=20/val=6/width=64/height=48/seed=5/'),
        (Parameters(clutter=0.0, classes=('star', 'ring')), 'shapes://clutter=0.0/classes=star+ring/'),
        (Parameters(rare=('star', 'ring')), 'shapes://rare=star+ring/'),
    ],
)
def test_an_address_says_what_determines_a_set(parameters, address):
    assert parameters.address == address
    assert parse(address) == (parameters, '')
    assert parse(f'{address}/train/000001.bmp') == (parameters, 'train/000001.bmp')


@pytest.mark.parametrize(
    'address, words',
    [
        ('shapes://wide=3', "there is no 'wide'; there are train, val, width"),
        ('shapes://train=many', 'train=many is invalid; give a number, such as train=1000'),
        ('shapes://clutter=2', 'clutter=2.0 is invalid; give a number from 0 to 1'),
        ('shapes://classes=star+square', "there is no 'square'; there are ellipse, rectangle"),
    ],
)
def test_addresses_that_are_not_possible(address, words):
    for read in (fileio.exists, fileio.get, dataset_at):
        with pytest.raises(UserError) as error:
            read(address)
        assert words in str(error.value) and address in str(error.value)


def dataset_at(address):
    return dataset(root=address)


def test_files_that_a_set_does_not_have():
    for path in ('train/000021.bmp', 'train/000000.bmp', 'train/21.bmp', 'test/000001.bmp', 'annotations', ''):
        assert not fileio.exists(SMALL.address + path)
        with pytest.raises(FileNotFoundError, match=r'shapes://train=20/.*: the set has no file'):
            fileio.get(SMALL.address + path)
    assert fileio.exists(f'{SMALL.address}train/000020.bmp')


def test_a_local_copy_is_there_as_long_as_it_is_used():
    address = f'{SMALL.address}annotations/instances_val.json'
    with fileio.get_local_path(address) as path:
        assert Path(path).read_text() == fileio.get_text(address)
    assert not Path(path).exists()


def test_images_are_what_is_drawn():
    image = mmcv.imfrombytes(fileio.get(f'{SMALL.address}val/000004.bmp'))
    assert (image == draw('val', 3, SMALL)[0]).all() and image.std() > 5
    loaded = dataset('val')[3]['inputs']
    assert (loaded.permute(1, 2, 0).numpy() == image).all()


def test_a_picture_depends_on_split_number_and_seed_and_not_on_how_many_there_are():
    picture, objects = draw('val', 3, SMALL)
    again, same = draw('val', 3, replace(SMALL, train=999, val=9))
    assert (picture == again).all() and objects == same
    for split, index, parameters in (('train', 3, SMALL), ('val', 2, SMALL), ('val', 3, replace(SMALL, seed=6))):
        assert (draw(split, index, parameters)[0] != picture).mean() > 0.5


@pytest.mark.parametrize(
    'split, index, parameters, colour, labels, boxes',
    [
        (
            *('train', 0, Parameters(), [85.6, 82.7, 142.4], [4, 10, 9, 4]),
            [[133.86, 201.62, 99.31, 78.75], [150.18, 166.83, 102.91, 123.59], [81.58, 178.27, 76.53, 44.35]],
        ),
        (
            *('val', 4, Mini().shapes, [101.7, 102.3, 94.0], [1, 2, 5, 1, 5]),
            [[22.75, 54.03, 67.36, 57.41], [30.71, 4.62, 67.46, 40.37], [20.88, 13.33, 71.26, 67.5]],
        ),
    ],
)
def test_pictures_are_those_of_former_versions(split, index, parameters, colour, labels, boxes):
    """Results on the shapes are compared over the years."""
    picture, objects = draw(split, index, parameters)
    assert picture.mean((0, 1)).tolist() == pytest.approx(colour, abs=0.3)
    assert [one['category_id'] for one in objects] == labels
    assert np.allclose([one['bbox'] for one in objects[:3]], boxes, atol=0.02)


def test_processes_draw_the_same():
    """The worker starts from nothing, as do machines of a cluster; nothing of this process's memory is there."""
    here, loader = dataset(), DataLoader(dataset(), num_workers=1, multiprocessing_context='spawn', collate_fn=list)
    there = [item for batch in loader for item in batch]
    assert len(there) == len(here) == 20
    for one, other in zip(here, there):
        assert (one['inputs'] == other['inputs']).all()
        assert (
            one['data_samples'].gt_instances.bboxes.tensor == other['data_samples'].gt_instances.bboxes.tensor
        ).all()


def test_pictures_stay_in_memory_the_last_ones_where_there_is_no_room(monkeypatch):
    drawn = []
    monkeypatch.setattr(drawing, 'CACHED_BYTES', 3 * 3 * 64 * 48)  # three pictures
    monkeypatch.setattr(drawing, 'draw', lambda *key: drawn.append(key[1]) or draw(*key))
    read = drawing.drawer(replace(SMALL, seed=99))
    for index, expected in ((0, [0]), (1, [0, 1]), (2, [0, 1, 2]), (0, [0, 1, 2]), (3, [0, 1, 2, 3])):
        assert mmcv.imfrombytes(read('train', index)[0]).shape == (48, 64, 3)
        assert drawn == expected
    read('train', 0)
    assert drawn == [0, 1, 2, 3]
    read('train', 1)  # which was read least lately
    assert drawn == [0, 1, 2, 3, 1]


# --- the data set -------------------------------------------------------------------------------------------------


def test_pycocotools_loads_it(exported):
    coco = COCO(exported / 'annotations' / 'instances_train.json')
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.getImgIds()) == 20 and min(coco.getAnnIds()) == 1
    counts = {image: len(coco.getAnnIds(imgIds=image)) for image in coco.getImgIds()}
    assert [image for image, count in counts.items() if count == 0] == [EMPTY_EVERY]
    crowds = coco.loadAnns(coco.getAnnIds(iscrowd=True))
    assert [crowd['image_id'] for crowd in crowds] == [5, 15]
    assert all(coco.annToMask(crowd).sum() == pytest.approx(crowd['area'], rel=0.2) for crowd in crowds)


def test_files_and_addresses_are_the_same_data_set(exported):
    drawn, stored = dataset(), dataset(root=exported)
    assert len(drawn) == len(stored) == 20 and drawn.metainfo['classes'] == CLASSES
    for one, other in zip(drawn, stored):
        assert (one['inputs'] == other['inputs']).all()
    for one, other in zip(drawn.load_data_list(), stored.load_data_list()):
        assert one.pop('img_path').removeprefix(SMALL.address) == other.pop('img_path').removeprefix(f'{exported}/')
        assert one == other


def test_an_entry_holds_what_is_drawn():
    info = dataset('val').get_data_info(4)
    objects = draw('val', 4, SMALL)[1]
    assert (info['img_id'], info['height'], info['width']) == (5, 48, 64)
    assert info['img_path'] == f'{SMALL.address}val/000005.bmp'
    assert [one['bbox_label'] for one in info['instances']] == [one['category_id'] - 1 for one in objects]
    assert [one['ignore_flag'] for one in info['instances']] == [one['iscrowd'] for one in objects]
    assert np.allclose([one['bbox'] for one in info['instances']], [corners(one['bbox']) for one in objects])
    assert sum(one['ignore_flag'] for one in info['instances']) == 1


def test_the_config_reads_it(exported, root, monkeypatch):
    path = root / 'configs' / '_base_' / 'datasets' / 'shapes_detection.py'
    assert Config.fromfile(path).train_dataloader.dataset.data_root == 'shapes://'
    for place in (SMALL.address, str(exported)):
        monkeypatch.setenv('SHAPES_ROOT', place)
        cfg = Config.fromfile(path)
        check_data(cfg, 'train', 'val')
        for loader, images in ((cfg.train_dataloader, 20), (cfg.val_dataloader, 6)):
            built = DATASETS.build(loader.dataset)
            assert built.metainfo['classes'] == CLASSES and len(built) == images
            sample = built[0]
            assert tuple(sample['inputs'].shape) == (3, 240, 320)
        assert len(sample['data_samples'].gt_instances) > 0
    monkeypatch.setenv('SHAPES_ROOT', 'shapes://seed=one')
    with pytest.raises(UserError, match='seed=one is invalid'):
        check_data(Config.fromfile(path), 'train')


def test_filters_subsets_and_a_selection_of_classes():
    assert len(dataset(filter_cfg=dict(filter_empty_gt=True))) == 19
    assert len(dataset(filter_cfg=dict(filter_empty_gt=True), test_mode=True)) == 20
    assert len(dataset(filter_cfg=dict(min_size=48))) == 20
    assert [dataset(indices=[3, 7])[index]['data_samples'].img_id for index in (0, 1)] == [4, 8]
    some, every = dataset(metainfo=dict(classes=('star', 'heart'))), dataset()
    labels, whole = ([of.get_cat_ids(index) for index in range(20)] for of in (some, every))
    chosen = [CLASSES.index('star'), CLASSES.index('heart')]
    assert labels == [[chosen.index(label) for label in found if label in chosen] for found in whole]


def test_wrappers_and_copies():
    one = dict(
        type='mmdet_gfl.ShapesDataset',
        data_root=SMALL.address,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=list(PIPELINE),
    )
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[one, one]))
    repeated = DATASETS.build(dict(type='RepeatDataset', times=3, dataset=one))
    balanced = DATASETS.build(dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=one))
    copied = pickle.loads(pickle.dumps(DATASETS.build(one)))
    assert (len(joined), len(repeated), len(balanced), len(copied)) == (12, 18, 6, 6)
    image = copied[2]['inputs']
    assert all((other['inputs'] == image).all() for other in (joined[8], repeated[14], balanced[2]))


# --- evaluation and tools -----------------------------------------------------------------------------------------


def predictions(parameters: Parameters) -> list[DetDataSample]:
    """Detections around the objects of the validation images, some missed and some of another class."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for item in dataset('val', parameters.address, pipeline=TEST_PIPELINE):
        sample = item['data_samples']
        objects = sample.instances
        boxes = torch.tensor([one['bbox'] for one in objects]).reshape(-1, 4)
        boxes = boxes + torch.randn(boxes.shape, generator=generator) * 0.06 * (boxes[:, 2:] - boxes[:, :2]).repeat(
            1, 2
        )
        labels = torch.tensor([one['bbox_label'] for one in objects], dtype=torch.long)
        scores = torch.rand(len(objects), generator=generator)
        labels = torch.where(scores < 0.1, 0, labels)
        keep = scores > 0.05
        sample.pred_instances = InstanceData(bboxes=boxes[keep], labels=labels[keep], scores=scores[keep])
        samples.append(sample)
    return samples


META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
TEST_PIPELINE = (dict(type='LoadImageFromFile'), dict(type='PackDetInputs', meta_keys=META_KEYS))


def test_evaluation_from_an_address_a_file_and_the_data_set_alone(tmp_path):
    """Without a file CocoMetric takes a box's area for the object's: its small, medium and large differ."""
    parameters = Parameters(train=1, val=20, width=160, height=160)
    make_shapes(tmp_path / 'shapes', parameters)
    path = 'annotations/instances_val.json'
    places = dict(address=parameters.address + path, file=str(tmp_path / 'shapes' / path), none=None)
    samples, scores = [sample.to_dict() for sample in predictions(parameters)], {}
    for name, ann_file in places.items():
        metric = CocoMetric(ann_file=ann_file, metric='bbox')
        metric.dataset_meta = dict(classes=CLASSES)
        metric.process({}, samples)
        scores[name] = metric.evaluate(len(samples))
    assert scores['address'] == scores['file'] and 0.2 < scores['file']['coco/bbox_mAP'] < 0.9
    for key in ('mAP', 'mAP_50', 'mAP_75'):
        assert scores['none'][f'coco/bbox_{key}'] == scores['file'][f'coco/bbox_{key}']


def test_the_visualization_hook_draws_on_it(tmp_path, monkeypatch):
    samples = predictions(SMALL)
    visualizer = DetLocalVisualizer.get_instance('shapes')
    visualizer.dataset_meta = dict(classes=CLASSES)
    monkeypatch.setattr(Visualizer, 'get_current_instance', lambda: visualizer)
    hook = DetVisualizationHook(draw=True, test_out_dir='drawn', score_thr=0.0)
    runner = SimpleNamespace(work_dir=str(tmp_path), timestamp='now', iter=0)
    hook.after_test_iter(runner, 0, {}, samples)
    files = sorted((tmp_path / 'now' / 'drawn').iterdir())
    assert [file.name for file in files] == [f'{number:06d}.bmp' for number in range(1, 7)]
    for file, image in zip(files, (draw('val', index, SMALL)[0] for index in range(6))):
        assert (cv2.imread(str(file))[:, :64] == image).mean() > 0.2  # what no label and no box covers


def test_browse_dataset_shows_it(root, tmp_path, monkeypatch):
    import mmdet

    cfg = Config.fromfile(root / 'configs' / '_base_' / 'datasets' / 'shapes_detection.py')
    cfg.train_dataloader.dataset.data_root = SMALL.address
    cfg.visualizer = dict(type='DetLocalVisualizer', name='visualizer')
    cfg.default_scope = 'mmdet'
    cfg.dump(tmp_path / 'config.py')
    tool = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'analysis_tools' / 'browse_dataset.py'
    monkeypatch.setattr(
        sys, 'argv', [str(tool), str(tmp_path / 'config.py'), '--not-show', '--output-dir', str(tmp_path / 'out')]
    )
    runpy.run_path(str(tool), run_name='__main__')
    assert len(list((tmp_path / 'out').glob('*.bmp'))) == 20


# --- files --------------------------------------------------------------------------------------------------------


def test_files_are_those_of_the_addresses(exported):
    paths = sorted(path.relative_to(exported).as_posix() for path in exported.rglob('*') if path.is_file())
    assert paths == sorted(drawing.files(SMALL)) and len(paths) == 28
    assert all((exported / path).read_bytes() == fileio.get(SMALL.address + path) for path in paths)
    assert [path.name for path in exported.parent.iterdir()] == ['shapes']


def test_the_command_takes_options_and_the_address_of_a_config(exported, tmp_path, capsys):
    main([str(tmp_path / 'one'), *['--train', '20', '--val', '6', '--size', '64', '48', '--seed', '5']])
    main([str(tmp_path / 'two'), SMALL.address])
    main([str(tmp_path / 'few'), SMALL.address, '--train', '1', '--classes', 'star', 'ring'])
    for name in ('one', 'two'):
        assert all(
            (tmp_path / name / path).read_bytes() == (exported / path).read_bytes() for path in drawing.files(SMALL)
        )
    assert [path.name for path in (tmp_path / 'few' / 'train').iterdir()] == ['000001.bmp']
    said = capsys.readouterr().out
    assert 'shapes://train=1/val=6/width=64/height=48/seed=5/classes=star+ring/' in said and 'SHAPES_ROOT' in said


def test_a_folder_of_the_user_is_refused_and_an_empty_one_filled(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'thesis.tex').write_text('mine')
    (tmp_path / 'file').write_text('mine')
    for name in ('folder', 'file'):
        with pytest.raises(UserError, match=f'{name} exists already; remove it, or name another folder'):
            make_shapes(tmp_path / name, SMALL)
    assert [path.name for path in (tmp_path / 'folder').iterdir()] == ['thesis.tex']
    (tmp_path / 'empty').mkdir()
    make_shapes(tmp_path / 'empty', Parameters(1, 1, 32, 32))
    assert len(list((tmp_path / 'empty').rglob('*.bmp'))) == 2


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_a_folder_is_whole_or_absent(error, tmp_path, monkeypatch):
    def fails():
        assert not (tmp_path / 'shapes').exists()
        assert len(list(tmp_path.glob('.shapes.unfinished-*/train/1.png'))) == 1
        raise error

    monkeypatch.setattr(export, 'files', lambda _: {'train/1.png': lambda: b'', 'val/1.png': fails})
    with pytest.raises((UserError, KeyboardInterrupt)) as raised:
        make_shapes(tmp_path / 'shapes', SMALL)
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert 'cannot be written (No space left on device' in str(raised.value)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--train', '0'], 'train=0 is invalid; give an integer from 1'),
        (['--size', '320', '8'], 'height=8 is invalid; give an integer from 32'),
        (['--seed', '-1'], 'seed=-1 is invalid'),
        (['--clutter', '1.5'], 'clutter=1.5 is invalid; give a number from 0 to 1'),
        (['--classes', 'star', 'square'], "there is no 'square'; there are ellipse, rectangle"),
        (['--classes', 'star', 'star'], 'give each once'),
        (['--classes', 'star', '--rare', 'star'], "rare=('star',) is invalid; give some of the classes ('star',)"),
    ],
)
def test_command_line_errors_are_named(arguments, words, tmp_path):
    with pytest.raises(UserError) as error:
        main([str(tmp_path / 'shapes'), *arguments])
    assert words in str(error.value) and not (tmp_path / 'shapes').exists()


def test_a_place_that_cannot_be_written_is_named_by_the_command(warm_python, tmp_path):
    (tmp_path / 'file').write_text('mine')
    command = [warm_python, '-m', 'mmdet_gfl.datasets.shapes', tmp_path / 'file' / 'shapes', '--size', '32', '32']
    done = subprocess.run([*map(str, command), '--train', '1', '--val', '1'], capture_output=True, text=True)
    assert done.returncode == 1 and 'file/shapes cannot be written (' in done.stderr
    assert 'name a folder' in done.stderr and 'Traceback' not in done.stderr
