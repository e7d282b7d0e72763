"""A wheel, built from the checkout or from its source distribution, holds the package with configs and tools."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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
    }


def test_wheel_holds_package_configs_and_tools(wheel: Path) -> None:
    assert wheel.name == f'mmdet_gfl-{__version__}-py3-none-any.whl'
    modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / 'mmdet_gfl').rglob('*.py')}
    configs = {f'{MIM}/{file.relative_to(ROOT).as_posix()}' for file in (ROOT / 'configs').rglob('*.py')}
    packaged = contents(wheel)
    assert modules | configs | {'mmdet_gfl/py.typed', f'{MIM}/tools/train.py'} <= packaged
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
    assert printed.strip() == shipped_configs.flattened(name).strip()


def test_citation_has_the_version() -> None:
    assert f'\nversion: {__version__}\n' in (ROOT / 'CITATION.cff').read_text()


def test_the_model_index_names_every_metafile(root):
    import yaml

    named = yaml.safe_load((root / 'mmdet_gfl/.mim/model-index.yml').read_text())['Import']
    assert named == sorted(str(file.relative_to(root)) for file in root.glob('configs/*/metafile.yml'))
