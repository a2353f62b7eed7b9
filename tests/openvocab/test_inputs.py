"""The door of the models: other forms, types and ranges of an image are refused with the conversion."""

import numpy as np
import pytest
import torch
from PIL import Image

import denserc
from denserc.openvocab.engine import build
from denserc.openvocab.inputs import require_images
from denserc.structures import DataError
from tests.segmentation.squares import squares_config

GOOD = torch.full((3, 8, 9), 200, dtype=torch.uint8)
BAD = {
    "channels last": (torch.zeros(8, 9, 3, dtype=torch.uint8), r"got \(8, 9, 3\) torch.uint8.*\.permute\(2, 0, 1\)"),
    "array": (np.zeros((8, 9, 3), np.uint8), r"got ndarray \(8, 9, 3\) uint8.*from_numpy"),
    "array, channels first": (np.zeros((3, 8, 9), np.float32), "got ndarray"),
    "alpha": (torch.zeros(4, 8, 9), "alpha channel"),
    "grey": (torch.zeros(1, 8, 9), "gray channel three times"),
    "grey without channel": (torch.zeros(8, 9), "gray channel three times"),
    "batch": (torch.zeros(2, 3, 8, 9), "list of dicts"),
    "five axes": (torch.zeros(1, 2, 3, 8, 9), r"got \(1, 2, 3, 8, 9\)"),
    "no axis": (torch.tensor(3.0), r"got \(\)"),
    "two channels": (torch.zeros(2, 8, 9), r"got \(2, 8, 9\)"),
    "no row": (torch.zeros(3, 0, 9), "at least one pixel"),
    "no column": (torch.zeros(3, 8, 0, dtype=torch.uint8), "at least one pixel"),
    "0 to 1": (torch.rand(3, 8, 9), "black picture. Multiply by 255"),
    "normalized": (torch.linspace(-2, 2, 216).reshape(3, 8, 9), "got values from -2 to 2"),
    "above 255": (torch.full((3, 8, 9), 65535.0), "got values from 65535"),
    "NaN": (torch.full((3, 8, 9), float("nan")), "not numbers"),
    "one NaN": (torch.zeros(3, 8, 9).index_fill(1, torch.tensor([3]), float("nan")), "not numbers"),
    "infinity": (torch.full((3, 8, 9), float("inf")), "from inf to inf"),
    "minus infinity": (torch.full((3, 8, 9), -float("inf")), "from -inf to -inf"),
    "int64": (torch.zeros(3, 8, 9, dtype=torch.int64), r"\.to\(torch\.uint8\)"),
    "int8": (torch.zeros(3, 8, 9, dtype=torch.int8), r"\.to\(torch\.uint8\)"),
    "bool": (torch.zeros(3, 8, 9, dtype=torch.bool), r"\.to\(torch\.uint8\)"),
    "complex": (torch.zeros(3, 8, 9, dtype=torch.complex64), "complex64"),
    "Pillow": (Image.new("RGB", (9, 8)), "Predictor takes paths, Pillow images"),
    "path": ("photo.jpg", "Predictor takes paths"),
    "list": ([[0, 0], [0, 0]], "got list"),
    "none": (None, "got NoneType"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A detector and two segmenters, with vocabularies."""
    cfg = squares_config(tmp_path_factory.mktemp("door"), DATASETS__TRAIN=(), DATASETS__TEST=())
    catseg = build(cfg).eval()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.VOCABULARY.SYNONYMS = "DenseSegmenter", "whole"
    made = [denserc.load_model("miniature", device="cpu"), catseg, build(cfg).eval()]
    for model in made:
        model.set_vocabulary(["red box", "ball"])
    return made


@pytest.mark.parametrize("case", BAD)
def test_other_images_are_refused_by_every_model(models, case):
    image, words = BAD[case]
    for model in models:
        with pytest.raises(DataError, match=words), torch.no_grad():
            model([{"image": image}])


def test_images_of_the_contract_pass(models):
    floats = GOOD.float()
    for model in models:
        with torch.no_grad():
            outputs = [model([{"image": image}])[0] for image in (GOOD, floats, floats.double(), torch.zeros(3, 8, 9))]
        assert len(outputs) == 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image": GOOD}, "got a dict"),
        (GOOD, "got a Tensor"),
        (None, "got a NoneType"),
        ([], "an empty list"),
        ([GOOD], "Input 0 is a Tensor"),
        ([{"image": GOOD}, {"file_name": "b.jpg"}], r"Input 1 is a dict of \['file_name'\]"),
        ([{"image": GOOD}, {"image": GOOD[:2], "file_name": "b.jpg"}], r"Input 1, b\.jpg"),
    ],
)
def test_other_batches_are_refused(given, words):
    with pytest.raises(DataError, match=words):
        require_images(given)


@pytest.mark.parametrize("value", [0, -3, 2.5, "40", None, True, float("nan")])
@pytest.mark.parametrize("side", ["height", "width"])
def test_sizes_of_results_are_whole_numbers(side, value):
    with pytest.raises(DataError, match=f"'{side}' of the result is"):
        require_images([{"image": GOOD, "height": 4, "width": 4, side: value}])
    require_images([{"image": GOOD, "height": np.int64(4), "width": 4}])


def test_a_dark_image_beside_others_passes():
    require_images([{"image": torch.full((3, 8, 9), 0.5)}, {"image": torch.full((3, 8, 9), 90.0)}])


def test_a_side_beyond_all_test_inputs_is_refused(models):
    with pytest.raises(DataError, match=r"is 1 x 5000 \(h x w\).*at most 1536.*denserc\.Predictor"):
        models[0]([{"image": torch.zeros(3, 1, 5000, dtype=torch.uint8)}])
    assert denserc.Predictor(models[0])(np.zeros((1, 5000, 3), np.uint8)).image_size == (1, 5000)
