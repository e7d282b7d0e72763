"""Rows are chosen by table and name, and compared within their host."""

import pytest

from mmdet_gfl.benchmark import rows
from mmdet_gfl.benchmark.rows import Row, RowError, Table

TABLES = [
    Table(
        '1a',
        'Quality',
        [
            Row('fcos/a.py', 'FCOS, none', dict(AP=37.8)),
            Row('atss/b.py', 'ATSS, none', dict(AP=38.0)),
            Row('atss/c.py', 'ATSS, branch', dict(AP=39.2)),
            Row('gfl/d.py', 'ATSS, joint', dict(AP=39.9)),
        ],
    ),
    Table('3', 'Both', [Row('atss/c.py', 'baseline', dict(AP=39.2)), Row('gfl/e.py', 'GFL', dict(AP=40.2))]),
]


def test_rows_are_trained_once():
    assert rows.configs_of(TABLES) == ['fcos/a.py', 'atss/b.py', 'atss/c.py', 'gfl/d.py', 'gfl/e.py']


def test_selection():
    chosen = rows.select(TABLES, ['1a'], ['atss/*', 'd'])
    assert [row.label for table in chosen for row in table.rows] == ['ATSS, none', 'ATSS, branch', 'ATSS, joint']
    with pytest.raises(RowError, match='--tables 4.*1a, 3'):
        rows.select(TABLES, ['4'], None)
    with pytest.raises(RowError, match='--rows nothing'):
        rows.select(TABLES, None, ['nothing'])
    with pytest.raises(RowError, match='did you mean gfl/gfl_r50_fpn_1x_coco.py'):
        rows.check_config('gfl/gfl_r50_fpn_1x_cocoo')


@pytest.mark.parametrize('given', ['gfl/{}', './gfl/{}', 'gfl//{}.py', 'ssd/../gfl/{}.py', '{configs}/gfl/{}.py'])
def test_a_config_has_one_name(root, given):
    name = 'gfl_r50_fpn_1x_coco'
    assert rows.check_config(given.format(name, configs=root / 'configs')) == f'gfl/{name}.py'


@pytest.mark.parametrize(
    'given', ['_base_/datasets/shapes_detection', '{outside}/gfl_r50_fpn_1x_coco.py', 'gfl', '', 'a' * 300]
)
def test_what_is_no_shipped_config_is_refused(tmp_path, given):
    (tmp_path / 'gfl_r50_fpn_1x_coco.py').touch()
    given = given.format(outside=tmp_path)
    with pytest.raises(
        RowError, match=r'no such config; give <folder>/<name>\.py below .*configs, not from _base_'
    ) as said:
        rows.check_config(given)
    assert str(said.value).startswith(f'--configs {given}: ')


def test_the_baseline_stays_when_its_row_is_not_chosen():
    (table,) = rows.select(TABLES, ['1a'], ['d'])
    assert table.baseline(table.rows[0]).label == 'ATSS, none'
    assert TABLES[0].baseline(TABLES[0].rows[0]).label == 'FCOS, none'


def test_the_paper_has_43_rows():
    tables = rows.read_tables()
    assert sum(len(table.rows) for table in tables) == 43 and len(rows.configs_of(tables)) == 35
    assert '  40.2  QFL + DFL (GFL)                  gfl/gfl_r50_fpn_1x_coco.py' in rows.listing(tables)
