"""Every block of docs/turn_your_config_into_gfl.md, applied to the config that MMDetection ships, and run."""

import inspect
import re
from pathlib import Path

import mmdet
import pytest
import torch
from cases import (
    assert_same_detections,
    host_config,
    host_features,
    metas,
    objects,
    stock_config,
    totals,
)
from mmdet.apis import DetInferencer
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import InstanceData
from torch import nn

STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
PAGE = (Path(__file__).parents[2] / 'docs' / 'turn_your_config_into_gfl.md').read_text(encoding='utf-8')
GFL, ATSS, RETINA = (
    'gfl/gfl_r50_fpn_1x_coco.py',
    'atss/atss_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
)
FCOS = 'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py'
PLAIN_FCOS = 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
FOVEA, SSD300, SSD512 = 'foveabox/fovea_r50_fpn_4xb4-1x_coco.py', 'ssd/ssd300_coco.py', 'ssd/ssd512_coco.py'

#: Stock config to type of the stock head, our head, and the quality of the baseline.
HOSTS = {
    GFL: ('GFLHead', 'GFLHead', None),
    ATSS: ('ATSSHead', 'ATSSGFLHead', 'CenternessBranch'),
    FCOS: ('FCOSHead', 'FCOSGFLHead', 'CenternessBranch'),
    PLAIN_FCOS: ('FCOSHead', 'FCOSGFLHead', 'CenternessBranch'),
    RETINA: ('RetinaHead', 'RetinaGFLHead', 'NoQuality'),
    FOVEA: ('FoveaHead', 'FoveaGFLHead', 'NoQuality'),
    SSD300: ('SSDHead', 'SSDGFLHead', 'NoQuality'),
    SSD512: ('SSDHead', 'SSDGFLHead', 'NoQuality'),
}
#: Which parts of the plane a block may ask for; None is the quality of the baseline.
POINTS = {
    'only QFL': ('JointQuality', 'DiracBox'),
    'only DFL': (None, 'GeneralBox'),
    "MMDetection's head": (None, 'DiracBox'),
}
FULL = ('JointQuality', 'GeneralBox')
EVERYWHERE = [ATSS, FCOS, RETINA, FOVEA, SSD300]


def blocks():
    """(stock config, what it becomes, its lines): the page's for ATSS, and for each other host by the page's table."""
    (parts,) = re.findall(r'^```python\n(# only QFL\n.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
    points = dict(re.findall(r'^# ([^:\n]+).*\n([^#]+)', parts, flags=re.MULTILINE))
    assert list(points) == list(POINTS)
    (whole,) = re.findall(r'^model = .*# was .*$', PAGE, flags=re.MULTILINE)
    for path, (stock, ours, quality) in HOSTS.items():
        row = rf'^\| `{stock}` \| `mmdet_gfl\.{ours}` \| {f"`{quality}`" if quality else "none"}'
        assert re.search(row, PAGE, flags=re.MULTILINE)
        yield path, 'full GFL', whole.replace('ATSSGFLHead', ours).replace('ATSSHead', stock)
        for point, code in points.items() if path in EVERYWHERE else ():
            yield path, point, code.replace('ATSSGFLHead', ours).replace('CenternessBranch', quality)
    yield from re.findall(r'^```python\n# (\S+\.py): ([^\n]*)\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)


BLOCKS = list(blocks())
CODE = {(path, point): code for path, point, code in BLOCKS}


class TinyVGG(nn.Module):
    """Two feature maps of the sizes of SSD's VGG-16: strides 8 and 16, rounded up."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 16, 16, 3, stride=2, padding=1) for i in range(4))

    def forward(self, x):
        maps = []
        for conv in self.convs:
            x = conv(x).relu()
            maps.append(x)
        return maps[2:]


def shrunken(cfg):
    """The same detector with few channels and untrained: nothing is downloaded, and a step takes a moment."""
    model = cfg.model
    if model.bbox_head.type.endswith(('SSDHead', 'SSDGFLHead')):
        model.backbone = ConfigDict(type=TinyVGG)
        widths = (16,) * len(model.neck.out_channels)
        model.neck.update(in_channels=widths[:2], out_channels=widths)
        model.bbox_head.in_channels = widths
    else:
        model.backbone.update(depth=18, base_channels=8, init_cfg=None)
        model.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
        model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1)
    model.test_cfg.update(score_thr=0.0, nms_pre=50)
    return model


@pytest.fixture
def applied(tmp_path):
    """Reads a stock config with lines of the page added, as a child config."""

    def apply(path, code=''):
        child = tmp_path / 'child.py'
        child.write_text(f'_base_ = {str(STOCK / path)!r}\n{code}', encoding='utf-8')
        return Config.fromfile(child)

    return apply


@pytest.fixture
def said(caplog, request):
    """Log lines on superseded losses."""
    logger = MMLogger.get_instance(request.node.name)
    logger.addHandler(caplog.handler)
    yield lambda: [r.getMessage() for r in caplog.records if 'superseded' in r.getMessage()]
    logger.removeHandler(caplog.handler)


def detector(cfg):
    torch.manual_seed(0)
    model = MODELS.build(shrunken(cfg))
    model.init_weights()
    return model


def batch(path):
    """Two images, one without objects: small ones, for SSD of its own size."""
    side = {SSD300: 300, SSD512: 512}.get(path, 96)
    samples = [DetDataSample(metainfo=meta | dict(ori_shape=(side, side))) for meta in metas((side, side), 2)]
    for sample, objs in zip(samples, objects([4, 0], (side, side), num_classes=80)):
        sample.gt_instances = objs
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(4)), samples


def announced(path):
    """The log lines that the page promises for full GFL."""
    (lines,) = re.findall(r'^```text\n(bbox_head.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
    kinds = {RETINA: 'L1', FOVEA: 'SmoothL1'}
    return [line.replace('L1', kinds[path]) for line in lines.splitlines() if path in kinds]


# The blocks ---------------------------------------------------------------------------------------------------------


def test_every_block_is_seen():
    assert len(CODE) == len(BLOCKS) == len(HOSTS) + 3 * len(EVERYWHERE) + 1
    assert PAGE.count('```python\n') == 3  # the whole file, the parts, the paper's box loss


@pytest.mark.parametrize('path', HOSTS)
def test_full_gfl_changes_the_type_only(path, applied):
    lines = CODE[path, 'full GFL'].splitlines()
    stock, ours, _ = HOSTS[path]
    assert lines == [f"model = dict(bbox_head=dict(type='mmdet_gfl.{ours}'))  # was type='{stock}'"]
    cfg, before = applied(path, lines[0]), applied(path)
    assert before.model.bbox_head.pop('type') == stock and cfg.model.bbox_head.pop('type') == f'mmdet_gfl.{ours}'
    assert cfg.to_dict() == before.to_dict()


@pytest.mark.parametrize('path, point, code', BLOCKS, ids=[f'{Path(path).stem}-{point}' for path, point, _ in BLOCKS])
def test_a_block_trains_and_detects(path, point, code, applied, said):
    _, head_type, baseline = HOSTS[path]
    model = detector(applied(path, code))
    head = model.bbox_head
    quality, box = POINTS.get(point, FULL)
    assert type(head).__name__ == head_type and type(head).__module__.startswith('mmdet_gfl.')
    assert type(head.quality).__name__ == (quality or baseline) and type(head.box).__name__ == box

    promised = announced(path)
    assert set(said()) <= set(promised)
    if point == 'full GFL' or point.endswith('box loss'):
        assert said() == promised
    if point == "MMDetection's head":
        assert said() == []
    if point.endswith("the paper's box loss"):
        assert type(head.loss_bbox).__name__ == 'GIoULoss' and head.loss_bbox.loss_weight == 2

    inputs, samples = batch(path)
    losses = model.loss(inputs, samples)
    sum(totals(losses).values()).backward()
    keys = {'loss_cls', 'loss_bbox'} | ({'loss_dfl'} if box == 'GeneralBox' else set())
    keys |= {'loss_centerness'} if head.quality.branch else set()
    assert set(totals(losses)) == keys and 'pos_iou' in losses and ('clipped_share' in losses) == (box == 'GeneralBox')
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert all(losses[key] > 0 for key in keys)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())

    with torch.no_grad():
        results = model.eval().predict(inputs, samples)
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= head.test_cfg.max_per_img
        assert torch.isfinite(found.bboxes).all() and ((found.scores >= 0) & (found.scores <= 1)).all()


@pytest.mark.agreement
@pytest.mark.parametrize('path', [GFL, *EVERYWHERE])
def test_the_baseline_is_the_stock_detector(path, applied):
    point = 'full GFL' if path == GFL else "MMDetection's head"
    ours, stock = detector(applied(path, CODE[path, point])), detector(applied(path))
    with torch.no_grad():
        for name, parameter in stock.bbox_head.named_parameters():
            if name.endswith('cls.bias'):  # else all classes of a level of one cell have the same score
                parameter.add_(torch.rand_like(parameter))
    ours.load_state_dict(stock.state_dict(), strict=True)
    inputs, samples = batch(path)
    our, their = (totals(model.loss(inputs, samples)) for model in (ours, stock))
    assert our.keys() == their.keys()
    for key, value in their.items():
        torch.testing.assert_close(our[key].sum(), value.sum(), rtol=1e-5, atol=1e-7)
    if path == SSD300:
        with pytest.raises(AttributeError) as error:
            stock.eval().predict(inputs, samples)
        assert str(error.value) in PAGE
        return
    results = [
        [result.pred_instances for result in model.eval().predict(inputs, [s.clone() for s in samples])]
        for model in (ours, stock)
    ]
    assert_same_detections(*results)


@pytest.mark.parametrize('path', EVERYWHERE)
def test_layers_that_a_stock_checkpoint_fills(path, applied, caplog, request):
    ours, stock = detector(applied(path, CODE[path, 'full GFL'])), detector(applied(path))
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.fill_(0.125)
    logger = MMLogger.get_instance(request.node.name)
    logger.addHandler(caplog.handler)
    load_state_dict(ours, stock.state_dict(), strict=False, logger=logger)
    logger.removeHandler(caplog.handler)
    left = {name for name, value in ours.named_parameters() if (value != 0.125).any()}
    layers = {name.rpartition('.')[0] for name in left}
    assert left and all(f'size mismatch for {name}' in caplog.text for name in left)
    expected = {ATSS: 'atss_reg', FCOS: 'conv_reg', RETINA: 'retina_reg', FOVEA: 'conv_reg'}
    if path == SSD300:
        assert len(layers) == 12 and all(re.match(r'bbox_head\.(reg|cls)_convs', name) for name in layers)
    else:
        assert layers == {f'bbox_head.{expected[path]}'}


# What the page says beside ------------------------------------------------------------------------------------------


def test_the_whole_file(tmp_path):
    (code,) = re.findall(r'^```python\n# my_config.py\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
    path = tmp_path / 'my_config.py'
    path.write_text(code.replace('/path/to/mmdetection/configs', str(STOCK)), encoding='utf-8')
    cfg = Config.fromfile(path)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16) and cfg.optim_wrapper.optimizer.lr == 0.01
    assert cfg.optim_wrapper.clip_grad == Config.fromfile(STOCK / PLAIN_FCOS).optim_wrapper.clip_grad
    assert cfg.model.bbox_head.type == 'mmdet_gfl.ATSSGFLHead'

    (hook,) = (HOOKS.build(hook) for hook in cfg.custom_hooks)
    runner = type('Runner', (), dict(model=detector(cfg)))
    _, samples = batch(ATSS)
    hook.before_train_iter(runner, 0, dict(data_samples=samples))
    samples[0].gt_instances.bboxes[1, 2] = float('nan')
    with pytest.raises(ValueError, match='image-0.jpg'):
        hook.before_train_iter(runner, 0, dict(data_samples=samples))
    samples[0].gt_instances.bboxes[1, 2] = 90.0
    samples[0].gt_instances.labels[0] = 80
    with pytest.raises(ValueError, match='image-0.jpg') as error:
        hook.before_train_iter(runner, 0, dict(data_samples=samples))
    assert 'is outside [0, num_classes)' in str(error.value)


@pytest.mark.parametrize('path', HOSTS)
def test_lr_and_clipping_of_the_configs(path, applied):
    cfg = applied(path)
    assert not cfg.auto_scale_lr.get('enable')
    assert cfg.auto_scale_lr.base_batch_size == (64 if path in (SSD300, SSD512) else 16)
    assert bool(cfg.optim_wrapper.get('clip_grad')) == (path == PLAIN_FCOS)


@pytest.mark.parametrize('host', ['Fovea', 'FCOS'])
def test_without_a_box_loss_the_host_brings_its_own(host):
    cfg = host_config(host)
    cfg.pop('loss_bbox')
    head = MODELS.build(cfg)
    assert type(head.loss_bbox).__name__ == 'IoULoss' and head.loss_bbox.loss_weight == 1


@pytest.mark.parametrize('path', [SSD300, SSD512])
def test_ssd_has_hooks_to_be_repeated(path, applied):
    assert applied(path).custom_hooks


def test_scores_of_other_programs():
    assert inspect.signature(DetVisualizationHook).parameters['score_thr'].default == 0.3
    assert inspect.signature(DetInferencer.__call__).parameters['pred_score_thr'].default == 0.3
    assert '`score_thr=0.3`' in PAGE and '`pred_score_thr=0.3`' in PAGE


def test_the_distributions_that_the_two_losses_teach():
    # A box with IoU 0.7: QFL is smallest at a score of 0.7, focal loss at 1.
    scores = torch.arange(1, 1000) / 1000
    label = torch.zeros(len(scores), dtype=torch.long)
    qfl = MODELS.build(dict(type='mmdet_gfl.QualityFocalLoss', reduction='none'))
    focal = MODELS.build(dict(type='FocalLoss', use_sigmoid=True, reduction='none'))
    taught = qfl(scores.logit()[:, None], (label, torch.full_like(scores, 0.7)))
    assert abs(float(scores[taught.argmin()]) - 0.7) < 1e-3
    assert focal(scores.logit()[:, None], label).flatten().argmin() == len(scores) - 1


def test_ssd_has_a_channel_less_an_anchor(applied):
    ours, stock = detector(applied(SSD300, CODE[SSD300, 'full GFL'])), detector(applied(SSD300))
    for our, their, anchors in zip(
        ours.bbox_head.cls_convs, stock.bbox_head.cls_convs, stock.bbox_head.num_base_priors
    ):
        assert their[-1].out_channels - our[-1].out_channels == anchors
        torch.testing.assert_close(our[-1].bias.sigmoid(), torch.full((anchors * 80,), 0.01))


# Errors -------------------------------------------------------------------------------------------------------------


def qfl_in_a_stock_head(host, loss):
    head = MODELS.build(stock_config(host, loss_cls=loss))
    head.loss_by_feat(*head(host_features(host, (64, 64), 1)), objects([2], (64, 64)), metas((64, 64), 1))


@pytest.mark.parametrize('use_sigmoid', [dict(use_sigmoid=True), {}], ids=['use_sigmoid', 'default'])
@pytest.mark.parametrize('host', ['Retina', 'FCOS', 'ATSS', 'Fovea'])
def test_a_qfl_in_a_stock_head_is_explained(host, use_sigmoid):
    with pytest.raises(ValueError) as error:
        qfl_in_a_stock_head(host, dict(type='mmdet_gfl.QualityFocalLoss', **use_sigmoid))
    assert f'mmdet_gfl.{host}GFLHead' in str(error.value)
    (lines,) = re.findall(r'^```text\n(QualityFocalLoss.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = [line.removesuffix('…') for line in lines.splitlines()]  # not all hosts
    assert len(lines) == 2 and all(line in str(error.value) for line in lines)
    with pytest.raises(AssertionError, match='^$'):
        qfl_in_a_stock_head(host, dict(type='QualityFocalLoss', use_sigmoid=True))


def test_the_stock_ssd_takes_no_class_loss():
    with pytest.raises(TypeError, match="unexpected keyword argument 'loss_cls'"):
        qfl_in_a_stock_head('SSD', dict(type='mmdet_gfl.QualityFocalLoss'))


MESSAGES = {
    'learns the quality itself, but quality=CenternessBranch has one-hot labels': host_config(
        'ATSS', 'CenternessBranch', loss_cls=dict(type='mmdet_gfl.QualityFocalLoss')
    ),
    'is unknown; did you mean mmdet_gfl.IoUBranch? accepted: ': host_config('ATSS', 'IouBranch'),
    "unexpected keyword argument 'loss_dfl'": host_config('ATSS', loss_dfl=None),
    "unexpected keyword argument 'quality'": stock_config('Retina', quality=dict(type='mmdet_gfl.NoQuality')),
    'GFLHead has no quality; use mmdet_gfl.ATSSGFLHead': host_config(
        'ATSS', 'NoQuality', type='mmdet_gfl.GFLHead', loss_cls=None
    ),
    'has no meaning on SSD': host_config('SSD', 'IoUBranch'),
    'takes no arguments. Arguments of a base config are merged in': ConfigDict(
        host_config('ATSS'), box=dict(type='mmdet_gfl.DiracBox', delta=2.0)
    ),
    'compares boxes, but with box=DiracBox': host_config(
        'Fovea', 'NoQuality', 'dirac', loss_bbox=dict(type='GIoULoss', loss_weight=2.0)
    ),
}


def test_the_table_of_messages():
    listed = re.findall(r'^\| `(.*?)` \|', PAGE.split('**Others**')[1], flags=re.MULTILINE)
    assert set(listed) == {*MESSAGES, 'is outside [0, num_classes)'}  # the last: test_the_whole_file


@pytest.mark.parametrize('message', MESSAGES)
def test_a_message(message):
    cfg = MESSAGES[message]
    if cfg.type == 'mmdet_gfl.GFLHead':
        cfg = ConfigDict({key: value for key, value in cfg.items() if key not in ('bbox_coder', 'loss_cls')})
    with pytest.raises((ValueError, TypeError)) as error:
        MODELS.build(cfg)
    assert message in str(error.value)


def test_foveabox_with_deformable_convolution_takes_dirac_boxes(applied):
    cfg = shrunken(applied(FOVEA, CODE[FOVEA, 'full GFL']))
    cfg.bbox_head.with_deform = True
    with pytest.raises(ValueError, match=r"with_deform=True.*box=dict\(type='mmdet_gfl\.DiracBox'\)"):
        MODELS.build(cfg)


def test_reg_max_is_raised_as_the_page_says(applied):
    (box,) = re.findall(r"`(box=dict\(type='mmdet_gfl\.GeneralBox',\s+reg_max=\d+\))`", PAGE)
    head = detector(applied(ATSS, f"model = dict(bbox_head=dict(type='mmdet_gfl.ATSSGFLHead', {box}))")).bbox_head
    assert head.box.max_distance == 24
