"""Hooks of ``mkdocs build``: pages from outside ``docs``, and links that lead out of it.

``README.md``, ``CONTRIBUTING.md`` and ``CHANGELOG.md`` become pages. A link to another file of the repository, as to a
source file, becomes its path in the text, since the site does not hold it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
#: Files outside of ``docs``, and the pages that they become.
PAGES = {'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md'}
LINK = re.compile(r'(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)')


#: A role of a docstring, as ``:class:`~package.Name```, in the page's HTML.
ROLE = re.compile(r':(?:attr|class|data|func|meth|mod):<code>~?(?:[\w.]*\.)?(\w+)</code>')


def on_files(files, config):
    """Add the pages from outside ``docs``; their links are as if they stood in it."""
    for source, page in PAGES.items():
        text = re.sub(r'(\]\(|src=")docs/', r'\1', (ROOT / source).read_text(encoding='utf-8'))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links to the pages of the site; leave the text of those that lead to other files."""
    folder = posixpath.dirname(page.file.src_uri)

    def link(found):
        text, target, anchor = found[1], found[2], found[3] or ''
        if '://' in target or target.startswith('mailto:'):
            return found[0]
        path = posixpath.normpath(posixpath.join('docs', folder, target))
        outside = [source for source in PAGES if path in (source, f'docs/{source}')]
        if outside:
            return f'[{text}]({posixpath.relpath(PAGES[outside[0]], folder or ".")}{anchor})'
        inside = path.removeprefix('docs/')
        for name in (inside, posixpath.join(inside, 'README.md')):
            if files.get_file_from_path(name) is not None:
                return f'[{text}]({posixpath.relpath(name, folder or ".")}{anchor})'
        plain = text.strip('`')
        return text if plain in path else f'{text} (`{path.removeprefix("docs/")}`)'

    return LINK.sub(link, markdown)


def on_page_content(html, page, config, files):
    """Show the names of docstrings without their roles."""
    return ROLE.sub(r'<code>\1</code>', html)
