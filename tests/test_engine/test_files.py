"""Files that tools write are there whole or as they were."""

import os

import pytest

from mmdet_gfl.engine.files import write


@pytest.mark.parametrize('cached', [False, True])
def test_the_former_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch, cached):
    file, synced = tmp_path / 'a.json', []
    monkeypatch.setattr(os, 'fsync', lambda descriptor: synced.append(descriptor))
    write(file, 'former', cached)
    assert file.read_text() == 'former' and len(synced) == (not cached)

    def fail(*_):
        (part,) = (one for one in tmp_path.iterdir() if one != file)
        assert file.read_text() == 'former' and part.read_bytes() == b'new'
        raise OSError('no more')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='no more'):
        write(file, memoryview(b'new'), cached)
    assert [*tmp_path.iterdir()] == [file]


def test_processes_that_keep_the_same_result_do_not_meet(tmp_path, monkeypatch):
    other = tmp_path / f'.a.json.{os.getpid()}.part'
    other.write_text('of another process')
    monkeypatch.setattr(os, 'getpid', lambda: 0)
    write(tmp_path / 'a.json', 'whole', cached=True)
    assert (tmp_path / 'a.json').read_text() == 'whole' and other.read_text() == 'of another process'
