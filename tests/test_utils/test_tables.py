"""Tables by hand."""

from mmdet_gfl.utils.tables import aligned, markdown


def test_columns_stand_under_each_other():
    rows = [['name', 'count', 'share'], ['a longer name', '7', '0.25'], ['b', '1000000']]
    assert aligned(rows).splitlines() == [
        'name             count  share',
        'a longer name        7   0.25',
        'b              1000000',
    ]


def test_markdown():
    assert markdown(['name', 'count'], [['a', '7']]) == '| name | count |\n|---|---|\n| a | 7 |'
