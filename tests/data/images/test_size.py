"""The size from a header is that of the picture as it is read."""

import pytest
from PIL import Image

from denserc.data.images.reading import read_rgb
from denserc.data.images.size import upright_size
from denserc.structures import DataError


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_size_is_that_of_the_upright_picture(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (20, 10)).save(path, exif=exif)
    assert upright_size(path) == read_rgb(path).shape[:2]


def test_files_without_a_size_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    for name, message in (("a.png", "cannot be read"), ("b.png", "does not exist"), (".", "cannot be read")):
        with pytest.raises(DataError, match=message):
            upright_size(tmp_path / name)
