"""What the tools say about data before anything is built, and that MMDetection would not have said it."""

import json
from xml.etree import ElementTree

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_gfl.engine.data_checks import check_classes, check_data, check_order, missing_files
from mmdet_gfl.engine.launch import UserError

CLASSES = ('cat', 'dog', 'bird')


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


@pytest.fixture
def data(tmp_path):
    """A set of own classes: five training images, three for validation."""
    (tmp_path / 'annotations').mkdir()
    for split, count, first in (('train', 5, 1), ('val', 3, 11)):
        (tmp_path / split).mkdir()
        names = [f'{split}{i}.jpg' for i in range(count)]
        for name in names:
            (tmp_path / split / name).touch()
        write(tmp_path, split, coco(names, first=first))
    return tmp_path


def write(data, split, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (data / 'annotations' / f'{split}.json').write_text(text)


def content(data, split):
    return json.loads((data / 'annotations' / f'{split}.json').read_text())


@pytest.fixture
def cfg(data):
    def loader(split):
        return dict(
            dataset=dict(
                type='CocoDataset',
                data_root=str(data),
                ann_file=f'annotations/{split}.json',
                data_prefix=dict(img=f'{split}/'),
                metainfo=dict(classes=CLASSES),
                pipeline=[],
            )
        )

    return Config(
        dict(
            model=dict(bbox_head=dict(type='mmdet_gfl.GFLHead', num_classes=3)),
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            test_dataloader=loader('val'),
            val_evaluator=dict(type='CocoMetric', ann_file=str(data / 'annotations' / 'val.json')),
            test_evaluator=dict(type='CocoMetric', ann_file=str(data / 'annotations' / 'val.json')),
        )
    )


def says(cfg, words, *splits):
    with pytest.raises(UserError, match=words) as error:
        check_data(cfg, *(splits or ('train', 'val')))
    text = str(error.value)
    assert '\n' not in text and '. ' not in text.replace('--cfg-options', '')  # one sentence
    return text


def test_data_that_is_there_passes(cfg):
    check_data(cfg, 'train', 'val', 'test')
    cfg.pop('test_dataloader')
    cfg.test_evaluator.ann_file = '/nowhere.json'
    check_data(cfg, 'test')


def test_one_process_of_torchrun_looks(cfg, data, monkeypatch):
    (data / 'train').rename(data / 'elsewhere')
    monkeypatch.setenv('LOCAL_RANK', '1')
    says(cfg, 'does not exist')  # not torchrun's: nobody would end the others
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    check_data(cfg, 'train')
    monkeypatch.setenv('LOCAL_RANK', '0')
    says(cfg, 'does not exist')


# Files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'gone, words',
    [
        (
            'annotations/train.json',
            r'train_dataloader\.dataset\.ann_file: .*train\.json does not exist .*has annotations/val\.json',
        ),
        (
            'val',
            r'val_dataloader\.dataset\.data_prefix\.img: .*/val does not exist.*--cfg-options val_data.*data_root=',
        ),
    ],
)
def test_missing_files_are_named(cfg, data, gone, words):
    (data / gone).rename(data / 'elsewhere')
    says(cfg, words)


@pytest.mark.parametrize(
    'folders, words',
    [
        (['JPEGImages'], "Pascal VOC format, which type='VOCDataset' reads"),
        (['labels', 'images'], 'YOLO format'),
        (['a', 'b', 'c', 'd', 'e'], r'\(the folder has a, b, c, d and 1 more\)'),
        ([], 'nothing in it'),
    ],
)
def test_what_a_folder_holds_instead(cfg, tmp_path, folders, words):
    root = tmp_path / 'other'
    for name in ['', *folders]:
        (root / name).mkdir()
    cfg.train_dataloader.dataset.data_root = str(root)
    says(cfg, words)


def test_a_missing_evaluator_file_is_named(cfg):
    cfg.val_evaluator.ann_file = '/nowhere.json'
    says(cfg, r'val_evaluator\.ann_file: /nowhere\.json')


def test_wrapped_data_sets_and_remote_files(cfg):
    inner = cfg.train_dataloader.dataset
    inner.data_root = 's3://bucket/coco/'
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    check_data(cfg, 'train')
    inner.data_root = '/nowhere/'
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner])
    says(cfg, r'train_dataloader\.dataset\.datasets\.0\.ann_file: /nowhere/')


@pytest.mark.parametrize('backend', ['petrel', 'lmdb', 'memcached', 'http', 'own'])
@pytest.mark.parametrize('name', ['backend_args', 'file_client_args'])
def test_other_storages_than_the_disk(cfg, name, backend):
    for node in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset):
        node.update({'data_root': 'nowhere/', name: dict(backend=backend)})
    cfg.val_evaluator.update({'ann_file': 'nowhere/val.json', name: dict(backend=backend)})
    check_data(cfg, 'train', 'val')
    for split, node in (('train', cfg.train_dataloader.dataset), ('val', cfg.val_evaluator)):
        for local in (None, dict(), dict(backend='local'), dict(backend='disk')):
            node[name] = local
            says(cfg, 'does not exist', split)


def test_images_in_another_storage(cfg, voc, data, tmp_path):
    load = dict(type='LoadImageFromFile', backend_args=dict(backend='lmdb', db_path='images.lmdb'))
    for name, of in (('train', cfg), ('JPEGImages', voc)):
        (tmp_path / name).rename(tmp_path / f'no_{name}')
        says(of, 'does not exist|are not in', 'train')
        of.train_dataloader.dataset.pipeline = [load]
        check_data(of, 'train')
    (data / 'annotations' / 'train.json').unlink()
    says(cfg, 'does not exist', 'train')


@pytest.mark.parametrize('ann_file', [None, ['a.json', 'b.json']])
def test_an_annotation_file_that_is_no_path(cfg, ann_file):
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.ann_file = ann_file
    check_data(cfg, 'train', 'val')


@pytest.mark.parametrize(
    'base, step', [('CocoDataset', 'parse_data_info'), ('VOCDataset', '_parse_instance_info'), ('VOCDataset', None)]
)
def test_a_type_that_reads_its_own_way(cfg, data, base, step):
    write(data, 'train', '[]')
    changed = {step: lambda *args, **options: {}} if step else {}
    cfg.train_dataloader.dataset.type = type('Own', (DATASETS.get(base),), changed)
    if step:
        check_data(cfg, 'train')
    else:
        says(cfg, 'is JSON', 'train')


# Format -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'text, words',
    [
        ('<annotation/>', "a JSON file .*type='VOCDataset'"),
        ('[{"file": "a.jpg"}]', "no list 'images' beside a list of entries"),
        ('null', "no list 'images' beside the one value 'None'"),
        ('{}', "no list 'images' beside nothing"),
        ('{"info": {}, "shapes": []}', "no list 'images' beside info, shapes"),
        ('{"images": [], "categories": {"cat": 1}}', "no list 'categories' beside images, categories"),
        ('{"images": [], "categories": []}', "no list 'annotations'"),
        ('{"images": [{"id": 1}], "categories": []}', r'images\[0\] lacks file_name, height, width'),
        ('{"images": ["a.jpg"], "categories": []}', r'images\[0\] lacks file_name, height, id, width'),
    ],
)
def test_a_file_that_is_not_coco(cfg, data, text, words):
    write(data, 'train', text)
    says(cfg, rf'train_dataloader\.dataset\.ann_file: .*train\.json is not .*{words}')


@pytest.mark.parametrize(
    'name, field, value, words',
    [
        ('annotations', 'bbox', [4, 6, 20], r'bbox=\[4, 6, 20\] is not a list of four numbers'),
        ('annotations', 'bbox', ['4', '6', '20', '30'], 'bbox=.* is not a list of four numbers'),
        ('annotations', 'bbox', [4, 6, float('nan'), 30], r'bbox=\[4, 6, nan, 30\] is not a list of four numbers'),
        ('annotations', 'bbox', None, 'bbox=None is not a list of four numbers'),
        ('annotations', 'area', None, 'area=None is not a number'),
        pytest.param('annotations', 'area', 10**400, 'area=10+ is not a number', id='huge'),
        ('annotations', 'category_id', [1], r'category_id=\[1\] is not a number or a text'),
        ('images', 'height', '40', "height='40' is not a number"),
        ('images', 'file_name', None, 'file_name=None is not a text'),
        ('categories', 'name', 7, 'name=7 is not a text'),
    ],
)
def test_values_that_are_not_cocos(cfg, data, name, field, value, words):
    wrong = content(data, 'train')
    wrong[name][1][field] = value
    write(data, 'train', wrong)
    says(cfg, rf'train\.json is not in COCO format: {name}\[1\]\.{words}')


@pytest.mark.parametrize('name', ['images', 'annotations', 'categories'])
def test_ids_that_are_there_twice(cfg, data, name):
    wrong = content(data, 'train')
    wrong[name][2]['id'] = wrong[name][0]['id']
    write(data, 'train', wrong)
    says(cfg, rf'not in COCO format: {name}\[0\] and {name}\[2\] have the same id, 1;')


def test_ids_that_are_texts_or_came_from_a_table(cfg, data):
    for kind in (str, float):
        other = content(data, 'train')
        for entry in (*other['categories'], *other['images']):
            entry['id'] = kind(entry['id'])
        for entry in other['annotations']:
            entry.update(category_id=kind(entry['category_id']), image_id=kind(entry['image_id']))
        write(data, 'train', other)
        check_data(cfg, 'train')
        built = DATASETS.build(dict(cfg.train_dataloader.dataset))
        assert [len(built[index]['instances']) for index in range(5)] == [1, 1, 1, 1, 0]
        write(data, 'train', coco([f'train{i}.jpg' for i in range(5)]))


def test_objects_of_categories_that_the_file_has_not(cfg, data, capsys):
    check_data(cfg, 'train')
    assert capsys.readouterr().out == ''
    wrong = content(data, 'train')
    wrong['annotations'][2]['category_id'] = 77
    write(data, 'train', wrong)
    check_data(cfg, 'train')
    said = capsys.readouterr().out
    assert said.startswith('note: train_dataloader.dataset.ann_file: 1 of the 4 objects of') and 'such as 77' in said
    built = DATASETS.build(dict(cfg.train_dataloader.dataset))
    assert [len(built[index]['instances']) for index in range(5)] == [1, 1, 0, 1, 0]  # MMDetection says nothing


def test_what_training_testing_and_a_server_need(cfg, data):
    bare = content(data, 'train')
    for entry in bare['annotations']:
        del entry['iscrowd']
    write(data, 'train', bare)
    check_data(cfg, 'train')
    write(data, 'val', dict(bare, images=content(data, 'val')['images']))
    says(cfg, r'val\.json is not in COCO format: annotations\[0\] lacks iscrowd')
    same = cfg.copy()
    same.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, test_mode=True))
    with pytest.raises(UserError, match=r'val_dataloader.*train\.json is not in COCO format: annotations\[0\] lacks'):
        check_data(same, 'train', 'val')
    del bare['annotations']
    write(data, 'val', dict(bare, images=content(data, 'val')['images']))
    check_data(cfg, 'test')
    says(cfg, "no list 'annotations'", 'val')


# Classes ------------------------------------------------------------------------------------------------------------


def test_classes_that_the_file_lacks(cfg):
    cfg.train_dataloader.dataset.metainfo.classes = ('cat', 'dgo')
    says(cfg, r"metainfo\.classes: 'dgo' is no category of .*has cat, dog, bird \(did you mean 'dog'\?\)")
    del cfg.train_dataloader.dataset['metainfo']
    says(cfg, r"metainfo\.classes is not set, so the classes are those of COCO: 'person' is no category")


def test_classes_in_another_order_than_the_file(cfg):
    # MMDetection numbers them as the file does, so class 0 would be shown as a dog and be a cat.
    cfg.train_dataloader.dataset.metainfo.classes = ('dog', 'cat')
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset))
    assert dataset.metainfo['classes'][0] == 'dog' and dataset[0]['instances'][0]['bbox_label'] == 0  # the cat
    says(cfg, 'dog, cat, but .*lists them as cat, dog')
    cfg.train_dataloader.dataset.metainfo.classes = ('cat', 'bird')
    check_data(cfg, 'train')


def test_a_category_that_is_there_twice(cfg, data):
    write(data, 'train', coco(['train0.jpg', 'train1.jpg'], (*CLASSES, 'cat')))
    says(cfg, 'lists them as cat, dog, bird, cat')


def test_nothing_to_learn(cfg, data):
    write(data, 'train', coco(['train0.jpg']))
    says(cfg, r'no image of .*train\.json has an object of the classes cat, dog, bird')
    write(data, 'val', coco(['val0.jpg']))
    check_data(cfg, 'val')


@pytest.mark.parametrize(
    'change, alone',
    [
        (dict(annotations=None), "no list 'annotations' beside images, categories"),
        (dict(annotations=[]), 'so there is nothing to learn'),
        (dict(annotations=[], categories=[]), 'is no category'),
    ],
)
def test_a_part_without_objects(cfg, data, change, alone):
    whole = content(data, 'train')
    (data / 'annotations' / 'labeled.json').write_text(json.dumps(whole))
    write(data, 'train', {name: value for name, value in (whole | change).items() if value is not None})
    part = dict(cfg.train_dataloader.dataset)
    labeled = dict(part, ann_file='annotations/labeled.json')
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[part, labeled])
    check_data(cfg, 'train')
    built = [len(DATASETS.build(dict(each))) for each in (part, labeled)]
    assert built == [5, 5]  # MMDetection reads both
    cfg.train_dataloader.dataset.datasets[1] = part
    says(cfg, alone)
    cfg.train_dataloader.dataset.datasets[1] = dict(part, ann_file='s3://bucket/labeled.json')  # it may have objects
    check_data(cfg, 'train')


def test_an_evaluator_needs_annotations(cfg, data):
    part, labeled = dict(cfg.val_dataloader.dataset), dict(cfg.train_dataloader.dataset)
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[part, labeled])
    bare = content(data, 'val')
    del bare['annotations']
    write(data, 'val', bare)
    says(cfg, r"val_evaluator\.ann_file: .*no list 'annotations'", 'val')
    cfg.pop('val_evaluator')
    check_data(cfg, 'val')


def test_classes_that_only_the_built_set_knows(cfg, data):
    dataset = cfg.train_dataloader.dataset
    dataset.type = 'V3DetDataset'  # which reads them from a file of its own
    del dataset['metainfo']
    check_data(cfg, 'train')
    write(data, 'train', dict(content(data, 'train'), annotations=[]))
    check_data(cfg, 'train')
    dataset.type = 'CocoDataset'
    says(cfg, "'person' is no category")


def test_a_validation_numbers_classes_as_the_training_does(cfg):
    check_order(cfg)
    cfg.val_dataloader.dataset.metainfo.classes = ('cat', 'dog')  # fewer classes are check_classes' to answer
    check_order(cfg)
    cfg.val_dataloader.dataset.metainfo.classes = ('dog', 'cat', 'bird')
    with pytest.raises(
        UserError, match=r'val_dataloader.*classes: dog, cat, bird, but those of train.* cat, dog, bird'
    ):
        check_order(cfg)
    cfg.pop('val_dataloader')
    check_order(cfg)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_classes_and_num_classes_agree(root, split):
    cfg = Config.fromfile(root / 'configs' / 'gfl' / 'gfl_r50_fpn_1x_coco.py')
    check_classes(cfg, split)  # CocoDataset has 80
    cfg.model.bbox_head.num_classes = 10
    with pytest.raises(UserError, match=r'num_classes=10, .*80 classes; set num_classes=80'):
        check_classes(cfg, split)
    cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=tuple('abcdefghij'))
    check_classes(cfg, split)
    cfg.model.bbox_head.update(type='GroundingDINOHead', num_classes=256)
    check_classes(cfg, split)
    cfg.model.bbox_head = None
    check_classes(cfg, split)


def test_a_class_without_its_comma(cfg, tmp_path):
    cfg.train_dataloader.dataset.metainfo.classes = 'cat'
    with pytest.raises(UserError, match=r"classes='cat' is one text .*classes=\('cat',\)"):
        check_classes(cfg, 'train')
    (tmp_path / 'names.txt').write_text('cat\ndog\nbird\n')
    cfg.train_dataloader.dataset.metainfo.classes = str(tmp_path / 'names.txt')
    check_classes(cfg, 'train')
    check_data(cfg, 'train')


# Images -------------------------------------------------------------------------------------------------------------


def test_missing_images_are_counted(cfg, data):
    for name in ('train1.jpg', 'train4.jpg'):
        (data / 'train' / name).unlink()
    says(
        cfg, r"2 of the 5 images of .*train\.json are not in .*, such as train1\.jpg; .*data_prefix\.img \(now 'train/'"
    )
    cfg.train_dataloader.dataset.indices = 1
    check_data(cfg, 'train')


def test_an_image_that_the_filter_leaves_out_may_be_missing(cfg, data):
    (data / 'train' / 'train4.jpg').unlink()  # the one without objects
    says(cfg, '1 of the 5 images')
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    check_data(cfg, 'train')
    cfg.train_dataloader.dataset.test_mode = True
    says(cfg, '1 of the 5 images')


def test_file_names_that_hold_the_folder(cfg, data):
    doubled = content(data, 'train')
    for image in doubled['images']:
        image['file_name'] = f'train/{image["file_name"]}'
    write(data, 'train', doubled)
    says(cfg, r"5 of the 5 .*the file names hold the folder already, so set .*data_prefix\.img=''")
    cfg.train_dataloader.dataset.data_prefix.img = ''
    check_data(cfg, 'train')


def test_missing_files(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '1.jpg').touch()
    assert missing_files(str(tmp_path), ['a/1.jpg', 'a/2.jpg', 'b/1.jpg']) == ['a/2.jpg', 'b/1.jpg']
    assert missing_files('s3://bucket', ['1.jpg']) == []
    (tmp_path / 'a' / 'link.jpg').symlink_to(tmp_path / 'a' / '1.jpg')
    (tmp_path / 'a' / 'lost.jpg').symlink_to(tmp_path / 'elsewhere' / '1.jpg')
    (tmp_path / 'a' / 'folder.jpg').mkdir()
    assert missing_files(str(tmp_path / 'a'), ['link.jpg', 'lost.jpg', 'folder.jpg']) == ['lost.jpg', 'folder.jpg']
    (tmp_path / 'a' / 'circle.jpg').symlink_to('circle.jpg')  # which the system refuses to follow
    assert missing_files(str(tmp_path / 'a'), ['1.jpg', 'link.jpg', 'circle.jpg']) == ['circle.jpg']


# Evaluators ---------------------------------------------------------------------------------------------------------


def test_an_evaluator_with_the_file_of_another_set(cfg, data):
    cfg.val_evaluator.ann_file = str(data / 'annotations' / 'train.json')
    says(cfg, r'val_evaluator\.ann_file: .*train\.json does not hold the images of val_dataloader.*val\.json')
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='CocoMetric', ann_file=cfg.test_evaluator.ann_file)]
    check_data(cfg, 'val')  # which of the two judges what is not known
    copied = data / 'copy.json'
    copied.write_text(json.dumps(content(data, 'val')))
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(copied))
    check_data(cfg, 'val')


# Pascal VOC ---------------------------------------------------------------------------------------------------------


def xml(*names, bndbox=('xmin', 'ymin', 'xmax', 'ymax')):
    root = ElementTree.Element('annotation')
    for name in names:
        entry = ElementTree.SubElement(root, 'object')
        ElementTree.SubElement(entry, 'name').text = name
        box = ElementTree.SubElement(entry, 'bndbox')
        for number, side in enumerate(bndbox):
            ElementTree.SubElement(box, side).text = str(10 * number)
    return ElementTree.tostring(root, encoding='unicode')


@pytest.fixture
def voc(tmp_path):
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (tmp_path / folder).mkdir(parents=True)
    for image, names in (('one', ['cat', 'dog']), ('two', []), ('three', ['bird'])):
        (tmp_path / 'Annotations' / f'{image}.xml').write_text(xml(*names))
        (tmp_path / 'JPEGImages' / f'{image}.jpg').touch()
    (tmp_path / 'ImageSets' / 'Main' / 'train.txt').write_text('one\ntwo\nthree\n')
    dataset = dict(
        type='VOCDataset',
        data_root=str(tmp_path),
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=CLASSES),
    )
    return Config(dict(train_dataloader=dict(dataset=dataset), val_dataloader=dict(dataset=dataset)))


def test_voc_that_is_there_passes(voc):
    check_data(voc, 'train', 'val')
    voc.train_dataloader.dataset.metainfo.classes = ('cat',)  # the others are left out
    check_data(voc, 'train')


def test_voc_files_that_are_missing(voc, tmp_path):
    (tmp_path / 'JPEGImages' / 'two.jpg').rename(tmp_path / 'JPEGImages' / 'two.png')
    says(voc, r"img_subdir: 1 of the 3 files .*JPEGImages, such as 'two\.jpg'; .*end in \.jpg")
    (tmp_path / 'Annotations' / 'one.xml').unlink()
    says(voc, r"ann_subdir: 1 of the 3 files .*Annotations, such as 'one\.xml'")


def test_voc_classes_that_no_object_has(voc):
    voc.train_dataloader.dataset.metainfo.classes = ('cat', 'dgo', 'bird')
    says(voc, r"no object .* is a 'dgo'; they are bird, cat, dog \(did you mean 'dog'\?\)")
    voc.train_dataloader.dataset.metainfo.classes = ('cat', 'dog', 'person')  # birds are left out
    check_data(voc, 'train')
    for split in ('train', 'val'):
        voc[f'{split}_dataloader'].dataset.metainfo.classes = ('person', 'sofa')
    says(voc, r"is a 'person'; they are bird, cat, dog:")
    check_data(voc, 'val')  # a small split may have no object


def test_two_classes_of_a_known_list_are_no_misspelling_of_each_other(voc, cfg):
    # Of Pascal VOC; the images have cats, which are not asked for.
    voc.train_dataloader.dataset.metainfo.classes = ('car', 'dog', 'bird')
    check_data(voc, 'train')
    voc.train_dataloader.dataset.type = 'XMLDataset'  # which has no list of its own
    check_data(voc, 'train')
    voc.train_dataloader.dataset.metainfo.classes = ('car', 'dgo', 'bird')
    says(voc, r"is a 'dgo'; they are bird, cat, dog \(did you mean 'dog'\?\)")
    voc.train_dataloader.dataset.metainfo.classes = ('car', 'bed')
    says(voc, r"is a 'car'; they are bird, cat, dog: set")
    cfg.train_dataloader.dataset.metainfo.classes = ('car', 'dog')
    says(cfg, r"'car' is no category of .*, which has cat, dog, bird; set")


def test_the_list_of_an_own_type_is_known_too(voc):
    own = type('Own', (DATASETS.get('VOCDataset'),), dict(METAINFO=dict(classes=('cat', 'cap'))))
    voc.train_dataloader.dataset.metainfo.classes = ('cap', 'dog')
    says(voc, r"is a 'cap'; they are bird, cat, dog \(did you mean 'cat'\?\)")
    voc.train_dataloader.dataset.type = own
    check_data(voc, 'train')


def test_a_suggestion_is_no_class_that_is_given(cfg):
    cfg.train_dataloader.dataset.metainfo.classes = ('cat', 'catt')
    says(cfg, r"'catt' is no category of .*, which has cat, dog, bird; set")


def test_voc_sets_are_judged_together(voc, tmp_path):
    parts = []
    for image in ('one', 'two', 'three'):
        (tmp_path / 'ImageSets' / 'Main' / f'{image}.txt').write_text(image)
        parts.append(dict(voc.train_dataloader.dataset, ann_file=f'ImageSets/Main/{image}.txt'))
    voc.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    check_data(voc, 'train')  # no part has all classes, and one has no object
    for part in voc.train_dataloader.dataset.datasets:
        part.metainfo = dict(classes=('cat', 'dgo'))
    says(voc, r"datasets\.0\.metainfo\.classes: .*one\.txt, .*three\.txt is a 'dgo'")
    voc.train_dataloader.dataset.datasets[2].update(ann_file='s3://bucket/list.txt')  # it may have any
    check_data(voc, 'train')


@pytest.mark.parametrize('broken', ['<annotation>', xml('cat', bndbox=('x', 'y', 'w', 'h'))])
def test_voc_files_that_are_broken(voc, tmp_path, broken):
    (tmp_path / 'Annotations' / 'three.xml').write_text(broken)
    says(voc, r'three\.xml is not in Pascal VOC format')


def test_voc_with_a_json_file(voc, data):
    voc.train_dataloader.dataset.ann_file = 'annotations/train.json'
    says(voc, r"train\.json is JSON, and VOCDataset reads .*type='CocoDataset'")
