"""Needs of MMDetection's own programs to find our parts: none with compiled mmcv, one config line without."""

import subprocess
import sys

import pytest

from mmdet_gfl.compat import mmcv_flavour


def python(code, root):
    """Runs ``code`` in a Python that reads no .pth files, so that nothing is in place when it starts."""
    packages = [str(root), *(path for path in sys.path if path.endswith('-packages'))]
    script = f'import sys\nsys.path[:0] = {packages!r}\n{code}'
    return subprocess.run([sys.executable, '-S', '-c', script], capture_output=True, text=True)


BUILD = """
import mmdet.models
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
DefaultScope.get_instance('test', scope_name='mmdet')
generator = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16])
for name in ('mmdet_gfl.GFLHead', 'GFLHead'):
    print(type(MODELS.build(dict(type=name, num_classes=3, in_channels=32, anchor_generator=generator))).__module__)
"""


def test_reading_a_config_of_ours_is_enough(root):
    config = root / 'configs' / 'gfl' / 'gfl_r50_fpn_1x_coco.py'
    result = python(f'from mmengine.config import Config\nConfig.fromfile({str(config)!r})\n{BUILD}', root)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split()[-2:] == ['mmdet_gfl.models.dense_heads.gfl_head', 'mmdet.models.dense_heads.gfl_head']


@pytest.mark.agreement
def test_with_compiled_mmcv_the_type_alone_is_enough(root):
    if mmcv_flavour() != 'compiled':
        pytest.skip('mmcv has no compiled operators here; with mmcv-lite a config needs custom_imports')
    result = python(BUILD, root)
    assert result.returncode == 0, result.stderr[-2000:]
    assert 'mmdet_gfl.models.dense_heads.gfl_head' in result.stdout


def test_without_it_mmcv_lite_cannot(root):
    if mmcv_flavour() == 'compiled':
        pytest.skip('mmcv has its compiled operators here')
    result = python(BUILD, root)
    assert result.returncode != 0 and 'mmcv._ext' in result.stderr
