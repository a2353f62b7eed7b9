"""Validation of COCO run lengths, compressed or not, before any C code reads them.

pycocotools trusts its input: run lengths that are cut short or do not add up hang it or end the process. A compressed
mask writes each run in characters of six bits, the lowest first: five bits of the value and one that continues it. From
the fourth run on, the value is the difference to the run before the previous one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .records import is_number, short

MAX_PIXELS = 2**32 - 1
"""Largest image whose run lengths pycocotools can count."""
_MOST_CHARACTERS = 7  # of one run: 34 bits and a sign
_LEGAL = re.compile(rb"[0-o]*[0-O]")  # bit 5 is not set in the last character: its run ends
_PART = 1024  # masks decoded together: they fit the processor's cache


def run_lengths_fault(mask: Mapping[str, Any], size: tuple[int, int] | None = None) -> str:
    """Describe what is wrong with one mask; "" if nothing is.

    Args:
        mask: {"size": [height, width], "counts": a list of runs, or compressed text or bytes}.
        size: (h, w) of the image; None if it is not known.
    """
    return run_lengths_faults([mask], [size])[0]


def run_lengths_faults(
    masks: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int] | None] | None = None
) -> list[str]:
    """Describe what is wrong with each mask, "" if nothing is; many compressed masks are decoded together.

    Args:
        masks: See `run_lengths_fault`.
        sizes: (h, w) of each mask's image, None if it is not known; None for all.
    """
    faults, compressed, pixels = [""] * len(masks), {}, {}
    for row, mask in enumerate(masks):
        side = mask.get("size")
        if "counts" not in mask or not isinstance(side, list | tuple):
            faults[row] = "run lengths need 'size' [height, width] and 'counts'"
            continue
        if len(side) != 2 or not all(_is_whole(value) and value >= 1 for value in side):
            faults[row] = f"'size' is {short(side)}; expected is [height, width], whole numbers above 0"
            continue
        if sizes is not None and sizes[row] is not None and tuple(side) != tuple(sizes[row]):
            faults[row] = f"'size' is {list(side)}, but the image is {list(sizes[row])} (h, w)"
            continue
        pixels[row], counts = int(side[0]) * int(side[1]), mask["counts"]
        if pixels[row] > MAX_PIXELS:
            faults[row] = f"'size' is {list(side)}; expected are at most {MAX_PIXELS} pixels"
        elif isinstance(counts, str) and not counts.isascii():
            faults[row] = f"'counts' has characters that no run lengths have: {short(counts)}"
        elif isinstance(counts, str | bytes):
            compressed[row] = counts.encode() if isinstance(counts, str) else counts
        elif not isinstance(counts, list | tuple):
            faults[row] = f"'counts' is {short(counts)}; expected is a list of runs, or compressed text"
        elif not all(_is_whole(count) and count >= 0 for count in counts):
            wrong = next(count for count in counts if not (_is_whole(count) and count >= 0))
            faults[row] = f"'counts' holds {short(wrong)}; expected are whole numbers from 0"
        elif sum(counts) != pixels[row]:
            faults[row] = f"'counts' add up to {short(sum(counts))}; expected are height x width = {pixels[row]}"
    totals = _compressed_totals(list(compressed.values()))
    for (row, counts), total in zip(compressed.items(), totals, strict=True):
        if total < 0:
            faults[row] = f"'counts' cannot be decoded, it may be cut short: {short(counts.decode(errors='replace'))}"
        elif total != pixels[row]:
            faults[row] = f"'counts' add up to {total}; expected are height x width = {pixels[row]}"
    return faults


def _is_whole(value: Any) -> bool:
    return is_number(value) and value == int(value)


def _compressed_totals(masks: list[bytes]) -> list[int]:
    """The pixels that each compressed mask covers, zeros and ones together; -1 if it cannot be decoded."""
    parts = (masks[start : start + _PART] for start in range(0, len(masks), _PART))
    return [total for part in parts for total in _part_totals(part)]


def _part_totals(masks: list[bytes]) -> list[int]:
    totals = np.full(len(masks), -1, dtype=np.int64)
    # Without what is illegal or continues beyond its end, all of the others can be decoded as one text.
    rows = [row for row, mask in enumerate(masks) if _LEGAL.fullmatch(mask)]
    if not rows:
        return totals.tolist()
    text = np.frombuffer(b"".join([masks[row] for row in rows]), dtype=np.uint8) - np.uint8(48)  # (characters,)
    ends = np.flatnonzero(text < 32)  # (runs,), the last character of each
    digits = np.diff(ends, prepend=-1)
    values = ((text[ends] & 31) ^ 16).astype(np.int64) - 16  # the last character has the sign
    for digit in range(1, min(int(digits.max()), _MOST_CHARACTERS)):
        longer = np.flatnonzero(digits > digit)
        values[longer] = values[longer] * 32 + (text[ends[longer] - digit] & 31)
    until = np.searchsorted(ends, np.cumsum([len(masks[row]) for row in rows]))
    firsts = np.r_[0, until[:-1]]  # (masks,), the first run of each
    counts = until - firsts
    # Runs 1, 3, 5, ... of a mask are one chain of differences, runs 2, 4, 6, ... another; run 0 is by itself.
    place = np.arange(len(ends)) - np.repeat(firsts, counts)
    runs = np.where(place == 0, values, 0)
    for parity in (1, 0):
        chain = np.where((place & 1 == parity) & (place > 0), values, 0)
        sums = np.cumsum(chain)
        before = np.repeat(sums[firsts] - chain[firsts], counts)
        runs += np.where((place & 1 == parity) & (place > 0), sums - before, 0)
    wrong = (runs < 0) | (runs > MAX_PIXELS) | (digits > _MOST_CHARACTERS)
    sums = np.add.reduceat(runs, firsts)
    totals[rows] = np.where(np.logical_or.reduceat(wrong, firsts), -1, sums)
    return totals.tolist()
