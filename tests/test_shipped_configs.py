"""Shipped configs are listed, found by name, and printed whole."""

import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_gfl import shipped_configs
from mmdet_gfl.__main__ import main

BASE = 'lr = 0.01\nmodel = dict(type="Base", depth=50)\n'
CHILD = '''"""One line on it.

And more.
"""
_base_ = '../_base_/base.py'
custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)
model = dict(depth=18)
'''


@pytest.fixture
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configs in place of the shipped ones: two called ``same``, and parts that are not listed."""
    folder = tmp_path / 'configs'
    for name, text in {
        '_base_/base.py': BASE,
        'gfl/_part.py': BASE,
        'gfl/gfl_r50_fpn_1x_coco.py': CHILD,
        'gfl/same.py': '# Said in a comment.\nlr = 1\n',
        'fcos/same.py': 'lr = 2\n',
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(shipped_configs, 'CONFIG_DIR', folder)
    return folder


def test_parts_for_others_are_not_listed(config_dir: Path) -> None:
    assert shipped_configs.names() == ['fcos/same', 'gfl/gfl_r50_fpn_1x_coco', 'gfl/same']


def test_listing_says_what_a_config_is(config_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs']) == 0
    assert capsys.readouterr().out.splitlines() == [
        'fcos/same',
        'gfl/gfl_r50_fpn_1x_coco  One line on it.',
        'gfl/same                 Said in a comment.',
    ]


@pytest.mark.parametrize(
    'name',
    [
        'gfl_r50_fpn_1x_coco',
        'gfl_r50_fpn_1x_coco.py',
        'gfl/gfl_r50_fpn_1x_coco',
        'gfl/gfl_r50_fpn_1x_coco.py',
        'configs/gfl/gfl_r50_fpn_1x_coco.py',
    ],
)
def test_a_name_may_come_with_folder_and_suffix(config_dir: Path, name: str) -> None:
    assert shipped_configs.find(name) == config_dir / 'gfl/gfl_r50_fpn_1x_coco.py'


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('gfl_r50_fpn_2x_coco', 'did you mean gfl/gfl_r50_fpn_1x_coco?'),
        ('fcos/gfl_r50_fpn_1x_coco', 'did you mean gfl/gfl_r50_fpn_1x_coco?'),
        ('yolo', '`python -m mmdet_gfl configs` lists them'),
        ('same', 'several configs; add the folder: fcos/same, gfl/same'),
        ('base', 'no shipped config'),
    ],
)
def test_an_unknown_name_gets_suggestions(
    config_dir: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert main(['configs', name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert message in captured.err
    assert repr(name) in captured.err


def test_a_package_without_configs_is_reported(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(shipped_configs, 'CONFIG_DIR', tmp_path / 'nowhere')
    assert main(['configs']) == 2
    assert str(tmp_path / 'nowhere') in capsys.readouterr().err


def test_a_printed_config_stands_alone(config_dir: Path, tmp_path: Path, capsys) -> None:
    assert main(['configs', 'gfl_r50_fpn_1x_coco']) == 0
    printed = capsys.readouterr().out
    assert '_base_' not in printed
    (tmp_path / 'mine.py').write_text(printed)
    config = Config.fromfile(tmp_path / 'mine.py', import_custom_modules=False)
    assert config.to_dict() == {
        'lr': 0.01,
        'model': {'type': 'Base', 'depth': 18},
        'custom_imports': {'imports': ['no_such_module'], 'allow_failed_imports': False},
    }


def test_environment_variables_are_left_to_the_reader(config_dir: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (config_dir / 'gfl/env.py').write_text("data_root = '{{$MY_DATA:data/}}'\nann_file = data_root + 'a.json'\n")
    monkeypatch.setenv('MY_DATA', 'here/')
    assert main(['configs', 'env']) == 0
    (tmp_path / 'mine.py').write_text(capsys.readouterr().out)
    monkeypatch.setenv('MY_DATA', 'there/')
    assert Config.fromfile(tmp_path / 'mine.py').ann_file == 'there/a.json'


def test_output_goes_to_a_file_and_never_over_one(config_dir: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / 'mine.py'
    assert main(['configs', 'fcos/same', '-o', str(file)]) == 0
    assert Config.fromfile(file).lr == 2
    assert main(['configs', 'gfl/same', '-o', str(file)]) == 2
    assert (
        capsys.readouterr().err == f'error: {file} exists and is not overwritten; remove it, or choose another name\n'
    )
    assert Config.fromfile(file).lr == 2
    assert main(['configs', 'gfl/same', '-o', str(tmp_path / 'none' / 'mine.py')]) == 2
    assert capsys.readouterr().err == f'error: there is no folder {tmp_path / "none"}; make it first\n'


@pytest.mark.parametrize(
    ('source', 'summary'),
    [
        ('"""Doc.\n\nMore."""\n', 'Doc.'),
        ('# Comment.\n# More.\nlr = 1\n', 'Comment.'),
        ('#!/usr/bin/python\n', '/usr/bin/python'),
        ('lr = 1  # not at the top\n', ''),
        ('', ''),
    ],
)
def test_summary(source: str, summary: str) -> None:
    assert shipped_configs.summary(source) == summary


def test_a_missing_mmengine_is_reported(config_dir: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, 'mmengine.config', None)
    assert main(['configs', 'gfl/same']) == 2
    assert '`python -m mmdet_gfl` says what to install' in capsys.readouterr().err


@pytest.mark.parametrize('name', shipped_configs.names())
def test_each_shipped_config_prints_what_it_holds(name: str, tmp_path: Path) -> None:
    (tmp_path / 'printed.py').write_text(shipped_configs.flattened(name))
    printed = Config.fromfile(tmp_path / 'printed.py', import_custom_modules=False)
    inherited = Config.fromfile(shipped_configs.find(name), import_custom_modules=False)
    assert printed.to_dict() == inherited.to_dict()


def test_basenames_are_unique() -> None:
    basenames = [name.rpartition('/')[2] for name in shipped_configs.names()]
    assert basenames
    assert len(set(basenames)) == len(basenames), '`mim` takes a config by its basename'
