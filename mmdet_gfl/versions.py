"""Versions of other packages that this one supports, and the messages where they do not fit.

Everything is read from the installed packages' metadata, so nothing heavy is imported. MMDetection checks mmcv and
MMEngine too, but with an ``assert`` that names one of them; here all that does not fit is named at once, with the
command that fixes it.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Requirement:
    """A package this one stands on, with the versions that fit: ``lowest`` and later, but earlier than ``below``.

    ``dists`` are the distributions that provide the package, the one to install first; an empty ``below`` means that
    no version is too new; ``tested`` is the version that ``constraints.txt`` pins, or for a fork was tried by hand.
    """

    package: str
    dists: tuple[str, ...]
    lowest: str
    below: str
    tested: str

    def fits(self, version: str) -> bool:
        """True if ``version`` is within the bounds; a pre-release counts as the release it precedes."""
        release = parse_release(version)
        return parse_release(self.lowest) <= release and (not self.below or release < parse_release(self.below))

    @property
    def bounds(self) -> str:
        """The bounds as pip writes them: ``>=3.2.0,<4.0.0``."""
        return f'>={self.lowest}' + (f',<{self.below}' if self.below else '')

    @property
    def pin(self) -> str:
        """Requirement for pip: ``mmdet==3.3.0``."""
        return f'{self.dists[0]}=={self.tested}'


@dataclass(frozen=True)
class Problem:
    """A misfit in words, with the distributions to uninstall and the pins to install that fix it."""

    what: str
    install: tuple[str, ...]
    uninstall: tuple[str, ...] = ()


#: In the order of the imports. Those of mmcv and MMEngine lie within what MMDetection accepts; the extra ``mim`` in
#: setup.cfg repeats the bounds, constraints.txt the tested versions, constraints-lowest.txt the lowest, which are what
#: the tests have been run with.
REQUIREMENTS = (
    Requirement('torch', ('torch',), lowest='2.1.2', below='', tested='2.13.0'),
    Requirement('mmengine', ('mmengine', 'mmengine-lite'), lowest='0.10.3', below='1.0.0', tested='0.10.7'),
    Requirement('mmcv', ('mmcv-lite', 'mmcv', 'mmcv-full'), lowest='2.1.0', below='2.2.0', tested='2.1.0'),
    Requirement('mmdet', ('mmdet',), lowest='3.2.0', below='4.0.0', tested='3.3.0'),
)
#: Maintained continuations of these packages under the same import names, with versions of their own.
FORKS = (
    Requirement('mmengine', ('onedl-mmengine',), lowest='0.10.12', below='1.0.0', tested='0.10.12'),
    Requirement('mmcv', ('onedl-mmcv',), lowest='2.3.6', below='3.0.0', tested='2.3.6'),
    Requirement('mmdet', ('onedl-mmdetection',), lowest='3.5.1', below='4.0.0', tested='3.5.1'),
)


class VersionError(ImportError):
    """The installed versions do not fit; the message names each misfit and the command that fixes them all."""

    def __init__(self, problems: list[Problem]) -> None:
        self.summary = '; '.join(problem.what for problem in problems)
        misfits = '\n'.join(f'  - {problem.what}' for problem in problems)
        super().__init__(
            f'mmdet_gfl cannot work with the versions installed here:\n{misfits}\n'
            f'This fixes it:\n  {fixing_command(problems)}'
        )


def check_versions() -> None:
    """Do nothing if the installed versions fit.

    Raises:
        VersionError: Something is missing, too old, too new, or installed twice.
    """
    problems = find_problems()
    if problems:
        raise VersionError(problems)


def find_problems() -> list[Problem]:
    """Everything about the installed versions that keeps the package from working, in the order of the imports."""
    return [problem for problem in map(_check, REQUIREMENTS) if problem] or _mixed()


def fixing_command(problems: Iterable[Problem]) -> str:
    """One line for a shell that fixes all ``problems`` in the environment that runs."""
    pip = [sys.executable or 'python', '-m', 'pip']
    commands = [
        [*pip, *verb, *args]
        for verb, args in (
            (['uninstall', '-y'], [dist for problem in problems for dist in problem.uninstall]),
            (['install'], [pin for problem in problems for pin in problem.install]),
        )
        if args
    ]
    return ' && '.join(map(shlex.join, commands))


def installed(requirement: Requirement) -> list[Distribution]:
    """The distributions that provide the package: the one that an import takes, then those that collide with it.

    Distributions in another folder further down ``sys.path`` are shadowed and left out, unless the first one has no
    package beside its metadata (an editable install, or what a failed uninstall leaves).
    """
    same = (one for one in (*REQUIREMENTS, *FORKS) if one.package == requirement.package)
    found = [dist for one in same for name in one.dists if (dist := _first(name)) is not None]
    found.sort(key=_path_order)
    if not found or not (_folder(found[0]) / requirement.package).is_dir():
        return found
    return [dist for dist in found if _folder(dist) == _folder(found[0])]


def parse_release(version: str) -> tuple[int, ...]:
    """The numbers of a version without trailing zeros: ``'2.10.0rc1+cpu'`` gives ``(2, 10)``.

    Raises:
        ValueError: ``version`` does not start with a number.
    """
    match = re.match(r'\d+(\.\d+)*', version)
    if match is None:
        raise ValueError(f'expected a version that starts with a number, like 2.1.0, got {version!r}')
    numbers = [int(number) for number in match[0].split('.')]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _check(requirement: Requirement) -> Problem | None:
    found = installed(requirement)
    if not found:
        what = f'{requirement.package} is not installed (needed: {requirement.bounds})'
        spec = find_spec(requirement.package)  # there without metadata, as a source checkout on PYTHONPATH is?
        return None if spec is not None and spec.origin is not None else Problem(what, (requirement.pin,))
    if len(found) > 1:
        return _collision(requirement, found)
    dist = found[0]
    name = dist.metadata['Name']
    own = next((fork for fork in FORKS if name in fork.dists), requirement)
    if own.fits(dist.version):
        return None
    what = f'{name} {dist.version} does not fit (needed: {own.bounds})'
    return Problem(what, (own.pin,), () if name == own.dists[0] else (name,))


def _mixed() -> list[Problem]:
    """MMDetection's own release refuses the mmcv of the fork, whose versions are newer than it knows."""
    mmcv, mmdet = (next(iter(installed(one)), None) for one in REQUIREMENTS if one.package in ('mmcv', 'mmdet'))
    if mmcv is None or mmdet is None or mmcv.metadata['Name'] != 'onedl-mmcv' or mmdet.metadata['Name'] != 'mmdet':
        return []
    what = f'mmdet {mmdet.version} refuses onedl-mmcv {mmcv.version}, which goes with onedl-mmdetection'
    return [Problem(what, (FORKS[-1].pin,), ('mmdet',))]


def _collision(requirement: Requirement, found: list[Distribution]) -> Problem:
    names = [dist.metadata['Name'] for dist in found]
    versions = ' and '.join(f'{dist.metadata["Name"]} {dist.version}' for dist in found)
    what = f'{versions} are both installed and overwrite each other in the folder {requirement.package}'
    return Problem(what, (requirement.pin,), tuple(names))


def _first(name: str) -> Distribution | None:
    """The first distribution of this name on ``sys.path`` whose metadata can be read.

    An installation that was killed may leave an empty folder.
    """
    return next((dist for dist in distributions(name=name) if dist.read_text('METADATA')), None)


def _folder(dist: Distribution) -> Path:
    return Path(str(dist.locate_file(''))).resolve()


def _path_order(dist: Distribution) -> int:
    folders = [Path(entry).resolve() for entry in sys.path]
    folder = _folder(dist)
    return folders.index(folder) if folder in folders else len(folders)
