"""Scaling of images, boxes and masks for training and test.

Sizes are (h, w).
"""

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform

from ..structures import ConfigurationError
from .options import Resampling


class OpenCVResize(Transform):
    """Bilinear without antialiasing, as the original resizes; masks by nearest neighbour.

    Args:
        size: (h, w) before.
        new_size: (h, w) after.
    """

    def __init__(self, size: tuple[int, int], new_size: tuple[int, int]):
        super().__init__()
        self.size = size
        self.new_size = new_size

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """(h, w) or (h, w, c) -> the new size."""
        cv2 = _import_cv2()
        return cv2.resize(img, self.new_size[::-1], interpolation=cv2.INTER_LINEAR)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(n, 2) points (x, y) -> the same in the new image."""
        (h, w), (new_h, new_w) = self.size, self.new_size
        return coords * np.array([new_w / w, new_h / h])

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(h, w) of labels or 0 and 1 -> the new size."""
        cv2 = _import_cv2()
        resized = cv2.resize(segmentation.astype(np.uint8), self.new_size[::-1], interpolation=cv2.INTER_NEAREST)
        return resized.astype(segmentation.dtype)


class FitSquare(T.Augmentation):
    """Scale an image so that its longer side is `side` times a random factor; keeps the aspect ratio.

    Args:
        side: pixels.
        jitter: range of the factor; (1, 1) at test.
        resampling: see Resampling.
    """

    def __init__(self, side: int, jitter: tuple[float, float] = (1.0, 1.0), *, resampling: Resampling):
        super().__init__()
        low, high = jitter
        if side <= 0 or not 0 < low <= high:
            raise ConfigurationError(f"FitSquare needs a positive side and 0 < low <= high; got {side}, {jitter}.")
        self.side = side
        self.jitter = (float(low), float(high))
        self.resampling = resampling

    def get_transform(self, image: np.ndarray) -> Transform:
        """The resizing of this image, one draw of the random factor."""
        h, w = image.shape[:2]
        low, high = self.jitter
        factor = self.side * (low if low == high else np.random.uniform(low, high)) / max(h, w)
        new_h, new_w = max(int(h * factor + 0.5), 1), max(int(w * factor + 0.5), 1)
        if self.resampling is Resampling.OPENCV_BILINEAR:
            return OpenCVResize((h, w), (new_h, new_w))
        return T.ResizeTransform(h, w, new_h, new_w)


def training_augmentations(side: int, jitter: tuple[float, float], resampling: Resampling) -> list[T.Augmentation]:
    """Scale jitter, a random crop of at most `side` squared, a flip; the image is padded by the model, not here."""
    return [
        FitSquare(side, jitter, resampling=resampling),
        T.FixedSizeCrop((side, side), pad=False),
        T.RandomFlip(),
    ]


def evaluation_augmentations(side: int, resampling: Resampling) -> list[T.Augmentation]:
    """The longer side to `side`."""
    return [FitSquare(side, resampling=resampling)]


def _import_cv2():
    try:
        import cv2
    except ImportError as error:
        raise ConfigurationError(
            "INPUT.RESAMPLING 'opencv_bilinear' needs OpenCV: pip install opencv-python-headless, or set it to "
            "'pillow_bilinear'."
        ) from error
    return cv2
