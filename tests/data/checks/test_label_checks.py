"""Faults of semantic sets, each planted in a healthy one; and the doctor's report of them."""

import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from denserc.commands import doctor
from denserc.data.checks import CheckedLabels, check_labels
from denserc.data.datasets.semantic import register_semantic_dataset, register_semantic_sets
from denserc.data.images.labels import write_labels

pytestmark = pytest.mark.usefixtures("forget_registered")


@pytest.fixture
def healthy(tmp_path):
    """Three images of 4 x 5 pixels whose label files hold all three classes and ignored pixels."""
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.new("RGB", (5, 4)).save(tmp_path / f"images/{name}.jpg")
        label(tmp_path, name, [0, 1, 2, 255])
    return tmp_path


def label(folder, name, values, size=(4, 5), dtype=np.uint8):
    write_labels(folder / f"labels/{name}.png", np.resize(np.array(values, dtype=dtype), size))


def findings(folder, classes=("road", "sky", "tree"), sample=0, **options) -> dict[str, str]:
    register_semantic_dataset("s", folder / "images", folder / "labels", classes=classes, **options)
    return {one.check: one.severity.value for one in check_labels(CheckedLabels.registered("s"), sample)}


def test_healthy_set(healthy):
    assert findings(healthy) == {}


@pytest.mark.parametrize(
    "fault, expected",
    [
        (lambda f: (f / "images/a.jpg").unlink(), {"label-without-image": "error"}),
        (lambda f: (f / "labels/a.png").unlink(), {"image-without-label": "note"}),
        (lambda f: label(f, "a", [0, 1, 2], (5, 4)), {"label-rotated": "error"}),
        (lambda f: label(f, "a", [0, 1, 2], (4, 6)), {"label-size": "error"}),
        (lambda f: label(f, "a", [0, 7]), {"label-value": "error"}),
        (lambda f: label(f, "a", [255]), {"label-empty": "warning"}),
        (lambda f: [label(f, n, [0, 1]) for n in "abc"], {"class-empty": "warning"}),
        (lambda f: (f / "labels/a.png").write_bytes(b"no image"), {"label-unreadable": "error"}),
        (lambda f: Image.new("RGB", (5, 4)).save(f / "labels/a.png"), {"label-unreadable": "error"}),
        (lambda f: [p.unlink() for p in (f / "labels").iterdir()], {"no-files": "error"}),
    ],
)
def test_planted_faults(fault, expected, healthy):
    fault(healthy)
    assert findings(healthy) == expected


def test_likely_causes_of_unknown_values_are_named(healthy):
    for name in "abc":
        label(healthy, name, [1, 2, 3])
    register_semantic_dataset("s", healthy / "images", healthy / "labels", classes=["road", "sky", "tree"])
    (value,) = [f for f in check_labels(CheckedLabels.registered("s")) if f.check == "label-value"]
    assert "count from 1" in value.advice and value.examples[0].startswith("3: in 3 files")
    label(healthy, "a", [0, 1, 2, 255])
    register_semantic_dataset(
        "s", healthy / "images", healthy / "labels", classes=["road", "sky", "tree", "sea"], ignore_label=254
    )
    (value,) = [f for f in check_labels(CheckedLabels.registered("s")) if f.check == "label-value"]
    assert 'set "ignore" to 255' in value.advice


def test_names_against_values(healthy):
    assert findings(healthy, ("road", "sky", "class 3")) == {"class-no-word": "warning"}
    assert findings(healthy, ("road", "sky", "tree"), ignore_label=2)["ignore-is-class"] == "error"
    many = [f"thing{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(300)]
    assert findings(healthy, many)["label-bits"] == "error"


def test_background_that_never_occurs_is_another_variant(healthy):
    assert findings(healthy, ("background", "sky", "tree")) == {}
    for name in "abc":
        label(healthy, name, [1, 2])
    assert findings(healthy, ("background", "sky", "tree"))["background-absent"] == "error"


def test_sample_reads_some_files(healthy):
    label(healthy, "b", [0, 9])
    assert findings(healthy, sample=1) == {}
    label(healthy, "a", [0, 1])
    assert findings(healthy, sample=1) == {"class-empty": "note"}  # of what was read


def test_published_count_is_compared(tmp_path):
    folder = tmp_path / "ADEChallengeData2016"
    write_labels(folder / "annotations_detectron2/validation/a.png", np.zeros((4, 5), np.uint8))
    (folder / "images/validation").mkdir(parents=True)
    Image.new("RGB", (5, 4)).save(folder / "images/validation/a.jpg")
    register_semantic_sets(tmp_path)
    found = check_labels(CheckedLabels.registered("ade20k_150_test_sem_seg"))
    assert [f.examples for f in found if f.check == "label-count"] == [("1 instead of 2,000",)]


def test_doctor_reports_semantic_sets_and_shared_images(healthy, capsys):
    (healthy / "d.yaml").write_text(
        "name: street\nclasses: [road, sky, tree]\ntrain: {images: images, labels: labels}\n"
        "val: {images: images, labels: labels}\n"
    )
    assert doctor.main([str(healthy / "d.yaml"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)["sets"]
    assert report["street_train"] == {"summary": "3 images with label files, 3 classes (0 novel)", "findings": []}
    assert [f["check"] for f in report["street_val"]["findings"]] == ["overlap"]
    assert MetadataCatalog.get("street_train").training
