"""The files and commands of docs/your_data.md, on small sets in both formats."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_state_dict

from mmdet_gfl.engine import launch
from mmdet_gfl.engine.options import read_options

PAGE = (Path(__file__).parents[2] / 'docs' / 'your_data.md').read_text(encoding='utf-8')
#: File name to code; code without a name; lines of shell.
FILES = dict(re.findall(r'^```python\n# (\S+)\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL))
ADDED = re.findall(r'^```python\n([^#].*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = ''.join(re.findall(r'^```bash\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)).splitlines()
CLASSES = ('person', 'car', 'dog', 'chair')
SMALL = [
    'model.backbone.depth=18',
    'model.backbone.base_channels=8',
    'model.backbone.init_cfg=None',
    'model.neck.in_channels=[8,16,32,64]',
    'model.neck.out_channels=64',
    'model.bbox_head.in_channels=64',
    'model.bbox_head.feat_channels=64',
    'model.bbox_head.stacked_convs=1',
]
QUICK = [
    *SMALL,
    'model.test_cfg.score_thr=0.0',
    'train_cfg.max_epochs=1',
    'train_dataloader.dataset.pipeline.2.scale=(96,96)',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=(96,96)' for split in ('val', 'test')),
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')),
]


def make_objects(count, seed):
    """Images by name, and for each its objects (class, x, y, width, height)."""
    generator = np.random.default_rng(seed)
    images = {}
    for index in range(count):
        boxes = [
            (CLASSES[(index + k) % 4], *generator.integers(2, 30, 2), *generator.integers(20, 50, 2)) for k in (0, 1)
        ]
        images[f'image{seed}{index}'] = [(name, *map(int, box)) for name, *box in boxes]
    return images


def draw(path, objects):
    image = np.full((72, 90, 3), 90, np.uint8)
    for name, x, y, wide, high in objects:
        cv2.rectangle(image, (x, y), (x + wide, y + high), [40 * CLASSES.index(name), 200, 30], -1)
    cv2.imwrite(str(path), image)


def write_coco(root, split, images):
    listed = [dict(id=i, file_name=f'{name}.jpg', width=90, height=72) for i, name in enumerate(images)]
    annotations = [
        dict(image_id=i, category_id=CLASSES.index(name) + 1, bbox=box, area=box[2] * box[3], iscrowd=0)
        for i, objects in enumerate(images.values())
        for name, *box in objects
    ]
    for index, entry in enumerate(annotations):
        entry['id'] = index + 1
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    for folder in ('annotations', 'images'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    content = dict(images=listed, categories=categories, annotations=annotations)
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    for name, objects in images.items():
        draw(root / 'images' / f'{name}.jpg', objects)


def write_voc(root, split, images):
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(images))
    for image, objects in images.items():
        tree = ElementTree.Element('annotation')
        for name, x, y, wide, high in objects:
            entry = ElementTree.SubElement(tree, 'object')
            ElementTree.SubElement(entry, 'name').text = name
            box = ElementTree.SubElement(entry, 'bndbox')
            for side, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), (x + 1, y + 1, x + wide + 1, y + high + 1)):
                ElementTree.SubElement(box, side).text = str(value)
        ElementTree.ElementTree(tree).write(root / 'Annotations' / f'{image}.xml')
        draw(root / 'JPEGImages' / f'{image}.jpg', objects)


@pytest.fixture
def checkout(root, tmp_path, monkeypatch):
    """A folder like the checkout, with the page's files and the data they name."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(root / name)
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding='utf-8')
    for split, count, seed in (('train', 6, 1), ('val', 3, 2)):
        images = make_objects(count, seed)
        write_coco(tmp_path / 'data' / 'mine', split, images)
        write_voc(tmp_path / 'data' / 'voc', split, images)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command, monkeypatch, options=()):
    """A line of the page, in this process."""
    program, tool, *arguments = shlex.split(command)
    assert program == 'python'
    monkeypatch.setattr(sys, 'argv', [tool, *arguments, '--cfg-options', *QUICK, *options])
    runpy.run_path(tool, run_name='__main__')


def average_precision(out):
    """Of the last evaluation that was printed; -1 where the evaluator was given no objects."""
    return float(re.findall(r'Average Precision  \(AP\) @\[ IoU=0\.50:0\.95 .*all.*= (\S+)', out)[-1])


def test_the_page_has_its_parts():
    assert set(FILES) == {'my_coco.py', 'my_voc.py'} and len(ADDED) == 2
    assert [line.split()[1] for line in COMMANDS] == [
        'tools/analysis_tools/regression_targets.py',
        'tools/train.py',
        'tools/test.py',
        'tools/ablate.py',
        '-m',
    ]


@pytest.mark.slow
@pytest.mark.parametrize('name', FILES)
def test_a_set_is_measured_trained_and_tested(name, checkout, monkeypatch, capsys):
    measure, train, test = (line.replace('my_coco', Path(name).stem) for line in COMMANDS[:3])
    work = Path('work_dirs') / Path(name).stem
    run(measure, monkeypatch, ['train_dataloader.num_workers=0'])
    out = capsys.readouterr().out
    assert '6 of 6 images, 0 of them without objects; 12 objects' in out
    assert (work / 'regression_targets_train.png').is_file()

    run(train, monkeypatch)
    out = capsys.readouterr().out
    assert 'effective batch size 2, lr 0.00125' in out and (work / 'epoch_1.pth').is_file()
    trained = average_precision(out)

    run(test.replace('epoch_12', 'epoch_1'), monkeypatch)
    assert average_precision(capsys.readouterr().out) == trained


def test_uniform_box_weights_are_compared_and_written(checkout):
    def said(command):
        words = shlex.split(command, comments=True)
        return subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True, text=True).stdout

    ablate, convert = COMMANDS[3:]
    rows = said(f'{ablate} --dry-run')
    assert 'GFLHead as in the config' in rows and 'is baseline on this host: not run' in rows
    assert 'mmdet_gfl.ATSSGFLHead: JointQuality with uniform box weights and GeneralBox' in rows
    assert 'my_coco_gfl-uniform.py inherits from my_coco.py' in said(convert)
    head = Config.fromfile('my_coco_gfl-uniform.py').model.bbox_head
    assert head.quality.box_weight == 'uniform' and head.num_classes == 4


def test_both_formats_give_the_same_objects(checkout):
    from mmdet.registry import DATASETS

    sets = [DATASETS.build(dict(Config.fromfile(name).train_dataloader.dataset, pipeline=[])) for name in FILES]
    for coco, voc in zip(*sets):
        assert Path(coco['img_path']).name == Path(voc['img_path']).name
        assert len(coco['instances']) == 2
        for ours, theirs in zip(coco['instances'], voc['instances']):
            assert ours['bbox_label'] == theirs['bbox_label'] and ours['bbox'] == theirs['bbox']


def test_the_example_of_the_format(checkout):
    (example,) = re.findall(r'^```json\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
    place = checkout / 'data' / 'mine'
    (place / 'annotations' / 'train.json').write_text(example)
    draw(place / 'images' / 'street.jpg', [])
    cfg = Config.fromfile('my_coco.py')
    cfg.train_dataloader.dataset.metainfo.classes = ('person', 'car')
    launch.build_dataset(cfg, 'train')
    box = json.loads(example)['annotations'][0]
    assert box['area'] == box['bbox'][2] * box['bbox'][3]


def test_layers_that_weights_of_coco_fill(checkout, caplog, request):
    (checkout / 'my_coco.py').write_text(FILES['my_coco.py'] + ''.join(ADDED), encoding='utf-8')
    cfg = Config.fromfile('my_coco.py')
    metafile = (checkout / 'configs' / 'gfl' / 'metafile.yml').read_text()
    assert f'Weights: {cfg.load_from}\n' in metafile
    assert cfg.train_cfg.max_epochs == 36 and cfg.param_scheduler[1].end == 36 and cfg.auto_scale_lr.enable

    def model(classes):
        small = {key: value for key, _, value in (option.partition('=') for option in SMALL)}
        for key, value in small.items():
            cfg.merge_from_dict({key: None if value == 'None' else json.loads(value)})
        cfg.model.bbox_head.num_classes = classes
        return MODELS.build(cfg.model)

    of_coco, mine = model(80), model(4)
    with torch.no_grad():
        for parameter in of_coco.parameters():
            parameter.fill_(0.125)
    logger = MMLogger.get_instance(request.node.name)
    logger.addHandler(caplog.handler)
    load_state_dict(mine, of_coco.state_dict(), strict=False, logger=logger)
    logger.removeHandler(caplog.handler)
    left = {name for name, value in mine.named_parameters() if (value != 0.125).any()}
    assert left == {'bbox_head.gfl_cls.weight', 'bbox_head.gfl_cls.bias'}
    assert 'size mismatch for bbox_head.gfl_cls' in caplog.text


# What is said -------------------------------------------------------------------------------------------------------


def rewritten(checkout, change, split='train'):
    file = checkout / 'data' / 'mine' / 'annotations' / f'{split}.json'
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def reversed_validation(cfg, checkout):
    """The categories of the validation in another order, and the classes as its file has them."""
    file = checkout / 'data' / 'mine' / 'annotations' / 'val.json'
    content = json.loads(file.read_text())
    content['categories'].reverse()
    file.write_text(json.dumps(content))
    cfg.val_dataloader.dataset.metainfo.update(classes=CLASSES[::-1])


def misspelt_class(cfg, checkout):
    """A training on the VOC set, with a class that is not written as in its files."""
    cfg.train_dataloader.dataset = Config.fromfile('my_voc.py').train_dataloader.dataset
    cfg.train_dataloader.dataset.metainfo.classes = ('person', 'car', 'dog', 'Chair')


def reversed_box(cfg, checkout):
    """A training on the VOC set, with an object from right to left."""
    file = next((checkout / 'data/voc/Annotations').glob('image1*'))
    file.write_text(re.sub(r'<xmin>\d+</xmin>', '<xmin>88</xmin>', file.read_text(), count=1))
    cfg.train_dataloader.dataset = Config.fromfile('my_voc.py').train_dataloader.dataset


BROKEN = {
    "KeyError: 'categories'": lambda cfg, checkout: rewritten(checkout, lambda content: content.pop('categories')),
    'cannot be read by': lambda cfg, checkout: (checkout / 'data/mine/annotations/train.json').write_text(
        '<annotation/>'
    ),
    'bbox=None': lambda cfg, checkout: rewritten(checkout, lambda content: content['annotations'][0].update(bbox=None)),
    'have the same id': lambda cfg, checkout: rewritten(
        checkout, lambda content: content['annotations'][1].update(id=content['annotations'][0]['id'])
    ),
    'is not a category of': lambda cfg, checkout: cfg.train_dataloader.dataset.metainfo.update(
        classes=('person', 'bus')
    ),
    'lists them as': lambda cfg, checkout: cfg.train_dataloader.dataset.metainfo.update(classes=CLASSES[::-1]),
    'which no object of ... is called': misspelt_class,
    'a label is a number in that order': reversed_validation,
    'images of ... are not there': lambda cfg, checkout: next((checkout / 'data/mine/images').glob('image1*')).unlink(),
    'are not x1 <= x2, y1 <= y2 and finite': reversed_box,
    'nothing to learn': lambda cfg, checkout: rewritten(
        checkout, lambda content: [entry.update(area=0) for entry in content['annotations']]
    ),
    'does not hold the images of': lambda cfg, checkout: cfg.val_evaluator.update(
        ann_file='data/mine/annotations/train.json'
    ),
    'has iscrowd=None; give it': lambda cfg, checkout: rewritten(
        checkout, lambda content: content['annotations'][0].update(iscrowd=None), 'val'
    ),
    'but the data set of ... has 4 classes': lambda cfg, checkout: cfg.model.bbox_head.update(num_classes=80),
    'is in Pascal VOC format': lambda cfg, checkout: cfg.train_dataloader.dataset.update(data_root='data/voc/'),
}


def test_the_table_of_messages():
    rows = PAGE.split('| message, in part | meaning |')[1].split('\n\n')[0]
    assert re.findall(r'^\| `(.*?)` \|', rows, flags=re.MULTILINE) == list(BROKEN)


@pytest.mark.parametrize('message', BROKEN)
def test_a_message(message, checkout):
    cfg = Config.fromfile('my_coco.py')
    launch.merge_options(cfg, read_options('--cfg-options', QUICK))
    cfg.update(work_dir='work', launcher='none', log_level='ERROR')
    BROKEN[message](cfg, checkout)
    with pytest.raises(launch.UserError, match='.*'.join(map(re.escape, message.split('...')))):
        launch.check_data(cfg, 'train', 'val')
        runner = launch.build_runner(cfg)
        launch.run(lambda: (launch.observe(runner, 'train', 'val'), runner.train()), cfg)
