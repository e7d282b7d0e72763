"""Rows are chosen by table and name, and compared within their group, which is their host where none is named."""

import pytest

from mmdet_gfl.benchmark import rows
from mmdet_gfl.benchmark.rows import RowError, Table, TableRow

TABLES = [
    Table(
        '1a',
        'Quality',
        [
            TableRow('fcos/a.py', 'FCOS, none', dict(AP=37.8)),
            TableRow('atss/b.py', 'ATSS, none', dict(AP=38.0)),
            TableRow('atss/c.py', 'ATSS, branch', dict(AP=39.2)),
            TableRow('gfl/d.py', 'ATSS, joint', dict(AP=39.9)),
        ],
    ),
    Table('3', 'Both', [TableRow('atss/c.py', 'baseline', dict(AP=39.2)), TableRow('gfl/e.py', 'GFL', dict(AP=40.2))]),
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
def test_other_files_than_shipped_configs_are_refused(tmp_path, given):
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


def test_a_named_group_takes_the_place_of_the_host():
    first, second, alone = (
        TableRow(f'gfl/{name}.py', name, dict(AP=40.0), group) for name, group in ('ax', 'bx', 'cy')
    )
    table = Table('models', 'Models', [first, second, alone])
    assert [table.baseline(row).label for row in table.rows] == ['a', 'a', 'c']
    (chosen,) = rows.select([table], None, ['b'])
    assert chosen.baseline(second) is first
    assert (
        TableRow('gflv2/a.py', 'GFLv2').group
        == TableRow('gfl/a.py', 'GFL').group
        == TableRow('atss/a.py', 'ATSS').host
        == 'atss'
    )


def test_a_table_of_one_preset_is_not_trained_with_the_other():
    models = Table('models', 'Backbones', [TableRow('gfl/f.py', 'R-101')], preset='paper')
    assert rows.trained_by([*TABLES, models], 'mini', None) == TABLES
    assert rows.trained_by([*TABLES, models], 'mini', ['3']) == TABLES
    assert rows.trained_by([*TABLES, models], 'paper', ['models']) == [*TABLES, models]
    for tables, names in (([*TABLES, models], ['3', 'models']), ([models], None)):
        with pytest.raises(RowError, match='table models is trained with --preset paper only.*give --preset paper'):
            rows.trained_by(tables, 'mini', names)
    (chosen,) = rows.select([models], ['models'], None)
    assert chosen.preset == 'paper'


def test_the_paper_has_43_rows():
    tables = [table for table in rows.read_tables() if not table.name.startswith(('gflv2', 'rtmdet'))]
    assert sum(len(table.rows) for table in tables) == 43 and len(rows.configs_of(tables)) == 35
    assert all(table.preset == '' and all(row.group == row.host for row in table.rows) for table in tables)
    assert '  40.2  QFL + DFL (GFL)                  gfl/gfl_r50_fpn_1x_coco.py' in rows.listing(tables)


def test_rows_of_gflv2():
    models, hosts = (table for table in rows.read_tables() if table.name.startswith('gflv2'))
    assert (models.preset, hosts.preset) == ('paper', '')
    pairs = [(row.label, models.baseline(row).label) for row in models.rows if row.label.startswith('GFLv2')]
    assert [base for _, base in pairs] == [label.replace('GFLv2', 'GFL') for label, _ in pairs[:5]] + [pairs[5][0]]
    assert [hosts.baseline(row).label for row in hosts.rows[1::2]] == [row.label for row in hosts.rows[::2]]
    assert not any(row.paper for row in hosts.rows), 'no numbers are quoted'
    assert '\n      -  FCOS + GFLv2                     fcos/fcos_r50-caffe_fpn_gflv2_1x_coco.py' in rows.listing(
        [hosts]
    )


def test_rows_of_rtmdet():
    sizes, large = (table for table in rows.read_tables() if table.name.startswith('rtmdet'))
    assert (sizes.preset, large.preset) == ('paper', '')
    for row in sizes.rows + large.rows:
        general = '_general-dfl' in row.config
        base = (large if row in large.rows else sizes).baseline(row)
        assert base.config == row.config.replace('_general-dfl', '')
        assert base.label == row.label.replace('General w/ DFL', 'Dirac delta')
        assert set(row.paper) == (set() if general else {'AP'}), 'no number is quoted for General boxes'
    assert rows.configs_of([large]) == rows.configs_of([sizes])[-2:]
    assert [large] == rows.trained_by([sizes, large], 'mini', None)
