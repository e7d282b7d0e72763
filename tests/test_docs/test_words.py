"""Plain English: docstrings open with an imperative or a noun phrase, tests have noun phrases or sentences as names."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Words of a former dialect, and "a" where "per" is meant.
WRONG = re.compile(
    r'\bmend(s|ed|ing)?\b|how-manieth|\bis none of\b'
    r'|\b(?<!there )(is|are) no (category|checkout|checkpoint|class(es)?|command|folder|integer|numbers?|row)\b'
    r'|\b(boxes|outputs|images|objects|anchors|bins|channels|seconds|minutes|GPUs|cores|numbers?|tasks?|one) an? '
    r'((box )?side|level|image|cell|GPU|step|batch|row|iteration)\b'
    r'|\b(\d+|two|three|four|five|six|seven|eight|nine|ten) \w+s an? (side|level|image|cell|GPU|run|row)\b',
    re.IGNORECASE,
)
OPENINGS = ('What', 'Whether', 'Where', 'How', 'Which', 'Refuses', 'Mends')
FOLDERS = ('mmdet_gfl', 'tools', 'configs', 'docs', 'tests')
#: Names of tests that are questions or idioms.
TEST_NAMES = re.compile(
    r'^test_(what|whether|where|how|which)_|(?<!there)_(is|are)_no_|_ones_own|_says?_so|_(go|goes|going|gone|went)_on(_|$)'
)


def files(*suffixes):
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob('*') if path.suffix in suffixes]
    return [*found, *(path for path in ROOT.glob('*.md') if '.md' in suffixes)]


def test_words():
    found = [
        f'{path.relative_to(ROOT)}:{number}: {line.strip()}'
        for path in files('.py', '.md', '.sh', '.yml')
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1)
        if WRONG.search(line) and path != Path(__file__)
    ]
    assert not found, '\n'.join(found)


def test_docstrings_and_names_of_tests():
    found = []
    for path in files('.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                docstring = ast.get_docstring(node) or ''
                if not isinstance(node, ast.Module) and TEST_NAMES.search(node.name):
                    found.append(f'{path.relative_to(ROOT)}: {node.name}')
                if docstring.split(' ')[0] in OPENINGS:
                    found.append(f'{path.relative_to(ROOT)}: {docstring.splitlines()[0]}')
    assert not found, '\n'.join(found)
