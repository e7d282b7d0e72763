"""The configs that come with the package, from a source checkout and from an installed wheel alike.

MMEngine's ``_base_ = 'package::config'`` works for OpenMMLab's own packages alone, so a user's config cannot inherit
from these by name; it starts from a printed one instead.
"""

import ast
import io
import re
import sys
import tokenize
from contextlib import redirect_stdout
from difflib import get_close_matches
from pathlib import Path

#: In a checkout ``.mim/configs`` is a link to the repository's ``configs``, in a wheel it is a folder.
CONFIG_DIR = Path(__file__).parent / '.mim' / 'configs'


class ConfigNotFoundError(LookupError):
    """No shipped config, or more than one, has the name that was asked for."""


def names(root: Path | None = None) -> list[str]:
    """Paths of the configs below a folder, :data:`CONFIG_DIR`, without ``.py``, sorted: ``gfl/gfl_r50_fpn_1x_coco``.

    Files and folders whose names begin with ``_`` are parts for others to inherit and are left out.
    """
    root = root or CONFIG_DIR
    paths = (path.relative_to(root) for path in root.rglob('*.py'))
    return sorted(path.with_suffix('').as_posix() for path in paths if not re.search(r'(^|/)_', path.as_posix()))


def find(name: str, root: Path | None = None, hint: str = '`python -m mmdet_gfl configs` lists them') -> Path:
    """The file of a config, named as in :func:`names`, with or without its folder and ``.py``.

    Args:
        name: The name.
        root: As in :func:`names`.
        hint: The end of the message where no name is close.

    Raises:
        ConfigNotFoundError: No config has this name; the message suggests some that are close.
    """
    wanted = name.removeprefix('configs/').removesuffix('.py')
    root = root or CONFIG_DIR
    known = names(root)
    found = [path for path in known if wanted in (path, path.rpartition('/')[2])]
    if len(found) == 1:
        return root / f'{found[0]}.py'
    if found:
        raise ConfigNotFoundError(f'{name!r} is the name of several configs; add the folder: {", ".join(found)}')
    raise ConfigNotFoundError(f'no shipped config is named {name!r}; {_suggestion(wanted, known) or hint}')


def listing() -> str:
    """One line per config: its name and what its first comment or docstring says.

    Raises:
        ConfigNotFoundError: The package came without its configs.
    """
    known = names()
    if not known:
        raise ConfigNotFoundError(f'there are no configs in {CONFIG_DIR}: the installation is not complete')
    width = max(map(len, known))
    return '\n'.join(f'{name:{width}}  {summary((CONFIG_DIR / f"{name}.py").read_text())}'.rstrip() for name in known)


def flattened(name: str) -> str:
    """The text of a config with all that it inherits, which works on its own wherever it is saved.

    Environment variables that it names, as in ``{{$DATA:data/}}``, stay to be filled in where it is used.

    Raises:
        ConfigNotFoundError: As :func:`find`.
    """
    path = find(name)
    from mmengine.config import Config

    with redirect_stdout(sys.stderr):  # MMEngine logs to standard output, which the text may be sent to
        config = Config.fromfile(path, import_custom_modules=False, use_environment_variables=False)
    return f'# {path.relative_to(CONFIG_DIR)} of mmdet_gfl, with all that it inherits\n{config.pretty_text}'.rstrip()


def summary(source: str) -> str:
    """First line of the docstring of a config, or else of the comment at its top; empty if it has neither."""
    docstring = ast.get_docstring(ast.parse(source))
    if docstring:
        return docstring.splitlines()[0]
    first = next(tokenize.generate_tokens(io.StringIO(source).readline))
    return first.string.lstrip('#! ') if first.type == tokenize.COMMENT else ''


def _suggestion(wanted: str, known: list[str]) -> str:
    by_basename = {path.rpartition('/')[2]: path for path in known}
    close = get_close_matches(wanted.rpartition('/')[2], by_basename, cutoff=0.5)
    return f'did you mean {" or ".join(by_basename[basename] for basename in close)}?' if close else ''
