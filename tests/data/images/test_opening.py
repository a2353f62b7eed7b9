"""Every image file is opened under one limit, and what is not an image is named for what it is."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from denserc.data.images.labels import label_size, read_labels, read_rgb_labels
from denserc.data.images.opening import opened
from denserc.data.images.reading import read_rgb
from denserc.structures import UnreadableImageError
from tests.paths import ROOT

READERS = [read_rgb, read_labels, read_rgb_labels, label_size]
TOO_LARGE = ROOT / "tests/fixtures/cases/fuzz-19-panoptic-png-too-large/1.png"


def png_header(width: int, height: int, *, depth: int = 8, color: int = 0) -> bytes:
    """A PNG without pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("reader", READERS)
def test_a_header_beyond_the_limit_is_refused_undecoded(reader, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    with pytest.raises(UnreadableImageError, match=r"1\.png is 65535 x 65535 \(h x w\).*200 million.*max_pixels"):
        reader(TOO_LARGE)


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_the_limit_is_an_argument(tmp_path, depth):
    file = tmp_path / "a.png"
    file.write_bytes(png_header(20, 10, depth=depth))
    with pytest.raises(UnreadableImageError, match=r"10 x 20 \(h x w\)"):
        read_rgb(file, max_pixels=199)
    with pytest.raises(UnreadableImageError, match=r"a\.png cannot be read \((?!.*attack)"):
        read_rgb(file, max_pixels=200)


def test_the_limit_holds_for_open_images_too():
    with pytest.raises(UnreadableImageError, match=r"of mode RGB and size \(20, 10\)"):
        read_rgb(Image.new("RGB", (20, 10)), max_pixels=199)


def test_the_limit_of_pillow_does_not_matter_and_is_restored(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").shape == (10, 20, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(UnreadableImageError):
        read_rgb(tmp_path / "absent.png")
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\xef\xbb\xbf <svg xmlns='x'/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "companion file of macOS"),
        (b"%PDF-1.7\n", "it is a PDF"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "it is HEIC: convert it to JPEG"),
        (b"just some words", "cannot identify image file"),
        (png_header(0, 5), "cannot be read|at least one pixel"),
        (png_header(5, 5)[:20], "cannot be read"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        (b"\xff\xd8\xff\xe0", "cannot be read"),
        (b"II*\x00\xff\xff\xff\xff", "cannot be read"),
        (b"GIF89a\x00\x00\x00\x00", "cannot be read|at least one pixel"),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_files_that_are_no_images_are_named(tmp_path, content, words, reader):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=rf"a\.png.*({words})") as caught:
        reader(tmp_path / "a.png")
    assert caught.value.path == str(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["absent.png", ".", "a\x00b.png", "\udcff.png", "x" * 5000, ""])
@pytest.mark.parametrize("reader", READERS)
def test_paths_that_are_no_files_are_named(tmp_path, name, reader):
    with pytest.raises(UnreadableImageError, match="does not exist|cannot be read"):
        reader(f"{tmp_path}/{name}")


def test_errors_of_any_type_inside_name_the_file(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    for error in (struct.error("short"), TypeError(), MemoryError()):
        with pytest.raises(UnreadableImageError, match=r"The mask .*a\.png cannot be read \((short|Type|there is too)"):
            with opened(tmp_path / "a.png", "mask"):
                raise error


def test_sixteen_bits_take_few_bytes_a_pixel(tmp_path):
    import tracemalloc

    Image.fromarray(np.full((2000, 2500), 0x8000, dtype=np.uint16)).save(tmp_path / "a.png", compress_level=1)
    tracemalloc.start()
    pixels = read_rgb(tmp_path / "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (pixels == 128).all() and peak < 10 * 2000 * 2500
