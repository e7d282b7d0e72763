"""``tools/ablate.py`` end to end on a few drawn images: dry run, run, run again, status, report; what it refuses."""

import importlib.util
import json
import re
import sys

import numpy as np
import pytest
import torch
from mmengine.fileio import dump
from PIL import Image

from mmdet_gfl.benchmark.commands import exit_with
from mmdet_gfl.benchmark.results import read

CONFIG = """
_base_ = '{base}'
data = dict(data_root={root!r}, ann_file='all.json', data_prefix=dict(img=''), metainfo=dict(classes=('thing',)))
trunk = dict(depth=18, base_channels=8, init_cfg=None, frozen_stages=-1, norm_eval=False)
model = dict(
    backbone=trunk,
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(num_classes=1, in_channels=16, feat_channels=16, stacked_convs=1),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64)),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=keys),
]
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **data), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **data), **loader)
val_evaluator = dict(ann_file={root!r} + '/all.json')
"""


@pytest.fixture
def config(tmp_path):
    """A RetinaNet of the stock kind on eight images of 64 px with an object each."""
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(8):
        picture = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        picture[16:48, 8:40] = 255
        Image.fromarray(picture).save(tmp_path / f'{number}.png')
        images.append(dict(id=number, file_name=f'{number}.png', width=64, height=64))
        boxes.append(dict(id=number + 1, image_id=number, category_id=1, bbox=[8, 16, 32, 32], area=1024, iscrowd=0))
    dump(dict(images=images, annotations=boxes, categories=[dict(id=1, name='thing')]), tmp_path / 'all.json')
    import mmdet

    base = f'{mmdet.__path__[0]}/.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py'
    file = tmp_path / 'mine.py'
    file.write_text(CONFIG.format(base=base, root=str(tmp_path)))
    return file


@pytest.fixture
def ablate(root, monkeypatch, capsys, warm_children):
    """The tool in this process: takes its arguments, returns its exit status and what it said on stdout and stderr."""
    spec = importlib.util.spec_from_file_location('ablate', root / 'tools' / 'ablate.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['ablate.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            exit_with(tool.main)
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.mark.slow
def test_rows_on_a_users_config(ablate, config, tmp_path):
    work = tmp_path / 'work'
    arguments = ['run', config, '--rows', 'baseline', 'gfl', '--seeds', '0', '--epochs', '1', '--fraction', '0.5']
    arguments += ['--work-dir', work, '--jobs', '2']
    status, said, _ = ablate(*arguments, '--dry-run')
    assert status == 0 and 'RetinaHead as in the config' in said and str(work / 'mine' / 'gfl') in said
    assert not work.exists()

    one = [argument for argument in arguments if argument != 'baseline']
    status, said, _ = ablate(*one, '--estimate')
    assert status == 0 and 'mine/gfl, 1 x: 4 images x 1 epochs, ' in said and not work.exists()
    disk = int(re.search(r'disk: about (\d+) MB for the checkpoints of 1 run', said)[1])

    status, said, _ = ablate(*arguments)
    assert status == 0 and said.count('seed 0: coco/bbox_mAP ') == 2, said
    kept = {row: read(work / 'mine' / row / 'seed-0' / 'result.json') for row in ('baseline', 'gfl')}
    assert 'RetinaGFLHead' in kept['gfl']['resolved'] and 'GFL' not in kept['baseline']['resolved']
    assert kept['gfl']['parameters'] > kept['baseline']['parameters'] > 0 and kept['gfl']['epochs'] == 1
    checkpoint = torch.load(work / 'mine' / 'gfl' / 'seed-0' / 'epoch_1.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2  # 4 of 8 images, 2 per step
    size = (work / 'mine' / 'gfl' / 'seed-0' / 'epoch_1.pth').stat().st_size
    assert disk == pytest.approx(2 * size / 1e6, abs=1.2)
    assert 0 < read(work / 'mine' / 'gfl' / 'seed-0' / 'result.json')['image_seconds'] < 60

    status, said, _ = ablate(*arguments)
    assert status == 0 and '2 runs, 2 of them done' in said
    status, said, _ = ablate('status', '--work-dir', work)
    assert said.endswith('2 done\n')
    status, said, _ = ablate('report', '--work-dir', work)
    assert status == 0 and '**gfl**: ' in said and 'with one seed, which shows no spread' in said
    assert (work / 'report.png').is_file() and json.loads((work / 'report.json').read_text())['rows']
    status, _, said = ablate(*arguments, '--cfg-options', 'optim_wrapper.optimizer.lr=0.3')
    assert status == 2 and 'lr is 0.01 there, 0.3 here' in said


@pytest.mark.parametrize(
    'extra, said',
    [
        ('val_dataloader = None', 'has no val_dataloader'),
        ("val_evaluator = dict(type='DumpDetResults', _delete_=True, out_file_path='a.pkl')", 'gives no number'),
        (
            "model = dict(rpn_head=dict(type='ATSSHead', num_classes=1, in_channels=16))",
            'has 2 heads that could change',
        ),
        ("model = dict(bbox_head=dict(_delete_=True, type='YOLOXHead'))", 'YOLOXHead has no GFL variant'),
    ],
)
def test_a_config_that_cannot_be_ablated_is_one_sentence(ablate, config, extra, said):
    child = config.with_name('child.py')
    child.write_text(f"_base_ = './mine.py'\n{extra}\n")
    status, _, error = ablate('run', child, '--dry-run')
    error = f'{status}\n' if isinstance(status, str) else error  # which Python prints
    assert status and said in error and error.count('\n') == 1


def test_bad_input_in_a_sentence(ablate, tmp_path):
    status, _, said = ablate('run', 'retinanet_r50_fpn_1x_coco', '--seeds', '1', '1')
    assert (status, said) == (2, 'error: --seeds: 1 is given 2 times; each seed counts once\n')
    status, _, said = ablate('run', 'retinanet_r50_fpn_1x_coco', '--rows', 'qlf')
    assert status == 2 and 'error: --rows qlf: no such row; did you mean qfl?' in said
    status, _, said = ablate('report', '--work-dir', tmp_path)
    assert status == 2 and 'is not the work dir of an ablation' in said
    assert ablate('report')[0] == 2
