"""An image that cannot be read is named."""

import cv2
import numpy as np
import pytest

from mmdet_gfl.datasets.transforms import LoadImageFromFile


def test_a_good_image(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    loaded = LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.png')))
    assert loaded['img'].shape == (4, 5, 3) and loaded['img'][0, 0].tolist() == [0, 1, 2]
    assert loaded['img_shape'] == (4, 5)


@pytest.mark.parametrize('content', [b'', b'no image at all', b'\xff\xd8\xff\xe0 cut'], ids=['empty', 'text', 'cut'])
def test_an_unreadable_image_is_named(tmp_path, content):
    (tmp_path / 'b.jpg').write_bytes(content)
    with pytest.raises(ValueError, match=r'b\.jpg cannot be read'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'b.jpg')))


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'c\.jpg'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'c.jpg')))


def test_ignored_where_asked_for(tmp_path):
    (tmp_path / 'd.jpg').write_bytes(b'')
    assert LoadImageFromFile(ignore_empty=True)(dict(img_path=str(tmp_path / 'd.jpg'))) is None


def test_with_a_cache_the_file_is_read_once_and_nobody_writes_into_what_is_kept(tmp_path):
    path, picture = tmp_path / 'e.png', np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    cv2.imwrite(str(path), picture)
    load = LoadImageFromFile(cache=True, to_float32=True)
    first = load(dict(img_path=str(path)))
    first['img'][:] = 0
    path.unlink()
    for _ in range(2):
        again = load(dict(img_path=str(path)))
        assert (again['img'] == picture).all() and again['img'].dtype == np.float32
        assert again['img_shape'] == again['ori_shape'] == (4, 5)
        again['img'][:] = 0
    with pytest.raises(FileNotFoundError):
        LoadImageFromFile(to_float32=True)(dict(img_path=str(path)))
