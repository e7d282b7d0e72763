"""Deformable convolution as ONNX's operator, beside its definition."""

import io
from types import SimpleNamespace

import pytest
import torch
from conftest import config, randomize
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.registry import MODELS

from mmdet_gfl.analysis.detector import Detector
from mmdet_gfl.compat import deform_conv
from mmdet_gfl.engine.errors import UserError
from mmdet_gfl.export import exporting
from mmdet_gfl.export.operators import onnx_symbolics
from mmdet_gfl.export.writing import exporter_options

onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
onnx = pytest.importorskip('onnx', reason='onnx is not installed')


def by_definition(input, offset, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=1, mask=None):
    """A dilation of 1: each point of the kernel samples the image at its offset, outside it is 0."""
    num_images, _, height, width = input.shape
    groups = offset.size(1) // (2 * weight[0, 0].numel())
    total = 0
    for point, (dy, dx) in enumerate((y, x) for y in range(weight.size(2)) for x in range(weight.size(3))):
        samples = []
        for group, part in enumerate(input.chunk(groups, dim=1)):
            index = group * weight[0, 0].numel() + point
            y = stride[0] * torch.arange(offset.size(2))[:, None] + dy - padding[0] + offset[:, 2 * index]
            x = stride[1] * torch.arange(offset.size(3)) + dx - padding[1] + offset[:, 2 * index + 1]
            grid = torch.stack((x * 2 / (width - 1) - 1, y * 2 / (height - 1) - 1), dim=-1)
            sampled = torch.nn.functional.grid_sample(part, grid, align_corners=True)
            samples.append(sampled if mask is None else sampled * mask[:, index, None])
        total = total + torch.einsum('nchw,oc->nohw', torch.cat(samples, dim=1), weight[:, :, dy, dx])
    return total if bias is None else total + bias.view(1, -1, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('kind', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_is_the_operator_of_onnx(kind, groups, monkeypatch):
    operator = SimpleNamespace(deform_conv2d=by_definition)
    monkeypatch.setattr(deform_conv, 'torchvision_ops', lambda: operator)
    layer = kind(4, 6, 3, padding=1, deform_groups=groups).eval()
    layer.conv_offset.weight.data.normal_(std=0.3)
    image = torch.randn(2, 4, 9, 7)
    wanted = layer(image)
    buffer = io.BytesIO()
    with onnx_symbolics():
        torch.onnx.export(layer, (image,), buffer, input_names=['image'], opset_version=19, **exporter_options())
    session = onnxruntime.InferenceSession(buffer.getvalue())
    (found,) = session.run(None, dict(image=image.numpy()))
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4)


def test_whole_detector(root, tmp_path, monkeypatch):
    monkeypatch.setattr(deform_conv, 'torchvision_ops', lambda: SimpleNamespace(deform_conv2d=by_definition))
    cfg = config(root, 'gfl')
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=False)
    cfg.model.backbone.update(depth=50, base_channels=4, dcn=dcn, stage_with_dcn=(False, False, False, True))
    cfg.model.neck.in_channels = [32, 64, 128]
    loaded = Detector(randomize(MODELS.build(cfg.model)), cfg, tuple('abc'))
    for name, layer in loaded.model.named_modules():
        if name.endswith('conv_offset'):
            torch.nn.init.normal_(layer.weight, std=0.1)
    out = tmp_path / 'out.onnx'
    with pytest.raises(UserError, match=r'--opset 18: model.backbone.layer4.0.conv2 is a deformable convolution'):
        exporting.export(loaded, exporting.Settings(), out)
    exporting.export(loaded, exporting.Settings(opset=19), out)  # compared with torch at two sizes
    assert sum(node.op_type == 'DeformConv' for node in onnx.load(out).graph.node) == 3
