"""Versions that do not fit are named on import, all at once, with the command that fixes them."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmdet_gfl.versions import REQUIREMENTS, Requirement, parse_release

ROOT = Path(__file__).parents[1]
FITTING = {'torch': '2.13.0+cpu', 'mmengine': '0.10.7', 'mmcv-lite': '2.1.0', 'mmdet': '3.3.0'}
CONSTRAINTS = ('constraints-lowest.txt', 'constraints.txt')
SAY_PROBLEMS = 'from mmdet_gfl.versions import find_problems; print(*[p.what for p in find_problems()], sep="\\n")'
# As `python -m mmdet_gfl` would: without the check on import.
WITHOUT_CHECK = 'import sys; sys.argv, sys.orig_argv = ["-m"], ["-m", "mmdet_gfl"]; '


def install(folder: Path, dist: str, version: str, package: str | None = None) -> None:
    """Files that pip leaves of a distribution: metadata, and the package unless ``package`` is ''."""
    info = folder / f'{dist.replace("-", "_")}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n')
    if package is None:
        package = dist.removeprefix('onedl-').replace('mmdetection', 'mmdet').partition('-')[0]
    if package:
        (folder / package).mkdir(exist_ok=True)
        (folder / package / '__init__.py').touch()


def install_all(folder: Path, **changes: str | None) -> None:
    """Install versions that fit, but for ``changes``; None leaves one out."""
    for dist, version in {**FITTING, **{name.replace('_', '-'): value for name, value in changes.items()}}.items():
        if version is not None:
            install(folder, dist, version)


def run_python(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run code where nothing but the standard library, ``folders`` and this package can be imported."""
    env = {'PYTHONPATH': ':'.join(map(str, [*folders, ROOT]))}
    return subprocess.run([sys.executable, '-S', '-c', code], env=env, capture_output=True, text=True, cwd='/')


def problems(*folders: Path) -> list[str]:
    result = run_python(WITHOUT_CHECK + SAY_PROBLEMS, *folders)
    assert result.returncode == 0, result.stderr
    return result.stdout.split('\n')[:-1] if result.stdout.strip() else []


@pytest.mark.parametrize(
    ('version', 'numbers'),
    [('2.13.0+cpu', (2, 13)), ('3.2', (3, 2)), ('2.0.0rc4', (2,)), ('0.10.7', (0, 10, 7)), ('2.10', (2, 10))],
)
def test_parse_release(version: str, numbers: tuple[int, ...]) -> None:
    assert parse_release(version) == numbers


def test_parse_release_refuses_other_texts() -> None:
    with pytest.raises(ValueError, match="got 'unknown'"):
        parse_release('unknown')


@pytest.mark.parametrize(
    ('version', 'fits'),
    [
        ('3.1.0', False),
        ('3.2', True),
        ('3.2.0', True),
        ('3.10.1', True),
        ('3.99', True),
        ('4', False),
        ('4.0.0', False),
    ],
)
def test_lowest_fits_and_below_does_not(version: str, fits: bool) -> None:
    assert Requirement('mmdet', ('mmdet',), lowest='3.2.0', below='4.0.0', tested='3.3.0').fits(version) is fits


def test_no_version_is_too_new_without_an_upper_bound() -> None:
    assert Requirement('torch', ('torch',), lowest='2.0', below='', tested='2.13.0').fits('99')


def test_versions_that_fit_pass(tmp_path: Path) -> None:
    install_all(tmp_path)
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        ({'mmdet': '3.1.0'}, 'mmdet 3.1.0 does not fit (needed: >=3.2.0,<4.0.0)'),
        ({'mmdet': None}, 'mmdet is not installed (needed: >=3.2.0,<4.0.0)'),
        ({'mmcv_lite': '2.2.0'}, 'mmcv-lite 2.2.0 does not fit (needed: >=2.1.0,<2.2.0)'),
        ({'mmcv_lite': None}, 'mmcv is not installed (needed: >=2.1.0,<2.2.0)'),
        ({'mmcv_lite': None, 'mmcv': '2.2.0'}, 'mmcv 2.2.0 does not fit (needed: >=2.1.0,<2.2.0)'),
        ({'mmcv': '2.1.0'}, 'mmcv-lite 2.1.0 and mmcv 2.1.0 are both installed and overwrite each other'),
        ({'mmengine': '0.7.4'}, 'mmengine 0.7.4 does not fit (needed: >=0.10.3,<1.0.0)'),
        ({'torch': '1.13.1'}, 'torch 1.13.1 does not fit (needed: >=2.1.2)'),
    ],
)
def test_a_misfit_is_named(tmp_path: Path, change: dict[str, str | None], problem: str) -> None:
    install_all(tmp_path, **change)
    (found,) = problems(tmp_path)
    assert found.startswith(problem)


FORK = {'mmengine': None, 'mmcv_lite': None, 'mmdet': None, 'onedl_mmengine': '0.10.12', 'onedl_mmcv': '2.3.6'}


def test_the_maintained_fork_fits(tmp_path: Path) -> None:
    install_all(tmp_path, **FORK, onedl_mmdetection='3.5.1')
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        ({'onedl_mmdetection': '4.0.0'}, 'onedl-mmdetection 4.0.0 does not fit (needed: >=3.5.1,<4.0.0)'),
        ({'mmdet': '3.3.0'}, 'mmdet 3.3.0 refuses onedl-mmcv 2.3.6, which goes with onedl-mmdetection'),
        (
            {'onedl_mmdetection': '3.5.1', 'mmengine': '0.10.7'},
            'mmengine 0.10.7 and onedl-mmengine 0.10.12 are both installed and overwrite each other',
        ),
    ],
)
def test_a_fork_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    install_all(tmp_path, **{**FORK, **change})
    (found,) = problems(tmp_path)
    assert found.startswith(problem)


def test_compiled_mmcv_fits_too(tmp_path: Path) -> None:
    install_all(tmp_path, mmcv_lite=None, mmcv='2.1.0')
    assert problems(tmp_path) == []


def test_of_two_folders_the_first_on_the_path_counts(tmp_path: Path) -> None:
    install_all(tmp_path / 'a', mmcv_lite=None, mmcv='2.1.0')
    install(tmp_path / 'b', 'mmcv-lite', '2.2.0')
    assert problems(tmp_path / 'a', tmp_path / 'b') == []
    (found,) = problems(tmp_path / 'b', tmp_path / 'a')
    assert found.startswith('mmcv-lite 2.2.0 does not fit')


def test_metadata_without_its_package_collides_with_a_package_further_down(tmp_path: Path) -> None:
    install(tmp_path / 'a', 'mmcv', '2.1.0', package='')
    install_all(tmp_path / 'b')
    (found,) = problems(tmp_path / 'a', tmp_path / 'b')
    assert found.startswith('mmcv 2.1.0 and mmcv-lite 2.1.0 are both installed')


def test_a_source_checkout_without_metadata_is_taken(tmp_path: Path) -> None:
    install_all(tmp_path, mmdet=None)
    (tmp_path / 'mmdet').mkdir()
    assert problems(tmp_path) == ['mmdet is not installed (needed: >=3.2.0,<4.0.0)'], 'a folder alone is no package'
    (tmp_path / 'mmdet' / '__init__.py').touch()
    assert problems(tmp_path) == []


def test_metadata_that_a_killed_installation_left_is_passed_over(tmp_path: Path) -> None:
    install_all(tmp_path)
    (tmp_path / 'mmdet-3.1.0.dist-info').mkdir()
    assert problems(tmp_path) == []


def test_import_names_everything_at_once_with_one_command(tmp_path: Path) -> None:
    install_all(tmp_path, mmdet=None, mmcv_lite=None, mmcv='2.2.0', torch='1.13.1')
    result = run_python(
        'try: import mmdet_gfl\nexcept ImportError as error: print(error)\nelse: print("imported")', tmp_path
    )
    pip = f'{sys.executable} -m pip'
    assert result.stdout.splitlines() == [
        'mmdet_gfl cannot work with the versions installed here:',
        '  - torch 1.13.1 does not fit (needed: >=2.1.2)',
        '  - mmcv 2.2.0 does not fit (needed: >=2.1.0,<2.2.0)',
        '  - mmdet is not installed (needed: >=3.2.0,<4.0.0)',
        'This fixes it:',
        f'  {pip} uninstall -y mmcv && {pip} install torch==2.13.0 mmcv-lite==2.1.0 mmdet==3.3.0',
    ]


def test_a_misfit_is_reported_where_mmengine_swallows_the_error(tmp_path: Path) -> None:
    install_all(tmp_path, mmdet='3.1.0')
    swallowing = 'import importlib\ntry: importlib.import_module("mmdet_gfl.registry")\nexcept ImportError: pass'
    assert 'mmdet 3.1.0 does not fit' in run_python(swallowing, tmp_path).stderr


def test_import_is_cheap() -> None:
    code = 'import sys, mmdet_gfl; print({"torch", "mmcv", "mmengine", "mmdet"} & set(sys.modules))'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == 'set()'


def test_extra_mim_has_the_same_bounds() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    extra = dict(re.match(r'(\w+)(.*)', line).groups() for line in setup['options.extras_require']['mim'].split())
    assert extra == {requirement.package: requirement.bounds for requirement in REQUIREMENTS}


def pins(file: str) -> dict[str, str]:
    return dict(re.findall(r'^([\w.-]+)==([^\s#]+)', (ROOT / file).read_text(), flags=re.MULTILINE))


def test_the_lowest_and_the_tested_versions_are_the_pinned_ones() -> None:
    lowest, tested = map(pins, CONSTRAINTS)
    for requirement in REQUIREMENTS:
        assert lowest[requirement.dists[0]] == requirement.lowest
        assert tested[requirement.dists[0]] == requirement.tested and requirement.fits(requirement.tested)


def test_hosted_ci_runs_the_script_on_both_and_with_the_newest_torch() -> None:
    (job,) = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())['jobs'].values()
    matrix = job['strategy']['matrix']['include']
    assert [run.get('torch') for run in matrix] == [None, None, 'torch']
    runs = {run['constraints']: run['python'] for run in matrix}
    assert set(runs) == set(CONSTRAINTS) and job['steps'][-1]['run'] == 'bash .ci/run'
    for file, python in runs.items():
        assert f'\n# lowest Python: {python}\n' in (ROOT / file).read_text()


def test_pre_commit_runs_the_pinned_ruff() -> None:
    (repo,) = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    ruff = f'ruff=={pins("constraints.txt")["ruff"]}'
    assert [hook['additional_dependencies'] for hook in repo['hooks']] == [[ruff]] * 2


@pytest.mark.parametrize('file', CONSTRAINTS)
def test_every_pin_is_met_once(file: str) -> None:
    names = re.findall(r'^([\w.-]+)==', (ROOT / file).read_text(), flags=re.MULTILINE)
    normalized = [re.sub(r'[-_.]+', '-', name).lower() for name in names]
    assert len(set(normalized)) == len(normalized)
