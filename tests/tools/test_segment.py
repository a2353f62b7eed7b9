"""`denserc segment`: label maps, overlays and the page of pictures by words."""

import json

import numpy as np
import pytest
from PIL import Image

from denserc.commands import segment
from denserc.data.images.labels import read_labels, write_labels
from denserc.structures import DenseRCError

ENCODER = ["--encoder", "DenseRC-Miniature", "--construction", "clipself", "--templates", "plain", "--device", "cpu"]


@pytest.fixture
def photos(tmp_path):
    """Two pictures, one in a folder below."""
    for i, name in enumerate(("a", "sub/b")):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"photos/{name}.png")
    return tmp_path


def test_pictures_by_words(photos):
    out = photos / "out"
    segment.main(
        ["--images", str(photos / "photos"), "--names", "red ball/globe, star, ring", "--novel", "ring",
         "--threshold", "0.3", "--short-side", "64", "--output", str(out), *ENCODER]
    )  # fmt: skip
    assert json.loads((out / "classes.json").read_text()) == ["red ball, globe", "star", "ring"]
    for name in ("a", "sub/b"):
        labels = read_labels(out / f"labels/DenseRC-Miniature/{name}.png")
        assert labels.shape == (40, 56) and labels.dtype == np.uint8 and labels.max() <= 3
        assert Image.open(out / f"overlays/DenseRC-Miniature/{name}.png").size == (56, 40)
    assert (out / "segmentation.png").is_file()
    html = (out / "segmentation.html").read_text()
    assert "declip: short side 64" in html and "background below 0.3" in html


def test_a_data_set_shows_its_ground_truth(photos, forget_registered):
    for name in ("a", "sub/b"):
        write_labels(photos / f"labels/{name}.png", np.zeros((40, 56), np.uint8))
    description = photos / "d.yaml"
    description.write_text("name: s\nclasses: [background, ball, star]\nval: {images: photos, labels: labels}\n")
    out = photos / "out"
    segment.main(
        ["--data-set", str(description), "--number", "1", "--short-side", "64", "--output", str(out), *ENCODER]
    )  # fmt: skip
    labels = read_labels(out / "labels/DenseRC-Miniature/a.png")  # of scored classes
    assert labels.max() <= 2 and not (out / "labels/DenseRC-Miniature/sub").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--images", "."], "needs --names"),
        (["--data-set", "nobody"], "No data set 'nobody'"),
        (["--images", ".", "--names", "a, a"], "given more than once"),
    ],
)
def test_mistakes_are_explained(more, message, tmp_path, forget_registered):
    with pytest.raises(DenseRCError, match=message):
        segment.main([*more, "--output", str(tmp_path), *ENCODER])
