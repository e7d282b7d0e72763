"""The checkout that the package runs from."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit(digits: int = 40) -> str | None:
    """The checkout's commit, with ``-dirty`` where files differ from it; None where the package is in no checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(['git', *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        if not git('ls-files', '__init__.py'):  # an installed package inside someone else's checkout
            return None
        return git('describe', '--always', '--dirty', f'--abbrev={digits}', '--exclude', '*') or None
    except OSError:
        return None
