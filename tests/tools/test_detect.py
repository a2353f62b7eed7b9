"""`denserc detect`: photographs to pictures, COCO JSON and CSV, by a random miniature detector."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from denserc import Predictor
from denserc.commands.detect import main
from denserc.data.images.reading import read_rgb
from denserc.miniature.demo.pictures import fresh_scenes
from denserc.miniature.world import CLASS_NAMES, Domain
from denserc.structures import ConfigurationError, DataError
from denserc.tools.detect import image_files
from tests.paths import FIXTURES


@pytest.fixture()
def photos(tmp_path):
    """Two images, one of them in a folder below; a hidden file, a broken image and a text."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    for name, size in (("a.png", (60, 90)), ("trip/b.jpg", (80, 50))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "._a.png").write_bytes(b"a resource fork")
    (folder / "broken.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not an image either")
    return folder


def run(photos, model, *options):
    """Detect with a threshold of 0; the folder of the results."""
    output = photos.parent / "out"
    given = [str(photos), "--model", str(model), "--output", str(output), "--device", "cpu", "--threshold", "0"]
    assert main([*given, *(options or ("--names", "red cup, ball"))]) == 1  # an image was skipped
    return output


def test_a_folder_becomes_pictures_json_and_csv(photos, detector, capsys):
    output = run(photos, detector, "--names", "red cup, ball", "--batch-size", "2")
    printed = capsys.readouterr()
    names = ["a.png", "trip/b.jpg"]
    expected = Predictor(detector, ["red cup", "ball"], threshold=0, device="cpu")([photos / name for name in names])
    total = sum(map(len, expected))
    assert f"images: 2, detections: {total}, unreadable and skipped: 1; written to {output}" in printed.out
    assert "broken.jpg cannot be read" in printed.err and "._a" not in printed.err

    truth = COCO(str(output / "images.json"))
    results = truth.loadRes(str(output / "detections.json"))
    assert [image["file_name"] for image in truth.loadImgs(truth.getImgIds())] == names
    for image_id, found in zip((1, 2), expected, strict=True):
        own = results.loadAnns(results.getAnnIds(imgIds=[image_id]))
        assert [truth.loadCats(one["category_id"])[0]["name"] for one in own] == list(found.class_names)
        x, y, w, h = np.array([one["bbox"] for one in own]).T
        np.testing.assert_allclose(np.stack([x, y, x + w, y + h], 1), found.pred_boxes.tensor, atol=1e-2)
        np.testing.assert_allclose([one["score"] for one in own], found.scores, rtol=1e-4)
        image = truth.loadImgs(image_id)[0]
        assert (image["height"], image["width"]) == found.image_size

    with (output / "detections.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == total and list(rows[0]) == ["file", "name", "score", "x1", "y1", "x2", "y2"]
    best = expected[1].scores.argmax()
    row = max((row for row in rows if row["file"] == "trip/b.jpg"), key=lambda row: float(row["score"]))
    assert row["name"] == expected[1].class_names[best] and float(row["score"]) == pytest.approx(
        float(expected[1].scores[best]), abs=1e-4
    )

    drawn = read_rgb(output / "pictures" / "a.png.jpg")
    assert drawn.shape == (420, 630, 3) and len(list(output.rglob("*.*"))) == 5
    assert (output / "pictures" / "trip" / "b.jpg.jpg").is_file()


def test_masks_are_in_the_json(photos, mask_detector):
    output = run(photos, mask_detector)
    results = json.loads((output / "detections.json").read_text())
    mask = mask_util.decode(results[0]["segmentation"])
    assert results[0]["image_id"] == 1 and mask.shape == (60, 90)


def test_pictures_may_be_left_out_and_names_be_in_a_file(photos, detector):
    (photos.parent / "names.txt").write_text("red cup\n\n  kite, blue \n", encoding="utf-8-sig")
    output = run(photos, detector, "--names-file", str(photos.parent / "names.txt"), "--no-pictures")
    assert sorted(path.name for path in output.iterdir()) == ["detections.csv", "detections.json", "images.json"]
    categories = json.loads((output / "images.json").read_text())["categories"]
    assert categories == [{"id": 1, "name": "red cup"}, {"id": 2, "name": "kite, blue"}]


def test_folders_files_and_patterns_are_named_apart(photos, monkeypatch):
    found = image_files([str(photos), str(photos / "a.png"), str(photos / "trip" / "*.jpg")])
    assert list(found.values()) == ["a.png", "broken.jpg", "trip/b.jpg"]
    other = photos.parent / "other"
    other.mkdir()
    Image.new("RGB", (5, 5)).save(other / "a.png")
    assert list(image_files([str(photos / "a.png"), str(other)]).values()) == ["a.png", "a_2.png"]
    assert list(image_files([str(photos / "*")]).values()) == ["a.png", "broken.jpg"]
    assert list(image_files([str(photos / "**" / "*.jpg")]).values()) == ["broken.jpg", "b.jpg"]
    monkeypatch.chdir(photos)
    assert image_files(["trip"]) == {Path("trip/b.jpg"): "b.jpg"}


def test_nothing_to_detect_in_is_an_error(photos, detector):
    for given, words in ((photos / "absent.jpg", "neither an image"), (photos / "*.gif", "neither an image")):
        with pytest.raises(DataError, match=words):
            image_files([str(given)])
    with pytest.raises(DataError, match="None of the images can be read:\n.*broken.jpg"):
        run(photos / "broken.jpg", detector)
    assert not (photos / "out").exists()


def test_an_image_beyond_the_limit_is_skipped(photos, detector, capsys):
    output = run(photos, detector, "--names", "ball", "--max-pixels", "4000")
    printed = capsys.readouterr()
    assert "unreadable and skipped: 2; written to" in printed.out and "a.png is 60 x 90 (h x w)" in printed.err
    assert [one["file_name"] for one in json.loads((output / "images.json").read_text())["images"]] == ["trip/b.jpg"]


def test_a_folder_from_a_mac(detector, tmp_path, capsys):
    folder = FIXTURES / "cases" / "37-folder-from-a-mac" / "photos"
    assert len(list(folder.iterdir())) == 2
    given = ["--names", "red box", "--model", str(detector), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main([str(folder), *given]) == 0
    assert "images: 1," in capsys.readouterr().out
    with pytest.raises(DataError, match=r"\._img1\.png cannot be read \(it is a companion file of macOS"):
        main([str(folder / "._img1.png"), *given])


def test_without_a_model_the_packaged_one_detects(tmp_path, capsys):
    scene = fresh_scenes(1, Domain.MAIN, things=5)[0]
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    main([str(tmp_path / "scene.png"), "--output", str(tmp_path / "out"), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "model: miniature, which knows a drawn world; photographs need a model trained on photographs" in printed
    assert f"; class names: {len(CLASS_NAMES)}, of its own" in printed
    categories = json.loads((tmp_path / "out" / "images.json").read_text())["categories"]
    assert [one["name"] for one in categories] == list(CLASS_NAMES)
    assert json.loads((tmp_path / "out" / "detections.json").read_text())
    main([str(tmp_path / "scene.png"), "--names", "red thing", "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert "; class names: 1, given" in capsys.readouterr().out


def test_a_model_without_names_needs_names(photos, detector):
    with pytest.raises(ConfigurationError, match=r"model\.pth has no class names of its own: give --names"):
        main([str(photos), "--model", str(detector), "--output", str(photos.parent / "out"), "--device", "cpu"])
    assert not (photos.parent / "out").exists()
