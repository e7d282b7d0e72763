"""Data is looked at as a Runner builds it: what no training can use is named, and what trains is not touched."""

import codecs
import inspect
import itertools
import json
import os
import random
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset, CrowdHumanDataset, XMLDataset
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmdet_gfl.engine import data_checks, launch
from mmdet_gfl.engine.data_checks import build_dataset, check_data, check_length, missing_files
from mmdet_gfl.engine.launch import UserError

CLASSES = ('cat', 'dog', 'bird')
STARTS = itertools.count()
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]


def coco(names, categories=CLASSES, first=1):
    """A file in COCO format: an object of each category in turn, image by image; the last image has none."""
    images = [dict(id=first + i, file_name=name, height=40, width=50) for i, name in enumerate(names)]
    annotations = [
        dict(
            id=i + 1,
            image_id=image['id'],
            category_id=i % len(categories) + 1,
            bbox=[4, 6, 20, 30],
            area=600,
            iscrowd=0,
        )
        for i, image in enumerate(images[:-1])
    ]
    listed = [dict(id=i + 1, name=name) for i, name in enumerate(categories)]
    return dict(images=images, categories=listed, annotations=annotations)


def draw(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.zeros((40, 50, 3), np.uint8))


@pytest.fixture
def data(tmp_path):
    """A set of own classes: five training images, three for validation."""
    (tmp_path / 'annotations').mkdir()
    for split, count, first in (('train', 5, 1), ('val', 3, 11)):
        names = [f'{split}{i}.jpg' for i in range(count)]
        for name in names:
            draw(tmp_path / split / name)
        write(tmp_path, split, coco(names, first=first))
    return tmp_path


def write(data, split, content):
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    (data / 'annotations' / f'{split}.json').write_bytes(text if isinstance(text, bytes) else text.encode())


def content(data, split):
    return json.loads((data / 'annotations' / f'{split}.json').read_text())


def rewrite(data, split, change):
    wrong = content(data, split)
    change(wrong)
    write(data, split, wrong)


@MODELS.register_module(force=True)
class ToyOfDataChecks(BaseModel):
    """A model to start a Runner with."""

    def __init__(self, head=None):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.bbox_head = MODELS.build(head) if head else None

    def forward(self, *args, **options):
        raise AssertionError('the run ends before')


class End(Exception):
    pass


class EndOfStart(Hook):
    def before_train(self, runner):
        raise End


@pytest.fixture
def cfg(data):
    def loader(split):
        return dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='CocoDataset',
                data_root=str(data),
                ann_file=f'annotations/{split}.json',
                data_prefix=dict(img=f'{split}/'),
                metainfo=dict(classes=CLASSES),
                pipeline=LOAD,
                test_mode=split != 'train',
            ),
        )

    return Config(
        dict(
            default_scope='mmdet',
            launcher='none',
            work_dir=str(data / 'work'),
            log_level='WARNING',
            model=dict(type='ToyOfDataChecks'),
            train_dataloader=loader('train'),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            val_dataloader=loader('val'),
            val_cfg=dict(),
            val_evaluator=dict(type='CocoMetric', ann_file=str(data / 'annotations' / 'val.json')),
        )
    )


def start(cfg):
    """The Runner as ``tools/train.py`` starts it, up to the first epoch."""
    check_data(cfg, 'train', 'val')
    cfg.experiment_name = f'start{next(STARTS)}'  # MMEngine warns of two Runners of one name in a second
    runner = Runner.from_cfg(cfg)
    runner.register_hook(EndOfStart())

    def train():
        launch.observe(runner, 'train', 'val')
        runner.train()

    with pytest.raises(End):
        launch.run(train, cfg)
    return runner


def is_sentence(text):
    return '\n' not in text and '. ' not in text.replace('--cfg-options', '')


def says(cfg, words, split='train'):
    with pytest.raises(UserError, match=words) as error:
        build_dataset(cfg, split)
    assert is_sentence(str(error.value))


def start_says(cfg, words):
    with pytest.raises(UserError, match=words) as error:
        start(cfg)
    assert is_sentence(str(error.value))


# What a Runner gets -------------------------------------------------------------------------------------------------


def test_the_runner_builds_what_it_would_build_and_writes_the_config_as_it_is(cfg, data):
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    built = start(cfg).train_dataloader.dataset
    theirs = DATASETS.build(dict(cfg.train_dataloader.dataset))
    assert type(built) is CocoDataset and vars(built).keys() == vars(theirs).keys()
    assert len(built) == 4 and [built.get_data_info(i) for i in range(4)] == [theirs.get_data_info(i) for i in range(4)]
    assert np.array_equal(built.data_bytes, theirs.data_bytes) and built.serialize_data
    (dumped,) = (data / 'work').glob('*.py')
    assert Config.fromfile(dumped).train_dataloader == cfg.train_dataloader


def test_a_file_is_read_once_for_each_that_needs_it(cfg, monkeypatch):
    read = Counter()

    def load(self, path, reader=CocoDataset.COCOAPI.__init__):
        read[os.path.basename(path)] += 1
        reader(self, path)

    monkeypatch.setattr(CocoDataset.COCOAPI, '__init__', load)
    start(cfg)
    assert read == {'train.json': 1, 'val.json': 2}  # data sets, and the evaluator


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('lazy', [True, False])
def test_lazy_and_unserialized_sets_stay_so(cfg, lazy, serialize):
    cfg.train_dataloader.dataset.update(lazy_init=lazy, serialize_data=serialize, indices=3)
    built = start(cfg).train_dataloader.dataset
    assert type(built) is CocoDataset and len(built) == 3 and bool(len(built.data_list)) is not serialize


def test_a_flexible_runner_builds_its_model_after_the_data(cfg, data):
    cfg.runner_type, cfg.env_cfg = 'FlexibleRunner', dict()

    def train():
        cfg.experiment_name = f'start{next(STARTS)}'
        runner = launch.build_runner(cfg)
        runner.register_hook(EndOfStart())
        launch.observe(runner, 'train', 'val')
        built.append(runner.train_dataloader.dataset)
        runner.train()

    built = []
    with pytest.raises(End):
        launch.run(train, cfg)
    assert type(built[0]) is CocoDataset and len(built[0]) == 5
    head, qfl = dict(num_classes=len(CLASSES) + 1, in_channels=8), dict(type='mmdet.QualityFocalLoss')
    cfg.model.head = dict(type='mmdet_gfl.RetinaGFLHead', **head)
    with pytest.raises(
        UserError, match=rf'model\.bbox_head\.num_classes={len(CLASSES) + 1}, but the data set of train_'
    ):
        launch.run(train, cfg)
    cfg.model.head, cfg.val_dataloader.dataset.metainfo.classes = dict(cfg.model.head, num_classes=3), CLASSES[:2]
    with pytest.raises(UserError, match=r'num_classes=3, but the data set of val_dataloader\.dataset has 2 classes'):
        launch.run(train, cfg)
    cfg.val_dataloader.dataset.metainfo.classes = CLASSES
    cfg.model.head = dict(type='RetinaHead', loss_cls=qfl, **head)
    with pytest.raises(UserError, match=r"use model\.bbox_head\.type='mmdet_gfl\.RetinaGFLHead'"):
        launch.run(train, cfg)
    cfg.model.pop('head')
    (data / 'train' / 'train1.jpg').unlink()
    with pytest.raises(UserError, match='1 of the 5 images'):
        launch.run(train, cfg)


def wrapped(kind, inner):
    return {
        'RepeatDataset': dict(type=kind, times=2, dataset=inner),
        'ConcatDataset': dict(type=kind, datasets=[inner, inner]),
        'ClassBalancedDataset': dict(type=kind, oversample_thr=0.5, dataset=inner),
        'MultiImageMixDataset': dict(type=kind, pipeline=[dict(type='PackDetInputs')], dataset=inner),
        'nested': dict(
            type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, dict(inner, indices=2)])
        ),
    }[kind]


@pytest.mark.parametrize(
    'kind', ['RepeatDataset', 'ConcatDataset', 'ClassBalancedDataset', 'MultiImageMixDataset', 'nested']
)
def test_wrappers_are_looked_through(cfg, data, kind):
    inner = cfg.train_dataloader.dataset
    inner.filter_cfg = dict(filter_empty_gt=True)  # an image without class is more than ClassBalancedDataset takes
    cfg.train_dataloader.dataset = wrapped(kind, inner)
    theirs = DATASETS.build(cfg.train_dataloader.dataset.to_dict())
    built = build_dataset(cfg, 'train')
    assert len(built) == len(theirs) and built.metainfo == theirs.metainfo
    assert [built.get_data_info(i) for i in range(len(built))] == [theirs.get_data_info(i) for i in range(len(built))]
    rewrite(data, 'train', lambda wrong: [entry.update(area=0) for entry in wrong['annotations']])
    says(cfg, r'train_dataloader\.dataset\.\S*ann_file: .*has nothing to learn.*without an area')


def test_random_numbers_are_those_of_the_runner(cfg):
    @DATASETS.register_module(force=True)
    class ShuffledOfDataChecks(CocoDataset):
        def filter_data(self):
            return [self.data_list[i] for i in np.random.permutation(len(self.data_list))]

    cfg.randomness = dict(seed=3)
    cfg.train_dataloader.dataset.type = 'ShuffledOfDataChecks'
    orders = []
    for make in (lambda: start(cfg), lambda: Runner.from_cfg(cfg)):
        runner = make()
        loader = runner.train_dataloader
        orders.append([loader.dataset.get_data_info(i)['img_id'] for i in range(5)])
    assert orders[0] == orders[1] != sorted(orders[0])


def test_processes_beside_the_first_look_too_and_say_no_notes(cfg, data, monkeypatch, capsys):
    monkeypatch.setenv('RANK', '1')
    cfg.train_dataloader.dataset.metainfo.classes = ('cat', 'bird')
    build_dataset(cfg, 'train')
    assert 'note' not in capsys.readouterr().out
    (data / 'train' / 'train0.jpg').unlink()
    says(cfg, '1 of the 5 images')


# Files --------------------------------------------------------------------------------------------------------------


def test_missing_files_are_named_before_anything_is_read(cfg, data):
    check_data(cfg, 'train', 'val', 'test')
    (data / 'annotations' / 'val.json').rename(data / 'annotations' / 'other.json')
    words = r'val_dataloader\.dataset\.ann_file: .*val\.json does not exist .*annotations has other\.json, .*--cfg-opt'
    with pytest.raises(UserError, match=words):
        check_data(cfg, 'train', 'val')
    cfg.val_dataloader.dataset.ann_file = 'annotations/other.json'
    with pytest.raises(UserError, match=r'^val_evaluator\.ann_file: .*val\.json does not exist'):
        check_data(cfg, 'train', 'val')
    cfg.pop('val_dataloader')
    check_data(cfg, 'train', 'val')


@pytest.mark.parametrize(
    'folders, words',
    [
        (['JPEGImages'], "Pascal VOC format, which type='VOCDataset' reads"),
        (['labels', 'images'], r'\(\S+/other has images, labels\)'),
        (['a', 'b', 'c', 'd', 'e'], r'\(\S+/other has a, b, c, d and 1 more\)'),
        ([], 'nothing in it'),
    ],
)
def test_the_content_of_a_folder_without_the_file(cfg, tmp_path, folders, words):
    root = tmp_path / 'other'
    for name in ['', *folders]:
        (root / name).mkdir()
    cfg.train_dataloader.dataset.data_root = str(root)
    says(cfg, words)


def test_a_storage_that_is_not_the_disk_decides_itself(cfg, data):
    class Elsewhere(LocalBackend):
        def exists(self, filepath):
            return super().exists(f'{data}/{filepath}')

    data_checks.fileio.register_backend('elsewhere_of_a_test', Elsewhere, force=True)
    args = dict(backend='elsewhere_of_a_test')
    cfg.train_dataloader.dataset.update(data_root='', backend_args=args)
    check_data(cfg, 'train')
    cfg.train_dataloader.dataset.ann_file = 'annotations/none.json'
    with pytest.raises(UserError, match='does not exist'):
        check_data(cfg, 'train')
    cfg.train_dataloader.dataset.backend_args = dict(backend='unknown')  # the Runner will say so
    check_data(cfg, 'train')


def test_no_annotation_file(cfg):
    cfg.val_evaluator.ann_file = ''
    start_says(cfg, r"^val_evaluator\.ann_file='' names no file; give one, or None for the objects of the data set$")
    cfg.val_evaluator.ann_file = cfg.val_dataloader.dataset.data_root + '/annotations/val.json'
    cfg.train_dataloader.dataset.ann_file = ''
    start_says(cfg, r'^train_dataloader\.dataset\.ann_file is not set; give the file that lists the images')


@pytest.mark.parametrize('indices', [0, []])
def test_indices_of_no_image(cfg, indices):
    cfg.train_dataloader.dataset.indices = indices
    words = rf'gives no image under filter_cfg=None, indices={re.escape(str(indices))} .*; give the file of .* settings'
    start_says(cfg, words)


@pytest.mark.parametrize('ann_file', [None, '', ['a.json', 'b.json'], 's3://bucket/a.json'])
def test_an_annotation_file_that_is_not_a_local_path(cfg, ann_file):
    cfg.train_dataloader.dataset.ann_file = ann_file
    check_data(cfg, 'train')


@DATASETS.register_module(force=True)
class PassesOnOfDataChecks(CocoDataset):
    def __init__(self, img_dir, **options):
        super().__init__(data_prefix=img_dir, **options)


@pytest.mark.parametrize('key', ['data_prefix', 'img_dir'])
def test_a_prefix_that_is_a_text(cfg, key):
    dataset = cfg.train_dataloader.dataset
    del dataset['data_prefix']
    dataset[key] = 'train2017/'
    dataset.type = 'CocoDataset' if key == 'data_prefix' else 'PassesOnOfDataChecks'
    words = r"^train_dataloader\.dataset\.data_prefix='train2017/' .* data_prefix=dict\(img='train2017/'\)$"
    says(cfg, words)
    start_says(cfg, words)


@DATASETS.register_module(force=True)
class FoldersOfDataChecks(CocoDataset):
    """Joins paths in a way of its own."""

    def __init__(self, folder, data_prefix, ann_file, **options):
        super().__init__(f'{folder}/annotations/{ann_file}', data_prefix=dict(img=f'{folder}/{data_prefix}'), **options)


@DATASETS.register_module(force=True)
class PrefixOfDataChecks(CocoDataset):
    def _join_prefix(self):
        self.data_prefix = dict(img=self.data_prefix)
        super()._join_prefix()


@DATASETS.register_module(force=True)
class ListOfDataChecks(CocoDataset):
    def load_data_list(self):
        (self.ann_file,) = Path(self.ann_file).parent.glob(Path(self.ann_file).name)
        self.ann_file = str(self.ann_file)
        return super().load_data_list()


def test_paths_that_a_class_reads_in_its_own_way_are_left_to_it(cfg, data):
    known = dict(cfg.train_dataloader.dataset, data_prefix='train/')
    cfg.train_dataloader.dataset = dict(known, type='PrefixOfDataChecks')
    assert len(start(cfg).train_dataloader.dataset) == 5
    known.pop('data_root')
    cfg.train_dataloader.dataset = dict(known, type='FoldersOfDataChecks', folder=str(data), ann_file='train.json')
    assert len(start(cfg).train_dataloader.dataset) == 5
    cfg.train_dataloader.dataset.ann_file = 'none.json'
    start_says(cfg, r'ann_file: .*none\.json cannot be read by FoldersOfDataChecks: FileNotFoundError')
    cfg.train_dataloader.dataset = dict(type='BareOfDataChecks', ann_file='list of a root of its own')
    check_data(cfg, 'train')


def test_a_list_of_files_that_a_class_finds_itself(cfg):
    cfg.train_dataloader.dataset.update(type='ListOfDataChecks', ann_file='annotations/tr*n.json')
    assert len(start(cfg).train_dataloader.dataset) == 5


def test_an_evaluator_without_a_file_is_not_checked(cfg):
    cfg.val_evaluator = dict(type='CocoPanopticMetric', ann_file='')
    check_data(cfg, 'val')


def test_a_missing_file_of_a_config_that_inherits_from_mmdetection(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'own.py').write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n")
    cfg = Config.fromfile(tmp_path / 'own.py')
    assert cfg.train_dataloader.dataset._scope_ == 'mmdet'
    with pytest.raises(UserError, match=r'^train_dataloader\.dataset\.ann_file: .*train2017\.json does not exist'):
        check_data(cfg, 'train')


def test_data_of_a_config_that_inherits_from_mmdetection_is_looked_at(cfg):
    cfg.train_dataloader.dataset._scope_ = 'mmdet'
    cfg.train_dataloader.dataset.metainfo.classes = ('cat', 'dog', 'unicorn')
    start_says(cfg, "'unicorn' is not a category of it")


def test_a_class_without_its_comma(cfg, tmp_path):
    cfg.train_dataloader.dataset.metainfo.classes = 'cat'
    says(cfg, r"classes='cat' is one text; .*classes=\('cat',\)")
    (tmp_path / 'names.txt').write_text('cat\ndog\nbird\n')
    cfg.train_dataloader.dataset.metainfo.classes = str(tmp_path / 'names.txt')
    build_dataset(cfg, 'train')


# Images -------------------------------------------------------------------------------------------------------------


def test_missing_images_are_counted(cfg, data):
    for name in ('train1.jpg', 'train4.jpg'):
        (data / 'train' / name).unlink()
    says(cfg, r'data_prefix=.*: 2 of the 5 images of .*train\.json are not there, such as .*train1\.jpg; fetch them')
    cfg.train_dataloader.dataset.indices = 1
    build_dataset(cfg, 'train')


def test_an_image_that_the_filter_leaves_out_may_be_missing(cfg, data):
    (data / 'train' / 'train4.jpg').unlink()  # the one without objects
    says(cfg, '1 of the 5 images')
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    build_dataset(cfg, 'train')


def test_file_names_that_hold_the_folder(cfg, data):
    rewrite(
        data,
        'train',
        lambda wrong: [image.update(file_name=f'train/{image["file_name"]}') for image in wrong['images']],
    )
    says(cfg, r'5 of the 5 .*such as .*/train/train/train0\.jpg')
    cfg.train_dataloader.dataset.data_prefix.img = ''
    build_dataset(cfg, 'train')


def test_images_that_the_transforms_find_elsewhere(cfg, data):
    (data / 'train').rename(data / 'moved')
    says(cfg, '5 of the 5 images')

    def load(results):
        return dict(results, img=cv2.imread(results['img_path'].replace('/train/', '/moved/')))

    cfg.train_dataloader.dataset.pipeline = [load]
    build_dataset(cfg, 'train')
    cfg.train_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile', ignore_empty=True)]  # which skips them
    build_dataset(cfg, 'train')


def test_missing_files(tmp_path):
    folder = tmp_path / 'a'
    folder.mkdir()
    (folder / '1.jpg').touch()
    (folder / 'link.jpg').symlink_to(folder / '1.jpg')
    (folder / 'lost.jpg').symlink_to(tmp_path / 'elsewhere' / '1.jpg')
    (folder / 'circle.jpg').symlink_to('circle.jpg')  # which the system refuses to follow
    (folder / 'folder.jpg').mkdir()
    there = [f'{folder}/1.jpg', f'{folder}/link.jpg']
    lost = [f'{folder}/{name}.jpg' for name in ('lost', 'circle', 'folder', '2')] + [f'{tmp_path}/b//1.jpg']
    assert missing_files([*there, *lost]) == lost


# COCO format --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'text, words',
    [
        ('<annotation/>', 'JSONDecodeError: Expecting value'),
        ('[{"file": "a.jpg"}]', "annotation file format <class 'list'> not supported"),
        ('{}', "KeyError: 'categories'"),
        ('{"info": {}, "shapes": []}', "KeyError: 'categories'"),
        ('{"categories": []}', 'gives no image'),
        ('{"images": [], "categories": {"cat": 1}}', 'TypeError: string indices'),
        ('{"images": [{"file_name": "a"}], "categories": []}', "KeyError: 'id'"),
        ('{"images": [{"id": 1}], "categories": []}', "image 1 cannot be read .*KeyError: 'file_name' in `img_path"),
        ('{"images": [], "categories": [], "annotations": [{"id": 1}]}', "KeyError: 'image_id'"),
        (codecs.BOM_UTF8 + b'{}', 'JSONDecodeError: Unexpected UTF-8 BOM'),
        ('{"info": "\xfc"}'.encode('latin-1'), "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xfc"),
    ],
)
def test_a_file_that_is_not_coco(cfg, data, text, words):
    write(data, 'train', text)
    says(
        cfg,
        rf'^train_dataloader\.dataset\.ann_file: .*train\.json.*{words}',
    )


@pytest.mark.parametrize(
    'name, field, value, words',
    [
        (
            'annotations',
            'bbox',
            [4, 6, 20],
            r'ValueError: not enough values .* in `x1, y1, w, h = .*`, bbox=\[4, 6, 20\]; docs',
        ),
        ('annotations', 'bbox', ['4', '6', '20', '30'], "TypeError: .* in `inter_w = .*`, x1='4', w='20', width=50"),
        ('annotations', 'bbox', None, 'TypeError: cannot unpack .* in `x1, y1, w, h = .*`, bbox=None; docs'),
        ('annotations', 'area', None, "TypeError: .* in `if ann.'area'. <= 0 .*, area=None"),
        ('images', 'height', '40', "TypeError: .* in `inter_h = .*, height='40'"),
        ('images', 'file_name', None, 'TypeError: .* in `img_path = .*, file_name=None'),
    ],
)
def test_values_that_are_not_cocos(cfg, data, name, field, value, words):
    rewrite(data, 'train', lambda wrong: wrong[name][1].update({field: value}))
    says(cfg, rf'train\.json, image 2 cannot be read by CocoDataset: {words}')


@pytest.mark.parametrize('box', [[4, 6, float('nan'), 30], [float('inf'), 6, 20, 30], [4, float('nan'), 20, 30]])
def test_boxes_that_are_not_finite(cfg, data, box):
    rewrite(data, 'train', lambda wrong: wrong['annotations'][1].update(bbox=box))
    theirs = [len(info['instances']) for info in DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))]
    if theirs[1]:
        says(cfg, r'1 of the 4 boxes are not .*finite; object 0 of .*train\.json, image .*train1\.jpg is .*nan')
    else:  # MMDetection leaves it out
        build_dataset(cfg, 'train')


def test_a_file_that_lacks_the_last_classes(cfg, data):
    def first_alone(other):
        other['categories'] = other['categories'][:1]
        other['annotations'] = [one for one in other['annotations'] if one['category_id'] == 1]

    rewrite(data, 'train', first_alone)  # labels are those of the classes
    build_dataset(cfg, 'train')
    rewrite(data, 'val', first_alone)  # the evaluator numbers categories by label
    start_says(cfg, "val_evaluator.ann_file has the categories cat, .* 'dog' is not a category of it")


def test_ids_as_texts_are_evaluated(cfg, data, capsys):
    rewrite(data, 'val', lambda other: [one.update(id=str(one['id'] - 1)) for one in other['annotations']])
    start(cfg)
    assert 'val_evaluator.ann_file: an annotation has the id 0' in capsys.readouterr().out


def test_a_folder_by_another_name(cfg):
    cfg.train_dataloader.dataset.data_prefix = dict(image='train/')
    says(cfg, r"dataset\.data_prefix=\{'image': .*\} has no 'img', the folder that CocoDataset joins .*; name it so")


def test_a_data_set_without_the_key_of_its_file(cfg):
    del cfg.train_dataloader.dataset.ann_file
    says(cfg, r'^train_dataloader\.dataset\.ann_file is not set')


@pytest.mark.parametrize('name', ['images', 'annotations', 'categories'])
def test_ids_that_are_there_twice(cfg, data, name):
    rewrite(data, 'train', lambda wrong: wrong[name][2].update(id=1))
    says(cfg, rf'train\.json: {name} have the same id, 1, so one hides the other; number them')


@pytest.mark.parametrize('kind', [str, float])
def test_ids_that_are_texts_or_came_from_a_table(cfg, data, kind):
    def change(other):
        for entry in (*other['categories'], *other['images']):
            entry['id'] = kind(entry['id'])
        for entry in other['annotations']:
            entry.update(category_id=kind(entry['category_id']), image_id=kind(entry['image_id']))

    rewrite(data, 'train', change)
    built = build_dataset(cfg, 'train')
    assert [len(built.get_data_info(index)['instances']) for index in range(5)] == [1, 1, 1, 1, 0]


def test_image_ids_of_two_kinds(cfg, data, capsys):
    rewrite(
        data, 'train', lambda wrong: [entry.update(image_id=str(entry['image_id'])) for entry in wrong['annotations']]
    )
    says(cfg, "all 4 objects are left out: 4 of images that the file does not list, such as image_id='1' where .*id=1;")
    rewrite(data, 'train', lambda wrong: [wrong['annotations'][i].update(image_id=i + 1) for i in range(3)])
    build_dataset(cfg, 'train')
    said = capsys.readouterr().out
    assert 'note: train_dataloader.dataset: 1 of the 4 objects are left out: 1 of images that the file' in said


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(bbox=[0.1, 0.2, 0.5, 0.6]), r'narrower or lower than 1 pixel .*such as bbox=\[0\.1, 0\.2, 0\.5, 0\.6\]'),
        (dict(area=0), 'without an area .*such as area=0'),
        (dict(area=0, iscrowd=1), 'without an area'),
        (dict(bbox=[60, 6, 20, 30]), r'outside of their image, such as bbox=\[60, 6, 20, 30\]'),
        (dict(bbox=[float('nan'), 6, 20, 30]), r'outside of their image, such as bbox=\[nan, 6, 20, 30\]'),
        (dict(bbox=[20, 30, -10, -10]), 'narrower or lower than 1 pixel'),
        (dict(ignore=1), 'marked to be ignored, such as ignore=1'),
        (
            dict(category_id=77),
            'of classes that metainfo.classes leaves out, such as category_id=77 without a category',
        ),
        (dict(iscrowd=1), '4 marked to be ignored'),
        (dict(iscrowd='0'), '4 marked to be ignored'),  # MMDetection takes any text for true
    ],
)
def test_objects_that_are_left_out_are_counted_with_the_reason(cfg, data, capsys, change, words):
    rewrite(data, 'train', lambda wrong: wrong['annotations'][0].update(change))
    built = build_dataset(cfg, 'train')
    delivered = sum(len(built.get_data_info(index)['instances']) for index in range(5))
    said = capsys.readouterr().out
    assert delivered == 4 or '1 of the 4 objects are left out: 1 ' in said
    rewrite(data, 'train', lambda wrong: [entry.update(change) for entry in wrong['annotations']])
    says(cfg, rf'train\.json has nothing to learn .*: all 4 objects are left out: .*{words}')


def test_data_that_is_all_used_gives_no_note(cfg, capsys):
    start(cfg)
    assert 'note' not in capsys.readouterr().out


def test_objects_that_a_filter_or_an_own_class_leaves_out(cfg, data, capsys):
    class Few(CocoDataset):
        def parse_data_info(self, raw):
            info = super().parse_data_info(raw)
            info['instances'] = info['instances'] if raw['raw_img_info']['id'] > 2 else []
            return info

    cfg.train_dataloader.dataset.type = Few
    build_dataset(cfg, 'train')
    assert '2 of the 4 objects are left out: 2 by Few, such as in train0.jpg' in capsys.readouterr().out
    cfg.train_dataloader.dataset.update(type='CocoDataset', filter_cfg=dict(min_size=45))
    says(cfg, r'gives no image under filter_cfg=.*min_size.*: 4 in images that filter_cfg leaves out')


def test_an_own_class_with_its_own_entries_is_left_alone(cfg, data, capsys):
    rewrite(data, 'train', lambda other: [entry.pop('area') for entry in other['annotations']])

    class Points(CocoDataset):
        def load_data_list(self):
            api = self.COCOAPI(self.ann_file)
            return [
                self.parse_data_info(dict(image=image, objects=api.imgToAnns[image['id']]))
                for image in api.imgs.values()
            ]

        def parse_data_info(self, raw):
            path = os.path.join(self.data_prefix['img'], raw['image']['file_name'])
            boxes = [dict(bbox=[1, 1, 3, 3], bbox_label=number % 3) for number, _ in enumerate(raw['objects'])]
            return dict(img_id=raw['image']['id'], img_path=path, height=40, width=50, instances=boxes)

    cfg.train_dataloader.dataset.type = Points
    build_dataset(cfg, 'train')
    assert 'no object of the class dog, bird' in capsys.readouterr().out


def test_an_own_class_that_leaves_all_out(cfg, data):
    rewrite(data, 'train', lambda other: [entry.pop('area') for entry in other['annotations']])

    class NoPoints(CocoDataset):
        def parse_data_info(self, raw):
            return super().parse_data_info(dict(raw, raw_ann_info=[]))

    cfg.train_dataloader.dataset.type = NoPoints
    says(cfg, 'all 4 objects are left out: 4 by NoPoints, such as in train0.jpg')


def test_images_that_indices_leave_out_are_not_counted(cfg, capsys):
    cfg.train_dataloader.dataset.indices = 3
    build_dataset(cfg, 'train')
    assert 'left out' not in capsys.readouterr().out


def test_a_part_without_objects(cfg, data):
    whole = content(data, 'train')
    (data / 'annotations' / 'labeled.json').write_text(json.dumps(whole))
    part = cfg.train_dataloader.dataset
    labeled = dict(part, ann_file='annotations/labeled.json')
    for change in (dict(annotations=None), dict(annotations=[]), dict(annotations=[], categories=[])):
        write(data, 'train', {name: value for name, value in (whole | change).items() if value is not None})
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[part, labeled])
        assert len(build_dataset(cfg, 'train')) == 10  # MMDetection reads both
        cfg.train_dataloader.dataset = part
        says(cfg, 'has nothing to learn for the classes cat, dog, bird: there is no object at all')


# Classes ------------------------------------------------------------------------------------------------------------


def test_classes_that_the_file_lacks(cfg):
    cfg.train_dataloader.dataset.metainfo.classes = ('cat', 'dgo')
    says(cfg, r"train\.json has the categories cat, dog, bird, .*classes is cat, dgo: 'dgo' is not a category of it")
    del cfg.train_dataloader.dataset['metainfo']
    says(cfg, "'person' is not a category of it")


def test_classes_in_another_order_than_the_file(cfg, capsys):
    # MMDetection numbers them as the file does, so class 0 would be shown as a dog and be a cat.
    cfg.train_dataloader.dataset.metainfo.classes = ('dog', 'cat')
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset))
    assert dataset.metainfo['classes'][0] == 'dog' and dataset.get_data_info(0)['instances'][0]['bbox_label'] == 0
    says(cfg, 'classes is dog, cat: the file lists them as cat, dog;')
    cfg.train_dataloader.dataset.metainfo.classes = ('cat', 'bird')
    build_dataset(cfg, 'train')
    assert "1 of classes that metainfo.classes leaves out, such as 'dog'" in capsys.readouterr().out


def test_a_category_that_is_there_twice(cfg, data):
    write(data, 'train', coco(['train0.jpg', 'train1.jpg'], (*CLASSES, 'cat')))
    says(cfg, "train\\.json has two categories called 'cat'; give each a name of its own")


def test_a_class_without_objects_is_noted(cfg, data, capsys):
    rewrite(data, 'train', lambda wrong: wrong['annotations'].pop(1))
    build_dataset(cfg, 'train')
    assert (
        'note: train_dataloader.dataset: no object of the class dog, so this is not learned' in capsys.readouterr().out
    )


def test_labels_outside_the_classes(cfg):
    class All(CocoDataset):  # as LVIS, which reads all categories whatever classes says
        def load_data_list(self):
            self._metainfo['classes'] = CLASSES
            infos = super().load_data_list()
            self._metainfo['classes'] = CLASSES[:2]
            return infos

    cfg.train_dataloader.dataset.type = All
    says(cfg, r'labels are not those of 2 classes, .*; object 0 of .*train\.json, image .*train2\.jpg is 2;')


def test_a_validation_numbers_classes_as_the_training_does(cfg, data):
    reversed_order = CLASSES[::-1]
    write(data, 'val', coco([f'val{i}.jpg' for i in range(3)], reversed_order, first=11))
    cfg.val_dataloader.dataset.metainfo.classes = reversed_order
    start_says(cfg, r'val_dataloader.*classes: bird, dog, cat, but those of train.* cat, dog, bird')


@pytest.mark.parametrize('split', ['train', 'val'])
def test_num_classes_and_classes_agree(cfg, split):
    head = dict(type='mmdet_gfl.GFLHead', in_channels=4, feat_channels=4, stacked_convs=0)
    head |= dict(anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8,
                                       scales_per_octave=1, strides=[8]))  # fmt: skip

    @MODELS.register_module(force=True)
    class DetectorOfDataChecks(BaseModel):
        def __init__(self, num_classes):
            super().__init__()
            self.bbox_head = MODELS.build(dict(head, num_classes=num_classes, train_cfg=None, test_cfg=None))

        def forward(self, *args, **options):
            raise AssertionError

    cfg.model = dict(type='DetectorOfDataChecks', num_classes=3)
    start(cfg)
    if split == 'train':
        cfg.model.num_classes = 80
        start_says(
            cfg, r'model\.bbox_head\.num_classes=80, but the data set of train_dataloader\.dataset has 3 classes'
        )
    else:
        cfg.val_dataloader.dataset.metainfo.classes = ('cat', 'dog')
        start_says(cfg, r'num_classes=3, but the data set of val_dataloader\.dataset has 2 classes; set num_classes=2')


# Evaluators ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(iscrowd=None), 'the annotation with id 2 has iscrowd=None; give it 0, or 1 for a region to be ignored'),
        (dict(iscrowd='0'), "iscrowd='0'"),
        (dict(id='b'), "id 'b' has id='b'; give it a number of its own"),
        (dict(area=None), 'area=None; give it the area in pixels: of its mask, or width times height'),
    ],
)
def test_values_that_end_the_evaluation(cfg, data, change, words):
    (data / 'annotations' / 'judge.json').write_text((data / 'annotations' / 'val.json').read_text())
    rewrite(data, 'judge', lambda wrong: wrong['annotations'][1].update(change))
    cfg.val_evaluator.ann_file = str(data / 'annotations' / 'judge.json')
    start_says(cfg, rf'val_evaluator\.ann_file: .*{words}')


def test_validation_boxes_as_shares_of_the_image(cfg, data):
    def in_shares(other):
        for one in other['annotations']:
            one.update(bbox=[0.1, 0.2, 0.5, 0.6], area=0.3)

    rewrite(data, 'val', in_shares)
    start_says(cfg, r'val_evaluator\.ann_file has nothing to evaluate: all 2 objects are left out: 2 narrower .*bbox=')
    cfg.val_evaluator.update(format_only=True, outfile_prefix=str(data / 'found'))
    start(cfg)
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=cfg.val_evaluator.ann_file)
    rewrite(data, 'val', lambda other: other['annotations'].clear())  # none at all: MMDetection's AP is -1
    start(cfg)


def test_fields_that_only_the_evaluation_needs(cfg, data):
    for split in ('train', 'val'):
        rewrite(data, split, lambda bare: [entry.pop('iscrowd') for entry in bare['annotations']])
    start_says(cfg, "^val_evaluator.ann_file: the annotation with id 1 has no 'iscrowd'; give it 0, or 1 for")
    rewrite(data, 'val', lambda bare: bare.pop('annotations'))
    start_says(cfg, "^val_evaluator.ann_file has no list 'annotations'")


def test_an_annotation_with_the_id_0_counts_as_missed(cfg, data, capsys):
    rewrite(data, 'val', lambda other: other['annotations'][0].update(id=0))
    start(cfg)
    assert 'has the id 0, which pycocotools takes for "no match": it counts as missed' in capsys.readouterr().out


def test_an_evaluator_with_the_file_of_another_set(cfg, data, capsys):
    cfg.val_evaluator.ann_file = str(data / 'annotations' / 'train.json')
    start_says(cfg, r'^val_evaluator\.ann_file does not hold the images .*such as val0\.jpg with id 11')
    cfg.val_evaluator.ann_file = str(data / 'copy.json')
    (data / 'copy.json').write_text(json.dumps(content(data, 'val')))
    start(cfg)
    assert 'note' not in capsys.readouterr().out
    cfg.val_dataloader.dataset.indices = 2
    start(cfg)
    assert (
        'val_evaluator.ann_file has 3 images, and the data set 2 of them; the objects of the others'
        in capsys.readouterr().out
    )


def test_an_evaluator_that_writes_the_detections_down_needs_no_objects(cfg, data):
    rewrite(data, 'val', lambda wrong: wrong.pop('annotations'))
    start_says(cfg, "val_evaluator.ann_file has no list 'annotations'")
    cfg.val_evaluator.update(format_only=True, outfile_prefix=str(data / 'found'))
    start(cfg)
    cfg.val_evaluator.ann_file = str(data / 'annotations' / 'train.json')
    start_says(cfg, 'does not hold the images')


def test_each_of_several_evaluators_has_the_images_that_it_judges(cfg, data):
    (data / 'annotations' / 'more.json').write_text(json.dumps(coco(['train0.jpg', 'train1.jpg'], first=31)))
    first, more = cfg.val_dataloader.dataset.to_dict(), cfg.val_dataloader.dataset.to_dict()
    more.update(ann_file='annotations/more.json', data_prefix=dict(img='train/'))
    metrics = [
        dict(type='CocoMetric', ann_file=str(data / 'annotations' / f'{name}.json'), prefix=name)
        for name in ('val', 'more')
    ]
    cfg.val_evaluator = metrics
    start_says(cfg, r'^val_evaluator\.1\.ann_file does not hold the images .*such as val0\.jpg with id 11')
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, more])
    start_says(cfg, r'^val_evaluator\.0\.ann_file does not hold the images .*such as train0\.jpg with id 31')
    pytest.importorskip('mmdet.evaluation.evaluator', reason='MMDetection 3.2 has no MultiDatasetsEvaluator')
    evaluator = dict(type='MultiDatasetsEvaluator', metrics=metrics, dataset_prefixes=['a', 'b'])
    cfg.val_evaluator = evaluator
    start(cfg)
    evaluator['metrics'] = metrics[::-1]
    cfg.val_evaluator = evaluator
    start_says(cfg, r'^val_evaluator\.metrics\.0\.ann_file does not hold the images .*such as val0\.jpg')


def test_an_evaluator_with_classes_in_another_order(cfg, data):
    (data / 'annotations' / 'judge.json').write_text(
        json.dumps(coco([f'val{i}.jpg' for i in range(3)], CLASSES[::-1], first=11))
    )
    cfg.val_evaluator.ann_file = str(data / 'annotations' / 'judge.json')
    start_says(cfg, 'val_evaluator.ann_file has .*: the file lists them as bird, dog, cat')


def test_an_evaluator_without_a_file_needs_the_objects(cfg):
    cfg.val_evaluator.ann_file = None
    keys = ('img_id', 'img_path', 'ori_shape')
    cfg.val_dataloader.dataset.pipeline = [*LOAD, dict(type='PackDetInputs', meta_keys=keys)]
    start_says(cfg, r"val_evaluator\.ann_file is not set, .*'instances' in meta_keys of val_data\S+\.pipeline\.2")
    cfg.val_dataloader.dataset.pipeline[-1].meta_keys = (*keys, 'instances')
    start(cfg)


# Pascal VOC and other formats ---------------------------------------------------------------------------------------


def xml(*objects):
    """A file of objects (name, x1, y1, x2, y2, other fields)."""
    root = ElementTree.Element('annotation')
    size = ElementTree.SubElement(root, 'size')
    for name, value in (('width', 50), ('height', 40)):
        ElementTree.SubElement(size, name).text = str(value)
    ElementTree.SubElement(root, 'folder').text = 'event'
    for name, box, other in objects:
        entry = ElementTree.SubElement(root, 'object')
        for field, text in dict(name=name, **other).items():
            ElementTree.SubElement(entry, field).text = text
        bndbox = ElementTree.SubElement(entry, 'bndbox')
        for side, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box):
            ElementTree.SubElement(bndbox, side).text = str(value)
    return ElementTree.tostring(root, encoding='unicode')


BOX = (2, 4, 30, 36)


@pytest.fixture
def voc(tmp_path):
    for folder in ('Annotations', 'ImageSets/Main'):
        (tmp_path / folder).mkdir(parents=True)
    for image, names in (('one', ['cat', 'dog']), ('two', []), ('three', ['bird'])):
        (tmp_path / 'Annotations' / f'{image}.xml').write_text(xml(*((name, BOX, {}) for name in names)))
        draw(tmp_path / 'JPEGImages' / f'{image}.jpg')
    (tmp_path / 'ImageSets' / 'Main' / 'train.txt').write_text('one\ntwo\nthree\n')
    dataset = dict(
        type='VOCDataset',
        data_root=str(tmp_path),
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=CLASSES),
        pipeline=LOAD,
    )
    return Config(dict(train_dataloader=dict(dataset=dataset)))


def test_voc_that_is_there_passes(voc, capsys):
    assert len(build_dataset(voc, 'train')) == 3 and 'note' not in capsys.readouterr().out
    voc.train_dataloader.dataset.metainfo.classes = ('cat',)  # the others are left out
    build_dataset(voc, 'train')
    assert "2 of the 3 objects are left out: 2 of classes that metainfo.classes leaves out, such as 'dog'" in (
        capsys.readouterr().out
    )


def test_voc_images_of_another_suffix(voc, tmp_path):
    (tmp_path / 'JPEGImages' / 'two.jpg').rename(tmp_path / 'JPEGImages' / 'two.png')
    says(voc, r'data_prefix=.*: 1 of the 3 images .*JPEGImages/two\.jpg; fetch them')


@pytest.mark.parametrize('box', [(30, 4, 2, 36), (2, 36, 30, 4), (30, 36, 2, 4)])
def test_voc_boxes_with_their_sides_in_the_wrong_order(voc, tmp_path, box):
    (tmp_path / 'Annotations' / 'one.xml').write_text(xml(('cat', BOX, {}), ('dog', box, {})))
    corners = ', '.join(f'{side - 1}.0' for side in box)
    says(voc, rf'1 of the 3 boxes are not x1 <= x2, .*object 1 of .*one\.xml is \[{corners}\]')
    (tmp_path / 'Annotations' / 'one.xml').write_text(xml(('cat', BOX, {}), ('dog', box, dict(difficult='1'))))
    build_dataset(voc, 'train')  # it is ignored

    def order(results):
        low, high = results['gt_bboxes'].tensor.view(-1, 2, 2).aminmax(dim=1)
        results['gt_bboxes'].tensor = torch.cat([low, high], dim=1)
        return results

    (tmp_path / 'Annotations' / 'one.xml').write_text(xml(('cat', BOX, {}), ('dog', box, {})))
    for pack in ([dict(type='PackDetInputs')], []):  # which a MultiImageMixDataset does later
        voc.train_dataloader.dataset.pipeline = [*LOAD, order, *pack]
        build_dataset(voc, 'train')
    voc.train_dataloader.dataset.pipeline = [*LOAD, dict(type='PackDetInputs')]
    says(voc, '1 of the 3 boxes are not x1 <= x2')


def test_a_crop_that_leaves_no_box_tells_nothing(voc, tmp_path):
    (tmp_path / 'Annotations' / 'one.xml').write_text(xml(('dog', (30, 4, 2, 36), {})))
    drawn = []

    def crop(results):
        drawn.append(results)
        if len(drawn) == 2:
            return None
        results['gt_bboxes'].tensor = results['gt_bboxes'].tensor[:, [2, 1, 0, 3]][: len(drawn) == shown]
        return results

    voc.train_dataloader.dataset.pipeline = [*LOAD, crop]
    shown = 4
    build_dataset(voc, 'train')
    drawn.clear()
    shown = 0
    says(voc, 'are not x1 <= x2')  # no draw shows that it is repaired


def test_a_transform_that_repairs_boxes_at_random(voc, tmp_path):
    drawn = []

    def maybe_leave_out(results):
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
        results['gt_bboxes'].tensor = results['gt_bboxes'].tensor[: 1 + (len(drawn) == 3)]
        return results

    (tmp_path / 'Annotations' / 'one.xml').write_text(xml(('cat', BOX, {}), ('dog', (30, 4, 2, 36), {})))
    voc.train_dataloader.dataset.pipeline = [*LOAD, maybe_leave_out]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    says(voc, '1 of the 3 boxes are not x1 <= x2')
    assert len(set(drawn)) == 5  # in the third it leaves the box as it is
    assert (states[0], states[1]) == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(states[2], torch.get_rng_state())


@pytest.mark.parametrize(
    'field, text, words',
    [
        (
            'difficult',
            'Unspecified',
            r"VOCDataset: ValueError: invalid literal for int.* 'Unspecified' in `.*int\(difficult\.text\)`; docs",
        ),
        ('bndbox', None, r"VOCDataset: AttributeError: .*has no attribute .* in `.*bnd_box\.find\('xmin'\)"),
    ],
)
def test_voc_fields_that_are_not_numbers(voc, tmp_path, field, text, words):
    broken = ElementTree.fromstring(xml(('bird', BOX, dict(difficult='0'))))
    entry = broken.find('object')
    if text is None:
        entry.remove(entry.find(field))
    else:
        entry.find(field).text = text
    file = tmp_path / 'Annotations' / 'three.xml'
    file.write_text(ElementTree.tostring(broken, encoding='unicode'))
    says(voc, rf'train_dataloader\.dataset\.ann_file: .*three\.xml cannot be read by {words}')
    file.write_text('<annotation>')
    says(voc, r'three\.xml cannot be read .*ParseError: no element found')


def test_voc_boxes_as_shares_of_the_image(voc, tmp_path, capsys):
    for image in ('one', 'three'):
        (tmp_path / 'Annotations' / f'{image}.xml').write_text(xml(('cat', (0.1, 0.2, 0.6, 0.8), {})))
    says(voc, 'all 2 objects are left out: 2 marked to be ignored, or without an area')
    assert not capsys.readouterr().out  # a refusal gives the reasons itself


def test_voc_classes_that_no_object_has(voc, capsys):
    voc.train_dataloader.dataset.metainfo.classes = ('cat', 'sofa', 'bird')
    build_dataset(voc, 'train')
    said = capsys.readouterr().out
    assert "such as 'dog'" in said and 'no object of the class sofa' in said
    voc.train_dataloader.dataset.metainfo.classes = ('cat', 'Dog', 'bird')
    says(voc, "classes has 'Dog', which no object of .*train.txt is called, but 1 of those left out 'dog'; write")
    voc.train_dataloader.dataset.metainfo.classes = ('cat', 'fog', 'bird')  # may be a class without objects here
    build_dataset(voc, 'train')
    assert (
        "no object of the class fog, so this is not learned; those left out are called 'dog'" in capsys.readouterr().out
    )
    voc.train_dataloader.dataset.metainfo.classes = ('person', 'sofa')
    says(voc, 'for the classes person, sofa: all 3 objects are left out: 3 of classes that metainfo.classes leaves out')


def test_wider_face(voc, tmp_path):
    for image in ('one', 'two', 'three'):
        draw(tmp_path / 'event' / f'{image}.jpg')
        (tmp_path / 'Annotations' / f'{image}.xml').write_text(xml(('face', BOX, {})))
    dataset = voc.train_dataloader.dataset
    dataset.update(type='WIDERFaceDataset', data_prefix=dict(img=''), metainfo=dict(classes=('face',)))
    build_dataset(voc, 'train')
    (tmp_path / 'event' / 'two.jpg').unlink()
    says(voc, '1 of the 3 images .*event/two.jpg')
    draw(tmp_path / 'event' / 'two.jpg')
    (tmp_path / 'Annotations' / 'two.xml').write_text(xml(('face', (30, 4, 2, 36), {})))
    says(voc, r'object 0 of .*two\.xml is \[30\.0, 4\.0, 2\.0, 36\.0\]')
    (tmp_path / 'Annotations' / 'two.xml').write_text(xml(('face', (30, 'left', 2, 36), {})))
    says(voc, r"train\.txt, image two cannot be read .*could not convert string to float: 'left'")
    (tmp_path / 'Annotations' / 'two.xml').unlink()
    says(voc, r'train\.txt, image two cannot be read .*FileNotFoundError: .*two\.xml')
    for image in ('one', 'two', 'three'):
        (tmp_path / 'Annotations' / f'{image}.xml').write_text(xml())
    says(voc, 'nothing to learn for the classes face: there is no object at all')


@pytest.fixture
def crowd(tmp_path):
    draw(tmp_path / 'Images' / 'a.jpg')
    dataset = dict(
        type='CrowdHumanDataset',
        data_root=f'{tmp_path}/',
        ann_file='annotation_train.odgt',
        data_prefix=dict(img='Images/'),
        pipeline=LOAD,
    )

    def write_boxes(*boxes, tag='person'):
        (tmp_path / 'id_hw_train.json').unlink(missing_ok=True)
        objects = [dict(tag=tag, fbox=box, hbox=box, vbox=box) for box in boxes]
        (tmp_path / 'annotation_train.odgt').write_text(json.dumps(dict(ID='a', gtboxes=objects)))

    return Config(dict(train_dataloader=dict(dataset=dataset))), write_boxes


def test_crowd_human(crowd):
    cfg, write_boxes = crowd
    write_boxes([2, 4, 20, 30])
    assert type(build_dataset(cfg, 'train')) is CrowdHumanDataset
    write_boxes([0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.2, 0.2])
    says(
        cfg,
        r'2 of the 2 boxes lie between 0 and 1, as shares of .*, and not in pixels; object 0 of .* is \[0\.1',
    )
    write_boxes([2, 4, 20, 30], [20, 4, -10, 30])
    says(cfg, r'1 of the 2 boxes are not x1 <= x2, .*object 1 of .*odgt, image .*a\.jpg is \[20\.0, 4\.0, 10\.0')
    write_boxes([2, 4, float('nan'), 30])
    says(cfg, 'are not x1 <= x2, y1 <= y2 and finite; .*nan')
    write_boxes([2, 4, 20, 30], tag='mask')
    says(cfg, 'all 1 objects are left out: 1 marked to be ignored')
    write_boxes()
    says(cfg, 'nothing to learn for the classes person: there is no object at all')


def test_crowd_human_that_cannot_be_read(crowd, tmp_path):
    cfg, write_boxes = crowd
    write_boxes([2, 4, 20, 30])
    build_dataset(cfg, 'train')  # which writes the sizes of the images into a file
    (tmp_path / 'Images' / 'a.jpg').unlink()
    says(cfg, r'data_prefix=.*: 1 of the 1 images of .*odgt are not there, such as .*Images/a\.jpg')
    write_boxes([2, 4, 20, 30])
    says(cfg, r'ann_file: .*odgt, image a cannot be read by CrowdHumanDataset: FileNotFoundError: .*a\.jpg')
    (tmp_path / 'Images' / 'a.jpg').write_bytes(b'broken')
    says(cfg, 'odgt, image a cannot be read .*AttributeError')
    draw(tmp_path / 'Images' / 'a.jpg')
    (tmp_path / 'annotation_train.odgt').write_text(json.dumps(dict(ID='a', gtboxes=[dict(tag='person')])))
    says(cfg, "odgt, image a cannot be read .*KeyError: 'fbox'")
    (tmp_path / 'annotation_train.odgt').write_text('a,person,2,4')
    says(cfg, 'odgt cannot be read .*JSONDecodeError')


def to_lvis(other):
    """Change a file in COCO format to LVIS's."""
    for image in other['images']:
        url = f'http://images.cocodataset.org/{image.pop("file_name")}'
        image.update(coco_url=url, neg_category_ids=[], not_exhaustive_category_ids=[])
    for entry in other['annotations']:
        del entry['iscrowd']
    for entry in other['categories']:
        entry.update(frequency='f', image_count=1, instance_count=1)


@pytest.fixture
def lvis(cfg, data, monkeypatch):
    """A set in LVIS format, and a package whose evaluation works."""
    pytest.importorskip('lvis', reason='MMDetection says where the package is to be had')
    monkeypatch.setattr(inspect, 'getsource', lambda one: 'astype(dtype=float)')
    for split in ('train', 'val'):
        rewrite(data, split, to_lvis)
        cfg[f'{split}_dataloader'].dataset.type = 'LVISV1Dataset'
    cfg.val_evaluator.type = 'LVISMetric'
    return cfg


def test_lvis(lvis, data, capsys):
    dataset = lvis.train_dataloader.dataset
    assert len(build_dataset(lvis, 'train')) == 5 and 'note' not in capsys.readouterr().out
    dataset.metainfo.classes = CLASSES[:2]
    says(lvis, r'labels are not those of 2 classes, .*; object 0 of .*train2\.jpg is 2;')
    dataset.metainfo.classes = CLASSES[::-1]
    says(lvis, r'train\.json has the categories cat, dog, bird, and metainfo\.classes is bird, dog, cat')
    dataset.metainfo.classes = ('Cat', 'Dog', 'Bird')  # other names for the file's categories, in its order
    build_dataset(lvis, 'train')
    dataset.metainfo.classes = CLASSES
    (data / 'train' / 'train1.jpg').unlink()
    says(lvis, r'1 of the 5 images .*train1\.jpg')
    draw(data / 'train' / 'train1.jpg')
    rewrite(data, 'train', lambda wrong: wrong['annotations'][0].update(area=0))
    build_dataset(lvis, 'train')
    assert '1 of the 4 objects are left out: 1 without an area' in capsys.readouterr().out
    rewrite(data, 'train', lambda wrong: wrong['annotations'][2].update(image_id=99))
    build_dataset(lvis, 'train')
    assert '1 of images that the file does not list, such as image_id=99' in capsys.readouterr().out
    rewrite(data, 'train', lambda wrong: wrong['annotations'][1].update(bbox=[1, 2, 3]))
    says(lvis, r'ValueError: not enough values .*, bbox=\[1, 2, 3\]')
    rewrite(data, 'train', lambda wrong: wrong['images'][1].update(id=1))
    says(lvis, r'train\.json: images have the same id, 1')


def test_faults_of_the_evaluation_by_lvis(lvis, data, monkeypatch):
    start(lvis)
    lvis.val_evaluator.ann_file = str(data / 'annotations' / 'train.json')
    start_says(lvis, r'val_evaluator\.ann_file does not hold the images .*val0\.jpg with id 11')
    lvis.val_evaluator.ann_file = str(data / 'annotations' / 'val.json')
    rewrite(data, 'val', lambda wrong: wrong['categories'][1].pop('frequency'))
    start_says(lvis, "val_evaluator.ann_file: categories have no 'frequency', such as the one with id 2; add it")
    rewrite(data, 'val', lambda wrong: wrong['categories'][1].update(frequency='r'))
    rewrite(data, 'val', lambda wrong: wrong['images'][1].pop('neg_category_ids'))
    start_says(lvis, "val_evaluator.ann_file: images have no 'neg_category_ids', such as the one with id 12; add it")
    rewrite(data, 'val', lambda wrong: wrong['images'][1].update(neg_category_ids=[]))
    monkeypatch.setattr(inspect, 'getsource', lambda one: 'astype(dtype=np.float)')  # as PyPI's version has it
    start_says(lvis, 'package lvis uses np.float, .*; pip install git.*lvis-api')


def test_a_file_in_the_format_of_mmengine_that_cannot_be_read(tmp_path):
    file = tmp_path / 'a.json'
    file.write_text('{"images": []}')
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type=BaseDataset, ann_file=str(file), pipeline=[]))))
    says(cfg, r'dataset\.ann_file: .*a\.json cannot be read .*ValueError: Annotation must have data_list and metainfo')


class Own(BaseDataset):
    """MMEngine's own format."""

    METAINFO = dict(classes=('ship',))

    def load_data_list(self):
        return [dict(img_id=0, img_path=self.ann_file, height=40, width=50, instances=self.box())]

    def box(self):
        return [dict(bbox=[1, 2, 9, 2, 9, 8, 1, 8], bbox_label=0)]


def test_boxes_of_another_kind_and_objects_without_any(tmp_path):
    file = tmp_path / 'a.jpg'
    draw(file)
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type=Own, ann_file=str(file), pipeline=[]))))
    assert len(build_dataset(cfg, 'train')) == 1  # rotated
    others = [dict(mask=[], bbox_label=0), dict(bbox=None, bbox_label=0), dict(bbox=[1, 2, 3, 4], bbox_label=[0, 1])]
    for other in [*others, dict(bbox=[1, 2, 3, 4])]:
        box = (lambda one: lambda self: [one])(other)
        cfg.train_dataloader.dataset.type = type('Other', (Own,), dict(box=box))
        build_dataset(cfg, 'train')


@DATASETS.register_module(force=True)
class BareOfDataChecks(torch.utils.data.Dataset):
    metainfo = dict(classes=CLASSES)

    def __init__(self, count=1):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {}


def test_a_class_that_reads_its_own_way_is_left_alone(cfg):
    cfg.train_dataloader.dataset = dict(type='BareOfDataChecks')
    assert type(start(cfg).train_dataloader.dataset) is BareOfDataChecks


@pytest.mark.parametrize('split', ['train', 'val'])
def test_no_image_of_a_class_that_reads_its_own_way(cfg, split):
    cfg[f'{split}_dataloader'].dataset = dict(type='BareOfDataChecks', count=0)
    words = rf'^{split}_dataloader\.dataset: BareOfDataChecks gives no image; check its arguments and its files$'
    says(cfg, words, split)
    start_says(cfg, words)


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from iter(dict, None)

    def __len__(self):
        raise TypeError('it has no end')


def test_an_endless_data_set_is_left_alone():
    check_length('train_dataloader.dataset', Endless())


def test_the_error_of_an_own_class_keeps_its_traceback(voc):
    class Broken(XMLDataset):
        def parse_data_info(self, info):
            raise KeyError('mine')

    voc.train_dataloader.dataset.type = Broken
    with pytest.raises(KeyError, match='mine'):
        build_dataset(voc, 'train')


def test_images_of_videos_are_looked_at(cfg, data):
    def film(wrong):
        wrong['videos'] = [dict(id=1, name='walk', width=50, height=40)]
        for frame, image in enumerate(wrong['images']):
            image.update(video_id=1, frame_id=frame)

    rewrite(data, 'train', film)
    cfg.train_dataloader.dataset.update(type='BaseVideoDataset', data_prefix=dict(img_path='train/'), pipeline=[])
    dataset = build_dataset(cfg, 'train')
    assert len(dataset) == 1 and len(dataset.get_data_info(0)['images']) == 4  # one has no object

    def turn(wrong):
        wrong['annotations'][1]['bbox'] = [4, 6, float('inf'), 30]

    rewrite(data, 'train', turn)
    with pytest.raises(
        UserError, match=r'1 of the 4 boxes are not .* object 0 of .*image .*train1.jpg is \[4.0, 6.0, inf'
    ):
        build_dataset(cfg, 'train')


def test_values_that_the_evaluation_does_not_read_are_left_alone(cfg, data):
    def spoil(wrong):
        wrong['annotations'][1].update(iscrowd=None, category_id=4)
        wrong['categories'].append(dict(id=4, name='car'))

    rewrite(data, 'val', spoil)
    start(cfg)
    rewrite(data, 'val', lambda wrong: wrong['annotations'][1].update(category_id=2))
    start_says(cfg, 'id 2 has iscrowd=None')


def test_every_box_out_of_order_is_asked_for(voc, tmp_path):
    """A box that a resize clips away says nothing of the next one."""
    outside, reversed_box = (300, 4, 200, 30), (30, 4, 5, 30)
    for image, box in (('one', outside), ('two', outside), ('three', reversed_box)):
        (tmp_path / 'Annotations' / f'{image}.xml').write_text(xml(('dog', box, {})))
    pipeline = [*LOAD, dict(type='Resize', scale=(100, 80)), dict(type='PackDetInputs')]
    voc.train_dataloader.dataset.pipeline = pipeline
    says(voc, r'object 0 of .*three.xml is \[29.0, 3.0, 4.0, 29.0\]')
