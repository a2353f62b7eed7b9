import numpy as np
import pytest

from denserc.detection.data import FitSquare, training_augmentations
from denserc.detection.modeling.options import Resampling
from denserc.structures import ConfigurationError

BOTH = pytest.mark.parametrize("resampling", list(Resampling))


@BOTH
@pytest.mark.parametrize(("shape", "expected"), [((40, 80), (32, 64)), ((80, 40), (64, 32)), ((8, 8), (64, 64))])
def test_longer_side_fits(resampling, shape, expected):
    image = np.full((*shape, 3), 7, dtype=np.uint8)
    transform = FitSquare(64, resampling=resampling).get_transform(image)
    resized = transform.apply_image(image)
    assert resized.shape == (*expected, 3) and (resized == 7).all()
    h, w = shape
    assert transform.apply_coords(np.array([[w, h]], dtype=float)).tolist() == [[expected[1], expected[0]]]
    assert transform.apply_segmentation(np.ones(shape, dtype=np.uint8)).sum() == expected[0] * expected[1]


def test_only_pillow_antialiases():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rough, smooth = (
        FitSquare(16, resampling=r).get_transform(image).apply_image(image).std()
        for r in (Resampling.OPENCV_BILINEAR, Resampling.PILLOW_BILINEAR)
    )
    assert smooth < 0.6 * rough


@BOTH
def test_training_images_never_exceed_the_side(resampling):
    from detectron2.data import transforms as T

    image = np.zeros((50, 90, 3), dtype=np.uint8)
    np.random.seed(0)
    sides = set()
    for _ in range(30):
        aug = T.AugInput(image)
        T.AugmentationList(training_augmentations(64, (0.1, 2.0), resampling))(aug)
        assert max(aug.image.shape[:2]) <= 64
        sides.add(aug.image.shape[1])
    assert len(sides) > 5


def test_senseless_range_is_refused():
    with pytest.raises(ConfigurationError, match="low <= high"):
        FitSquare(64, (2.0, 0.1), resampling=Resampling.OPENCV_BILINEAR)
