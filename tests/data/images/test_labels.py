"""Label files keep their numbers: 8 and 16 bits, PNG and TIFF, palettes."""

import numpy as np
import pytest
from PIL import Image

from denserc.data.images.labels import label_size, read_labels, read_rgb_labels, write_labels
from denserc.structures import DataError


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype, largest", [(np.uint8, 255), (np.uint16, 65535)])
def test_numbers_survive_writing_and_reading(suffix, dtype, largest, tmp_path):
    labels = np.array([[0, 1, 7], [largest, largest - 1, 128]], dtype=dtype)
    path = tmp_path / "deep" / f"a{suffix}"
    write_labels(path, labels)
    assert read_labels(path).dtype == dtype and (read_labels(path) == labels).all()
    assert label_size(path) == (2, 3)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_palette_indices_are_read_not_colors(tmp_path):
    image = Image.fromarray(np.array([[0, 15, 255]], dtype=np.uint8), mode="P")
    image.putpalette([(7 * i) % 256 for i in range(768)])
    image.save(tmp_path / "voc.png")
    assert read_labels(tmp_path / "voc.png").tolist() == [[0, 15, 255]]


def test_colors_are_refused_as_labels_and_the_reverse(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    write_labels(tmp_path / "l.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match="mode 'RGB'; one channel"):
        read_labels(tmp_path / "rgb.png")
    with pytest.raises(DataError, match="three channels"):
        read_rgb_labels(tmp_path / "l.png")


def test_absent_and_damaged_files_are_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    for read in (read_labels, read_rgb_labels, label_size):
        with pytest.raises(DataError, match="bad.png"):
            read(tmp_path / "bad.png")
        with pytest.raises(DataError, match="absent.png"):
            read(tmp_path / "absent.png")


def test_only_label_maps_are_written(tmp_path):
    for wrong in (np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)):
        with pytest.raises(DataError, match="uint8 or uint16"):
            write_labels(tmp_path / "a.png", wrong)
