"""Pictures that are damaged, rotated, exchanged, or in two sets."""

import shutil

from PIL import Image

from denserc.data.checks import CheckedSet, check_overlap, check_pictures


def test_healthy_pictures(content, make):
    assert check_pictures(make(content)) == []


def test_damaged_pictures(content, make, pictures, kinds):
    (pictures / "1.png").write_bytes(b"no image")
    Image.new("RGB", (60, 30)).save(pictures / "2.png")
    shutil.copy(pictures / "3.png", pictures / "4.png")
    assert kinds(check_pictures(make(content))) == {
        "image-unreadable": "error", "image-size": "error", "image-content-twice": "warning",
    }  # fmt: skip


def test_rotation_by_exif_is_told_from_another_size(content, make, pictures, kinds):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.open(pictures / "1.png").save(pictures / "1.png", exif=exif)
    assert kinds(check_pictures(make(content))) == {"image-rotated": "error"}


def test_a_sample_spreads_over_the_set(content, make, pictures):
    (pictures / "3.png").write_bytes(b"no image")
    assert len(check_pictures(make(content), sample=2)) == 1  # the first and the third
    assert check_pictures(make(content), sample=1) == []


def test_overlap_goes_by_files(content, make, pictures, tmp_path):
    training = make(content, training=True)
    (finding,) = check_overlap(training, make({**content, "images": content["images"][:2]}))
    assert finding.count == 2 and finding.severity.value == "error"
    elsewhere = CheckedSet("others", content, tmp_path / "elsewhere", training.vocabulary)
    assert check_overlap(training, elsewhere) == []
