"""Pictures as users have them: files, Pillow images, arrays and tensors."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...structures import DataError
from .opening import MAX_PIXELS
from .reading import read_rgb

Picture = str | Path | Image.Image | np.ndarray | torch.Tensor


def as_pixels(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture of any accepted kind as (h, w, 3) uint8 RGB, upright.

    Args:
        picture: Path, Pillow image of any mode, (h, w, 3) uint8 RGB array or (3, h, w) uint8 RGB tensor.
        max_pixels: Most pixels of a file or Pillow image that is read.

    Raises:
        DataError: It cannot be read, or is of another kind; the message names the conversion.
    """
    if isinstance(picture, (str, Path)):
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(picture)):
            raise DataError(f"{picture} is an address on the web: download the picture and give its path.")
        return read_rgb(picture, max_pixels=max_pixels)
    if isinstance(picture, Image.Image):
        pixels = read_rgb(picture, max_pixels=max_pixels)
    elif isinstance(picture, torch.Tensor):
        _check(picture, "tensor", picture.dtype == torch.uint8, picture.ndim == 3 and picture.shape[0] == 3)
        pixels = np.ascontiguousarray(picture.detach().cpu().numpy().transpose(1, 2, 0))
    elif isinstance(picture, np.ndarray):
        _check(picture, "array", picture.dtype == np.uint8, picture.ndim == 3 and picture.shape[2] == 3)
        pixels = np.ascontiguousarray(picture)
    else:
        raise DataError(
            f"A picture is a path, a Pillow image, an (h, w, 3) uint8 array or a (3, h, w) uint8 tensor; got "
            f"{type(picture).__name__}."
        )
    if not pixels.size:
        raise DataError(f"A picture needs at least one pixel; got {pixels.shape[:2]} (h, w).")
    return pixels


def _check(picture: np.ndarray | torch.Tensor, kind: str, type_fits: bool, shape_fits: bool) -> None:
    if type_fits and shape_fits:
        return
    shape = tuple(picture.shape)
    expected = "(3, h, w)" if kind == "tensor" else "(h, w, 3)"
    if not type_fits:
        advice = "Scale values to 0..255 and convert them to uint8."
    elif picture.ndim == 4:
        advice = f"Give a batch as a list of {kind}s."
    elif kind == "tensor" and picture.ndim == 3 and shape[2] == 3:
        advice = "Call .permute(2, 0, 1) first."
    elif kind == "array" and picture.ndim == 3 and shape[0] == 3:
        advice = "Call .transpose(1, 2, 0) first."
    else:
        advice = "Pillow images may be grey or have an alpha channel: Image.fromarray(...) makes one."
    raise DataError(f"A picture as {kind} is {expected} uint8 RGB; got {shape} {picture.dtype}. {advice}")
