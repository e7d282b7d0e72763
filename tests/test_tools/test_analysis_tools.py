"""The tools that look at a trained detector, from the command line to their files."""

import importlib.util
import json
import pickle
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cases import BASELINES, HOSTS, build, host_config, host_features, metas, stock_config
from matplotlib.figure import Figure
from mmdet.evaluation import DumpDetResults
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_gfl.analysis import detector, uncertainty
from mmdet_gfl.benchmark.mini import CLASSES, Mini, shrink
from mmdet_gfl.datasets.shapes import make_shapes
from mmdet_gfl.engine.launch import UserError
from mmdet_gfl.visualization import pictures

SIZE = 128
MINI = Mini(size=SIZE, train=1, val=4, channels=64, stacked_convs=1, batch_size=3)
CONFIGS = dict(
    gfl='gfl/gfl_r50_fpn_1x_coco.py',
    gaussian='atss/atss_r50_fpn_gaussian_1x_coco.py',
    atss='atss/atss_r50_fpn_1x_coco.py',
    fcos='fcos/fcos_r50-caffe_fpn_gfl_1x_coco.py',
    retina='retinanet/retinanet_r50_fpn_gfl_1x_coco.py',
    fovea='foveabox/fovea_r50_fpn_gfl_4xb4-1x_coco.py',
    ssd='ssd/ssd512_gfl_coco.py',
    rtmdet='rtmdet/rtmdet_tiny_general-dfl_8xb32-300e_coco.py',
    gflv2='gflv2/gflv2_r50_fpn_1x_coco.py',
)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    make_shapes(folder, MINI.shapes)
    return folder


@pytest.fixture(scope='module')
def models(root, tmp_path_factory):
    """Config and checkpoint by the names of ``CONFIGS``; made when asked for."""
    folder, made = tmp_path_factory.mktemp('models'), {}

    def get(name):
        if name not in made:
            cfg = shrink(Config.fromfile(root / 'configs' / CONFIGS[name]), MINI)
            cfg.dump(folder / f'{name}.py')
            state = dict(state_dict=with_peaks(cfg).state_dict())
            torch.save(state, folder / f'{name}.pth')
            made[name] = str(folder / f'{name}.py'), str(folder / f'{name}.pth')
        return made[name]

    return get


def with_peaks(cfg):
    """A random detector with scores around 0.3 and sides that are peaked 1 to 3 strides away."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    head = model.bbox_head
    cls_name, reg_name = ('cls_convs', 'reg_convs') if 'SSD' in type(head).__name__ else (head.cls_name, head.reg_name)
    outputs = [(cls_name, lambda bias: torch.randn_like(bias) - 1)]
    width = head.box.channels
    if width > 2:
        bins = torch.arange(width)
        peaks = torch.stack([-((bins - 1.2 - 0.6 * side) ** 2) / (0.2 + 0.5 * side) for side in range(4)]).flatten()
        outputs.append((reg_name, lambda bias: peaks.repeat(len(bias) // len(peaks))))
    for name, start in outputs:
        for layer in getattr(head, name).modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data.normal_(std=0.02)
                layer.bias.data = start(layer.bias.data)
    return model


@pytest.fixture
def tool(root, monkeypatch, capsys):
    """Runs a tool in this process and gives what it printed."""

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(name, root / 'tools' / 'analysis_tools' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments), '--device', 'cpu'])
        module.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, in order."""
    saved, save = [], Figure.savefig

    def savefig(figure, *args, **options):
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, 'savefig', savefig)
    return saved


# draw_distributions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['gfl', 'ssd', 'gaussian', 'rtmdet'])
def test_hosts_are_drawn(name, models, shapes, tool, figures, tmp_path):
    truth = ['--ann-file', shapes / 'annotations' / 'instances_val.json']
    few = ['--max-images', 2 if name == 'gfl' else 1, '--max-rows', 1, '--max-boxes', 3, '--score-thr', 0.1]
    said = tool('draw_distributions', shapes / 'val', *models(name), *truth, '--out-dir', tmp_path, *few)
    written = [tmp_path / '000001.png', tmp_path / '000002.png'][: few[1]]
    assert said.splitlines()[-few[1] :] == [str(path) for path in written] and len(list(tmp_path.iterdir())) == few[1]
    for path, figure in zip(written, figures):
        wide, high = figure.get_size_inches() * figure.dpi
        assert cv2.imread(str(path)).shape[:2] == (int(high), int(wide))
        image, panels = figure.axes[-1], figure.axes[:-1]
        assert image.images and len(panels) == 4  # one row
        sides = [float(axes.lines[0].get_xdata()[0]) for axes in panels]
        box = next(patch for patch in image.patches if not patch.get_fill() and patch.get_linewidth() == 1.3)
        assert sides[0] < sides[2] and sides[1] < sides[3]
        for axes in panels:
            if name == 'gaussian':
                (density,) = axes.collections
                x, y = density.get_paths()[0].vertices.T
                assert x[y.argmax()] == pytest.approx(axes.lines[0].get_xdata()[0], abs=0.02 * np.ptp(x))
            else:
                bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches]
                assert sum(height for _, height in bars) == pytest.approx(1, abs=1e-4)
                mean = sum(place * height for place, height in bars)
                assert mean == pytest.approx(axes.lines[0].get_xdata()[0], abs=0.05)
        assert box.get_width() > 0


def test_one_image_and_few_boxes(models, shapes, tool, figures, tmp_path):
    arguments = [shapes / 'val' / '000003.bmp', *models('gfl'), '--out-dir', tmp_path / 'new' / 'folder']
    tool('draw_distributions', *arguments, '--max-boxes', 2, '--max-rows', 1, '--score-thr', 0.999)
    assert cv2.imread(str(tmp_path / 'new' / 'folder' / '000003.png')) is not None
    ((image,),) = (figure.axes for figure in figures)  # no panels
    assert image.get_title() == 'no detections' and not image.patches


@pytest.mark.parametrize('name', ['gfl', 'fcos', 'retina', 'fovea', 'ssd', 'gflv2'])
def test_the_detections_drawn_are_those_of_the_model(name, models, shapes):
    cfg = Config.fromfile(models(name)[0])
    loaded = detector.load(cfg, models(name)[1], 'cpu')
    assert loaded.classes == tuple(CLASSES)  # the checkpoint names none, so the config does
    images, _ = detector.images_of(cfg, models(name)[1], 'val', 'cpu')
    assert detector.turn_on_distributions(loaded) == 'full'
    found = pictures.detect(loaded, shapes / 'val' / '000001.bmp', 0.0)
    np.testing.assert_allclose(found.bboxes, images[0][0].boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, images[0][0].scores, atol=1e-5)
    assert found.bbox_distribution.shape == (len(found), 4, 17) and len(found) > 20
    assert len(pictures.detect(loaded, shapes / 'val' / '000001.bmp', 0.5)) == (found.scores > 0.5).sum()


def test_no_distributions(models, tool, shapes, tmp_path):
    with pytest.raises(UserError, match=r'atss\.py has a DiracBox: it predicts one number .*GeneralBox.*gfl_r50'):
        tool('draw_distributions', shapes / 'val', *models('atss'), '--out-dir', tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'head, words',
    [
        (dict(type='GFLHead'), r'cfg has MMDetection.s GFLHead.*model\.bbox_head\.type=mmdet_gfl\.GFLHead the same'),
        (dict(type='RetinaHead'), r'cfg has a RetinaHead, which predicts no distributions'),
        (None, r'cfg has a Sequential without a dense head'),
    ],
)
def test_heads_that_are_not_ours(head, words):
    model = nn.Sequential()
    if head is not None:
        model.bbox_head = type(head['type'], (nn.Module,), {})()
    loaded = detector.Detector(model, type('', (), dict(filename='cfg'))(), ())
    with pytest.raises(UserError, match=words):
        detector.turn_on_distributions(loaded)


@pytest.mark.parametrize(
    'content, words',
    [
        (None, 'does not exist'),
        ('{', 'is not a COCO annotation file .JSONDecodeError'),
        ('[]', 'is not a COCO annotation file .TypeError'),
        ('{"images": [{"id": 1, "file_name": "other.jpg"}], "annotations": []}', 'lists none of the images, such as'),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 2, "bbox": [1, 2, 3, 4]}]}',
            'KeyError: 2',
        ),
    ],
)
def test_ground_truth_that_does_not_fit(content, words, models, tool, shapes, tmp_path):
    file = tmp_path / 'truth.json'
    if content is not None:
        file.write_text(content)
    arguments = [shapes / 'val', *models('gfl'), '--ann-file', file, '--out-dir', tmp_path / 'out']
    with pytest.raises(UserError, match=words):
        tool('draw_distributions', *arguments)


def test_ground_truth_by_file_name(tmp_path):
    truth = tmp_path / 'truth.json'
    images = [dict(id=i, file_name=name) for i, name in enumerate(('a/1.jpg', 'b/1.jpg', '2.jpg'))]
    annotations = [
        dict(image_id=0, bbox=[1, 2, 3, 4]),
        dict(image_id=1, bbox=[5, 6, 7, 8]),
        dict(image_id=1, bbox=[0, 0, 9, 9], iscrowd=1),
    ]
    truth.write_text(json.dumps(dict(images=images, annotations=annotations)))
    boxes = pictures.read_ground_truth(truth)
    assert pictures.boxes_of(boxes, tmp_path / 'a' / '1.jpg').tolist() == [[1, 2, 4, 6]]
    assert pictures.boxes_of(boxes, tmp_path / 'b' / '1.jpg').tolist() == [[5, 6, 12, 14]]
    assert pictures.boxes_of(boxes, tmp_path / '2.jpg').shape == (0, 4)
    assert pictures.boxes_of(boxes, tmp_path / 'ba' / '1.jpg') is None
    assert pictures.boxes_of(boxes, tmp_path / '3.jpg') is None


def test_images_that_cannot_be_drawn(models, tool, tmp_path):
    with pytest.raises(UserError, match='no image and no folder at'):
        tool('draw_distributions', tmp_path / 'nowhere', *models('gfl'))
    with pytest.raises(UserError, match='has no images; looked for .bmp'):
        tool('draw_distributions', tmp_path, *models('gfl'))
    (tmp_path / 'broken.jpg').write_bytes(b'no picture')
    (tmp_path / 'empty.png').touch()
    for name in ('broken.jpg', 'empty.png'):
        with pytest.raises(UserError, match=f'{name} cannot be read'):
            tool('draw_distributions', tmp_path / name, *models('gfl'), '--out-dir', tmp_path / 'out')


def test_no_image_is_overwritten(models, tool, shapes, tmp_path):
    image = tmp_path / 'a.png'
    image.write_bytes((shapes / 'val' / '000001.bmp').read_bytes())
    before = image.read_bytes()
    with pytest.raises(UserError, match=r'the picture would overwrite the image .*a\.png; name another folder'):
        tool('draw_distributions', image, *models('gfl'), '--out-dir', tmp_path)
    assert image.read_bytes() == before


def test_images_of_one_name_get_a_picture_each(tmp_path):
    files = [tmp_path / name for name in ('a.jpg', 'a.png', 'b.jpg')]
    names = [out.name for out in pictures.picture_files(files, tmp_path / 'out')]
    assert names == ['a.jpg.png', 'a.png.png', 'b.png']
    names = [path.name for path in pictures.picture_files([*map(Path, ('a.jpg', 'a.png', 'a.jpg.bmp'))], tmp_path)]
    assert names == ['a.jpg.png', 'a.png.png', 'a.jpg.bmp.png']


@pytest.mark.parametrize('flag, value', [('--max-boxes', 0), ('--max-rows', -1), ('--max-images', 0)])
def test_numbers_below_the_least_are_refused(flag, value, tool):
    with pytest.raises(UserError, match=f'{flag} {value}: a whole number from'):
        tool('draw_distributions', 'images', 'config.py', 'checkpoint.pth', flag, value)


# quality_scatter ----------------------------------------------------------------------------------------------------


def test_a_branch_beside_a_joint_score(models, tool, figures, tmp_path):
    out = tmp_path / 'deep' / 'scatter.png'
    said = tool('quality_scatter', *models('atss'), *models('gfl'), '--names', 'ATSS', 'GFL', '--out', out)
    header, atss, gfl = said.splitlines()[-4:-1]
    assert header.split()[-1] == 'branch' and said.splitlines()[-1] == str(out)
    assert len(atss.split()) == 7 and len(gfl.split()) == 5  # the joint score has no parts
    assert cv2.imread(str(out)) is not None
    (figure,) = figures
    titles = [axes.get_title().partition('\n')[0].partition(':')[0] for axes in figure.axes]
    assert titles == ['ATSS', 'GFL', 'separate', 'joint']


@pytest.mark.parametrize('host', [host for host in HOSTS if BASELINES[host] == 'CenternessBranch'])
@pytest.mark.parametrize('stock', [True, False], ids=['stock', 'ours'])
def test_the_branch_is_kept_and_nothing_else_changes(host, stock):
    head = build(stock_config(host) if stock else host_config(host, 'CenternessBranch', 'dirac')).eval()
    outs, image = head(host_features(host, (96, 128), 1)), metas((96, 128), 1)
    plain = head.predict_by_feat(*outs, batch_img_metas=image)[0]
    detector.keep_quality(head)
    kept = head.predict_by_feat(*outs, batch_img_metas=image)[0]
    assert torch.equal(plain.scores, kept.scores) and torch.equal(plain.bboxes, kept.bboxes) and len(kept) > 10
    class_scores = torch.cat([level.sigmoid().flatten() for level in outs[0]])
    nearest = (class_scores[None] - (kept.scores / kept.quality)[:, None]).abs().amin(dim=1)
    assert nearest.max() < 1e-6 and kept.quality.min() > 0 and kept.quality.max() < 1 and kept.quality.std() > 0.01


@pytest.mark.parametrize(
    'arguments, words',
    [(['config.py'], 'config.py stands alone'), (['a.py', 'b.pth', '--names', 'x', 'y'], '2 names for 1 models')],
)
def test_models_that_do_not_pair(arguments, words, tool):
    with pytest.raises(UserError, match=words):
        tool('quality_scatter', *arguments)


# select_thresholds ----------------------------------------------------------------------------------------------------


def write_detections(cfg, checkpoint, out, keep=None):
    """The file of ``tools/test.py --out``, written by what it uses."""
    from mmengine.runner import Runner

    model = detector.load(cfg, checkpoint, 'cpu').model
    dump = DumpDetResults(out_file_path=str(out))
    with torch.no_grad():
        for batch in Runner.build_dataloader(cfg.val_dataloader):
            dump.process(batch, [sample.to_dict() for sample in model.test_step(batch)][:keep])
    dump.evaluate(len(dump.results))


def test_thresholds_of_a_checkpoint_and_of_its_detections(models, tool, tmp_path):
    config, checkpoint = models('gfl')
    write_detections(Config.fromfile(config), checkpoint, tmp_path / 'found.pkl')
    written = []
    for name, weights in (('one', checkpoint), ('two', tmp_path / 'found.pkl')):
        out = tmp_path / f'{name}.json'
        said = tool('select_thresholds', config, weights, '--precision', 0.02, '--iou', 0.3, '--out', out)
        assert said.splitlines()[-1] == str(out)
        written.append(json.loads(out.read_text()))
    one, two = written
    assert one['classes'] == two['classes'] and (one['images'], one['precision'], one['iou']) == (4, 0.02, 0.3)
    reached = {name: entry for name, entry in one['classes'].items() if entry['threshold'] is not None}
    assert reached
    for name, entry in reached.items():
        assert entry['precision'] >= 0.02 and 0 < entry['recall'] <= 1
        assert re.search(
            rf'^{name} +{entry["objects"]} +{entry["threshold"]:.4f} +{entry["precision"]:.3f}', said, re.M
        )
    # Counted again, from the detections with that score and above.
    images, classes = detector.images_of(Config.fromfile(config), checkpoint, 'val', 'cpu')
    for name, entry in reached.items():
        label = classes.index(name)
        above = sum(((one.labels == label) & (one.scores >= entry['threshold'])).sum() for one, _ in images)
        assert above >= entry['detections'] > 0  # those in crowds are in no number
        assert entry['objects'] == sum(((of.labels == label) & ~of.ignored).sum() for _, of in images)


@pytest.mark.parametrize('flag, value', [('--precision', 0), ('--precision', 1.5), ('--iou', -0.1), ('--iou', 'nan')])
def test_shares_out_of_range(flag, value, tool):
    with pytest.raises(UserError, match=f'{flag} .*it is a share'):
        tool('select_thresholds', 'config.py', 'checkpoint.pth', flag, value)


# evaluate_uncertainty -------------------------------------------------------------------------------------------------


def test_deviations_beside_the_truth(models, tool, figures, tmp_path):
    out = tmp_path / 'deep' / 'uncertainty.png'
    names = ['GFL', 'Gaussian']
    both = [*models('gfl'), *models('gaussian'), '--names', *names]
    more = replace(MINI, val=20).shapes.address
    options = ['--cfg-options', f'val_dataloader.dataset.data_root={more}']
    said = tool('evaluate_uncertainty', *both, '--score-thr', 0.05, '--out', out, *options)
    lines = said.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith('| model | sides | rank correlation |'))
    of_models, of_kinds = (
        [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[start:end]]
        for start, end in ((first + 2, first + 5), (first + 8, -1))
    )
    assert [row[0] for row in of_models] == ['GFL', 'GFL, beyond its floor', 'Gaussian'] and lines[-1] == str(out)
    assert lines[first + 6] == '| side | model | sides | true std | predicted std | error |'
    assert {row[0] for row in of_kinds} <= set(uncertainty.KINDS) and len(of_kinds) > 2
    for name, sides, *correlations, chance, within_one, within_two in of_models:
        assert int(sides) == sum(int(row[2]) for row in of_kinds if row[1] == name) > 0
        assert all(-1 <= float(value) <= 1 for value in correlations) and 0 <= float(chance) <= 1
        assert 0 < int(within_one[:-1]) <= int(within_two[:-1]) <= 100
    for kind, _, _, true, predicted, error in of_kinds:
        assert (float(true) == 0) == (kind == 'sharp') and float(predicted) >= 0 and float(error) > 0
    assert cv2.imread(str(out)) is not None
    (figure,) = figures
    ambiguous = [sum(int(row[2]) for row in of_kinds if row[1] == name and row[0] != 'sharp') for name in names]
    drawn = [sum(len(one.get_offsets()) for one in axes.collections) for axes in figure.axes[:2]]
    assert [axes.get_title() for axes in figure.axes[:2]] == names and drawn == ambiguous

    # The numbers are those of the model's own detections.
    cfg = Config.fromfile(models('gfl')[0])
    cfg.val_dataloader.dataset.data_root = more
    loaded = detector.load(cfg, models('gfl')[1], 'cpu')
    evaluation = uncertainty.evaluate(uncertainty.sides_of(loaded, 'val', 0.05))
    assert of_models[0][1:3] == [str(evaluation.number), f'{evaluation.correlation:.2f}']


def test_a_model_without_deviations_is_refused(models, tool, tmp_path):
    out = ['--out', tmp_path / 'out.png']
    with pytest.raises(
        UserError, match=r'atss\.py has a DiracBox: it predicts one number per side and no distribution'
    ):
        tool('evaluate_uncertainty', *models('atss'), *out)
    with pytest.raises(UserError, match=r'no object of the val data is found with score 1\.0 .*lower --score-thr'):
        tool('evaluate_uncertainty', *models('gfl'), '--score-thr', 1, *out)
    assert list(tmp_path.iterdir()) == []


# Former names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'old, new', [('pick_threshold', 'select_thresholds'), ('judge_uncertainty', 'evaluate_uncertainty')]
)
def test_a_tool_still_runs_under_its_former_name(old, new, root, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [f'{old}.py', '--help'])
    with pytest.raises(SystemExit, match='0'):
        runpy.run_path(str(root / 'tools' / 'analysis_tools' / f'{old}.py'), run_name='__main__')
    said = capsys.readouterr()
    assert said.err == f'{old}.py is now called {new}.py; the next release drops the old name\n'
    assert f'usage: {new}.py' in said.out and 'CHECKPOINT' in said.out.upper()


# What all of them refuse --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['draw_distributions', 'select_thresholds', 'quality_scatter', 'evaluate_uncertainty'])
def test_outputs_are_validated_first(name, models, tool, shapes, tmp_path, monkeypatch):
    def work(*_):
        raise AssertionError('the images were read first')

    for function in ('images_of', 'predictions'):
        monkeypatch.setattr(detector, function, work)
    monkeypatch.setattr(uncertainty, 'sides_of', work)
    monkeypatch.setattr(pictures, 'detect', work)
    (tmp_path / 'file').touch()
    images, out = ([shapes / 'val'], '--out-dir') if name == 'draw_distributions' else ([], '--out')
    with pytest.raises(UserError, match=rf'{out}: folder .*file.* cannot be written to \(Not a directory\); name'):
        tool(name, *images, *models('gfl'), out, tmp_path / 'file' / 'folder' / 'result.png')


def test_files_that_cannot_be_written(models, tool, tmp_path):
    with pytest.raises(UserError, match='--out .* is a folder; name a file'):
        tool('select_thresholds', *models('gfl'), '--out', tmp_path)
    with pytest.raises(UserError, match=r'picture\.xyz: the file must end in \.png, \.svg, \.pdf or \.jpg'):
        tool('quality_scatter', *models('gfl'), '--out', tmp_path / 'picture.xyz')


def test_weights_that_do_not_fit(models, tool, tmp_path):
    config, _ = models('gfl')
    _, other = models('gaussian')
    with pytest.raises(UserError, match='does not fit the config: bbox_head'):
        tool('select_thresholds', config, other)
    with pytest.raises(UserError, match='there is no checkpoint at'):
        tool('select_thresholds', config, tmp_path / 'none.pth')
    with pytest.raises(UserError, match=r'there are no detections at .*none\.pkl; write them with tools/test\.py'):
        tool('select_thresholds', config, tmp_path / 'none.pkl')


def test_detections_of_something_else(models, tool, tmp_path):
    config, checkpoint = models('gfl')
    file = tmp_path / 'found.pkl'
    for content in (b'', pickle.dumps([1, 2]), pickle.dumps([dict(img_id=1)])):
        file.write_bytes(content)
        with pytest.raises(UserError, match='found.pkl holds no detections as tools/test.py --out'):
            tool('select_thresholds', config, file)
    write_detections(Config.fromfile(config), checkpoint, file, keep=2)
    with pytest.raises(UserError, match='has no entry for 1 of the 4 images'):  # the third of a batch of three
        tool('select_thresholds', config, file)
    found = dict(bboxes=torch.zeros(1, 4), scores=torch.ones(1), labels=torch.tensor([10]))
    file.write_bytes(pickle.dumps([dict(img_id=i, pred_instances=found) for i in range(1, 5)]))
    with pytest.raises(UserError, match=f'class of index 10, but the data set has {len(CLASSES)} classes'):
        tool('select_thresholds', config, file)


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(val_dataloader=None), r'has no val_dataloader, hence no data set; try --split test'),
        (dict(val_dataloader=None, test_dataloader=None), r'no data set; write one, as configs/_base_/datasets do'),
        ({'val_dataloader.dataset.data_root': '/nowhere'}, r'val_dataloader\.dataset\.ann_file: /nowhere'),
        ({'model.bbox_head.num_classes': 20}, rf'mismatch for \S*gfl_cls.weight: .*\[{len(CLASSES)}, .*\[20, '),
        ({'model.bbox_head.nonsense': 3}, r"argument 'nonsense'; the config sets it in model\.bbox_head\.nonsense$"),
    ],
)
def test_configs_that_do_not_fit(changes, words, models, tool, tmp_path):
    config, checkpoint = models('gfl')
    cfg = Config.fromfile(config)
    for key, value in changes.items():
        cfg.merge_from_dict({key: value}) if value is not None else cfg.pop(key)
    cfg.dump(tmp_path / 'changed.py')
    with pytest.raises(UserError, match=words):
        tool('select_thresholds', tmp_path / 'changed.py', checkpoint)


def test_a_data_set_without_objects(models, tool, shapes, tmp_path):
    content = json.loads((shapes / 'annotations' / 'instances_val.json').read_text())
    (tmp_path / 'empty.json').write_text(json.dumps(dict(content, annotations=[])))
    option = f'val_dataloader.dataset.ann_file={tmp_path / "empty.json"}'
    with pytest.raises(UserError, match=f'has no objects of the classes {", ".join(CLASSES)}'):
        tool('select_thresholds', *models('gfl'), '--cfg-options', option)


def test_a_device_that_is_not_there(models):
    cfg = Config.fromfile(models('gfl')[0])
    for name in ('nonsense', 'cuda:99'):
        with pytest.raises(UserError, match=f'--device {name}: '):
            detector.load(cfg, models('gfl')[1], name)
