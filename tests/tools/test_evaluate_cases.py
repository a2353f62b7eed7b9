"""Results files of other tools, which once ended in a traceback, a dead process or a wrong figure without a word."""

import json
import logging
import shutil

import pytest
from pycocotools import mask as mask_api

from denserc.commands.eval import main
from denserc.structures import DataError
from denserc.structures.errors import exit_with
from denserc.tools.evaluate import evaluate
from tests.paths import FIXTURES

CASES = FIXTURES / "cases"


@pytest.fixture
def warnings(monkeypatch, caplog):
    """A function that gives the warnings of DenseRC so far, as one text."""
    monkeypatch.setattr(logging.getLogger("denserc"), "propagate", True)
    return lambda: "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


@pytest.fixture
def score(tmp_path, forget_registered):
    """score(case, **edits) scores the results of a case; edits change the list of results or the annotation file."""

    def run(case: str, *, results=None, truth=None) -> dict:
        folder = tmp_path / "case"
        shutil.copytree(CASES / case, folder, dirs_exist_ok=True)
        for name, edit in (("results.json", results), ("annotations.json", truth)):
            if edit is not None:
                content = json.loads((folder / name).read_text())
                (folder / name).write_text(json.dumps(edit(content) or content))
        return evaluate(str(folder / "my.yaml"), predictions=folder / "results.json")

    return run


MASKED = "13-one-object-without-mask"


def test_an_object_without_mask_counts_for_boxes_only(score, warnings):
    results = score(MASKED)
    assert results["coco"]["AP_all"] == pytest.approx(100)
    assert results["coco_masks"]["AP_all"] == pytest.approx(100)
    assert "1 of 4 objects have no 'segmentation'" in warnings()


@pytest.mark.parametrize("nothing", [[], None, "absent"])
def test_a_set_without_masks_is_scored_by_boxes(score, warnings, nothing):
    def bare(truth):
        for annotation in truth["annotations"]:
            annotation["segmentation"] = nothing
            if nothing == "absent":
                del annotation["segmentation"]

    results = score(MASKED, truth=bare)
    assert list(results) == ["coco"] and results["coco"]["AP_all"] == pytest.approx(100)
    assert "no object of the set has a 'segmentation'" in warnings()


def test_masks_on_half_of_the_results_are_counted(score, warnings):
    results = score("20-masks-on-half-of-the-results")
    assert list(results) == ["coco"] and results["coco"]["AP_all"] == pytest.approx(100)
    assert "2 of 4 detections have no 'segmentation', the first is entry 2" in warnings()


def test_categories_from_0_are_refused(score):
    with pytest.raises(
        DataError, match=r"2 of 4 detections are of categories.*\[0\].*entry 0.*count from 0.*annotation"
    ):
        score("22-results-with-classes-from-0")


@pytest.mark.parametrize("category", [99, -1, 3])
def test_a_category_that_the_file_lacks_is_refused(score, category):
    with pytest.raises(DataError, match=rf"1 of 4 detections.*\[{category}\].*entry 3"):
        score(MASKED, results=lambda found: found[3].update(category_id=category))


def test_masks_cut_short_are_refused(score):
    with pytest.raises(
        DataError, match=r"results.json: entry 0 is no detection .of image 1.*'segmentation' is damaged"
    ):
        score("25-results-with-masks-cut-short")


def test_boxes_as_corners_are_told(score, warnings):
    score("26-results-as-corners")
    assert "all would fit as [x1, y1, x2, y2]" in warnings()


def test_boxes_relative_to_the_image_are_told(score, warnings):
    def relative(found):
        for entry in found:
            entry["bbox"] = [value / 100 for value in entry["bbox"]]

    score("26-results-as-corners", results=relative)
    assert "parts of the image instead of pixels" in warnings()


def test_boxes_of_negative_size_are_told(score, warnings):
    score(MASKED, results=lambda found: found[1].update(bbox=[50, 20, -36, 41]))
    assert "1 of 4 boxes have a negative width" in warnings()


def test_usual_results_are_scored_without_a_warning(score, warnings):
    for entry in score("20-masks-on-half-of-the-results", results=lambda found: [dict(f) for f in found[:2]]).values():
        assert entry["AP_all"] == pytest.approx(50, abs=1)
    assert warnings() == ""


def test_single_quotes_are_named_with_their_place(score):
    with pytest.raises(DataError, match=r"results.json are not JSON at entry 0, character 2.*json.dump"):
        score("47-results-with-single-quotes")


def test_polygons_are_refused_with_the_form_wanted(score):
    with pytest.raises(
        DataError, match=r"results.json: entry 0 is no detection.*run lengths, not polygons.*frPyObjects"
    ):
        score("49-results-with-polygons")


@pytest.mark.parametrize("size", [[72, 97], [96, 72], [1, 6912]])
def test_masks_of_another_size_than_the_image_are_refused(score, size):
    def resize(found):
        code = mask_api.frPyObjects([[1, 1, 20, 1, 20, 1, 1, 5]], *size)[0]
        found[2]["segmentation"] = {"size": size, "counts": code["counts"].decode()}

    with pytest.raises(DataError, match=r"1 of 4 masks.*entry 2.*for image 2 of \[72, 96\]"):
        score(MASKED, results=resize)


TRUTH = {
    "images": [{"id": i, "file_name": f"{i}.png", "height": 24, "width": 32} for i in (1, 2, 3)],
    "annotations": [
        {"id": i, "image_id": i, "category_id": i + 6, "bbox": [2, 3, 8, 9], "area": 72, "iscrowd": 0}
        for i in (1, 2, 3)
    ],
    "categories": [{"id": c, "name": f"class {c}"} for c in (7, 8, 9)],
}


@pytest.fixture
def described(tmp_path, forget_registered):
    """A description of three images of 24 x 32 (h, w)."""
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    description = {"name": "three", "base": [c["name"] for c in TRUTH["categories"]]}
    description["val"] = {"annotations": "truth.json", "images": "."}
    (tmp_path / "three.yaml").write_text(json.dumps(description))
    return tmp_path / "three.yaml"


@pytest.mark.parametrize(
    "case, words",
    [
        ("fuzz-27-predictions-two-lists", "predictions.json go on after the list of 2 entries"),
        ("fuzz-28-predictions-infinite-score", "predictions.json: entry 0 is no detection: its 'score' is inf"),
        ("fuzz-30-predictions-huge-id", "predictions.json: entry 0 is no detection: its 'image_id' is 92233720368547"),
        ("fuzz-31-predictions-mask-junk", "predictions.json: entry 0 is no detection.*'segmentation'"),
        ("fuzz-72-predicted-mask-of-height-0", "predictions.json: entry 0 is no detection.*'segmentation'"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_its_entry(described, case, words, capsys):
    path = CASES / case / "predictions.json"
    with pytest.raises(DataError, match=words):
        evaluate(str(described), predictions=path)
    with pytest.raises(SystemExit) as ended:
        exit_with(main, ["--data-set", str(described), "--predictions", str(path)])
    assert ended.value.code == 2 and "error: " in capsys.readouterr().err.splitlines()[-1]


def test_two_lists_of_proposals_are_refused(described):
    with pytest.raises(DataError, match="go on after the list"):
        evaluate(str(described), proposals=CASES / "fuzz-27-predictions-two-lists" / "predictions.json")
