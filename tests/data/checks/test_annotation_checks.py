"""Each check finds the fault that was planted for it, and nothing in a healthy set."""

import copy
import random

import pytest

from denserc.data.checks import check_annotations


def test_a_healthy_set_has_nothing_to_complain_about(content, make):
    assert check_annotations(make(content)) == []


def _set(entry, **changes):
    entry.update(changes)


PLANTED = {
    # entries
    "no-images": (lambda c: c["images"].clear(), "error"),
    "no-categories": (lambda c: c.update(categories=None), "error"),
    "malformed-images": (lambda c: c["images"][1].pop("file_name"), "error"),
    "malformed-annotations": (lambda c: c["annotations"][1].pop("bbox"), "error"),
    "malformed-categories": (lambda c: _set(c["categories"][1], id="2"), "error"),
    "unknown-image": (lambda c: _set(c["annotations"][0], image_id=99), "error"),
    "unknown-category": (lambda c: _set(c["annotations"][0], category_id=99), "error"),
    "image-id-twice": (lambda c: c["images"].append({**c["images"][0], "file_name": "2.png"}), "error"),
    "image-file-twice": (lambda c: c["images"].append({**c["images"][0], "id": 9}), "warning"),
    "annotation-id-twice": (lambda c: _set(c["annotations"][0], id=2), "warning"),
    "annotation-twice": (lambda c: c["annotations"].append({**c["annotations"][0], "id": 99}), "warning"),
    "crowd-flag": (lambda c: _set(c["annotations"][0], iscrowd=2), "error"),
    "flags-read": (lambda c: _set(c["annotations"][0], iscrowd="0"), "warning"),
    "sizes-absent": (lambda c: c["images"][1].pop("height"), "warning"),
    "sizes-as-text": (lambda c: _set(c["images"][1], height="30"), "warning"),
    "ids-as-text": (lambda c: _set(c["annotations"][0], category_id="1"), "warning"),
    "crowds": (lambda c: _set(c["annotations"][0], iscrowd=1), "note"),
    # boxes
    "box-malformed": (lambda c: _set(c["annotations"][0], bbox=[1, 2, 3, float("nan")]), "error"),
    "box-negative": (lambda c: _set(c["annotations"][0], bbox=[9, 9, -3, 4]), "error"),
    "box-empty": (lambda c: _set(c["annotations"][0], bbox=[9, 9, 0, 4]), "warning"),
    "box-beside-image": (lambda c: _set(c["annotations"][0], bbox=[50, 2, 5, 5]), "error"),
    "box-outside": (lambda c: _set(c["annotations"][0], bbox=[44, 2, 8, 5]), "warning"),
    "area-malformed": (lambda c: _set(c["annotations"][0], area="abc"), "error"),
    "area-null": (lambda c: _set(c["annotations"][0], area=None), "warning"),
    "area": (lambda c: _set(c["annotations"][0], area=1200, segmentation=[]), "warning"),
    # masks
    "mask-absent": (lambda c: c["annotations"][0].pop("segmentation"), "warning"),
    "mask-malformed": (lambda c: _set(c["annotations"][0], segmentation=[[1, 2, None, 4, 5, 6]]), "error"),
    "polygons-degenerate": (lambda c: _set(c["annotations"][0], segmentation=[[1, 2, 3, 4]]), "warning"),
    "polygons-nested": (lambda c: _set(c["annotations"][0], segmentation=[4, 3, 16, 3, 16, 13, 4, 13]), "warning"),
    "mask-beside-box": (lambda c: _set(c["annotations"][0], segmentation=[[40, 20, 48, 20, 48, 28]]), "warning"),
    # categories and files
    "category-id-twice": (lambda c: c["categories"].append({"id": 1, "name": "owl"}), "error"),
    "category-name-twice": (lambda c: c["categories"].append({"id": 4, "name": "robin"}), "error"),
    "category-names-alike": (lambda c: c["categories"].append({"id": 4, "name": "King fisher"}), "warning"),
    "category-blanks": (lambda c: _set(c["categories"][0], name="sparrow "), "note"),
    "category-left-out": (lambda c: c["categories"].append({"id": 4, "name": "owl"}), "note"),
    "class-absent": (lambda c: _set(c["categories"][0], name="sparow"), "error"),
    "image-absent": (lambda c: _set(c["images"][0], file_name="9.png"), "error"),
    "images-absent": (lambda c: [_set(i, file_name="x/" + i["file_name"]) for i in c["images"]], "error"),
}


@pytest.mark.parametrize("check", PLANTED)
def test_a_planted_fault_is_found(content, make, kinds, check):
    plant, severity = PLANTED[check]
    plant(content)
    findings = check_annotations(make(content))
    assert kinds(findings).get(check) == severity, findings
    finding = next(f for f in findings if f.check == check)
    assert finding.advice and finding.examples and finding.count >= 1


def test_malformed_entries_are_reported_alone(content, make, kinds):
    content["images"][0] = "1.png"
    content["annotations"][0]["bbox"] = [1, 2]
    assert kinds(check_annotations(make(content))) == {"malformed-images": "error"}


def test_a_set_without_annotations_is_checked_all_the_same(content, make, kinds):
    content["annotations"] = []
    findings = kinds(check_annotations(make(content)))
    assert findings["no-annotations"] == "warning" and findings["class-empty"] == "warning"


@pytest.mark.parametrize(
    "check, change",
    [
        ("boxes-relative", lambda x, y, w, h: [x / 50, y / 30, w / 50, h / 30]),
        ("boxes-are-corners", lambda x, y, w, h: [x + 25, y + 10, x + 25 + w / 2, y + 10 + h / 2]),
    ],
)
def test_another_format_of_all_boxes_is_named(content, make, kinds, check, change):
    for annotation in content["annotations"]:
        annotation["bbox"] = change(*annotation["bbox"])
        annotation.pop("segmentation")
    findings = kinds(check_annotations(make(content)))
    assert findings[check] == "error" and not any(name.startswith("box-") for name in findings)


def test_a_rounded_pixel_outside_is_no_fault(content, make):
    content["annotations"][0].update(bbox=[40.0, 20.0, 11.0, 11.0], area=121, segmentation=[])
    for annotation in content["annotations"]:
        annotation.pop("segmentation", None)
    assert check_annotations(make(content)) == []


def test_run_lengths_of_another_size_are_found(content, make, kinds):
    content["annotations"][0]["segmentation"] = {"size": [30, 50], "counts": [0, 1500]}
    assert check_annotations(make(content)) == []
    content["annotations"][0]["segmentation"]["size"] = [50, 30]
    assert kinds(check_annotations(make(content))) == {"mask-malformed": "error"}


def test_examples_are_few_and_the_number_is_whole(content, make):
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 7
    (finding,) = [f for f in check_annotations(make(content)) if f.check == "crowd-flag"]
    assert finding.count == 12 and len(finding.examples) == 5 and "annotation 1 of image 1" in finding.examples[0]


NONSENSE = (
    None, "x", "", -1, 0, float("inf"), float("nan"), [], {}, [[]], [["a"] * 6], [1, 2], [[1, 2, 3]], True, 2.5,
    [[1, 2, 3, 4, 5, 6], [1, 2, 3]], {"size": 1, "counts": "x"}, {"size": [1, "a"], "counts": [1]},
)  # fmt: skip


def test_no_nonsense_stops_the_doctor(content, make):
    """Malformed content of any kind is reported and does not end in a traceback."""
    for seed in range(600):
        damaged, rng = copy.deepcopy(content), random.Random(seed)
        for _ in range(rng.randint(1, 3)):
            entries = damaged[rng.choice(["images", "annotations", "categories"])]
            entry = rng.choice(entries)
            if not isinstance(entry, dict) or rng.random() < 0.05:
                entries[entries.index(entry)] = rng.choice(NONSENSE)
            else:
                entry[rng.choice(list(entry))] = rng.choice(NONSENSE)
        check_annotations(make(damaged))
