"""docs/many_nodes.md: its numbers are what the tools compute, its scripts and variables are there."""

import re
import shlex

import pytest
from mmengine.config import Config

from mmdet_gfl.engine import launch

ROW = re.compile(r'^\| `(?P<command>[^`]+)` \| (?P<batch>\d+) \| (?P<lr>[\d.]+) \|$', flags=re.MULTILINE)


@pytest.fixture
def page(root):
    return (root / 'docs' / 'many_nodes.md').read_text()


def test_effective_batches_and_learning_rates(page, root, monkeypatch):
    rows = list(ROW.finditer(page))
    assert len(rows) == 4
    for row in rows:
        words = shlex.split(row['command'])
        cfg = Config.fromfile(root / 'configs' / 'gfl' / 'gfl_r50_fpn_1x_coco.py')
        cfg.launcher = 'pytorch' if 'tools/dist_train.sh' in words else 'none'
        monkeypatch.setenv('WORLD_SIZE', words[3] if cfg.launcher == 'pytorch' else '1')
        if '--cfg-options' in words:
            key, value = words[-1].split('=')
            launch.merge_options(cfg, {key: int(value)})
        assert launch.images_per_step(cfg) == (int(row['batch']), 1)
        assert launch.scaled_lr(cfg)[0] == pytest.approx(float(row['lr']))


def test_scripts_and_variables_are_there(page, root):
    scripts = set(re.findall(r'tools/(\w+\.sh)', page))
    assert {'dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'} <= scripts
    texts = [(root / 'tools' / script).read_text() for script in scripts]
    texts.append((root / 'tools' / '_launchers.sh').read_text())
    for variable in set(re.findall(r'\b([A-Z]+(?:_[A-Z]+)*)=', page)):
        ours = any(variable in text for text in texts)
        assert ours or variable in {
            'TOOLS',
            'CUDA_VISIBLE_DEVICES',
            'NCCL_SOCKET_IFNAME',
            'GLOO_SOCKET_IFNAME',
            'WORLD_SIZE',
        }


def test_the_output_of_the_tools_is_quoted_literally(page, monkeypatch):
    cfg = Config(dict(launcher='none'))
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(launch.UserError) as refused:
        launch.check_launcher(cfg)
    assert f'```text\n{refused.value}\n```' in page
