"""`denserc segment`: label maps, overlays and the page of pictures by words."""

import csv
import json

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from PIL import Image

from denserc.commands import segment
from denserc.data.images.labels import read_labels, write_labels
from denserc.openvocab import ModelCheckpointer
from denserc.openvocab.engine import build
from denserc.predictor import Predictor
from denserc.structures import ConfigurationError, DataError, DenseRCError
from denserc.tools.segment import photographs
from denserc.tools.segment import segment as write
from tests.segmentation.squares import squares_config

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


def test_unreadable_pictures_are_skipped_and_told(photos, capsys):
    (photos / "photos" / "aa.png").write_bytes(b"cut")
    (photos / "photos" / "._a.png").write_bytes(b"\x00\x05\x16\x07")
    out = photos / "out"
    given = [str(photos / "photos"), "--names", "ball, star", "--short-side", "32", "--output", str(out), *ENCODER]
    assert segment.main(given) == 1
    printed = capsys.readouterr()
    assert "aa.png cannot be read" in printed.err and "._a" not in printed.err
    assert "wrote 2 label maps per model" in printed.out and "unreadable and skipped: 1" in printed.out
    assert len(list((out / "labels").rglob("*.png"))) == 2
    assert (out / "segmentation.html").read_text().count("<img") == 2
    assert segment.main([*given, "--max-pixels", "2240"]) == 1
    with pytest.raises(DataError, match="None of the images can be read:\n.*40 x 56"):
        segment.main([*given, "--max-pixels", "2239"])


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
        (["--images", "."], "need --names"),
        (["--data-set", "nobody"], "No data set 'nobody'"),
        (["--names", "a, a", "--images", "."], "given more than once"),
        (["--data-set", "nobody", "photo.png"], "either pictures or --data-set"),
        (["--data-set", "nobody", "--names", "a"], "its own names"),
        (["photos", "--names", "a, b", "--labels", "photos/sub"], "no label file .* for 2 pictures, such as a"),
        (["photos", "--names", "a, b", *ENCODER[:2]], "titles of their own"),
        (["photos", "--names", "a, b", "--construction", "catseg", "--construction", "denserc"], "once for each"),
        (["photos", "--names", "a, b", "--model", "x.pth", "--background", "--threshold", "0.2"], "not by both"),
    ],
)
def test_mistakes_are_explained(more, message, photos, forget_registered, monkeypatch):
    monkeypatch.chdir(photos)
    with pytest.raises(DenseRCError, match=message):
        segment.main([*more, "--output", "out", *ENCODER])


def test_a_command_without_a_model_is_explained(photos):
    with pytest.raises(DenseRCError, match="--model, --checkpoint or --encoder"):
        segment.main([str(photos / "photos"), "--names", "a, b", "--output", str(photos)])


@pytest.fixture
def catseg_file(tmp_path):
    cfg = squares_config(tmp_path, DATASETS__TRAIN=(), DATASETS__TEST=())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(cfg)
    model.metadata["config"] = cfg.dump()
    ModelCheckpointer(model, str(tmp_path)).save_model("catseg")
    return str(tmp_path / "catseg.pth")


def test_models_side_by_side_with_ground_truth(photos, catseg_file):
    for name in ("a", "sub/b"):
        write_labels(photos / f"labels/{name}.png", np.full((40, 56), 2, np.uint8))
    out, names = photos / "out", ["ball", "star", "ring"]
    segment.main(
        ["--model", f"CAT-Seg={catseg_file}", str(photos / "photos"), "--names", ", ".join(names), "--novel", "ring",
         "--labels", str(photos / "labels"), "--short-side", "64", "--output", str(out), *ENCODER]
    )  # fmt: skip
    titles = ["CAT-Seg", "DenseRC-Miniature"]
    with (out / "areas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == set(titles) and {row["class"] for row in rows} <= set(names)
    predictor = Predictor(catseg_file, names, device="cpu")
    for name in ("a", "sub/b"):
        labels = read_labels(out / f"labels/CAT-Seg/{name}.png")
        assert np.array_equal(labels, predictor(photos / f"photos/{name}.png").labels)
        for title in titles:
            own = [row for row in rows if row["model"] == title and row["file"] == str(photos / f"photos/{name}.png")]
            labels = read_labels(out / f"labels/{title}/{name}.png")
            counts = {row["class"]: int(row["pixels"]) for row in own}
            assert counts == {names[k]: int((labels == k).sum()) for k in np.unique(labels)}
            assert sum(float(row["share"]) for row in own) == pytest.approx(1, abs=1e-5)
    html = (out / "segmentation.html").read_text()
    assert "CATSeg over" in html and "DenseSegmenter over" in html and "1 of them novel" in html
    # Per row the picture, the ground truth and both models.
    width = Image.open(out / "segmentation.png").size[0]
    assert width > 4 * 56 * 7  # enlarged by 7 to 280 x 392


def test_a_threshold_makes_background_of_a_model(photos, catseg_file):
    out = photos / "out"
    given = [str(photos / "photos/a.png"), "--names", "ball, star", "--output", str(out), "--device", "cpu"]
    segment.main([*given, "--model", f"m={catseg_file}", "--threshold", "1"])
    assert (read_labels(out / "labels/m/a.png") == 2).all()
    assert ",m,background,2240,1.000000" in (out / "areas.csv").read_text()


def test_a_detector_is_refused(photos):
    class Boxes:
        model = np.zeros(1)

        def __call__(self, pixels):
            return Instances(pixels.shape[:2])

    subjects = photographs([str(photos / "photos")], ["ball"])
    with pytest.raises(ConfigurationError, match="detects boxes.*`denserc detect`"):
        write({"x": Boxes()}, subjects, photos / "out")
