"""The shapes data set: what is drawn is annotated, it depends on its parameters alone, it is whole or absent."""

import functools
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmdet_gfl.datasets.shapes import CLASSES, Parameters, ShapesError, generator, make_shapes, storage
from mmdet_gfl.datasets.shapes.__main__ import Progress, main
from mmdet_gfl.datasets.shapes.coco_format import annotation, side_visible
from mmdet_gfl.datasets.shapes.edges import Side, coverage, random_side
from mmdet_gfl.datasets.shapes.items import Item, rendered
from mmdet_gfl.datasets.shapes.outlines import area, bounding_box, moved, random_outline
from mmdet_gfl.datasets.shapes.scene import CROWD_AT, EMPTY_EVERY, Scene, random_scene

SMALL = Parameters(train=20, val=3, width=64, height=48, seed=5)
SHARP = (Side(),) * 4
SMEARED = [Side('blur', 3.0), Side('fade', 4.0), Side('ghost', 5.0), Side('blur', 1.0), Side('fade', 1.3)]


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*') if path.is_file()}


@functools.cache
def annotations_of(length: int, count: int) -> list[dict]:
    """The annotations of the first ``count`` pictures of ``length`` x ``length`` px."""
    parameters = Parameters(width=length, height=length)
    return [fields for index in range(count) for fields in generator.draw('train', index, parameters)[1]]


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> Path:
    """A small set that no test changes."""
    root = tmp_path_factory.mktemp('finished') / 'shapes'
    make_shapes(root, SMALL)
    return root


@pytest.fixture
def own(tmp_path) -> Path:
    """A small set of the test's own."""
    make_shapes(tmp_path / 'shapes', SMALL)
    return tmp_path / 'shapes'


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
    at = np.arange(-side.reach, side.reach + 1)
    assert weights.sum() == pytest.approx(1) and weights @ at == pytest.approx(0, abs=1e-9)
    assert math.sqrt(weights @ at**2) == pytest.approx(side.std, rel=0.03)
    rng = np.random.default_rng(0)
    errors = np.array([side.label_error(rng) for _ in range(20000)])
    assert errors.mean() == pytest.approx(0, abs=0.03 * side.std)
    assert errors.std() == pytest.approx(side.std, rel=0.02)
    assert abs(errors).max() <= side.reach


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


def test_what_is_laid_over_an_item_is_not_visible():
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
    """Its slope is at most that of a blur of 2.1 px: 0.6 x 100 / (2.1 x sqrt(2 pi)) = 11 a pixel."""
    item = item_of(box, size=(200, 200))
    for seed in range(20):
        scene = Scene((200, 200), np.random.default_rng(seed))
        scene.picture[:] = 100
        scene._paint_shadow(item, 80)
        plane = scene.picture[0]
        assert plane.min() < 75 and plane.max() == 100
        assert max(abs(np.diff(plane, axis=0)).max(), abs(np.diff(plane, axis=1)).max()) < 15


def test_a_picture_does_not_depend_on_how_many_there_are():
    assert generator.draw('val', 3, SMALL) == generator.draw('val', 3, replace(SMALL, train=999, val=9))
    assert generator.draw('val', 3, SMALL) != generator.draw('train', 3, SMALL)
    assert generator.draw('val', 3, SMALL) != generator.draw('val', 3, replace(SMALL, seed=6))


# --- the set ------------------------------------------------------------------------------------------------------


def test_only_the_classes_asked_for_are_drawn():
    parameters = Parameters(width=160, height=160, classes=('star', 'ring'))
    drawn = [fields for index in range(12) for fields in generator.draw('train', index, parameters)[1]]
    assert {CLASSES[fields['category_id'] - 1] for fields in drawn} == {'star', 'ring'}


def test_without_clutter_the_ground_is_calm_and_sides_are_as_ambiguous_as_ever():
    """The empty picture shows the ground alone: what changes from pixel to pixel there is texture, lines and blobs."""

    def roughness(clutter: float) -> float:
        picture = random_scene((160, 160), EMPTY_EVERY - 1, np.random.default_rng(3), clutter)[0].astype(float)
        blocks = picture.reshape(20, 8, 20, 8, 3).mean(axis=(1, 3))  # noise averages out
        return float(np.abs(np.diff(blocks, axis=0)).mean() + np.abs(np.diff(blocks, axis=1)).mean())

    assert roughness(0.0) < 0.5 * roughness(1.0)
    smeared = [
        np.mean([std > 0 for index in range(60) for item in generator.draw('train', index, parameters)[1]
                 if not item['iscrowd'] for std in item['side_std']])
        for parameters in (Parameters(width=160, height=160), Parameters(width=160, height=160, clutter=0))
    ]  # fmt: skip
    assert smeared[0] == pytest.approx(smeared[1], abs=0.05)


def test_sets_from_before_there_were_clutter_and_classes_are_made_anew_unless_others_are_wanted(own, finished):
    manifest = json.loads((own / 'shapes.json').read_text()) | dict(version=1)
    for key in ('clutter', 'classes'):
        del manifest['parameters'][key]
    (own / 'shapes.json').write_text(json.dumps(manifest))
    with pytest.raises(ShapesError, match='clutter is 1.0, wanted 0.5'):
        make_shapes(own, replace(SMALL, clutter=0.5))
    outcome = make_shapes(own, SMALL)
    assert outcome.made and 'than version 1' in outcome.reason
    assert contents(own) == contents(finished)


def test_same_bytes_whatever_the_number_of_workers(finished, tmp_path):
    done = []
    make_shapes(tmp_path / 'again', SMALL, workers=2, progress=lambda *counts: done.append(counts))
    assert contents(tmp_path / 'again') == contents(finished)
    assert done == [(count, 23) for count in range(1, 24)]
    assert [path.name for path in tmp_path.iterdir()] == ['again']


def test_pycocotools_loads_it(finished):
    coco = COCO(finished / 'annotations' / 'instances_train.json')
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.getImgIds()) == 20 and min(coco.getAnnIds()) == 1
    counts = {image: len(coco.getAnnIds(imgIds=image)) for image in coco.getImgIds()}
    assert [image for image, count in counts.items() if count == 0] == [EMPTY_EVERY]
    crowds = coco.loadAnns(coco.getAnnIds(iscrowd=True))
    assert [crowd['image_id'] for crowd in crowds] == [5, 15]
    assert all(coco.annToMask(crowd).sum() == pytest.approx(crowd['area'], rel=0.2) for crowd in crowds)


def test_the_config_reads_it(finished, root):
    cfg = Config.fromfile(root / 'configs' / '_base_' / 'datasets' / 'shapes_detection.py')
    for loader, images in ((cfg.train_dataloader, 20), (cfg.val_dataloader, 3)):
        dataset = DATASETS.build(dict(loader.dataset, data_root=str(finished)))
        assert dataset.metainfo['classes'] == CLASSES and len(dataset) == images
        sample = dataset[0]
        assert tuple(sample['inputs'].shape) == (3, 240, 320)
    assert len(sample['data_samples'].gt_instances) > 0


def test_a_whole_set_is_left_alone(own):
    before = {path: path.stat().st_mtime_ns for path in (own, *own.rglob('*'))}
    outcome = make_shapes(own, SMALL)
    assert (outcome.made, outcome.reason, outcome.leftovers) == (False, None, [])
    assert {path: path.stat().st_mtime_ns for path in (own, *own.rglob('*'))} == before


def drop_image(root: Path) -> str:
    (root / 'train' / '000007.jpg').unlink()
    return '000007.jpg is missing'


def change_image(root: Path) -> str:
    path = root / 'val' / '000002.jpg'
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    return '000002.jpg was changed'


def change_annotations(root: Path) -> str:
    path = root / 'annotations' / 'instances_val.json'
    path.write_text(path.read_text().replace('heart', 'hurt'))
    return 'instances_val.json was changed'


def cut_manifest(root: Path) -> str:
    (root / 'shapes.json').write_bytes((root / 'shapes.json').read_bytes()[:100])
    return 'shapes.json is damaged'


def thin_manifest(root: Path) -> str:
    manifest = json.loads((root / 'shapes.json').read_text())
    manifest['files'].popitem()
    (root / 'shapes.json').write_text(json.dumps(manifest))
    return 'shapes.json is damaged'


def age_manifest(root: Path) -> str:
    manifest = json.loads((root / 'shapes.json').read_text()) | dict(version=0)
    (root / 'shapes.json').write_text(json.dumps(manifest))
    return 'version 0'


@pytest.mark.parametrize(
    'damage', [drop_image, change_image, change_annotations, cut_manifest, thin_manifest, age_manifest]
)
def test_a_damaged_set_is_made_anew(own, finished, damage):
    words = damage(own)
    outcome = make_shapes(own, SMALL)
    assert outcome.made and words in outcome.reason
    assert contents(own) == contents(finished)
    assert [path.name for path in own.parent.iterdir()] == ['shapes']


def test_a_damaged_set_with_files_of_the_user_is_refused(own):
    drop_image(own)
    (own / 'train' / 'mine.txt').write_text('mine')
    before = contents(own)
    with pytest.raises(ShapesError, match=r'000007.jpg is missing.*train/mine.txt is no part of it'):
        make_shapes(own, SMALL)
    assert contents(own) == before


def test_a_link_in_a_damaged_set_is_refused(own, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (own / 'val').rename(tmp_path / 'elsewhere' / 'val')
    (own / 'val').symlink_to(tmp_path / 'elsewhere' / 'val')
    drop_image(own)
    with pytest.raises(ShapesError, match='val is no part of it'):
        make_shapes(own, SMALL)
    assert len(list((tmp_path / 'elsewhere' / 'val').iterdir())) == 3


def test_folders_and_files_of_the_user_are_refused(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'thesis.tex').write_text('mine')
    (tmp_path / 'file').write_text('mine')
    for name in ('folder', 'file'):
        with pytest.raises(ShapesError, match=f'{name} is there already and is no shapes data set'):
            make_shapes(tmp_path / name, SMALL, overwrite=True)
    assert contents(tmp_path) == {'folder/thesis.tex': b'mine', 'file': b'mine'}


def test_an_empty_folder_is_filled(tmp_path):
    assert make_shapes(tmp_path, Parameters(1, 1, 32, 32)).made


def test_other_parameters_need_overwrite(own):
    before, other = contents(own), replace(SMALL, train=21, seed=9)
    with pytest.raises(ShapesError, match='train is 20, wanted 21, seed is 5, wanted 9.*--overwrite'):
        make_shapes(own, other)
    assert contents(own) == before
    assert make_shapes(own, other, overwrite=True).reason == 'its parameters differ'
    assert json.loads((own / 'shapes.json').read_text())['parameters'] == other.as_json()
    assert not make_shapes(own, other, overwrite=True).made


def test_killed_in_the_middle(tmp_path):
    root = tmp_path / 'shapes'
    command = [sys.executable, '-m', 'mmdet_gfl.datasets.shapes', root, '--train', '5000', '--size', '64', '64']
    process = subprocess.Popen([*map(str, command), '--workers', '2'], stdout=subprocess.PIPE)
    pictures = '.shapes.unfinished-*/train/*.jpg'
    while len(list(tmp_path.glob(pictures))) < 20:
        assert process.poll() is None
        time.sleep(0.02)
    assert storage.remove_leftovers(root) == []  # the writer lives
    process.send_signal(signal.SIGKILL)
    process.communicate()  # ends when no worker holds the pipe any more
    assert not root.exists() and len(list(tmp_path.glob(pictures))) < 5000
    outcome = make_shapes(root, SMALL)
    assert outcome.made and [folder.name.split('-')[0] for folder in outcome.leftovers] == ['.shapes.unfinished']
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']


def test_leftovers_with_other_files_stay(tmp_path):
    folder = tmp_path / '.shapes.unfinished-0123abcd'
    folder.mkdir()
    (folder / 'mine.txt').write_text('mine')
    assert storage.remove_leftovers(tmp_path / 'shapes') == [] and folder.exists()


def test_nothing_stays_when_drawing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, 'finish', lambda *args: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(OSError, match='No space left'):
        make_shapes(tmp_path / 'shapes', Parameters(1, 1, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_a_worker_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(generator._drawn_by_workers(tmp_path / 'absent', SMALL, 2))


def test_a_worker_that_ends_early_is_noticed():
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=os._exit, args=(3,))
    process.start()
    sender.close()
    with pytest.raises(ShapesError, match='exit status 3.*fewer workers'):
        list(generator._received({receiver: process}))


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--train', '0'], 'train=0 is not possible; give an integer from 1'),
        (['--size', '320', '8'], 'height=8 is not possible; give an integer from 32'),
        (['--seed', '-1'], 'seed=-1 is not possible'),
        (['--workers', '0'], 'workers=0 is not possible'),
        (['--clutter', '1.5'], 'clutter=1.5 is not possible; give a number from 0 to 1'),
        (['--classes', 'star', 'square'], "there is no 'square'; there are ellipse, rectangle"),
        (['--classes', 'star', 'star'], 'give each once'),
    ],
)
def test_command_line_errors_are_named(arguments, words, tmp_path, capsys):
    assert main([str(tmp_path / 'shapes'), *arguments]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / 'shapes').exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / 'file').write_text('mine')
    assert main([str(tmp_path / 'file' / 'shapes'), '--workers', '1']) == 1
    assert re.search(r'error: \S+file/shapes cannot be written \(.*\); name a folder', capsys.readouterr().err)


@pytest.mark.parametrize('workers', ['1', '2'])
def test_stopping_leaves_nothing(workers, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Progress, '__call__', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    writers, remove = [], shutil.rmtree

    def watched(*args, **options):
        writers.append(len(multiprocessing.active_children()))
        remove(*args, **options)

    monkeypatch.setattr(storage.shutil, 'rmtree', watched)
    assert main([str(tmp_path / 'shapes'), '--size', '32', '32', '--workers', workers]) == 130
    assert 'stopped' in capsys.readouterr().err and list(tmp_path.iterdir()) == []
    assert writers == [0]


def test_command_line_says_what_it_did(finished, capsys):
    arguments = [str(finished), '--train', '20', '--val', '3', '--size', '64', '48', '--seed', '5']
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert 'was there already, whole' in output and 'shapes_detection.py' in output and 'num_classes=10' in output
