"""Size of a picture from its header, without decoding it."""

from pathlib import Path

from .opening import opened

_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are quarter turns


def upright_size(path: str | Path) -> tuple[int, int]:
    """(h, w) of an image file as `read_rgb` returns it: after EXIF orientation.

    Raises:
        UnreadableImageError: The file is absent, not an image or too large; the message names it.
    """
    with opened(path, "image") as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)
