"""Any picture becomes upright RGB, or an error that names the file."""

import numpy as np
import pytest
from PIL import Image

from denserc.data.images.reading import read_rgb, to_tensor
from denserc.structures import DataError, UnreadableImageError


@pytest.fixture
def rgb() -> Image.Image:
    """4 x 6 (h, w): the left half red, the right half blue."""
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[:, :3, 0] = 255
    pixels[:, 3:, 2] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colors_survive_every_mode(rgb, tmp_path, mode):
    rgb.convert(mode).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.asarray(rgb))


def test_cmyk_becomes_rgb(rgb, tmp_path):
    rgb.convert("CMYK").save(tmp_path / "a.tif")
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), np.asarray(rgb))


def test_exif_rotation_is_applied(rgb, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated: upright after 90 degrees clockwise
    rgb.save(tmp_path / "a.png", exif=exif)
    image = read_rgb(tmp_path / "a.png")
    assert image.shape == (6, 4, 3)
    assert image[0, 0].tolist() == [255, 0, 0] and image[-1, 0].tolist() == [0, 0, 255]


def test_transparency_lies_on_white(rgb, tmp_path):
    clear = rgb.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "a.png")
    assert (read_rgb(tmp_path / "a.png") == 255).all()


def test_transparent_palette_entry_lies_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    assert read_rgb(tmp_path / "a.png").tolist() == [[[255, 255, 255], [0, 255, 0]]]


def test_sixteen_bit_grey_is_scaled(tmp_path):
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png")[0, :, 0].tolist() == [0, 128, 255]


def test_grey_has_three_equal_channels(tmp_path):
    Image.new("L", (5, 3), 77).save(tmp_path / "a.jpg")
    assert read_rgb(tmp_path / "a.jpg").shape == (3, 5, 3)


def test_errors_name_the_file(rgb, tmp_path):
    with pytest.raises(DataError, match=r"absent.jpg does not exist"):
        read_rgb(tmp_path / "absent.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"text.jpg cannot be read"):
        read_rgb(tmp_path / "text.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half.jpg cannot be read"):
        read_rgb(tmp_path / "half.jpg")


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_transparency_lies_on_white(mode):
    assert (read_rgb(Image.new(mode, (3, 2), 0)) == 255).all()


def test_open_images_are_read_and_not_changed(rgb):
    rgb.getexif()[0x0112] = 6
    assert read_rgb(rgb).shape == (6, 4, 3)
    assert rgb.size == (6, 4) and rgb.getexif()[0x0112] == 6


def test_errors_name_the_open_image(rgb, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with Image.open(tmp_path / "half.jpg") as image, pytest.raises(DataError, match="half.jpg cannot be read"):
        read_rgb(image)


def test_tensors_are_channels_first_and_contiguous(rgb):
    tensor = to_tensor(read_rgb(rgb))
    assert tensor.shape == (3, 4, 6) and tensor.is_contiguous() and tensor[:, 0, 0].tolist() == [255, 0, 0]


def as_float_tiff(values, path):
    Image.fromarray(np.array(values, dtype=np.float32)).save(path)
    return path


def test_float_greys_of_both_ranges_are_the_same_picture(tmp_path):
    unit = read_rgb(as_float_tiff([[0, 0.2, 1]], tmp_path / "unit.tif"))
    bits = read_rgb(as_float_tiff([[0, 51, 255]], tmp_path / "bits.tif"))
    assert unit[0, :, 0].tolist() == bits[0, :, 0].tolist() == [0, 51, 255]
    assert unit.shape == (1, 3, 3)


@pytest.mark.parametrize(
    "values", [[[0, 3000.5]], [[-1, 2]], [[-0.1, 0.5]], [[float("nan"), 1]], [[float("inf"), 1]], [[-9999, 200]]]
)
def test_other_floats_are_refused_never_black(tmp_path, values):
    with pytest.raises(UnreadableImageError, match=r"a\.tif has one channel with values from .*0\.\.1 or 0\.\.255"):
        read_rgb(as_float_tiff(values, tmp_path / "a.tif"))


@pytest.mark.parametrize(
    ("values", "expected"), [([[0, 200]], [0, 200]), ([[0, 65535]], [0, 255]), ([[-1, 5]], None), ([[0, 70000]], None)]
)
def test_greys_of_32_bits_are_read_by_their_range(tmp_path, values, expected):
    Image.fromarray(np.array(values, dtype=np.int32)).save(tmp_path / "a.tif")
    if expected is None:
        with pytest.raises(UnreadableImageError, match=r"0\.\.255 or 0\.\.65535"):
            read_rgb(tmp_path / "a.tif")
    else:
        assert read_rgb(tmp_path / "a.tif")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F", "RGBa"])
def test_large_images_in_strips_are_the_same(mode, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (23, 11, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) << 8)
    else:
        image = Image.fromarray(values).convert({"RGBa": "RGBA", "I": "L", "F": "L"}.get(mode, "RGB")).convert(mode)
    whole = read_rgb(image)
    monkeypatch.setattr("denserc.data.images.reading._AT_ONCE", 50)
    assert np.array_equal(read_rgb(image), whole) and whole.std() > 5


def test_stored_pixels_are_read_on_request(rgb, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "a.png", upright=False), np.asarray(rgb))
