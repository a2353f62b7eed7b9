"""Check of a model's inputs: form, type and range of every "image", before anything is computed with it."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch

from ..structures import DataError

EXPECTED = '"image" is a tensor (3, h, w), RGB in 0..255'


def require_images(batched_inputs: Sequence[dict], *, longest: int | None = None) -> None:
    """Check the inputs of a forward pass.

    Whole numbers of 8 bits are in range by their type; only floats are looked at, one value at a time.

    Args:
        batched_inputs: One dict per image, with "image" (3, h, w) uint8 or floats in 0..255, and perhaps "height" and
            "width" of the result.
        longest: Largest side of an image, pixels; None for any.

    Raises:
        DataError: Another form, type or range; the message names the conversion.
    """
    if isinstance(batched_inputs, dict) or not isinstance(batched_inputs, Sequence) or not batched_inputs:
        given = "an empty list" if isinstance(batched_inputs, Sequence) else f"a {type(batched_inputs).__name__}"
        raise DataError(
            f'A model takes a list of dicts, [{{"image": tensor}}, ...], one per image; got {given}. denserc.Predictor '
            "takes paths, Pillow images and arrays."
        )
    largest = []
    for place, one in enumerate(batched_inputs):
        if not isinstance(one, dict) or "image" not in one:
            given = f"a dict of {sorted(map(str, one))}" if isinstance(one, dict) else f"a {type(one).__name__}"
            raise DataError(f'Input {place} is {given}; expected is a dict with "image". {EXPECTED}.')
        where = f"Input {place}" + (f", {one['file_name']}" if one.get("file_name") else "")
        _require_form(one["image"], where, longest)
        for side in ("height", "width"):
            if side in one and not _is_side(one[side]):
                raise DataError(
                    f"{where}: '{side}' of the result is {one[side]!r}; expected is a whole number above 0."
                )
        if one["image"].is_floating_point():
            largest.append(_largest_value(one["image"], where))
    if largest and len(largest) == len(batched_inputs) and 0 < max(largest) <= 1:
        raise DataError(
            f"{EXPECTED}; got floats in 0..{max(largest):g}, which would be a black picture. Multiply by 255."
        )


def _require_form(image: Any, where: str, longest: int | None) -> None:
    """Shape and type of one image.

    Raises:
        DataError: They are others than those of EXPECTED.
    """
    if not isinstance(image, torch.Tensor):
        array = hasattr(image, "shape") and hasattr(image, "dtype")
        shape = f" {tuple(image.shape)} {image.dtype}" if array else ""
        advice = "denserc.Predictor takes paths, Pillow images and (h, w, 3) uint8 arrays."
        if array:
            advice = "torch.from_numpy(array.transpose(2, 0, 1)) makes one of an (h, w, 3) array."
        raise DataError(f"{where}: {EXPECTED}; got {type(image).__name__}{shape}. {advice}")
    shape = tuple(image.shape)
    given = f"{where}: {EXPECTED}; got {shape} {image.dtype}."
    if image.ndim != 3 or shape[0] != 3:
        raise DataError(f"{given} {_advice(shape)}")
    if min(shape) < 1:
        raise DataError(f"{given} An image needs at least one pixel.")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise DataError(f"{given} Convert it: .to(torch.uint8), or .float() for values between.")
    if longest is not None and max(shape) > longest:
        raise DataError(
            f"{where}: the image is {shape[1]} x {shape[2]} (h x w), and the model takes at most {longest} pixels a "
            "side. Resize it as the evaluation does: denserc.Predictor does so, or model.prepare(pixels) for an "
            "(h, w, 3) uint8 array."
        )


def _is_side(value: Any) -> bool:
    """True for a number of pixels, of Python's or NumPy's whole numbers."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def _advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 4:
        return "Give a batch as a list of dicts, one per image."
    if len(shape) == 3 and shape[2] == 3:
        return "Call .permute(2, 0, 1) first."
    if len(shape) == 3 and shape[0] == 4:
        return "Lay the alpha channel over a background; denserc.Predictor does so for files and Pillow images."
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        return "Repeat a gray channel three times: .expand(3, h, w)."
    return "Read files by denserc.Predictor, which takes every form."


def _largest_value(image: torch.Tensor, where: str) -> float:
    """The largest of an image's floats.

    Raises:
        DataError: They are not finite, or not in 0..255.
    """
    low, high = (float(value) for value in torch.aminmax(image.detach()))
    if not (low >= 0 and high <= 255):  # NaN is neither
        advice = "Give the pixels themselves, as the model normalizes them; .clamp(0, 255) after an interpolation."
        if low != low:
            advice = "Some are not numbers."
        raise DataError(f"{where}: {EXPECTED}; got values from {low:g} to {high:g}. {advice}")
    return high
