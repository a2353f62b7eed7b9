"""Windows that are resized in one batch are bitwise identical to Pillow's."""

import numpy as np
import pytest
import torch

from denserc.data.images.device_resizing import Windows, resize_windows
from denserc.data.images.resizing import centered_square, corner_square, fitted, resize

# (h, w), and the side: shrinking, growing, tiny and narrow images, many taps.
CASES = [
    ((120, 160), 56),
    ((31, 57), 64),
    ((1, 1), 16),
    ((1, 300), 32),
    ((700, 3), 32),
    ((900, 650), 20),
    ((64, 64), 64),
    ((5, 7), 50),
    ((900, 33), 16),
]


def noise(size, seed=0) -> np.ndarray:
    """(h, w, 3): the worst case for rounding, with plenty of values that overshoot between the passes."""
    return np.random.default_rng(seed).choice([0, 3, 128, 250, 255], (*size, 3)).astype(np.uint8)


def some_boxes(size, count=8, seed=0) -> torch.Tensor:
    """(R, 4): the whole image, its last pixel, and random rectangles."""
    rng, (height, width) = np.random.default_rng(seed), size
    boxes = [[0, 0, width, height], [width - 1, height - 1, width, height]]
    for _ in range(count):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        boxes.append([x, y, int(rng.integers(x, width)) + 1, int(rng.integers(y, height)) + 1])
    return torch.tensor(boxes)


def windows_of(boxes, width, first=0, *, content, corner=None) -> Windows:
    count = len(boxes)
    corner = torch.zeros(count, 2, dtype=torch.long) if corner is None else corner
    return Windows(torch.full((count,), first), torch.full((count,), width), boxes, content, corner)


@pytest.mark.parametrize(("size", "side"), CASES)
def test_stretched_windows_are_pillows(size, side):
    image, boxes = noise(size), some_boxes(size)
    windows = windows_of(boxes, size[1], content=torch.full((len(boxes), 2), side))
    given = resize_windows(torch.from_numpy(image).flatten(0, 1), windows, side)
    for (x1, y1, x2, y2), square in zip(boxes.tolist(), given, strict=True):
        assert np.array_equal(square, resize(image[y1:y2, x1:x2], (side, side)))


@pytest.mark.parametrize(("size", "side"), CASES)
def test_fitted_windows_are_pillows_on_black(size, side):
    image, boxes = noise(size), some_boxes(size)
    pixels = torch.from_numpy(image).flatten(0, 1)
    content = fitted((boxes[:, 2:] - boxes[:, :2]).flip(1), side)
    for square, corner in ((corner_square, torch.zeros_like(content)), (centered_square, (side - content) // 2)):
        windows = windows_of(boxes, size[1], content=content, corner=corner)
        for (x1, y1, x2, y2), found in zip(boxes.tolist(), resize_windows(pixels, windows, side), strict=True):
            assert np.array_equal(found, square(image[y1:y2, x1:x2], side))


def test_images_lie_behind_one_another():
    """Each window reads its own image, whatever the sizes of the others; the last one not beyond the end."""
    images = [noise(size, seed) for seed, size in enumerate([(20, 31), (45, 12), (1, 9)])]
    parts = []
    for number, image in enumerate(images):
        first = sum(other.size // 3 for other in images[:number])
        boxes = some_boxes(image.shape[:2])
        parts.append(windows_of(boxes, image.shape[1], first, content=torch.full((len(boxes), 2), 24)))
    names = ("first", "width", "boxes", "content", "corner")
    together = Windows(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
    pixels = torch.cat([torch.from_numpy(image).flatten(0, 1) for image in images])
    expected = torch.cat([resize_windows(pixels, part, 24) for part in parts])
    assert torch.equal(resize_windows(pixels, together, 24), expected)
    assert np.array_equal(expected[-10], resize(images[-1], (24, 24)))


def test_no_window_is_no_view():
    boxes = torch.zeros(0, 4, dtype=torch.long)
    windows = windows_of(boxes, 4, content=torch.zeros(0, 2, dtype=torch.long))
    assert resize_windows(torch.zeros(16, 3, dtype=torch.uint8), windows, 8).shape == (0, 8, 8, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_pixels():
    image, boxes = noise((240, 320)), some_boxes((240, 320))
    windows = windows_of(boxes, 320, content=torch.full((len(boxes), 2), 56))
    pixels = torch.from_numpy(image).flatten(0, 1)
    assert torch.equal(resize_windows(pixels.cuda(), windows, 56).cpu(), resize_windows(pixels, windows, 56))
