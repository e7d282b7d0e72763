"""A wheel, built from the checkout or from its source distribution, holds the package with configs and tools."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmdet_gfl import __version__, shipped_configs

ROOT = Path(__file__).parents[1]
MIM = 'mmdet_gfl/.mim'
pytestmark = pytest.mark.slow


def run(*args: object, cwd: Path, **env: str) -> str:
    command = [sys.executable, *map(str, args)]
    result = subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def build_wheel(source: Path, out: Path) -> Path:
    run('-m', 'pip', 'wheel', '--no-index', '--no-deps', '--no-build-isolation', '-w', out, source, cwd=out.parent)
    (wheel,) = out.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, links as links: building writes into the folder."""
    copy = tmp_path_factory.mktemp('packaging') / 'checkout'
    copy.mkdir()
    for name in ('mmdet_gfl', 'configs', 'tools'):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for file in ROOT.iterdir():
        if file.is_file() and not file.name.startswith('.'):
            shutil.copy(file, copy)
    return copy


@pytest.fixture(scope='module')
def wheel(checkout: Path) -> Path:
    return build_wheel(checkout, checkout.parent / 'wheel')


def contents(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}


def test_links_are_relative() -> None:
    assert {link.name: str(link.readlink()) for link in (ROOT / MIM).iterdir()}.items() >= {
        ('configs', '../../configs'),
        ('tools', '../../tools'),
        ('model-index.yml', '../../model-index.yml'),
    }


def test_wheel_holds_package_configs_and_tools(wheel: Path) -> None:
    assert wheel.name == f'mmdet_gfl-{__version__}-py3-none-any.whl'
    modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / 'mmdet_gfl').rglob('*.py')}
    # Configs with what is read beside them (metafile.yml, README.md, ...), and the tools with their shell scripts
    linked = {
        f'{MIM}/{file.relative_to(ROOT).as_posix()}'
        for folder in ('configs', 'tools')
        for file in (ROOT / folder).rglob('*')
        if file.is_file() and '__pycache__' not in file.parts
    }
    packaged = contents(wheel)
    assert modules | linked | {'mmdet_gfl/py.typed', f'{MIM}/model-index.yml'} <= packaged
    assert {f'{MIM}/configs/gfl/metafile.yml', f'{MIM}/configs/gfl/README.md', f'{MIM}/tools/train.py'} <= linked
    assert {name.split('/')[0] for name in packaged} == {'mmdet_gfl'}


def test_source_distribution_gives_the_same_wheel(checkout: Path, wheel: Path) -> None:
    out = checkout.parent / 'sdist'
    run('-c', f'from setuptools.build_meta import build_sdist; build_sdist({str(out)!r})', cwd=checkout)
    (sdist,) = out.glob('*.tar.gz')
    assert contents(build_wheel(sdist, out / 'wheel')) == contents(wheel)


def test_installed_package_prints_its_configs(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / 'site'
    run('-m', 'pip', 'install', '--no-index', '--no-deps', '--target', site, wheel, cwd=tmp_path)
    where = run('-c', 'import mmdet_gfl; print(mmdet_gfl.__file__)', cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()) == site / 'mmdet_gfl' / '__init__.py'
    listing = run('-m', 'mmdet_gfl', 'configs', cwd=tmp_path, PYTHONPATH=str(site))
    assert [line.split()[0] for line in listing.splitlines()] == shipped_configs.names()
    name = shipped_configs.names()[0]
    printed = run('-m', 'mmdet_gfl', 'configs', name, cwd=tmp_path, PYTHONPATH=str(site))
    flattened = shipped_configs.flattened(name)  # tests write configs without yapf
    assert printed.splitlines()[0] == flattened.splitlines()[0]
    assert ast.dump(ast.parse(printed)) == ast.dump(ast.parse(flattened))


def test_citation_has_the_version() -> None:
    assert f'\nversion: {__version__}\n' in (ROOT / 'CITATION.cff').read_text()


# What `mim search`, `mim download` and `mim train` read ---------------------------------------------------------------


@pytest.fixture(scope='module')
def metafiles() -> dict[Path, dict[str, Any]]:
    """Every metafile of the model index, in the place from which mim reads it, by its file."""
    index = ROOT / MIM / 'model-index.yml'
    named = yaml.safe_load(index.read_text())['Import']
    assert named == sorted(file.relative_to(ROOT).as_posix() for file in ROOT.glob('configs/*/metafile.yml'))
    return {index.parent / name: yaml.safe_load((index.parent / name).read_text()) for name in named}


def test_collections_can_be_searched(metafiles: dict[Path, dict[str, Any]]) -> None:
    collections = [collection for metafile in metafiles.values() for collection in metafile['Collections']]
    names = [collection['Name'].lower() for collection in collections]
    assert len(set(names)) == len(names), 'mim keeps one collection of a name'
    for collection in collections:
        assert collection['Metadata']['Training Data'] == 'COCO'  # `mim search --dataset coco`
        assert {'URL', 'Title'} <= set(collection['Paper'])
        assert (ROOT / MIM / collection['README']).is_file()


def test_models_can_be_searched(metafiles: dict[Path, dict[str, Any]]) -> None:
    names = []
    for file, metafile in metafiles.items():
        (collection,) = metafile['Collections']
        for model in metafile['Models']:
            names.append(model['Name'])
            assert model['Name'] == model['Name'].lower(), 'mim lowers the name it is asked for, not this one'
            assert model['In Collection'] == collection['Name']
            assert ROOT / MIM / model['Config'] == file.parent / f'{model["Name"]}.py'
            assert (ROOT / MIM / model['Config']).is_file()
            assert all(result.keys() == {'Task', 'Dataset', 'Metrics'} for result in model.get('Results', []))
            assert re.fullmatch(r'(https://\S+-[0-9a-f]{8}\.pth)?', model.get('Weights', ''))
    assert len(set(names)) == len(names)


def test_mim_finds_one_file_of_a_configs_name() -> None:
    # `mim train mmdet_gfl NAME.py` looks for the name in the whole package, along its links.
    found = Counter(name for _, _, files in os.walk(ROOT / 'mmdet_gfl', followlinks=True) for name in files)
    for name in shipped_configs.names():
        assert found[f'{name.rpartition("/")[2]}.py'] == 1, name
