"""Pictures that cannot be read: their regions count as missed, up to a share of the images."""

import pytest
from PIL import Image

from denserc.evaluation.regions.inputs import picture_of
from denserc.structures import DataError, UnreadableImageError
from tests.evaluation.region_scenes import measure, scene


@pytest.fixture()
def entries(tmp_path):
    """Four scenes whose pictures are files."""
    found = []
    for seed in range(4):
        entry = scene(seed)
        Image.fromarray(entry.pop("image")).save(tmp_path / f"{seed}.png")
        found.append({**entry, "file_name": str(tmp_path / f"{seed}.png")})
    return found


@pytest.mark.parametrize("batch_size", [1, 4])
def test_regions_of_an_unreadable_picture_count_as_missed(entries, tmp_path, batch_size):
    whole = measure(entries, batch_size=batch_size)
    (tmp_path / "2.png").write_bytes(b"cut")
    found = measure(entries, batch_size=batch_size)
    assert found.protocol["regions"] == whole.protocol["regions"] and found.protocol["images"] == 4
    assert found.protocol["unreadable_images"] == 1 and "unreadable_images" not in whole.protocol
    right = whole.metrics["boxes_top5"]
    assert found.metrics["boxes_top5"] == pytest.approx(right * 3 / 4) and right == 100


def test_more_than_the_share_is_an_error(entries, tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"cut")
    with pytest.raises(DataError, match="2 of 4 images cannot be read, more than the 1.0%"):
        measure(entries)
    with pytest.raises(DataError, match="1 of 4 images"):
        measure(entries, max_unreadable=0.0)
    assert measure(entries, max_unreadable=0.5).protocol["unreadable_images"] == 2


def test_a_stream_of_unknown_length_is_tolerated(entries, tmp_path):
    (tmp_path / "2.png").write_bytes(b"cut")
    assert measure(iter(entries)).protocol["unreadable_images"] == 1


def test_pixels_are_those_that_are_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # panoptic masks follow the stored pixels
    Image.new("RGB", (6, 4), (9, 8, 7)).save(tmp_path / "a.png", exif=exif)
    assert picture_of({"file_name": str(tmp_path / "a.png")}).size == (6, 4)
    with pytest.raises(UnreadableImageError, match=r"absent\.png does not exist"):
        picture_of({"file_name": str(tmp_path / "absent.png")})
