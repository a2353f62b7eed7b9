"""Opening image files: the limit on their size, and errors that name the file. Every reader of images goes through it.

The header decides whether a file is decoded, so that a small file cannot take the memory of a large picture.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ...structures import DataError, UnreadableImageError

MAX_PIXELS = 200_000_000
"""Pixels of the largest image that is read by default; Pillow's own limit is 178,956,970."""

_PILLOW = threading.Lock()  # held while Pillow's own limit is lifted
if hasattr(os, "register_at_fork"):  # a worker process that is forked meanwhile must not inherit it locked
    os.register_at_fork(before=_PILLOW.acquire, after_in_parent=_PILLOW.release, after_in_child=_PILLOW.release)

_KINDS = {
    b"\x00\x05\x16\x07": "it is a companion file of macOS, not the image itself: delete it",
    b"version https://git-lfs": "it is a pointer of Git LFS, not the image itself: run `git lfs pull`",
    b"<": "it is a web page, SVG or XML: download the image itself, or export it as PNG or JPEG",
    b"%PDF": "it is a PDF: export its pages as PNG or JPEG",
}
_HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


@contextmanager
def opened(path: str | Path, what: str = "image", *, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """An image file, open and not yet decoded. Inside, every failure of Pillow becomes an error that names the file.

    Args:
        path: Path of the file.
        what: Name of the content, for messages: "image", "label file".
        max_pixels: Most pixels of an image that is read.

    Raises:
        UnreadableImageError: The file is absent, damaged, not an image, without a pixel, or too large.
    """
    try:
        with _open(path) as image:
            require_size(image.size, what, str(path), max_pixels=max_pixels)
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError(f"The {what} {path} does not exist.", str(path)) from error
    except Exception as error:  # Pillow's decoders meet damaged files with errors of many types
        raise UnreadableImageError(
            f"The {what} {path} cannot be read ({_reason(path, error)}). Download or export it again.", str(path)
        ) from error


def require_size(size: tuple[int, int], what: str, name: str, *, max_pixels: int = MAX_PIXELS) -> None:
    """Check the size that a header gives.

    Args:
        size: (w, h), as Pillow's.
        what, name: The content and the file, for messages.
        max_pixels: Most pixels of an image that is read.

    Raises:
        UnreadableImageError: The image has no pixel, or too many.
    """
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImageError(
            f"The {what} {name} is {height} x {width} (h x w); it needs at least one pixel.", name
        )
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"The {what} {name} is {height} x {width} (h x w), {width * height / 1e6:,.0f} million pixels; at most "
            f"{max_pixels / 1e6:,.0f} million are read, as each takes up to 12 bytes of memory. Cut it into tiles or "
            "make it smaller; for predictions max_pixels (--max-pixels) raises the limit.",
            name,
        )


def _open(path: str | Path) -> Image.Image:
    """Pillow's own without its limit, which is half as large and calls a large orthophoto an attack."""
    with _PILLOW:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _reason(path: str | Path, error: Exception) -> str:
    """The error in words; for a file of another kind, what it is."""
    if isinstance(error, MemoryError):
        return "there is too little memory"
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as file:
            start = file.read(64)
        if not start:
            return "it is empty"
        if start[4:8] == b"ftyp" and start[8:12] in _HEIC:
            return "it is HEIC: convert it to JPEG"
        for beginning, kind in _KINDS.items():
            if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(beginning):
                return kind
    return str(error) or type(error).__name__
