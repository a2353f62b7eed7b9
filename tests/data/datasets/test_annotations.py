"""Annotation files as other tools write them: loaded with the right records, or refused with the reason.

The files are from public issues and from damage at random; see tests/fixtures/cases.
"""

import json
import logging

import pytest
from detectron2.data import DatasetCatalog

from denserc.data import register_from_yaml
from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.structures import DataError
from tests.paths import FIXTURES

pytestmark = pytest.mark.usefixtures("forget_registered")
CASES = FIXTURES / "cases"
BOXES = [(0, [10, 12, 31, 39]), (1, [50, 20, 36, 41])]


def loaded(case: str) -> list[dict]:
    (name,) = register_from_yaml(CASES / case / "my.yaml")
    return DatasetCatalog.get(name)


# Case -> the warning, "" for none.
READ = {
    "01-images-without-size": "2 images without a size",
    "02-iscrowd-null": "4 flags",
    "05-flat-polygon": "4 masks with another nesting",
    "16-polygons-of-two-points": "3 objects with polygons of fewer than three corners",
    "17-category-ids-as-text": "4 ids that are text",
    "19-iscrowd-as-text": "4 flags",
    "23-area-null": '4 "area"',
    "28-image-ids-as-digits": "6 ids that are text",
    "46-annotations-with-bom": "",
    "50-project-named-like-a-class": "1 categories without annotations",
    "52-sizes-as-text": "4 sizes",
}


@pytest.mark.parametrize("case", READ)
def test_harmless_files_give_the_records_of_a_correct_one(case, caplog):
    with caplog.at_level(logging.WARNING):
        records = loaded(case)
    assert [(r["image_id"], r["height"], r["width"]) for r in records] == [(1, 72, 96), (2, 72, 96)]
    for record in records:
        assert [(a["category_id"], a["bbox"]) for a in record["annotations"]] == BOXES
        assert [a["iscrowd"] for a in record["annotations"]] == [0, 0]
    masks = ["segmentation" in a for record in records for a in record["annotations"]]
    assert masks == ([False, False, False, True] if case.startswith("16") else [True] * 4)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == bool(READ[case]) and all(READ[case] in message for message in messages)


REFUSED = {
    "04-categories-without-name": r"annotations.json, categories\[0\], category 1: there is no 'name'",
    "07-null-inside-a-box": r"annotation 1 of image 1: 'bbox' is \[None, 12, 31, 39\]",
    "08-numbers-and-text-as-image-ids": r"image '1': numbers and text are mixed .* image 2",
    "11-text-image-ids": r"'id' is 'frame_1'; expected is a whole number",
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_of_no_use_are_refused_with_the_reason(case):
    with pytest.raises(DataError, match=REFUSED[case]):
        loaded(case)


DAMAGED = {
    "fuzz-01-image-without-width": r"images\[0\], image 1: there is no width, .*1.png does not exist",
    "fuzz-03-category-without-name": r"categories\[0\], category 7: there is no 'name'",
    "fuzz-04-category-id-is-a-list": r"annotation 1 of image 1: 'category_id' is \[7\]",
    "fuzz-06-box-of-text": r"annotation 1 of image 1: 'bbox' is \['1', '2', '3', '4'\]",
    "fuzz-07-box-infinite": r"annotation 1 of image 1: 'bbox' is \[2, 3, inf, 9\]",
    "fuzz-09-rle-without-counts": r"annotation 4 of image 1: .* need 'size' .* and 'counts'",
    "fuzz-11-images-is-a-number": r"images: 1 is not a list",
    "fuzz-13-doctor-file-name-surrogate": r"image 3: 'file_name' is '\\ud800'",
    "fuzz-15-lvis-negatives-no-list": r"image 1: 'neg_category_ids' is 1",
    "fuzz-16-area-of-text": r"annotation 1 of image 1: 'area' is 'abc'",
    "fuzz-70-polygon-nan": r"annotation 1 of image 1: 'segmentation' has the coordinate nan",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused_by_file_entry_and_value(case, tmp_path):
    truth = CASES / case / "truth.json"
    register_open_vocab_dataset("x", truth, tmp_path, base=["cat", "red cup"], novel=["striped ball"])
    with pytest.raises(DataError, match=f"{case}.truth.json.*{DAMAGED[case]}"):
        DatasetCatalog.get("x")


def test_a_file_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 20_000)
    register_open_vocab_dataset("x", tmp_path / "deep.json", tmp_path, base=["cat"])
    with pytest.raises(DataError, match="deep.json is nested too deeply"):
        DatasetCatalog.get("x")


def test_classes_that_the_file_lacks_name_the_file(coco, tmp_path):
    (tmp_path / "all.json").write_text(json.dumps(coco))
    register_open_vocab_dataset("x", tmp_path / "all.json", tmp_path, base=["horses"])
    with pytest.raises(DataError, match="categories of .*all.json lack 'horses'"):
        DatasetCatalog.get("x")
