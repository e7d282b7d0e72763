"""The matrix of README.md: which host takes which quality with which box, its default, and MMDetection's own head."""

import re

import pytest
from cases import BASELINES, BOXES, HOSTS, host_config
from mmdet.registry import MODELS

COLUMNS = {
    'RetinaNet, FoveaBox': ('Retina', 'Fovea'),
    'FCOS, ATSS': ('FCOS', 'ATSS'),
    'SSD': ('SSD',),
    'RTMDet': ('RTMDet', 'RTMDetSepBN'),
}


def matrix(root):
    """Cells by column and quality."""
    lines = (root / 'README.md').read_text(encoding='utf-8').splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith('| `bbox_head.quality`'))
    columns = [cell.strip() for cell in lines[first].split('|')[2:-1]]
    assert columns == list(COLUMNS)
    for line in lines[first + 2 :]:
        if not line.startswith('|'):
            return
        qualities, *cells = (cell.strip() for cell in line.split('|')[1:-1])
        for quality in re.findall(r'`(\w+)`', qualities):
            yield from ((column, quality, cell) for column, cell in zip(columns, cells, strict=True))


def fits(host, quality, box):
    try:
        MODELS.build(host_config(host, quality, box))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize('column', COLUMNS)
def test_the_matrix(column, root):
    cells = {quality: cell for name, quality, cell in matrix(root) if name == column}
    assert len(cells) == 8
    for host in COLUMNS[column]:
        for quality, cell in cells.items():
            boxes = {box for box in BOXES if fits(host, quality, box)}
            expected = {'–': set(), '`GeneralBox`': {'general', 'dfl'}}.get(cell, set(BOXES))
            assert boxes == expected, (host, quality)
            assert (cell.split(', ')[0] == 'default') == (
                type(MODELS.build(host_config(host)).quality).__name__ == quality
            )
            assert ('as MMDetection' in cell) == (BASELINES[host] == quality)


def test_the_heads(root):
    text = (root / 'README.md').read_text(encoding='utf-8')
    for host in [*HOSTS, *COLUMNS['RTMDet']]:
        assert f'`{host}GFLHead`' in text and f'mmdet_gfl.{host}GFLHead' == host_config(host)['type']
