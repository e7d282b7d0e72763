"""The worked examples of docs/extending.md, extracted from the page and used as a reader would."""

import importlib
import math
import re
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from cases import HOSTS, build, host_config, host_features, metas, objects, positives_of, totals
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config, ConfigDict
from mmengine.runner.checkpoint import load_state_dict

from mmdet_gfl.engine.launch import check_types
from mmdet_gfl.models.boxes import BoxRepresentation
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.quality import Quality
from mmdet_gfl.models.task_modules import Locations, Positives, Targets
from mmdet_gfl.registry import MODELS
from mmdet_gfl.utils import import_submodules

SIZE = (96, 160)
PAGE = (Path(__file__).parents[2] / 'docs' / 'extending.md').read_text(encoding='utf-8')
#: File name to code.
FILES = dict(re.findall(r'^```python\n# (\S+)\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL))
NAMES = ('CenterIoUQuality', 'CenterIoUBranch', 'LogBox')
EXAMPLES = [name for name in FILES if name.startswith('my_project/')]


@pytest.fixture
def unregistered():
    """Takes the examples out of the registry again."""
    yield
    for name in NAMES:
        MODELS.module_dict.pop(name, None)


@pytest.fixture
def config(tmp_path, monkeypatch, unregistered):
    """The page's config, read from a file beside a folder ``my_project``; this imports the examples."""
    for name, code in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        stock = Path(mmdet.__file__).parent / '.mim' / 'configs'
        path.write_text(code.replace('/path/to/mmdetection/configs', str(stock)), encoding='utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield Config.fromfile(tmp_path / 'my_config.py')
    for module in [name for name in sys.modules if name.partition('.')[0] == 'my_project']:
        del sys.modules[module]


def quality_head(host, quality='CenterIoUQuality', **args):
    box = 'dfl' if quality == 'CenterIoUQuality' else 'dirac'
    return build(host_config(host, box=box) | dict(quality=dict(type=f'mmdet_gfl.{quality}', **args)))


def log_head(host, **args):
    changes = args.pop('changes', {})
    return build(host_config(host, **changes) | dict(box=dict(type='mmdet_gfl.LogBox', **args)))


def positives():
    """Two locations in an object of 100 x 100 pixels: its middle, with half of the box, and a quarter in, all of it."""
    gt = torch.tensor([[0.0, 0.0, 100.0, 100.0]] * 2)
    at = Locations.of_priors(torch.tensor([[50.0, 50.0], [25.0, 50.0]]), torch.full((2,), 8.0))
    targets = Targets(torch.zeros(2, dtype=torch.long), torch.ones(2), torch.arange(2), gt, at, 2.0, 1)
    return Positives(torch.zeros(2, 1), torch.tensor([[0.0, 0.0, 100.0, 50.0], [0.0, 0.0, 100.0, 100.0]]), targets)


def steps(head, host):
    """Total losses of five steps, with a finite gradient for every parameter; then detections."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.03)
    feats, gts = host_features(host, SIZE, 2), objects([3, 0], SIZE)
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-2)
    sums = []
    for _ in range(5):
        optimizer.zero_grad()
        losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
        total = sum(totals(losses).values())
        total.backward()
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        torch.nn.utils.clip_grad_norm_(head.parameters(), 10.0)
        optimizer.step()
        sums.append(total.item())
    head.test_cfg.score_thr = 0.0
    head.test_cfg.nms_pre = 100
    with torch.no_grad():
        found = head.eval().predict_by_feat(*head(feats), batch_img_metas=metas(SIZE, 2))
    assert all(len(result) > 0 and torch.isfinite(result.bboxes).all() for result in found)
    assert all((result.bboxes[:, 2:] >= result.bboxes[:, :2]).all() for result in found)
    return sums, losses, found


# The page -----------------------------------------------------------------------------------------------------------


def test_each_example_is_one_short_file():
    assert len(EXAMPLES) == 3 and set(FILES) - set(EXAMPLES) == {'my_config.py'}
    assert all(len(FILES[name].splitlines()) < 80 for name in EXAMPLES)


def table(heading):
    """Names in the first column of the section's table."""
    section = PAGE.split(f'\n## {heading}\n')[1].split('\n## ')[0]
    return [name for name in re.findall(r'^\| `(\w+)', section, flags=re.MULTILINE)]


@pytest.mark.parametrize(
    'heading, base',
    [('A quality', Quality), ('A box representation', BoxRepresentation), ('A host', DenseGFLMixin)],
)
def test_the_tables_name_what_there_is(heading, base):
    names = table(heading)
    assert len(names) >= 6
    annotated = {name for cls in base.__mro__ for name in vars(cls).get('__annotations__', {})}
    for name in names:
        assert hasattr(base, name) or name in annotated or name == 'forward_single', name


# The two ways in ----------------------------------------------------------------------------------------------------


def test_the_config_finds_them_by_custom_imports(config):
    check_types(config)
    head = MMDET_MODELS.build(ConfigDict(config.model.bbox_head, train_cfg=config.model.train_cfg))
    assert type(head).__name__ == 'ATSSGFLHead' and type(head.box).__module__ == 'my_project.log_box'
    assert type(head.quality).__name__ == 'CenterIoUQuality' and head.quality.iou_share == 0.5
    assert head.atss_reg.out_channels == 4 * 17 and head.box.reach == 32


@pytest.mark.parametrize('name', EXAMPLES)
def test_in_the_folder_of_the_package_they_are_found_by_themselves(name, tmp_path, monkeypatch, unregistered):
    package = importlib.import_module('mmdet_gfl.models.' + ('boxes' if 'box' in name else 'quality'))
    file = tmp_path / Path(name).name
    file.write_text(FILES[name], encoding='utf-8')
    monkeypatch.setattr(package, '__path__', [*package.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    import_submodules(package.__name__)
    (registered,) = (MODELS.module_dict[cls] for cls in NAMES if cls in MODELS.module_dict)
    assert registered.__module__ == f'{package.__name__}.{file.stem}'
    sys.modules.pop(registered.__module__)
    delattr(package, file.stem)


# The quality --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'share, expected',
    [
        (0.5, [math.sqrt(0.5), math.sqrt(math.sqrt(25 / 75))]),
        (1, [0.5, 1.0]),  # the IoU
        (0, [1.0, math.sqrt(25 / 75)]),  # the centerness
    ],
)
def test_the_blend_by_hand(config, share, expected):
    quality = MODELS.get('CenterIoUQuality')(iou_share=share)
    torch.testing.assert_close(quality.target(positives()), torch.tensor(expected))
    if share == 0.5:
        torch.testing.assert_close(MODELS.get('CenterIoUBranch')().target(positives()), torch.tensor(expected))
        said = re.findall(r'≈ (0\.\d{3})', PAGE.split('## A quality')[1].split('##')[0])
        assert said == [f'{value:.3f}' for value in expected]


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_the_class_loss_learns_the_blend(config, host, monkeypatch):
    head = quality_head(host)
    seen = {}
    loss = head.loss_cls.forward
    monkeypatch.setattr(
        head.loss_cls, 'forward', lambda pred, target, **kw: seen.update(target=target) or loss(pred, target, **kw)
    )
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)
    aim, (logits, raw, *_) = positives_of(head, SIZE, gts, feats)
    head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    measured = Positives(logits[aim.pos], head.box.decode(raw[aim.pos], aim.at, head), aim)
    labels, blend = seen['target']
    assert len(aim.pos) > 5 and (blend[labels == 5] == 0).all() and blend.max() > 0.1
    torch.testing.assert_close(blend[aim.pos], (measured.iou * measured.centerness).sqrt())


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_with_the_iou_alone_it_is_the_joint_quality(config, host):
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)
    ours, joint = (
        head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
        for head in (quality_head(host, iou_share=1.0), build(host_config(host, 'JointQuality', 'dfl')))
    )
    assert ours.keys() == joint.keys()
    for key, value in joint.items():
        assert torch.equal(ours[key], value), key


@pytest.mark.parametrize('host', HOSTS)
def test_the_quality_trains_and_detects(config, host):
    sums, losses, _ = steps(quality_head(host), host)
    assert sums[-1] < sums[0] and losses['loss_cls'] > 0


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_the_branch_trains_and_detects(config, host):
    head = quality_head(host, 'CenterIoUBranch')
    sums, losses, _ = steps(head, host)
    assert sums[-1] < sums[0] and losses['loss_center_iou'] > 0 and head.quality.branch
    assert {'loss_cls', 'loss_bbox', 'loss_center_iou'} == set(totals(losses))


def test_what_the_quality_refuses(config):
    with pytest.raises(ValueError, match=r'iou_share=1\.5; accepted: from 0'):
        quality_head('ATSS', iou_share=1.5)
    with pytest.raises(ValueError, match='CenterIoUBranch has no meaning on SSD'):
        quality_head('SSD', 'CenterIoUBranch')
    with pytest.raises(ValueError, match=r'did you mean mmdet_gfl\.CenterIoUQuality'):
        quality_head('ATSS', 'CenterIoUQualty')


# The box representation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_values_mean_and_spread_by_hand(config, host):
    head = log_head(host, reg_max=3, max_distance=7.0)
    assert not any(isinstance(value, (torch.nn.Module, torch.Tensor)) for value in vars(head.box).values())
    torch.testing.assert_close(head.log_integral.project, torch.tensor([0.0, 1.0, 3.0, 7.0]))
    raw = torch.zeros(1, 4, 4)
    raw[0, 1, 2] = 1e4  # the top side is sure to be 3
    sides = head.box.side_statistics(raw.flatten(1), head)
    torch.testing.assert_close(sides.mean, torch.tensor([[2.75, 3.0, 2.75, 2.75]]))
    flat = math.sqrt(59 / 4 - 2.75**2)
    torch.testing.assert_close(sides.std, torch.tensor([[flat, 0.0, flat, flat]]))
    assert f'≈ {flat:.2f}' in PAGE
    at = Locations.of_priors(torch.tensor([[80.0, 80.0]]), torch.tensor([8.0]))
    torch.testing.assert_close(
        head.box.decode(raw.flatten(1), at, head), torch.tensor([[80 - 22.0, 80 - 24.0, 80 + 22.0, 80 + 22.0]])
    )


def test_bins_by_hand(config):
    to_bins = sys.modules['my_project.log_box'].to_bins
    values = torch.tensor([0.0, 1.0, 3.0, 7.0])
    distances = torch.tensor([[-1.0, 0.0, 1.0, 2.0], [3.0, 6.0, 7.0, 9.0]])
    torch.testing.assert_close(to_bins(distances, values), torch.tensor([[0.0, 0, 1, 1.5], [2, 2.75, 3, 3]]))
    assert to_bins(torch.zeros(0, 4), values).shape == (0, 4)


def test_what_the_page_says_of_the_spacing(config):
    values = log_head('ATSS').log_integral.project
    gaps = values.diff()
    assert f'first two are {float(gaps[0]):.2f} strides apart' in PAGE and f'two {float(gaps[-1]):.1f},' in PAGE
    (limit,) = re.findall(r'finer up to (\d) strides', PAGE)
    assert (gaps[values[1:] <= int(limit)] < 1).all() and (gaps[values[:-1] > int(limit)] > 1).all()
    torch.testing.assert_close(values[[0, -1]], torch.tensor([0.0, 32.0]))


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_where_dfl_is_smallest_the_box_is_the_object(config, host):
    # The two values next to each distance, weighted so that their mean is the distance: DFL's gradient is 0 there.
    head = log_head(host)
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)
    aim, _ = positives_of(head, SIZE, gts, feats)
    values = head.log_integral.project
    distances = aim.at.distances(aim.gt)
    assert len(distances) > 5 and distances.min() >= 0 and distances.max() < 32
    right = (values[:, None, None] <= distances).sum(0).clamp(max=16)
    share = (distances - values[right - 1]) / (values[right] - values[right - 1])
    probability = torch.zeros(*distances.shape, 17)
    probability.scatter_(-1, (right - 1)[..., None], (1 - share)[..., None])
    probability.scatter_add_(-1, right[..., None], share[..., None])
    raw = probability.clamp(min=1e-12).log().flatten(1).requires_grad_()
    boxes = head.box.decode(raw, aim.at, head)
    torch.testing.assert_close(boxes, aim.gt, rtol=1e-4, atol=1e-2)
    losses = head.box.losses(raw, boxes, aim, torch.ones(len(raw)), torch.tensor(1.0), head)
    (grad,) = torch.autograd.grad(losses['loss_dfl'], raw)
    assert grad.abs().max() < 1e-5 and losses['loss_bbox'] < 1e-2 and losses['clipped_share'] == 0


@pytest.mark.parametrize('host', HOSTS)
def test_the_box_trains_and_detects(config, host):
    test_cfg = dict(host_config(host).test_cfg, with_distribution='stats')
    sums, losses, found = steps(log_head(host, changes=dict(test_cfg=test_cfg)), host)
    assert sums[-1] < sums[0] and set(totals(losses)) == {'loss_cls', 'loss_bbox', 'loss_dfl'}
    for result in found:
        assert result.bbox_mean.shape == result.bbox_std.shape == (len(result), 4)
        assert result.bbox_std.min() > 0


def test_clipped_share_counts_what_lies_beyond(config):
    # Half of the sides of a location in the middle of an object of 160 x 32 pixels are longer than 7 strides of 8.
    head = log_head('FCOS', reg_max=3, max_distance=7.0)
    at = Locations.of_priors(torch.tensor([[80.0, 40.0]]), torch.tensor([8.0]))
    gt = torch.tensor([[0.0, 24.0, 160.0, 56.0]])
    aim = Targets(torch.zeros(1, dtype=torch.long), torch.ones(1), torch.arange(1), gt, at, 1.0, 1)
    raw = torch.zeros(1, 16)
    losses = head.box.losses(raw, head.box.decode(raw, at, head), aim, torch.ones(1), torch.tensor(1.0), head)
    assert losses['clipped_share'] == 0.5
    # A flat distribution costs log 4 on each side, wherever the target lies.
    torch.testing.assert_close(losses['loss_dfl'], torch.tensor(0.25 * math.log(4)))


def test_a_checkpoint_of_a_general_box_does_not_pass(config):
    ours, general = log_head('ATSS'), build(host_config('ATSS'))
    assert ours.atss_reg.weight.shape == general.atss_reg.weight.shape
    with pytest.raises(RuntimeError, match=r'missing keys.*log_integral\.project'):
        load_state_dict(ours, general.state_dict(), strict=True)


def test_what_the_box_refuses(config):
    with pytest.raises(ValueError, match='max_distance=0 must be positive'):
        log_head('ATSS', max_distance=0)
    test_cfg = dict(host_config('ATSS').test_cfg, with_distribution='full')
    with pytest.raises(ValueError, match="LogBox can give 'stats'"):
        log_head('ATSS', changes=dict(test_cfg=test_cfg))
