"""``python -m mmdet_gfl``: which versions are here, what is active, what does not fit and what fixes it.

The report has to come where nothing else works, so each import of another package is tried and a failure is reported.
"""

import importlib
import logging
import platform
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from mmdet_gfl import __version__, compat
from mmdet_gfl.compat.startup import installed as installed_at_start
from mmdet_gfl.versions import REQUIREMENTS, find_problems, fixing_command, installed, parse_release


@dataclass(frozen=True)
class Entry:
    """A line of the table: a part, its version, and what else there is to say."""

    part: str
    version: str
    note: str = ''


@dataclass(frozen=True)
class Finding:
    """Something that is wrong or may become so, and the command that fixes it, '' where none is known."""

    what: str
    fix: str


#: Packages of the table without a bound on their version.
_OTHERS = ('numpy', 'opencv-python', 'pycocotools', 'torchvision', 'setuptools')

_MMCV_NOTES = {
    'compiled': 'with compiled operators',
    'stand-in': 'without compiled operators: the stand-in of mmdet_gfl is active',
    'missing': '',
}

#: What a training imports, in an order in which the first failure says most.
_NEEDED = ('torch', 'numpy', 'cv2', 'mmcv', 'mmdet.models', 'mmdet.datasets', 'mmdet.evaluation', 'mmdet_gfl.models')

#: What errors on import contain, and the command that fixes them; {pip} stands for pip of the Python that runs.
_KNOWN_ERRORS = (
    (r'libGL|libgthread|libglib', '{pip} uninstall -y opencv-python && {pip} install opencv-python-headless'),
    (r'numpy\.core\.multiarray|_ARRAY_API|NumPy 1\.x', '{pip} install "numpy<2"'),
    (r'_ext\..*(undefined symbol|shared object)', '{pip} uninstall -y mmcv && {pip} install mmcv-lite==2.1.0'),
    (r"No module named 'cv2'", '{pip} install opencv-python'),
    (r"No module named '(\w+)'", '{pip} install \\1'),
)


def main() -> int:
    """Print the report and return the exit status: 1 if something is wrong, else 0."""
    logging.getLogger('mmdet_gfl').setLevel(logging.ERROR)  # the table says it too
    warnings.simplefilter('ignore')
    compat.activate()
    print(format_table(list(table())))
    wrong = find_wrong()
    for label, findings in (('note', find_notes()), ('WRONG', wrong)):
        for finding in findings:
            print(f'\n{label}: {finding.what}' + (f'\n  {finding.fix}' if finding.fix else ''))
    print('\nSomething is wrong; see above.' if wrong else '\nEverything fits.')
    return 1 if wrong else 0


def table() -> Iterator[Entry]:
    """The rows of the report."""
    yield Entry('mmdet_gfl', __version__)
    yield Entry('Python', platform.python_version(), sys.executable)
    for requirement in REQUIREMENTS:
        dists = installed(requirement)
        versions = ' and '.join(f'{dist.metadata["Name"]} {dist.version}' for dist in dists)
        yield Entry(requirement.package, versions.removeprefix(f'{requirement.package} '), _note(requirement.package))
    for dist in _OTHERS:
        yield Entry(dist, _version(dist), _note(dist))
    yield Entry('device', *_device())


def format_table(rows: list[Entry]) -> str:
    """The rows in aligned columns, '-' where there is no version."""
    parts = max(len(row.part) for row in rows)
    versions = max(len(row.version) for row in rows)
    return '\n'.join(f'{row.part:{parts}}  {row.version or "-":{versions}}  {row.note}'.rstrip() for row in rows)


def find_wrong() -> list[Finding]:
    """Find problems that keep a training from starting; imports are tried only if the versions fit."""
    problems = find_problems()
    if problems:
        return [Finding('\n       '.join(problem.what for problem in problems), fixing_command(problems))]
    failed = next(((name, error) for name in _NEEDED if (error := import_error(name))), None)
    wrong = [Finding(f'{failed[0]} does not import: {failed[1]}', known_fix(failed[1]))] if failed else []
    if find_spec('torchvision') and (error := import_error('torchvision')):
        # MMEngine imports it to print its version, and only takes it well if it is missing.
        fix = '{pip} uninstall -y torchvision'
        wrong.append(Finding(f'torchvision, which is not needed, does not import: {error}', fix.format(pip=_pip())))
    return wrong


def find_notes() -> list[Finding]:
    """Notes on what is unsafe here, or fails in configs of other packages."""
    notes, torch, setuptools = [], _version('torch'), _version('setuptools')
    if torch and parse_release(torch) < (2, 6):
        what = f'torch {torch} loads checkpoints in full, which runs any code that a file holds: trust their origin'
        notes.append(Finding(what, f"{_pip()} install 'torch>=2.6'"))
    if not (setuptools and parse_release(setuptools) < (82,)) and not _version('onedl-mmengine'):  # the fork needs none
        has = f'setuptools {setuptools or "is missing"}'
        what = f"{has}: `_base_ = 'mmdet::...'` in a config needs pkg_resources, gone in 82"
        notes.append(Finding(what, f"{_pip()} install 'setuptools<82'"))
    return notes


def import_error(name: str) -> str:
    """Error of importing module ``name``, in one line; '' if there is none."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        text = ' '.join(str(error).split())
        return f'{type(error).__name__}: {text[:300]}'
    return ''


def known_fix(error: str) -> str:
    """The command that fixes an error on import, or '' for one that is not known."""
    for pattern, command in _KNOWN_ERRORS:
        match = re.search(pattern, error)
        if match:
            return match.expand(command.replace('{pip}', _pip().replace('\\', r'\\')))
    return ''


def _note(part: str) -> str:
    if part == 'mmcv':
        flavour = compat.mmcv_flavour()
        early = flavour == 'stand-in' and installed_at_start()
        return _MMCV_NOTES[flavour] + (', from the start of Python' if early else '')
    if part != 'torchvision':
        return ''
    if find_spec(part) is None:
        return 'not needed'
    return 'does not import' if import_error(part) else 'used for NMS and deformable convolution'


def _device() -> tuple[str, str]:
    """Kind and names of the devices that torch sees."""
    try:
        import torch
    except Exception:
        return '', 'torch does not import'
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f'CUDA {torch.version.cuda}', ', '.join(names)
    built_for = f'torch is built for CUDA {torch.version.cuda}' if torch.version.cuda else 'torch is a CPU build'
    return 'CPU', f'{torch.get_num_threads()} threads; {built_for}'


def _version(dist: str) -> str:
    try:
        return version(dist)
    except PackageNotFoundError:
        return ''


def _pip() -> str:
    return shlex.join([sys.executable or 'python', '-m', 'pip'])
