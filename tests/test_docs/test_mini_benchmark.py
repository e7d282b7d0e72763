"""docs/mini_benchmark: the table of effects is what its report.json says."""

import json

import pytest

from mmdet_gfl.benchmark.paired import paired


@pytest.fixture
def folder(root):
    return root / 'docs' / 'mini_benchmark'


def scores(row):
    return dict(zip(row['seeds'], row['measured'].get('AP', {}).get('values', []), strict=True))


def test_effects_with_several_seeds(folder):
    expected = []
    for table in json.loads((folder / 'report.json').read_text())['tables']:
        rows = {row['config']: row for row in table['rows']}
        for row in table['rows']:
            effect = paired(scores(row), scores(rows[row['baseline']])) if row['effects'] else None
            if effect is not None and effect.half_width is not None:
                seeds = len(effect.seeds)
                expected.append(
                    f'| {table["name"]} | {row["label"]} | {seeds} | {effect.mean:+.1f} ± {effect.half_width:.1f} | '
                    f'{row["effects"]["AP"]["paper"]:+.1f} | {seeds + effect.more_seeds} |'
                )
                assert not effect.differs  # as the page says
    page = (folder / 'README.md').read_text().splitlines()
    first = page.index(expected[0])
    assert page[first : first + len(expected) + 1] == [*expected, '']
