"""``regression_targets.py`` from the command line to its files, with configs of ours and MMDetection's own."""

import json
import runpy
import sys
from pathlib import Path

import cv2
import mmdet
import pytest
from mmengine.config import Config

from mmdet_gfl.analysis import regression_targets
from mmdet_gfl.datasets.shapes import Parameters
from mmdet_gfl.engine.launch import UserError

STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
STOCK_CONFIGS = (
    'atss/atss_r50_fpn_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    'ssd/ssd300_coco.py',
    'ssd/ssd512_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
)
#: Ours, one per host, and with another delta; and MMDetection's.
CONFIGS = [
    'configs/gfl/gfl_r50_fpn_delta0.5_1x_coco.py',
    'configs/atss/atss_r50_fpn_gaussian_1x_coco.py',
    'configs/fcos/fcos_r50-caffe_fpn_gfl_1x_coco.py',
    'configs/retinanet/retinanet_r50_fpn_gfl_1x_coco.py',
    'configs/foveabox/fovea_r50_fpn_gfl_4xb4-1x_coco.py',
    'configs/ssd/ssd300_gfl_coco.py',
    'configs/rtmdet/rtmdet_tiny_general-dfl_8xb32-300e_coco.py',
    *(str(STOCK / name) for name in STOCK_CONFIGS),
]

#: Levels of the heads that have others than five.
LEVELS = dict(ssd300=6, ssd512=7, rtmdet=3)


@pytest.fixture
def on_shapes(root, monkeypatch):
    """A config with the shapes as its data set; the pipeline stays its own."""
    monkeypatch.setenv('SHAPES_ROOT', Parameters(train=4, val=2, width=160, height=128).address)
    data = Config.fromfile(root / 'configs/_base_/datasets/shapes_detection.py').train_dataloader.dataset

    def read(name):
        cfg = Config.fromfile(root / name)
        node = cfg.train_dataloader.dataset
        while 'dataset' in node:
            node = node.dataset
        node.update({key: data[key] for key in ('type', 'data_root', 'ann_file', 'data_prefix')})
        return cfg

    return read


@pytest.fixture
def tool(root, monkeypatch):
    def run(*arguments):
        path = str(root / 'tools' / 'analysis_tools' / 'regression_targets.py')
        monkeypatch.setattr(sys, 'argv', [path, *map(str, arguments)])
        runpy.run_path(path, run_name='__main__')

    return run


def test_the_command_line(tool, on_shapes, root, tmp_path, monkeypatch, capsys):
    cfg = on_shapes('configs/gfl/gfl_r50_fpn_1x_coco.py')
    cfg.model.bbox_head.num_classes = 10
    cfg.dump(tmp_path / 'mine.py')
    monkeypatch.chdir(tmp_path)
    tool('mine.py', '--images', 3, '--workers', 0, '--cfg-options', 'model.bbox_head.reg_max=4')
    captured = capsys.readouterr()
    assert '3/3' in captured.err and '3 of 4 images' in captured.out
    assert 'now reg_max=4, delta=1 reaches 4 strides, 32 to 512 px' in captured.out
    stem = Path('work_dirs/mine/regression_targets_train')
    assert captured.out.endswith(f'{stem}.png, {stem}.json\n')
    assert cv2.imread(f'{stem}.png').shape == (495, 1320, 3)
    content = json.loads(stem.with_suffix('.json').read_text())
    assert content['images'] == 3 and content['all']['clipped_share'] > 0 and content['reg_max'] == 4
    assert content['all']['positives'] == sum(level['positives'] for level in content['levels']) > 0


@pytest.mark.parametrize('name', CONFIGS, ids=lambda name: Path(name).stem + '-stock' * name.startswith('/'))
def test_a_config_is_measured(on_shapes, name):
    report = regression_targets.measure(on_shapes(name), images=2)
    assert report.images == 2 and report.all.positives > 0
    # The boxes are not larger than the image, whose longer side is at most 1333 px.
    assert all(level.largest * stride <= 1334 for level, stride in zip(report.levels, report.strides))
    # The other heads have no reg_max.
    assert report.assumed == all(word not in Path(name).name for word in ('gfl_', 'general-dfl_'))
    assert report.box.delta == (0.5 if 'delta0.5' in name else 1)
    assert len(report.levels) == next((n for key, n in LEVELS.items() if key in name), 5)


@pytest.mark.slow
def test_the_share_of_atss_on_coco(coco128, root):
    # Half of the positives have a longest side of more than 5.3 strides, a hundredth more than 12.3, a thousandth 15.2.
    cfg = Config.fromfile(root / 'configs/gfl/gfl_r50_fpn_1x_coco.py')
    cfg.train_dataloader.dataset.data_root = str(coco128)
    report = regression_targets.measure(cfg, workers=1)
    assert report.images == 126 and sum(report.objects) == 929 and report.ignored == 10
    for percent, seen in ((50, 5.3), (99, 12.3), (99.9, 15.2)):
        assert abs(report.longest.percentile(percent) - seen) < 0.4
    assert report.all.clipped == 0 and report.all.smallest_reg_max(0.001) in (14, 15, 16)


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--share', '2'], '--share 2.0: a share of the targets is needed'),
        (['--images', '-1'], 'must not be negative'),
        (['--split', 'training'], 'invalid choice'),
    ],
)
def test_arguments_that_mean_nothing(tool, root, capsys, arguments, words):
    with pytest.raises(SystemExit) as error:
        tool(root / 'configs/gfl/gfl_r50_fpn_1x_coco.py', *arguments)
    assert error.value.code == 2 and words in capsys.readouterr().err


def test_missing_data_is_named(tool, root, tmp_path):
    with pytest.raises(UserError, match=r'train_dataloader\.dataset\.ann_file: .*does not exist'):
        tool(
            root / 'configs/gfl/gfl_r50_fpn_1x_coco.py',
            '--cfg-options',
            f'train_dataloader.dataset.data_root={tmp_path}',
        )


def test_an_output_is_validated_first(tool, on_shapes, tmp_path, monkeypatch):
    cfg = on_shapes('configs/gfl/gfl_r50_fpn_1x_coco.py')
    cfg.model.bbox_head.num_classes = 10
    cfg.dump(tmp_path / 'mine.py')
    monkeypatch.setattr(regression_targets, 'measure', lambda *_: pytest.fail('the images were read first'))
    with pytest.raises(UserError, match=r'--out-dir: folder .*mine\.py cannot be written to \(File exists\)'):
        tool(tmp_path / 'mine.py', '--out-dir', tmp_path / 'mine.py')


def test_a_detector_without_distances_is_refused(tool, on_shapes, tmp_path):
    on_shapes(str(STOCK / 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')).dump(tmp_path / 'faster.py')
    with pytest.raises(UserError, match=r"model\.type='FasterRCNN'.*accepted: ATSSHead or mmdet_gfl\.ATSSGFLHead"):
        tool(tmp_path / 'faster.py')
