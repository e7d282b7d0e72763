"""The worked examples of docs/extending.md, from the page and its folder, used as a reader would."""

import ast
import importlib
import inspect
import math
import re
import sys
from itertools import cycle
from pathlib import Path

import mmdet
import pytest
import torch
import torch.nn.functional as F
from cases import (
    BOXES,
    HOSTS,
    STRIDES,
    assert_same_detections,
    assert_same_training,
    build,
    features,
    host_config,
    host_features,
    metas,
    objects,
    part,
    positives_of,
    stock_config,
    totals,
)
from mmdet.models.dense_heads import TOODHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine import MessageHub
from mmengine.config import Config, ConfigDict
from mmengine.runner.checkpoint import load_state_dict

from mmdet_gfl.compat.operators import torchvision_ops
from mmdet_gfl.models.boxes import BoxRepresentation
from mmdet_gfl.models.dense_heads import DenseGFLMixin
from mmdet_gfl.models.dense_heads.predict_mixin import PredictMixin
from mmdet_gfl.models.losses import quality_focal_loss
from mmdet_gfl.models.quality import Quality
from mmdet_gfl.models.task_modules import Locations, Positives, Targets
from mmdet_gfl.ops import LocationIndex
from mmdet_gfl.registry import MODELS
from mmdet_gfl.utils import import_submodules

ROOT = Path(__file__).parents[2]
SIZE = (96, 160)
PAGE = (ROOT / 'docs' / 'extending.md').read_text(encoding='utf-8')
#: File name to code.
FILES = dict(re.findall(r'^```python\n# (\S+)\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL))
FILES |= {f'my_project/{file.name}': file.read_text(encoding='utf-8') for file in (ROOT / 'docs/examples').glob('*.py')}
EXAMPLES = [name for name in FILES if name.startswith('my_project/')]
#: Classes that the examples register.
NAMES = re.findall(r'^@MODELS.register_module\(\)\nclass (\w+)', '\n'.join(FILES.values()), flags=re.MULTILINE)


@pytest.fixture
def unregistered():
    """Takes the examples out of the registry again."""
    yield
    for name in NAMES:
        MODELS.module_dict.pop(name, None)


@pytest.fixture
def config(tmp_path, monkeypatch, unregistered):
    """The page's config, read from a file beside a folder ``my_project``; the examples are imported."""
    for name, code in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        stock = Path(mmdet.__file__).parent / '.mim' / 'configs'
        path.write_text(code.replace('/path/to/mmdetection/configs', str(stock)), encoding='utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    result = Config.fromfile(tmp_path / 'my_config.py')
    for name in EXAMPLES:
        importlib.import_module(name.removesuffix('.py').replace('/', '.'))
    yield result
    for module in [name for name in sys.modules if name.partition('.')[0] == 'my_project']:
        del sys.modules[module]


def with_quality(host, quality, box='dfl', **args):
    return build(host_config(host, box=box) | dict(quality=part(quality, **args)))


def log_head(host, **args):
    changes = args.pop('changes', {})
    return build(host_config(host, **changes) | dict(box=part('LogBox', **args)))


def targets_of(gt_bboxes, centers, stride=8.0):
    """Targets of one class, of locations (P, 2) that share a level of one image."""
    index = LocationIndex([(1, len(centers))], 1, [1])
    locations = Locations.of_priors(torch.tensor(centers), torch.full((len(centers),), stride))
    labels = torch.zeros(len(centers), dtype=torch.long)
    pos = index.coords(torch.arange(len(centers)))
    return Targets(pos, labels, torch.tensor(gt_bboxes), locations, None, float(len(centers)), 1)


def positives(logits=(0.0, 0.0)):
    """Two locations in an object of 100 x 100 pixels: its middle, with half of the box, and a quarter in, all of it."""
    targets = targets_of([[0.0, 0.0, 100.0, 100.0]] * 2, [[50.0, 50.0], [25.0, 50.0]])
    return Positives(
        torch.tensor(logits)[:, None], torch.tensor([[0.0, 0.0, 100.0, 50.0], [0.0, 0.0, 100.0, 100.0]]), targets
    )


def same_weights(ours, theirs):
    """Our head with MMDetection's weights, and that head."""
    ours, theirs = MODELS.build(ours), build(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def steps(head, feats):
    """Total losses of five steps, with a finite gradient for every parameter; then detections."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.03)
    gts = objects([3, 0], SIZE)
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
    assert sums[-1] < 0.99 * sums[0]  # the least is 1.06%
    return losses, found


# The page -----------------------------------------------------------------------------------------------------------


def test_each_example_is_one_short_file():
    assert len(EXAMPLES) == len(NAMES) == 8 and set(FILES) - set(EXAMPLES) == {'my_config.py'}
    assert all(len(FILES[name].splitlines()) <= 80 for name in EXAMPLES)


def test_the_concepts_are_where_the_page_says():
    concepts = re.findall(r'^\| \[`(\w+)`\]\((\S+)\)', PAGE.split('\n## ')[0], flags=re.MULTILINE)
    assert len(concepts) == 9
    for name, path in concepts:
        assert re.search(rf'^class {name}\b', (ROOT / 'docs' / path).read_text(encoding='utf-8'), flags=re.MULTILINE)


#: What of a host is MMDetection's interface, or is not made to be overridden.
OF_MMDETECTION = ['forward', 'init_weights', 'loss', 'loss_by_feat', 'predict', 'predict_by_feat']
NOT_FOR_OVERRIDES = ['assignment_batch', 'validate_box_loss', 'box']


@pytest.mark.parametrize(
    'heading, bases, others',
    [
        ('A quality', [Quality], []),
        ('A box representation', [BoxRepresentation], []),
        ('A host', [DenseGFLMixin, PredictMixin], OF_MMDETECTION + NOT_FOR_OVERRIDES),
    ],
)
def test_the_tables_name_all_that_there_is(heading, bases, others):
    section = PAGE.split(f'\n## {heading}\n')[1].split('\n## ')[0]
    rows = re.findall(r'^\| `(\w+)(?:\((.*?)\)| = (.*?))?`', section, flags=re.MULTILINE)
    also = re.findall(r'`(\w+)`', ''.join(re.findall(r'Also public: (.*?)\.', section, flags=re.DOTALL)))
    listed = [name for name, _, _ in rows] + also
    members = {name: value for base in bases for name, value in vars(base).items()}
    annotated = {name for base in bases for name in vars(base).get('__annotations__', {})}
    public = {name for name in members.keys() | annotated if not name.startswith('_')}
    assert sorted(listed + others) == sorted(public)
    for name, args, value in rows:
        if inspect.isfunction(members.get(name)):
            _, *parameters = inspect.signature(members[name]).parameters
            assert args.split(', ') == (parameters or ['']), name
        elif value:
            assert members[name] == ast.literal_eval(value), name
        else:
            assert name not in members or isinstance(members[name], property), name


def test_the_defaults_that_the_tables_name():
    box = BoxRepresentation()
    assert box.channels == 1 and box.max_distance == math.inf
    torch.testing.assert_close(Quality().target(positives()), torch.tensor([0.5, 1.0]))


# The two ways in ----------------------------------------------------------------------------------------------------


def test_the_config_finds_them_by_custom_imports(config):
    head = MMDET_MODELS.build(ConfigDict(config.model.bbox_head, train_cfg=config.model.train_cfg))
    assert type(head).__name__ == 'ATSSGFLHead' and type(head.box).__module__ == 'my_project.log_box'
    assert type(head.quality).__name__ == 'CenterIoUQuality' and head.quality.iou_share == 0.5
    assert head.atss_reg.out_channels == 4 * 17 and head.box.max_distance == 32


@pytest.mark.parametrize('name', EXAMPLES)
def test_in_the_folder_of_the_package_they_are_found_by_themselves(name, tmp_path, monkeypatch, unregistered):
    folder = dict(box='boxes', head='dense_heads').get(Path(name).stem.rpartition('_')[2], 'quality')
    package = importlib.import_module(f'mmdet_gfl.models.{folder}')
    file = tmp_path / Path(name).name
    file.write_text(FILES[name], encoding='utf-8')
    monkeypatch.setattr(package, '__path__', [*package.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    import_submodules(package.__name__)
    (registered,) = (MODELS.module_dict[cls] for cls in NAMES if cls in MODELS.module_dict)
    assert registered.__module__ == f'{package.__name__}.{file.stem}'
    sys.modules.pop(registered.__module__)
    delattr(package, file.stem)


# The quality with a measure -----------------------------------------------------------------------------------------


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
        said = re.findall(r'≈ (0\.\d{3})', PAGE.split('## A quality')[1].split('##')[0])
        assert said == [f'{value:.3f}' for value in expected]


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_the_class_loss_learns_the_blend(config, host):
    head = with_quality(host, 'CenterIoUQuality')
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)
    targets, (logits, bbox_pred) = positives_of(head, SIZE, gts, feats)
    losses = head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
    inds = targets.pos.flat_inds
    measured = Positives(logits[inds], head.box.decode(bbox_pred[inds], targets.locations, head), targets)
    blend = (measured.iou * measured.centerness).sqrt()
    quality = torch.zeros(len(logits)).index_copy(0, inds, blend)
    expected = quality_focal_loss(logits, (targets.dense_labels(5), quality))
    if targets.label_weights is not None:
        expected = expected * targets.label_weights
    assert len(inds) > 5 and blend.max() > 0.1
    torch.testing.assert_close(losses['loss_cls'], expected.sum() / float(targets.avg_factor))


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_with_the_iou_alone_it_is_the_joint_quality(config, host):
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)
    ours, joint = (
        head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))
        for head in (with_quality(host, 'CenterIoUQuality', iou_share=1.0), with_quality(host, 'JointQuality'))
    )
    assert ours.keys() == joint.keys()
    for key, value in joint.items():
        assert torch.equal(ours[key], value), key


@pytest.mark.parametrize('host', HOSTS)
def test_the_quality_with_a_measure_trains_and_detects(config, host):
    losses, _ = steps(with_quality(host, 'CenterIoUQuality'), host_features(host, SIZE, 2))
    assert losses['loss_cls'] > 0


def test_refusals_of_the_quality_with_a_measure(config):
    with pytest.raises(ValueError, match=r'iou_share=1\.5; accepted: from 0'):
        with_quality('ATSS', 'CenterIoUQuality', iou_share=1.5)
    with pytest.raises(ValueError, match=r'did you mean mmdet_gfl\.CenterIoUQuality'):
        with_quality('ATSS', 'CenterIoUQualty')


# The quality with a floor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'options, step, expected',
    [
        ({}, 0, [0.1, 0.6]),
        (dict(floor=0.25), 7, [0.25, 0.6]),
        (dict(steps=100), 0, [1.0, 1.0]),
        (dict(steps=100), 70, [0.3, 0.6]),
        (dict(floor=0.25, steps=100), 80, [0.25, 0.6]),
        (dict(floor=0.25, steps=100), 300, [0.25, 0.6]),
        (dict(box_weight='quality', floor=0.7), 0, [0.7, 1.0]),  # IoU 0.5 and 1
    ],
)
def test_the_floored_weights_by_hand(config, monkeypatch, options, step, expected):
    quality = MODELS.get('FlooredJointQuality')(**options)
    monkeypatch.setitem(MessageHub.get_current_instance().runtime_info, 'iter', step)
    weights = quality.box_weights(positives([math.log(1 / 9), math.log(6 / 4)]), quality.resolve_box_weight())
    torch.testing.assert_close(weights, torch.tensor(expected))


@pytest.mark.parametrize('host', HOSTS)
def test_without_a_floor_it_is_the_joint_quality_and_with_1_uniform(config, host):
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)

    def losses(name, **options):
        head = with_quality(host, name, **options)
        return head.loss_by_feat(*head(feats), gts, metas(SIZE, 2))

    for floored, plain in (({}, {}), (dict(floor=1.0, box_weight='score'), dict(box_weight='uniform'))):
        ours, theirs = losses('FlooredJointQuality', **floored), losses('JointQuality', **plain)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value)


def test_refusals_of_the_quality_with_a_floor(config):
    with pytest.raises(ValueError, match=r'floor=1\.5; accepted: from 0'):
        with_quality('ATSS', 'FlooredJointQuality', floor=1.5)


# The boxes that tell why a Gaussian lags ----------------------------------------------------------------------------


def example_box(name):
    """An ATSS head with box ``name``, and two positives at (50, 50) and (25, 50) of stride 8 in 100 x 100 pixels."""
    head = build(host_config('ATSS') | dict(box=part(name)))
    return head, targets_of([[0.0, 0.0, 100.0, 100.0]] * 2, [[50.0, 50.0], [25.0, 50.0]])


def test_linear_distances_by_hand(config):
    head, targets = example_box('LinearBox')
    outputs = torch.tensor([[6.25, 6.25, 6.25, -1.0], [3.125, 6.25, 9.375, 6.25]], requires_grad=True)
    boxes = head.box.decode(outputs, targets.locations, head)
    assert boxes.tolist() == [[0, 0, 100, 50], [0, 0, 100, 100]]
    losses = head.box.losses(outputs, boxes, targets, torch.tensor([1.0, 0.5]), torch.tensor(4.0), head)
    # GIoU of half the box is 0.5, of all of it 1; the head's loss has a weight of 2.
    torch.testing.assert_close(losses, dict(loss_bbox=torch.tensor(2 * (1.0 * 0.5 + 0.5 * 0.0) / 4)))
    losses['loss_bbox'].backward()
    assert outputs.grad[0, 1] != 0 and outputs.grad[0, 3] == 0


def test_linear_distances_start_at_the_prior(config):
    head, _ = example_box('LinearBox')
    head.init_weights()
    assert head.atss_reg.bias.tolist() == [4.0] * 4  # half of an anchor of eight strides


def test_a_gaussian_of_the_hosts_numbers_by_hand(config):
    head, targets = example_box('GaussianHostBox')
    anchors = torch.tensor([[18.0, 18.0, 82.0, 82.0], [-7.0, 18.0, 57.0, 82.0]])
    targets = targets._replace(locations=Locations.of_priors(anchors, targets.locations.strides))
    numbers = head.host_coder.encode(targets.gt_bboxes, targets.locations)
    outputs = torch.stack((numbers + torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0] * 4]), torch.zeros(2, 4)), dim=-1)
    outputs[1, 2, 1] = 2 * math.log(3.0)  # a standard deviation of 3, and no error
    outputs = outputs.reshape(2, 8)
    boxes = head.box.decode(outputs, targets.locations, head)
    torch.testing.assert_close(boxes[1], targets.gt_bboxes[1])
    # The first number moves the middle by half the width of an anchor of 64 pixels, in the coder's deviation of 0.1.
    torch.testing.assert_close(boxes[0], torch.tensor([3.2, 0.0, 103.2, 100.0]))
    losses = head.box.losses(outputs, boxes, targets, torch.tensor([1.0, 2.0]), torch.tensor(4.0), head)
    torch.testing.assert_close(losses, dict(loss_bbox=torch.tensor((0.5**2 / 2 + 2 * math.log(3.0)) / 4)))


@pytest.mark.parametrize('name', ['LinearBox', 'GaussianHostBox'])
@pytest.mark.parametrize('host', HOSTS)
def test_each_host_trains_with_them(config, host, name):
    head = build(host_config(host, box='gaussian') | dict(box=part(name)))
    assert ('IoU' if name == 'LinearBox' else 'GaussianNLL') in type(head.loss_bbox).__name__
    steps(head, host_features(host, SIZE, 2))


@pytest.mark.parametrize('host', HOSTS)
def test_the_class_loss_of_the_page(host):
    (code,) = re.findall(
        r'^```python\n# any host: another class loss\n(.*?)^```$', PAGE, flags=re.MULTILINE | re.DOTALL
    )
    scope = {}
    exec(code, scope)
    head = build(host_config(host) | scope['model']['bbox_head'])
    assert type(head.loss_cls) is MODELS.get('VarifocalLoss')
    steps(head, host_features(host, SIZE, 2))


# The quality with layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', HOSTS)
def test_it_starts_as_the_joint_quality(config, host):
    ours, joint = MODELS.build(host_config(host) | dict(quality=part('SpreadQuality'))), build(host_config(host))
    ours.init_weights()
    assert set(ours.state_dict()) - set(joint.state_dict()) == {'spread_layer.weight', 'spread_layer.bias'}
    ours.load_state_dict(joint.state_dict(), strict=False)
    feats = host_features(host, SIZE, 2)
    for our, other in zip(ours(feats)[0], joint(feats)[0]):
        assert torch.equal(our, other)


@pytest.mark.parametrize('host', ['ATSS', 'Retina', 'SSD'])
def test_the_term_of_each_prior_by_hand(config, host):
    head, joint = with_quality(host, 'SpreadQuality'), build(host_config(host))
    with torch.no_grad():
        head.spread_layer.weight.copy_(torch.tensor([[1.0, 0.5, 0.25, 0.125]]))
        head.spread_layer.bias.fill_(-3.0)
    joint.load_state_dict(head.state_dict(), strict=False)
    feats = host_features(host, SIZE, 2)
    (logits, bbox_pred), (class_outputs, same) = (
        positives_of(one, SIZE, objects([1, 1], SIZE), feats)[1] for one in (head, joint)
    )
    assert torch.equal(bbox_pred, same)
    probability = bbox_pred.double().view(-1, 4, 17).softmax(dim=-1)
    bins = torch.arange(17)
    mean = (probability * bins).sum(dim=-1)
    std = ((probability * bins.square()).sum(dim=-1) - mean.square()).clamp(min=0).sqrt()
    expected = class_outputs + (std * torch.tensor([1.0, 0.5, 0.25, 0.125])).sum(dim=1, keepdim=True) - 3
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('host, box', zip(HOSTS, cycle(['gaussian', 'dfl', 'log'])))
def test_the_quality_with_layers_trains_and_detects(config, host, box):
    box = part('LogBox') if box == 'log' else BOXES[box]
    head = build(host_config(host) | dict(quality=part('SpreadQuality'), box=box))
    steps(head, host_features(host, SIZE, 2))
    assert head.spread_layer.weight.abs().min() > 0


def test_refusals_of_the_quality_with_layers(config):
    with pytest.raises(ValueError, match=r'SpreadQuality needs standard deviations, and box=DiracBox has none'):
        with_quality('ATSS', 'SpreadQuality', box='dirac')


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
    locations = Locations.of_priors(torch.tensor([[80.0, 80.0]]), torch.tensor([8.0]))
    torch.testing.assert_close(
        head.box.decode(raw.flatten(1), locations, head), torch.tensor([[80 - 22.0, 80 - 24.0, 80 + 22.0, 80 + 22.0]])
    )


def test_bins_by_hand(config):
    to_bins = sys.modules['my_project.log_box'].to_bins
    values = torch.tensor([0.0, 1.0, 3.0, 7.0])
    distances = torch.tensor([[-1.0, 0.0, 1.0, 2.0], [3.0, 6.0, 7.0, 9.0]])
    torch.testing.assert_close(to_bins(distances, values), torch.tensor([[0.0, 0, 1, 1.5], [2, 2.75, 3, 3]]))
    assert to_bins(torch.zeros(0, 4), values).shape == (0, 4)


def test_the_spacing_on_the_page(config):
    values = log_head('ATSS').log_integral.project
    gaps = values.diff()
    text = ' '.join(PAGE.split())
    assert f'first two are {float(gaps[0]):.2f} strides apart, the last two {float(gaps[-1]):.1f}.' in text
    torch.testing.assert_close(values[[0, -1]], torch.tensor([0.0, 32.0]))


@pytest.mark.parametrize('host', ['ATSS', 'FCOS'])
def test_at_the_minimum_of_dfl_the_box_is_the_object(config, host):
    # The two values next to each distance, weighted so that their mean is the distance: DFL's gradient is 0 there.
    head = log_head(host)
    feats, gts = host_features(host, SIZE, 2), objects([3, 2], SIZE)
    targets, _ = positives_of(head, SIZE, gts, feats)
    values = head.log_integral.project
    distances = targets.locations.distances(targets.gt_bboxes)
    assert len(distances) > 5 and distances.min() >= 0 and distances.max() < 32
    right = (values[:, None, None] <= distances).sum(0).clamp(max=16)
    share = (distances - values[right - 1]) / (values[right] - values[right - 1])
    probability = torch.zeros(*distances.shape, 17)
    probability.scatter_(-1, (right - 1)[..., None], (1 - share)[..., None])
    probability.scatter_add_(-1, right[..., None], share[..., None])
    raw = probability.clamp(min=1e-12).log().flatten(1).requires_grad_()
    boxes = head.box.decode(raw, targets.locations, head)
    torch.testing.assert_close(boxes, targets.gt_bboxes, rtol=1e-4, atol=1e-2)
    losses = head.box.losses(raw, boxes, targets, torch.ones(len(raw)), torch.tensor(1.0), head)
    (grad,) = torch.autograd.grad(losses['loss_dfl'], raw)
    assert grad.abs().max() < 1e-5 and losses['loss_bbox'] < 1e-2 and losses['clipped_share'] == 0


@pytest.mark.parametrize('host', HOSTS)
def test_the_box_trains_and_detects(config, host):
    test_cfg = dict(host_config(host).test_cfg, with_distribution='stats')
    losses, found = steps(log_head(host, changes=dict(test_cfg=test_cfg)), host_features(host, SIZE, 2))
    assert set(totals(losses)) == {'loss_cls', 'loss_bbox', 'loss_dfl'}
    for result in found:
        assert result.bbox_mean.shape == result.bbox_std.shape == (len(result), 4)
        assert result.bbox_std.min() > 0


def test_clipped_share_counts_what_lies_beyond(config):
    # Half of the sides of a location in the middle of an object of 160 x 32 pixels are longer than 7 strides of 8.
    head = log_head('FCOS', reg_max=3, max_distance=7.0)
    targets = targets_of([[0.0, 24.0, 160.0, 56.0]], [[80.0, 40.0]])
    raw = torch.zeros(1, 16)
    boxes = head.box.decode(raw, targets.locations, head)
    losses = head.box.losses(raw, boxes, targets, torch.ones(1), torch.tensor(1.0), head)
    assert losses['clipped_share'] == 0.5
    # A flat distribution costs log 4 on each side, wherever the target lies.
    torch.testing.assert_close(losses['loss_dfl'], torch.tensor(0.25 * math.log(4)))


def test_a_checkpoint_of_a_general_box_does_not_pass(config):
    ours, general = log_head('ATSS'), build(host_config('ATSS'))
    assert ours.atss_reg.weight.shape == general.atss_reg.weight.shape
    with pytest.raises(RuntimeError, match=r'missing keys.*log_integral\.project'):
        load_state_dict(ours, general.state_dict(), strict=True)


def test_refusals_of_the_box(config):
    with pytest.raises(ValueError, match='max_distance=0 must be positive'):
        log_head('ATSS', max_distance=0)
    test_cfg = dict(host_config('ATSS').test_cfg, with_distribution='full')
    with pytest.raises(ValueError, match="LogBox can give 'stats'"):
        log_head('ATSS', changes=dict(test_cfg=test_cfg))


# The static host ----------------------------------------------------------------------------------------------------


def sepbn_config(**axes):
    """MMDetection's head, or ours where ``quality`` and ``box`` are given."""
    changes = dict(num_ins=len(STRIDES), norm_cfg=dict(type='BN'))
    return stock_config('Retina', type='mmdet_gfl.RetinaSepBNGFLHead' if axes else 'RetinaSepBNHead', **changes, **axes)


def sepbn_pair():
    return same_weights(sepbn_config(quality=part('NoQuality'), box=BOXES['dirac']), sepbn_config())


@pytest.mark.agreement
@pytest.mark.parametrize('size, counts', [((96, 160), [3, 2]), ((128, 96), [0, 4]), ((64, 64), [0, 0])])
def test_the_static_host_trains_as_its_stock_head(config, size, counts):
    ours, theirs = sepbn_pair()
    assert ours.retina_cls.weight is not theirs.retina_cls.weight and ours.stock_head is type(theirs)
    assert_same_training(ours, theirs, features(size, 2, True), objects(counts, size), metas(size, 2))


@pytest.mark.agreement
@pytest.mark.parametrize('rescale', [False, True])
def test_the_static_host_detects_as_its_stock_head(config, rescale):
    ours, theirs = (head.eval() for head in sepbn_pair())
    feats, images = features(SIZE, 2), metas(SIZE, 2, scale=(0.5, 0.8))
    found = [head.predict_by_feat(*head(feats), batch_img_metas=images, rescale=rescale) for head in (ours, theirs)]
    assert_same_detections(*found, least=50)


@pytest.mark.parametrize(
    'quality, box', [('JointQuality', 'dfl'), ('IoUBranch', 'gaussian'), ('CenternessGuided', 'dirac')]
)
def test_the_static_host_trains_and_detects_elsewhere_on_the_plane(config, quality, box):
    head = build(sepbn_config(quality=part(quality), box=BOXES[box]))
    # MMDetection's RetinaNet weighs no box, so Dirac boxes weigh 1 whatever the quality.
    assert head.box_weight == ('score' if box == 'dfl' else 'uniform')
    losses, _ = steps(head, features(SIZE, 2))
    assert ('loss_iou' in losses) == (quality == 'IoUBranch') and ('loss_dfl' in losses) == (box == 'dfl')


# The host with a dynamic assigner -----------------------------------------------------------------------------------


def deform_sampling(self, feat, offset):
    """TOOD's ``deform_sampling`` without torchvision: each channel, bilinear, at its own offsets (y, x)."""
    n, channels, h, w = feat.shape
    dy, dx = offset.view(n, channels, 2, h, w).unbind(2)
    y, x = torch.arange(h)[:, None] + dy, torch.arange(w) + dx  # (N, C, H, W)
    grid = torch.stack(((2 * x + 1) / w - 1, (2 * y + 1) / h - 1), dim=-1).flatten(0, 1)
    return F.grid_sample(feat.reshape(-1, 1, h, w), grid, align_corners=False).view_as(feat)


def test_deform_sampling_by_hand():
    feat = torch.arange(1.0, 13.0).view(1, 1, 3, 4)
    offset = torch.zeros(1, 2, 3, 4)
    offset[0, :, 0, 0] = torch.tensor([1.0, 2.0])  # two to the right in the next row: 7
    offset[0, :, 1, 1] = torch.tensor([0.5, 0.0])  # between 6 and 10
    offset[0, :, 2, 3] = torch.tensor([0.0, 0.5])  # half outside, where there is 0: 12 / 2
    expected = feat.clone()
    expected[0, 0, 0, 0], expected[0, 0, 1, 1], expected[0, 0, 2, 3] = 7.0, 8.0, 6.0
    torch.testing.assert_close(deform_sampling(None, feat, offset), expected)


@pytest.fixture
def epoch(monkeypatch):
    """Sets the epoch that TOOD reads; where no deformable convolution is, TOOD does without."""
    if torchvision_ops() is None:
        monkeypatch.setattr(TOODHead, 'deform_sampling', deform_sampling)
    hub = MessageHub.get_current_instance()
    before = hub.get_info('epoch')
    hub.update_info('epoch', 4)
    yield lambda value: hub.update_info('epoch', value)
    hub.runtime_info.pop('epoch', None) if before is None else hub.update_info('epoch', before)


def tood_config(ours=True, **changes):
    train_cfg = dict(
        initial_epoch=4,
        initial_assigner=dict(type='ATSSAssigner', topk=9),
        assigner=dict(type='TaskAlignedAssigner', topk=13),
        alpha=1,
        beta=6,
        allowed_border=-1,
        pos_weight=-1,
    )
    loss_cls = dict(type='QualityFocalLoss', use_sigmoid=True, activated=True, beta=2.0, loss_weight=1.0)
    name = 'mmdet_gfl.TOODGFLHead' if ours else 'TOODHead'
    changes = dict(dict(stacked_convs=2, loss_cls=loss_cls, train_cfg=train_cfg, type=name), **changes)
    return stock_config('ATSS', **changes)


@pytest.mark.agreement
@pytest.mark.parametrize('anchor_type', ['anchor_free', 'anchor_based'])
@pytest.mark.parametrize('size, counts', [((96, 160), [3, 2]), ((128, 96), [0, 1]), ((64, 64), [0, 0])])
def test_the_dynamic_host_trains_as_its_stock_head(config, epoch, size, counts, anchor_type):
    ours, theirs = same_weights(*(tood_config(our, anchor_type=anchor_type) for our in (True, False)))
    feats, gts = features(size, 2, True), objects(counts, size)
    assert_same_training(ours, theirs, feats, gts, metas(size, 2))
    targets, _ = positives_of(ours, size, gts, feats)
    assert len(set(targets.quality.tolist())) == len(targets.pos)
    # The metrics of one object add up to less than 1, which is the least that the losses are divided by.
    assert len(targets.pos) > 10 if sum(counts) == 5 else targets.avg_factor < 1


def test_the_dynamic_host_passes_ignored_regions_on(config, epoch):
    epoch(0)  # of TOOD's assigners only ATSS, that of the first epochs, uses them
    cfg = tood_config()
    cfg.train_cfg.initial_assigner.ignore_iof_thr = 0.5
    head, gts, everywhere = build(cfg), objects([2, 1], SIZE), objects([0, 1], SIZE)
    everywhere[1].bboxes[:] = torch.tensor([-500.0, -500.0, 700.0, 700.0])
    outs = head(features(SIZE, 2))
    sizes = [tuple(level.shape[-2:]) for level in outs[0]]
    targets = head.targets(head.assignment_batch(sizes, gts, metas(SIZE, 2), everywhere, *outs))
    weights = LocationIndex(sizes, 2, [1] * 5).image_major(targets.label_weights)
    assert weights[0].min() == 1 and (weights[1] == 0).float().mean() > 0.9


@pytest.mark.agreement
@pytest.mark.parametrize('rescale', [False, True])
def test_the_dynamic_host_detects_as_its_stock_head(config, epoch, rescale):
    ours, theirs = (head.eval() for head in same_weights(tood_config(True), tood_config(False)))
    feats, images = features(SIZE, 2), metas(SIZE, 2, scale=(0.5, 0.8))
    found = [head.predict_by_feat(*head(feats), batch_img_metas=images, rescale=rescale) for head in (ours, theirs)]
    assert_same_detections(*found, least=20)


@pytest.mark.parametrize('quality', ['AssignedQuality', 'JointQuality'])
@pytest.mark.parametrize('at', [0, 4])
def test_the_dynamic_host_trains_and_detects(config, epoch, at, quality):
    epoch(at)
    head = build(tood_config(quality=part(quality)))
    losses, _ = steps(head, features(SIZE, 2))
    assert set(totals(losses)) == {'loss_cls', 'loss_bbox'} and head.loss_cls.activated is False
    targets, _ = positives_of(head, SIZE, objects([3, 2], SIZE), features(SIZE, 2))
    assert (targets.quality == 1).all() == (at == 0) and len(targets.pos) > 5


def test_refusals_of_the_dynamic_host(config, epoch):
    for axes in (dict(box=BOXES['dfl']), dict(quality=part('IoUBranch'))):
        with pytest.raises(ValueError, match='TOODGFLHead has Dirac boxes and no branch'):
            build(tood_config(**axes, loss_cls=dict(type='FocalLoss', use_sigmoid=True)))
    head = build(tood_config())
    with pytest.raises(ValueError, match='depends on predictions, and the batch has none'):
        head.targets(head.assignment_batch([(2, 2)] * 5, objects([1], SIZE), metas(SIZE, 1)))
