"""Links in the Markdown files of the checkout lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ('*.md', 'docs/**/*.md', 'configs/**/*.md', 'tools/**/*.md', 'tests/**/*.md')
    for page in ROOT.glob(pattern)
)
OUTSIDE = re.compile(r'[a-z][a-z0-9+.-]*:', flags=re.IGNORECASE)


def prose(page):
    """The page without its code."""
    text = re.sub(r'^( *)(```|~~~).*?^\1\2 *$', '', page.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r'`[^`\n]*`', '`code`', text)


def links(page):
    """Targets of inline links, images, reference definitions and HTML."""
    text = prose(page)
    inline = re.findall(r'\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)', text)
    html = re.findall(r'\b(?:src|href)="([^"]+)"', text)
    return inline + re.findall(r'^ {0,3}\[[^\]]+\]:\s*(\S+)', text, flags=re.MULTILINE) + html


def anchors(page):
    """Names of the headings in a link, as GitHub has them."""
    text = re.sub(r'^( *)(```|~~~).*?^\1\2 *$', '', page.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r'^#{1,6} +(.*?) *$', text, flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_there_are_pages():
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {'README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'docs/install.md', 'docs/extending.md'} <= names


def test_links_are_seen(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '[a](b.md "t") [`c`](d#e) ![f](g.png)\n```\n[no](no)\n```\n`[no](no)`\n[h]: i.md\n<img src="j.png" alt="k">\n',
        encoding='utf-8',
    )
    assert links(page) == ['b.md', 'd#e', 'g.png', 'i.md', 'j.png']


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page):
    broken = []
    for link in links(page):
        if OUTSIDE.match(link):
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path) if path else page
        if not target.exists() or not target.resolve().is_relative_to(ROOT):
            broken.append(f'{link}: no such file in the checkout')
        elif anchor and target.suffix == '.md' and anchor not in anchors(target):
            broken.append(f'{link}: no such heading')
    assert not broken
