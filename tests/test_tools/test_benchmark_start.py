"""The benchmark of the start, on a small file."""

import re
import runpy
import sys

import pytest


def test_both_builds_are_timed(root, monkeypatch, capsys):
    tool = str(root / 'tools' / 'analysis_tools' / 'benchmark_start.py')
    monkeypatch.setattr(sys, 'argv', [tool, '--images', '20', '--objects', '300', '--repeats', '2'])
    runpy.run_path(tool, run_name='__main__')
    out = capsys.readouterr().out
    for name in ('MMDetection', 'ours'):
        assert re.search(rf'^{name}: \d+\.\d s \(\d+\.\d-\d+\.\d\) of CPU$', out, flags=re.MULTILINE)
    assert re.search(r'^ours / MMDetection: \d+\.\d\d$', out, flags=re.MULTILINE)
    monkeypatch.setattr(sys, 'argv', [tool, '--repeats', '0'])
    with pytest.raises(SystemExit):
        runpy.run_path(tool, run_name='__main__')
