"""The stand-in's deformable convolutions, called by mmcv's layers, with a slow convolution in torchvision's place."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from cases import metas, objects
from mmcv.ops import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2d, ModulatedDeformConv2dPack
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch.nn.functional import conv2d, pad

from mmdet_gfl import shipped_configs
from mmdet_gfl.compat import deform_conv, mmcv_ext, mmcv_flavour
from mmdet_gfl.compat.operators import torchvision_ops
from mmdet_gfl.engine import launch

#: Every number differs between height and width, or from 1, so that a mix-up shows.
GEOMETRY = dict(kernel_size=(3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, deform_groups=2)


def sample(image, y, x):
    """(C, H, W) at real positions (H', W') by bilinear interpolation, 0 outside: (C, H', W')."""
    height, width = image.shape[1:]
    top, left = y.detach().floor().long(), x.detach().floor().long()
    total = 0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        share = (1 - (y - row).abs()) * (1 - (x - column).abs()) * inside
        total = total + image[:, row.clamp(0, height - 1), column.clamp(0, width - 1)] * share
    return total


def slow_deform_conv2d(input, offset, weight, bias=None, stride=1, padding=0, dilation=1, mask=None):
    """The definition, sample by sample, with the arguments of torchvision's function."""
    count, channels = input.shape[:2]
    kernel_height, kernel_width = weight.shape[2:]
    out_height, out_width = offset.shape[2:]
    points = kernel_height * kernel_width
    deform_groups = offset.size(1) // (2 * points)
    offset = offset.view(count, deform_groups, points, 2, out_height, out_width)
    mask = torch.ones_like(offset[:, :, :, 0]) if mask is None else mask.view_as(offset[:, :, :, 0])
    rows = torch.arange(out_height).view(-1, 1) * stride[0] - padding[0]
    columns = torch.arange(out_width).view(1, -1) * stride[1] - padding[1]
    images = []
    for n in range(count):
        samples = []
        for p in range(points):
            y, x = rows + p // kernel_width * dilation[0], columns + p % kernel_width * dilation[1]
            parts = input[n].chunk(deform_groups)
            samples.append(
                torch.cat(
                    [
                        sample(c, y + o[p, 0], x + o[p, 1]) * m[p]
                        for c, o, m in zip(parts, offset[n], mask[n], strict=True)
                    ]
                )
            )
        images.append(torch.stack(samples, 1).flatten(0, 1))
    flat = torch.stack(images)  # (N, C * points, H', W')
    return conv2d(flat, weight.flatten(1)[:, :, None, None], bias, groups=channels // weight.size(1))


SLOW = SimpleNamespace(deform_conv2d=slow_deform_conv2d)


def use_stand_in(monkeypatch, torchvision):
    """Let mmcv's layers call the stand-in, whatever mmcv was installed, and the stand-in this for torchvision.ops."""
    monkeypatch.setattr(deform_conv, 'torchvision_ops', lambda: torchvision)
    for module in ('mmcv.ops.deform_conv', 'mmcv.ops.modulated_deform_conv'):
        monkeypatch.setattr(importlib.import_module(module), 'ext_module', mmcv_ext)


@pytest.fixture(params=[ops for ops in (SLOW, torchvision_ops()) if ops])
def stand_in(request, monkeypatch):
    use_stand_in(monkeypatch, request.param)


def make(layer_type, **kwargs):
    torch.manual_seed(0)
    layer = layer_type(4, 6, **{**GEOMETRY, **kwargs}).double()
    inputs = [torch.randn(2, 4, 7, 8), torch.randn(2, 2 * 2 * 6, 4, 10) * 2]
    if layer_type is ModulatedDeformConv2d:
        torch.nn.init.normal_(layer.bias) if layer.bias is not None else None
        inputs.append(torch.rand(2, 2 * 6, 4, 10))
    return layer, [tensor.double().requires_grad_() for tensor in inputs]


def run(layer, inputs):
    """The output, and the gradients by inputs and parameters for a fixed incoming gradient."""
    output = layer(*inputs)
    incoming = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output, *torch.autograd.grad(output, [*inputs, *layer.parameters()], incoming)]


def names():
    return [pytest.param(DeformConv2d, {}, id='plain')] + [
        pytest.param(ModulatedDeformConv2d, dict(bias=bias), id=f'modulated, bias={bias}') for bias in (True, False)
    ]


@pytest.mark.parametrize('layer_type, kwargs', names())
def test_values_and_gradients_are_those_of_the_definition(stand_in, layer_type, kwargs):
    layer, inputs = make(layer_type, **kwargs)
    results = run(layer, inputs)
    image, offset, *mask = inputs
    bias = getattr(layer, 'bias', None)
    geometry = {name: GEOMETRY[name] for name in ('stride', 'padding', 'dilation')}
    expected = slow_deform_conv2d(image, offset, layer.weight, bias, mask=mask[0] if mask else None, **geometry)
    incoming = torch.linspace(-1, 1, expected.numel(), dtype=expected.dtype).view_as(expected)
    gradients = torch.autograd.grad(expected, [*inputs, *layer.parameters()], incoming)
    for result, value in zip(results, [expected, *gradients], strict=True):
        torch.testing.assert_close(result, value)


def test_no_offset_is_a_convolution(stand_in):
    layer, (image, offset) = make(DeformConv2d)
    expected = conv2d(image, layer.weight, None, GEOMETRY['stride'], GEOMETRY['padding'], GEOMETRY['dilation'], 2)
    torch.testing.assert_close(layer(image, torch.zeros_like(offset)), expected)


def test_offsets_are_down_then_right(stand_in):
    layer = DeformConv2d(1, 1, 1)
    torch.nn.init.ones_(layer.weight)
    image = torch.arange(12.0).view(1, 1, 3, 4)
    offset = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    assert torch.equal(layer(image, offset.contiguous()), pad(image, (0, 2, 0, 1))[:, :, 1:, 2:])


def test_half_of_the_mask_halves(stand_in):
    layer, (image, offset, mask) = make(ModulatedDeformConv2d, bias=False)
    full = layer(image, offset, torch.ones_like(mask))
    torch.testing.assert_close(layer(image, offset, torch.full_like(mask, 0.5)), full / 2)


@pytest.mark.parametrize(
    'layer_type, operator',
    [(DeformConv2d, 'deform_conv_forward'), (ModulatedDeformConv2d, 'modulated_deform_conv_forward')],
)
def test_without_torchvision_the_error_names_the_operator_and_the_way_out(monkeypatch, layer_type, operator):
    use_stand_in(monkeypatch, None)
    layer, inputs = make(layer_type)
    with pytest.raises(NotImplementedError, match=f"'{operator}' needs a torchvision .* Install compiled mmcv"):
        layer(*inputs)


@pytest.mark.agreement
@pytest.mark.skipif(mmcv_flavour() != 'compiled', reason='mmcv is installed without compiled operators')
@pytest.mark.parametrize('layer_type, kwargs', names())
def test_same_as_compiled(layer_type, kwargs, monkeypatch):
    layer, inputs = make(layer_type, **kwargs)
    expected = run(layer, inputs)
    use_stand_in(monkeypatch, SLOW)
    for result, value in zip(run(layer, inputs), expected, strict=True):
        torch.testing.assert_close(result, value)


# Detectors ----------------------------------------------------------------------------------------------------------

DEFORMABLE = ('gfl_r101-dconv-c3-c5_fpn_ms-2x_coco', 'gfl_x101-32x4d-dconv-c4-c5_fpn_ms-2x_coco')


def small(name):
    """A shipped config of 50 layers with an eighth of the channels."""
    cfg = Config.fromfile(shipped_configs.find(name), import_custom_modules=False)
    backbone = dict(depth=50, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
    if 'groups' in cfg.model.backbone:
        backbone |= dict(groups=4, base_width=4)
    changes = dict(
        backbone=backbone,
        neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
        bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=1),
    )
    cfg.merge_from_dict(dict(model=changes))
    return cfg


def batch(size, images):
    samples = []
    for meta, truth in zip(metas((size, size), images), objects([2] * images, (size, size))):
        samples.append(DetDataSample(metainfo=meta | dict(batch_input_shape=(size, size)), gt_instances=truth))
    pixels = torch.randint(0, 256, (images, 3, size, size), generator=torch.Generator().manual_seed(4))
    return dict(inputs=list(pixels.to(torch.uint8)), data_samples=samples)


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
@pytest.mark.parametrize('name', DEFORMABLE)
def test_a_step_of_a_shipped_model_trains(name, kind, monkeypatch):
    use_stand_in(monkeypatch, SLOW)
    check_a_step(name, kind)


@pytest.mark.skipif(mmcv_flavour() != 'compiled', reason='mmcv is installed without compiled operators')
@pytest.mark.agreement
@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
@pytest.mark.parametrize('name', DEFORMABLE)
def test_a_step_of_a_shipped_model_trains_on_compiled_mmcv(name, kind):
    check_a_step(name, kind, 128)  # compiled, the operator wants maps no smaller than its kernel


def check_a_step(name, kind, size=64):
    """A step of the small model has finite losses and moves every parameter."""
    cfg = small(name)
    cfg.model.backbone.dcn.type = kind
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: value.clone() for key, value in model.named_parameters()}
    logged = model.train_step(batch(size, 2), wrapper)
    assert all(torch.isfinite(logged[key]) and logged[key] > 0 for key in ('loss_cls', 'loss_bbox', 'loss_dfl'))
    after = dict(model.named_parameters())
    assert not [key for key, value in after.items() if torch.equal(before[key], value) or not value.isfinite().all()]
    deformable = {key.split('.')[1] for key in after if 'conv_offset' in key}
    stages = cfg.model.backbone.stage_with_dcn
    assert deformable == {f'layer{stage}' for stage, used in enumerate(stages, 1) if used}  # layer1 is C2


@pytest.mark.parametrize('name', DEFORMABLE)
def test_a_new_shipped_model_is_the_plain_one(name, monkeypatch):
    use_stand_in(monkeypatch, SLOW)
    cfg, plain = small(name), small(name)
    plain.model.backbone.pop('dcn')
    plain.model.backbone.pop('stage_with_dcn')
    model, plain = (MODELS.build(c.model).eval() for c in (cfg, plain))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if 'conv_offset' not in k}, strict=True)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for level, expected in zip(model.extract_feat(image), plain.extract_feat(image), strict=True):
            torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5)  # offsets begin at 0


@pytest.mark.parametrize('layer_type', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_a_model_that_cannot_run_ends_the_training_in_a_sentence(monkeypatch, layer_type):
    use_stand_in(monkeypatch, None)
    said = rf"^model \({layer_type.__name__}\): .* needs a torchvision .*without 'dconv' .* Install compiled mmcv"
    with pytest.raises(launch.UserError, match=said):
        launch.run(lambda: layer_type(3, 3, 3)(torch.zeros(1, 3, 4, 4)), Config())
