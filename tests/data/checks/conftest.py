"""A healthy small data set with pictures, in which each test plants one fault."""

import copy

import numpy as np
import pytest
from PIL import Image

from denserc.data.checks import CheckedSet
from denserc.structures import Vocabulary


def _content() -> dict:
    images = [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 50} for i in range(1, 5)]
    annotations = []
    for image in images:
        for category in (1, 2, 3):
            x, y = 4.0 * image["id"], 3.0 * category
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [x, y, 12.0, 10.0],
                    "area": 120.0,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + 12, y, x + 12, y + 10, x, y + 10]],
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(("sparrow", "robin", "kingfisher"), 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def content() -> dict:
    """Content of the annotation file; tests change it before they call `make`."""
    return _content()


@pytest.fixture
def pictures(tmp_path):
    """The folder of the images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(1, 5):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def make(pictures):
    """make(content, classes, novel, training) -> the set to check."""

    def build(content, names=("sparrow", "robin", "kingfisher"), novel=("kingfisher",), training=False) -> CheckedSet:
        return CheckedSet("birds", copy.deepcopy(content), pictures, Vocabulary(names, novel=novel), training)

    return build


@pytest.fixture
def kinds():
    """kinds(findings) -> {check: severity}."""
    return lambda findings: {finding.check: finding.severity.value for finding in findings}
