"""Claims of docs/faq.md: its Python runs and prints what stands there, its commands and keys exist."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch
from cases import features, host_config, loss_and_gradients, metas, objects
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_gfl.shipped_configs import find

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'faq.md').read_text(encoding='utf-8')
PYTHON = re.compile(r'^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```$)?', flags=re.MULTILINE | re.DOTALL)
BLOCKS = PYTHON.findall(PAGE)
CODE = [block for block in BLOCKS if 'import ' in block[0]]
CONFIGS = [code for code, _ in BLOCKS if 'import ' not in code]
SIZE = (96, 160)


def test_the_page_has_both_kinds_of_blocks():
    assert len(CODE) >= 4 and len(CONFIGS) >= 4


@pytest.mark.parametrize(('code', 'printed'), CODE, ids=[str(index) for index in range(len(CODE))])
def test_code_prints_what_stands_under_it(code, printed):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, 'docs/faq.md', 'exec'), {})
    assert printed and out.getvalue() == printed


@pytest.mark.parametrize('code', CONFIGS, ids=[str(index) for index in range(len(CONFIGS))])
def test_config_lines_are_configs(code):
    cfg = Config.fromstring(code.replace("'my_package'", "'json'"), '.py')
    if 'model' in cfg:
        head = cfg.model.bbox_head
        host = re.fullmatch(r'mmdet_gfl\.(\w+)GFLHead', head.type)[1]
        built = MODELS.build(host_config(host) | dict(head))
        assert type(built.quality).__name__ == head.get('quality', dict(type='.JointQuality'))['type'].split('.')[1]


def test_shipped_configs_scale_clip_and_check():
    cfg = Config.fromfile(find('gfl_r50_fpn_1x_coco'))
    assert cfg.auto_scale_lr.to_dict() == dict(enable=True, base_batch_size=16)
    assert cfg.optim_wrapper.clip_grad.to_dict() == dict(max_norm=35, norm_type=2)
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert 'mmdet_gfl.NumClassCheckHook' in hooks and 'mmdet_gfl.CheckGroundTruthHook' in hooks


def test_batches_without_objects_leave_no_parameter_out():
    head = MODELS.build(host_config('ATSS'))
    _, gradients = loss_and_gradients(
        head, features(SIZE, 2, requires_grad=True), objects([0, 0], SIZE), metas(SIZE, 2)
    )
    of_parameters = {name: gradients[name] for name, _ in head.named_parameters()}
    assert all(grad is not None and torch.isfinite(grad).all() for grad in of_parameters.values())


def test_an_iou_branch_weighs_its_boxes_evenly():
    head = MODELS.build(host_config('FCOS', 'IoUBranch', 'dirac'))
    assert head.box_weight == 'uniform'


def test_mmengine_takes_no_names_of_ours(tmp_path):
    path = tmp_path / 'child.py'
    path.write_text("_base_ = 'mmdet_gfl::gfl/gfl_r50_fpn_1x_coco.py'\n")
    with pytest.raises(AssertionError, match='mmengine does not support to load mmdet_gfl config'):
        Config.fromfile(path)


def test_tools_and_options_exist():
    tools = re.findall(r'tools/[\w/]+\.py', PAGE)
    assert tools and all((ROOT / tool).is_file() for tool in tools)
    for tool, option in (
        ('tools/train.py', '--amp'),
        ('tools/analysis_tools/benchmark_head.py', '--boxes'),
        ('mmdet_gfl/engine/launch.py', '--allow-unsafe-checkpoint'),
    ):
        assert option in PAGE and f"'{option}'" in (ROOT / tool).read_text()
