"""Commands of README and docs: scripts and configs exist, and each tool takes the arguments."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for pattern in ('*.md', 'docs/*.md', 'docs/mini_benchmark/*.md', 'configs/*/README.md')
    for page in sorted(ROOT.glob(pattern))
]
BLOCK = re.compile(r'^```bash\n(.*?)^```', flags=re.MULTILINE | re.DOTALL)
#: A tool of this checkout, as the first words after any variables.
TOOL = re.compile(r'^(?:\w+=\S* )*(?:torchrun --nproc_per_node \d+ |python )(?=tools/|-m mmdet_gfl)')


def calls():
    """Page, and the words of each call of a Python tool, once."""
    found = {}
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding='utf-8')):
            for line in re.sub(r'\\\n\s*', '', block).splitlines():
                if match := TOOL.match(line):
                    words = shlex.split(
                        re.sub(r'(?<=--cfg-options )\$\w+', 'key=value', line[match.end() :]), comments=True
                    )
                    found.setdefault(tuple(words), page.relative_to(ROOT))
    return [pytest.param(words, id=f'{page}: {" ".join(words)[:60]}') for words, page in found.items()]


class ParsedError(Exception):
    """Ends a tool behind its arguments."""


@pytest.mark.parametrize('words', calls())
def test_a_tool_takes_the_arguments(words, monkeypatch):
    parse, init = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.__init__

    def parse_and_end(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise ParsedError

    def init_without_abbreviations(self, *args, **kwargs):
        init(self, *args, **dict(kwargs, allow_abbrev=False))

    monkeypatch.setattr(argparse.ArgumentParser, '__init__', init_without_abbreviations)
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_end)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', [words[0], *words[1:]] if words[0] != '-m' else ['mmdet_gfl', *words[2:]])
    with pytest.raises(ParsedError):
        if words[0] == '-m':
            runpy.run_module(words[1], run_name='__main__')
        else:
            runpy.run_path(str(ROOT / words[0]), run_name='__main__')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_and_configs_exist(page):
    blocks = '\n'.join(BLOCK.findall(page.read_text(encoding='utf-8')))
    named = re.findall(r'(?<![\w/.])(?:tools|configs)/[\w./-]+\.(?:py|sh)\b', blocks)
    missing = [name for name in named if not (ROOT / name).is_file()]
    assert not missing
