"""The doctor's command line: output and exit status."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from denserc.commands.doctor import main
from denserc.data.vocabulary.text_embeddings import save_text_embeddings
from denserc.structures import DataError, TextEmbeddings
from tests.paths import FIXTURES

pytestmark = pytest.mark.usefixtures("forget_registered")


def content(first):
    image = {"id": first, "file_name": f"{first}.png", "height": 20, "width": 30}
    boxes = [{"id": c, "image_id": first, "category_id": c, "bbox": [2, 3, 10, 10], "area": 100} for c in (1, 2)]
    return {"images": [image], "annotations": boxes, "categories": [{"id": 1, "name": "owl"}, {"id": 2, "name": "hen"}]}


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """birds(change) -> the path of a description whose validation file was changed."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "none"))

    def write(change=lambda c: None):
        val = content(2)
        change(val)
        for name, one in (("train", content(1)), ("val", val)):
            (tmp_path / f"{name}.json").write_text(json.dumps(one))
        for number in (1, 2):
            pixels = np.full((20, 30, 3), number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        path = tmp_path / "birds.yaml"
        path.write_text(
            "name: birds\nbase: [owl, hen]\ntrain: {annotations: train.json, images: .}\n"
            "val: {annotations: val.json, images: .}\n"
        )
        return str(path)

    return write


def test_a_healthy_description(birds, capsys):
    assert main([birds()]) == 0
    printed = capsys.readouterr().out
    assert "birds_train: 1 images, 2 annotations, 2 classes" in printed and "0 errors, 0 warnings" in printed


def test_errors_end_with_one_and_say_what_to_do(birds, capsys):
    assert main([birds(lambda c: c["categories"][0].update(name="owls"))]) == 1
    printed = capsys.readouterr().out
    assert "class-absent" in printed and "did you mean" in printed and "Write the class" in printed


def test_warnings_end_with_zero(birds, capsys):
    assert main([birds(lambda c: c["annotations"][0].update(bbox=[25, 3, 10, 10]))]) == 0
    assert "box-outside" in capsys.readouterr().out


def test_the_same_picture_in_both_sets(birds, capsys):
    assert main([birds(lambda c: c["images"][0].update(file_name="1.png")), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["errors"] == 1
    (finding,) = report["sets"]["birds_val"]["findings"]
    assert finding["check"] == "overlap" and finding["severity"] == "error" and finding["count"] == 1


def test_absent_files_and_unknown_sets_are_findings(birds, tmp_path, capsys):
    path = birds()
    (tmp_path / "val.json").unlink()
    assert main([path, "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["sets"]["birds_val"]["findings"]
    assert "val.json does not exist" in finding["message"] and "datasets/README.md" in finding["advice"]
    assert main(["ov_coco_2017_val", "nothing"]) == 1
    with pytest.raises(DataError, match="absent.yaml"):
        main([str(tmp_path / "absent.yaml")])


def test_embeddings_are_checked(birds, tmp_path, capsys):
    path = birds()

    save_text_embeddings(tmp_path / "e.safetensors", TextEmbeddings(("hen", "owl"), torch.eye(2), "f"))
    assert main([path, "--embeddings", str(tmp_path / "e.safetensors"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert {f["check"] for f in report["sets"]["birds_val"]["findings"]} == {"embedding-absent"}
    np.save(tmp_path / "e.npy", np.eye(3, dtype=np.float32))
    assert main([path, "--embeddings", str(tmp_path / "e.npy")]) == 0
    np.save(tmp_path / "e.npy", np.eye(4, dtype=np.float32))
    assert main([path, "--embeddings", str(tmp_path / "e.npy")]) == 1


CASES = {
    "01-images-without-size": ("sizes-absent", "warning"),
    "02-iscrowd-null": ("flags-read", "warning"),
    "04-categories-without-name": ("malformed-categories", "error"),
    "05-flat-polygon": ("polygons-nested", "warning"),
    "07-null-inside-a-box": ("box-malformed", "error"),
    "08-numbers-and-text-as-image-ids": ("malformed-images", "error"),
    "11-text-image-ids": ("malformed-images", "error"),
    "16-polygons-of-two-points": ("polygons-degenerate", "warning"),
    "17-category-ids-as-text": ("ids-as-text", "warning"),
    "19-iscrowd-as-text": ("flags-read", "warning"),
    "23-area-null": ("area-null", "warning"),
    "28-image-ids-as-digits": ("ids-as-text", "warning"),
    "50-project-named-like-a-class": ("category-is-root", "note"),
    "52-sizes-as-text": ("sizes-as-text", "warning"),
}


@pytest.mark.parametrize("case", CASES)
def test_files_of_other_tools(case, capsys):
    check, severity = CASES[case]
    assert main([str(FIXTURES / "cases" / case / "my.yaml"), "--all", "--json"]) == (severity == "error")
    (report,) = json.loads(capsys.readouterr().out)["sets"].values()
    found = {finding["check"]: finding for finding in report["findings"]}
    assert found[check]["severity"] == severity and found[check]["advice"] and found[check]["examples"]
    if case.startswith("17"):
        assert "'category_id' is '1'" in found[check]["examples"][0]
    if severity != "error":
        assert not any(finding["severity"] == "error" for finding in found.values())


DAMAGED = {
    "fuzz-01-image-without-width": "malformed-images",
    "fuzz-03-category-without-name": "malformed-categories",
    "fuzz-04-category-id-is-a-list": "malformed-annotations",
    "fuzz-06-box-of-text": "box-malformed",
    "fuzz-07-box-infinite": "box-malformed",
    "fuzz-09-rle-without-counts": "mask-malformed",
    "fuzz-11-images-is-a-number": "malformed-images",
    "fuzz-13-doctor-file-name-surrogate": "malformed-images",
    "fuzz-15-lvis-negatives-no-list": "malformed-images",
    "fuzz-16-area-of-text": "area-malformed",
    "fuzz-66-doctor-lvis-without-frequency": "lvis-frequency",
    "fuzz-70-polygon-nan": "mask-malformed",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_of_training_and_evaluation(case, tmp_path, capsys):
    truth = FIXTURES / "cases" / case / "truth.json"
    split = {"annotations": str(truth), "images": str(tmp_path)}
    description = {"name": "x", "base": ["cat", "red cup"], "novel": ["striped ball"], "evaluator": "ov_lvis"}
    (tmp_path / "x.yaml").write_text(json.dumps({**description, "train": split, "val": split}))  # JSON is YAML
    assert main([str(tmp_path / "x.yaml"), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["sets"]["x_val"]["findings"]
    assert DAMAGED[case] in {finding["check"] for finding in findings if finding["severity"] == "error"}
    assert main([str(tmp_path / "x.yaml")]) == 1
    assert DAMAGED[case] in capsys.readouterr().out


def test_lvis_files_without_negatives(birds, capsys):
    path = birds(lambda c: [category.update(frequency="f") for category in c["categories"]])
    with open(path, "a") as description:
        description.write("evaluator: ov_lvis\n")
    assert main([path, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)["sets"]
    assert {f["check"] for f in report["birds_val"]["findings"] if f["severity"] == "error"} == {"lvis-lists"}
    assert not report["birds_train"]["findings"]


def test_names_that_cannot_be_printed_are_escaped(birds, capsys):
    path = birds(lambda c: c["annotations"][0].update(id="\ud800", bbox=[25, 3, 10, 10]))
    assert main([path]) == 0
    assert "ud800" in capsys.readouterr().out
