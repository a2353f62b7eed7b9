"""The reader of annotation entries: what is taken, repaired, refused, and that the fast path follows the rules."""

import copy
import json
import math
import random
import re

import pytest
from PIL import Image

from denserc.data.datasets import entries
from denserc.data.datasets.entries import AnnotationContent, checked_content, inspect_content, read_annotations
from denserc.data.datasets.entry_faults import FAULTS, REPAIRS
from denserc.data.datasets.entry_rules import EntryRules
from denserc.structures import DataError

SQUARE = [[2, 3, 10, 3, 10, 12, 2, 12]]
RUNS = {"size": [24, 32], "counts": [30, 20, 718]}


@pytest.fixture
def content():
    """Two images, two classes, three objects: with a polygon, with run lengths, without a mask."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 24, "width": 32} for i in (1, 2)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 3, 8, 9], "area": 72, "segmentation": SQUARE},
            {"id": 2, "image_id": 2, "category_id": 8, "bbox": [1, 1, 20, 20], "iscrowd": 1, "segmentation": RUNS},
            {"id": 3, "image_id": 2, "category_id": 8, "bbox": [10.5, 4, 6, 6]},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "red cup"}],
    }


def repaired(content, **options):
    """{check: count} of the repairs; nothing may be refused."""
    inspection = inspect_content(content, **options)
    assert not inspection.faults, inspection.faults
    return {check: tally.count for check, tally in inspection.repairs.items()}, inspection.content


def test_valid_entries_are_the_files_own_objects(content):
    before = copy.deepcopy(content)
    inspection = inspect_content(content)
    assert not inspection.faults and not inspection.repairs and content == before
    for kind in ("images", "annotations", "categories"):
        assert all(a is b for a, b in zip(inspection.content[kind], content[kind], strict=True))


def test_checked_content_is_not_checked_again(content):
    checked = checked_content(content)
    assert isinstance(checked, AnnotationContent) and checked_content(checked) is checked


FLAGS = [(None, 0), (False, 0), ("0", 0), (0.0, 0), (True, 1), ("1", 1), (1.0, 1)]


@pytest.mark.parametrize("given, taken", FLAGS)
@pytest.mark.parametrize("name", ["iscrowd", "ignore"])
def test_flags_of_other_types_are_read(content, name, given, taken):
    content["annotations"][0][name] = given
    counts, checked = repaired(content)
    assert counts == {"flags-read": 1}
    assert checked["annotations"][0][name] == taken and type(checked["annotations"][0][name]) is int


MASKS = {
    "flat polygon": (SQUARE[0], "polygons-nested", SQUARE),
    "points": ([[2, 3], [10, 3], [10, 12]], "polygons-nested", [[2, 3, 10, 3, 10, 12]]),
    "list of points": ([[[2, 3], [10, 3], [10, 12]]], "polygons-nested", [[2, 3, 10, 3, 10, 12]]),
    "two points": ([[2, 3, 10, 12]], "polygons-degenerate", None),
    "odd number": ([[2, 3, 10, 12, 5, 6, 7]], "polygons-degenerate", None),
    "one of two": ([SQUARE[0], [1, 2]], "polygons-degenerate", SQUARE),
    "empty polygon": ([[]], "polygons-degenerate", None),
    "empty object": ({}, "masks-empty", None),
    "empty text": ("", "masks-empty", None),
}


@pytest.mark.parametrize("kind", MASKS)
def test_harmless_masks_are_repaired_and_keep_their_box(content, kind):
    given, check, taken = MASKS[kind]
    content["annotations"][0]["segmentation"] = given
    counts, checked = repaired(content)
    assert counts == {check: 1} and checked["annotations"][0].get("segmentation") == taken
    assert checked["annotations"][0]["bbox"] == [2, 3, 8, 9]


@pytest.mark.parametrize("absent", [None, []])
def test_no_mask_is_no_fault(content, absent):
    content["annotations"][0]["segmentation"] = absent
    assert repaired(content)[0] == {}


def test_null_area_is_as_absent(content):
    content["annotations"][0]["area"] = None
    counts, checked = repaired(content)
    assert counts == {"area-null": 1} and "area" not in checked["annotations"][0]


def test_ids_of_digits_and_fractions_are_numbers(content):
    for image in content["images"]:
        image["id"] = f"00000{image['id']}"
    content["annotations"][0].update(image_id="000001", category_id=7.0)
    counts, checked = repaired(content)
    assert counts == {"ids-as-text": 3, "ids-as-fractions": 1}
    assert [image["id"] for image in checked["images"]] == [1, 2]
    assert checked["annotations"][0]["image_id"] == 1 and type(checked["annotations"][0]["category_id"]) is int


def test_sizes_of_digits_are_numbers(content):
    content["images"][0].update(height="24", width=32.0)
    counts, checked = repaired(content)
    assert counts == {"sizes-as-text": 2} and checked["images"][0]["height"] == 24
    assert type(checked["images"][0]["width"]) is int


@pytest.mark.parametrize("absent", [("height",), ("width",), ("height", "width")])
def test_absent_sizes_are_those_of_the_upright_picture(content, tmp_path, absent):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (24, 32)).save(tmp_path / "1.png", exif=exif)
    for name in absent:
        content["images"][0][name] = None
    counts, checked = repaired(content, image_root=tmp_path)
    assert counts == {"sizes-absent": 1}
    assert (checked["images"][0]["height"], checked["images"][0]["width"]) == (24, 32)


def test_absent_sizes_matter_only_where_pictures_are_read(content, tmp_path):
    del content["images"][0]["height"]
    for root in (None, tmp_path):
        assert "malformed-images" in inspect_content(content, root).faults
        assert repaired(content, image_root=root, bare=True)[0] == {}


def test_scoring_needs_neither_names_nor_files(content):
    bare = {
        "images": [{"id": 1}],
        "categories": [{"id": 7}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}],
    }
    assert repaired(bare, bare=True)[0] == {}
    assert set(inspect_content(bare).faults) == {"malformed-images", "malformed-categories"}


def test_the_same_image_twice_is_read_once(content):
    content["images"].append(dict(content["images"][0]))
    counts, checked = repaired(content)
    assert counts == {"image-repeated": 1} and len(checked["images"]) == 2
    content["images"][-1]["file_name"] = "3.png"
    assert "image-id-twice" in inspect_content(content).faults


def test_a_root_category_does_not_count_as_a_class(content):
    for category in content["categories"]:
        category["supercategory"] = "cat"
    content["categories"].insert(0, {"id": 0, "name": "cat", "supercategory": "none"})
    counts, checked = repaired(content)
    assert counts == {"category-is-root": 1} and [c["id"] for c in checked["categories"]] == [7, 8]
    content["annotations"][2]["category_id"] = 0
    assert "category-name-twice" in inspect_content(content).faults


def put(kind, **changes):
    return lambda content: content[kind][0].update(changes)


def drop(kind, name):
    return lambda content: content[kind][0].pop(name)


def entry(kind, value):
    return lambda content: content[kind].__setitem__(0, value)


NOT_A_BOX = [None, 5, "1,2,3,4", [], [1, 2, 3], [1, 2, 3, 4, 5], [None, 2, 3, 4], ["1", "2", "3", "4"], [True, 2, 3, 4]]
NOT_A_BOX += [[1, 2, math.nan, 4], [1, 2, math.inf, 4], [1, 2, 3, 1e9], [10**400, 2, 3, 4], [[1, 2, 3, 4]], {"x": 1}]
NOT_A_MASK = [True, 5, math.nan, "polygon", [None], [["1"] * 6], [[1, 2, None, 4, 5, 6]], [[1, 2, math.nan, 4, 5, 6]]]
NOT_A_MASK += [[[1, 2, math.inf, 4, 5, 6]], [[1, 2, 1e9, 4, 5, 6]], [[1, 2, 2**31, 4, 5, 6]], [[[[1, 2, 3, 4, 5, 6]]]]]
NOT_A_MASK += [[[True] * 6], [SQUARE[0], 5], {"counts": [768]}, {"size": [24, 32]}, {"size": [32, 24], "counts": [768]}]
NOT_A_MASK += [
    {"size": [24, 32], "counts": counts} for counts in (None, 7, [], [767], [769, -1], [1.5], ["768"], "", "x")
]
NOT_AN_ID = [None, True, 1.5, math.nan, math.inf, 2**53, -(2**53), 10**30, "", "frame_1", " 1", "1.0", "٣", [1], {}]
REFUSED = (
    [("box-malformed", put("annotations", bbox=value)) for value in NOT_A_BOX[1:]]
    + [("malformed-annotations", put("annotations", bbox=None)), ("malformed-annotations", drop("annotations", "bbox"))]
    + [("box-negative", put("annotations", bbox=value)) for value in ([1, 2, -3, 4], [1, 2, 3, -0.5])]
    + [("mask-malformed", put("annotations", segmentation=value)) for value in NOT_A_MASK]
    + [("crowd-flag", put("annotations", iscrowd=value)) for value in (2, -1, "yes", "", [], [0], 0.5, math.nan)]
    + [("area-malformed", put("annotations", area=v)) for v in ("72", True, [72], -1, math.nan, math.inf, 10**400)]
    + [("malformed-annotations", put("annotations", image_id=value)) for value in NOT_AN_ID]
    + [("malformed-annotations", put("annotations", category_id=value)) for value in NOT_AN_ID]
    + [("malformed-annotations", put("annotations", id=value)) for value in ([], {}, True)]
    + [("unknown-image", put("annotations", image_id=9)), ("unknown-category", put("annotations", category_id=9))]
    + [("unknown-category", put("annotations", category_id="9"))]
    + [("malformed-images", put("images", id=value)) for value in NOT_AN_ID]
    + [("malformed-images", put("images", height=v)) for v in (0, -24, True, 24.5, "x", [24], 2**40, math.nan)]
    + [("malformed-images", put("images", height=10**6, width=10**6))]
    + [("malformed-images", put("images", file_name=v)) for v in ("", 5, ["1.png"], "\ud800", "a\0b")]
    + [("malformed-images", drop("images", "file_name")), ("malformed-images", put("images", file_name=None))]
    + [("malformed-images", put("images", neg_category_ids=v)) for v in (1, "1", {}, [None], [[1]], [True], ["a"])]
    + [("malformed-categories", put("categories", id=value)) for value in NOT_AN_ID]
    + [("malformed-categories", put("categories", name=v)) for v in (None, "", " ", 7, ["cat"], True, "a\ud800")]
    + [("malformed-categories", put("categories", frequency=value)) for value in (1, ["f"], True)]
    + [("category-id-twice", put("categories", id=8)), ("category-name-twice", put("categories", name="red cup "))]
    + [(f"malformed-{kind}", entry(kind, value)) for kind in entries.KINDS for value in (None, 1, "x", [])]
    + [(f"malformed-{kind}", lambda c, k=kind, v=v: c.update({k: v})) for kind in entries.KINDS for v in (5, "x", {})]
    + [("no-images", lambda c: c.update(images=None)), ("no-categories", lambda c: c.update(categories=None))]
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_cannot_be_used_is_refused(content, number):
    check, damage = REFUSED[number]
    damage(content)
    inspection = inspect_content(content)
    assert check in inspection.faults and check in FAULTS, inspection.faults
    with pytest.raises(DataError, match=re.escape("all.json, ")) as refused:
        checked_content(content, "all.json", bare=False)
    assert len(str(refused.value)) < 900


def test_the_error_names_file_entry_field_value_and_remedy(content, tmp_path):
    content["annotations"][1]["bbox"] = [None, 1, 20, 20]
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as refused:
        read_annotations(tmp_path / "all.json")
    for part in ("all.json, annotations[1], annotation 2 of image 2", "'bbox' is [None, 1, 20, 20]", "four", "Write ["):
        assert part in str(refused.value)


def test_repairs_are_one_warning_with_their_numbers(content, caplog):
    content["annotations"][0]["iscrowd"] = content["annotations"][2]["iscrowd"] = None
    content["annotations"][2]["area"] = None
    checked_content(content, "all.json")
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "all.json" in record.getMessage()
    assert f"2 {REPAIRS['flags-read'][0]}" in record.getMessage() and '1 "area"' in record.getMessage()


@pytest.mark.parametrize("ids", [("1", 2), (1, "2")])
def test_ids_of_two_kinds_are_told_by_one_of_each(content, ids):
    for image, number in zip(content["images"], ids, strict=True):
        image["id"] = number
    (tally,) = inspect_content(content).faults.values()
    assert tally.count == 1 and "'1'" in tally.examples[0] or "'2'" in tally.examples[0]
    assert "mixed" in tally.examples[0] and "images[0]" in tally.examples[0] and "images[1]" in tally.examples[0]


@pytest.mark.parametrize("content_of_a_file", [None, 5, "x", [], [1], {}, {"images": []}, True])
def test_content_that_is_no_annotation_file_is_refused(content_of_a_file):
    assert inspect_content(content_of_a_file).faults
    with pytest.raises(DataError, match="The ground truth"):
        checked_content(content_of_a_file)


VALUES = (
    None, True, 0, 1, -1, 7, "7", 7.0, 1.5, math.nan, math.inf, 1e9, 2**60, 10**400, "", "x", [], [[]], [1, 2, 3, 4],
    [1.5, 2, 3, math.nan], SQUARE, SQUARE[0], [[1, 2, 3, 4]], [[True] * 6], [[0, 1, 0, 1, 0, 1]], RUNS, {}, (1, 2),
)  # fmt: skip


def test_the_fast_path_takes_only_what_the_rules_leave_alone():
    fields = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation")
    plain = 0
    for seed in range(4000):
        rng = random.Random(seed)
        annotation = {"id": 1, "image_id": 7, "category_id": 7, "bbox": [1, 2, 3, 4], "segmentation": SQUARE}
        for _ in range(rng.randint(1, 2)):
            name = rng.choice(fields)
            annotation.pop(name, None) if rng.random() < 0.2 else annotation.update({name: rng.choice(VALUES)})
        if not entries._is_plain([annotation], frozenset({7}), frozenset({7})):
            continue
        plain += 1
        rules = EntryRules(bare=False, image_root=None)
        rules.sizes[7] = (24, 32)
        rules.categories.add(7)
        (taken,) = rules.entries("annotations", [(0, annotation)])
        assert taken is annotation and not rules.faults and not rules.repairs, annotation
    assert plain > 300


IMAGE_VALUES = (
    None,
    True,
    0,
    1,
    24,
    "24",
    24.0,
    10**6,
    2**40,
    2**60,
    "",
    "a.png",
    "\ud800",
    "a\0b",
    "ä.png",
    [],
    [7],
    ["7"],
    [2**60],
)


def test_the_fast_path_of_images_takes_only_what_the_rules_do():
    fields, plain = ("id", "file_name", "coco_url", "height", "width", "neg_category_ids"), 0
    for seed in range(3000):
        rng = random.Random(seed)
        images = [{"id": i, "file_name": f"{i}.png", "height": 24, "width": 32} for i in (1, 2)]
        for _ in range(rng.randint(1, 2)):
            image, name = rng.choice(images), rng.choice(fields)
            image.pop(name, None) if rng.random() < 0.2 else image.update({name: rng.choice(IMAGE_VALUES)})
        sizes = entries._plain_sizes(images)
        if sizes is None:
            continue
        plain += 1
        rules = EntryRules(bare=False, image_root=None)
        taken = rules.entries("images", list(enumerate(images)))
        assert all(a is b for a, b in zip(taken, images, strict=True)) and not rules.faults and not rules.repairs, (
            images
        )
        assert sizes == rules.sizes
    assert plain > 200


def test_blocks_keep_the_order_and_number_of_annotations(content, monkeypatch):
    monkeypatch.setattr(entries, "_BLOCK", 2)
    content["annotations"] = [{**content["annotations"][2], "id": i} for i in range(7)]
    content["annotations"][3]["iscrowd"] = "0"
    content["annotations"][6]["bbox"] = [1]
    inspection = inspect_content(content)
    assert [a["id"] for a in inspection.content["annotations"]] == [0, 1, 2, 3, 4, 5]
    assert inspection.faults["box-malformed"].examples[0].startswith("annotations[6], annotation 6 of image 2")


def test_nonsense_of_any_kind_never_ends_in_a_traceback(content):
    for seed in range(1500):
        damaged, rng = copy.deepcopy(content), random.Random(seed)
        for _ in range(rng.randint(1, 3)):
            entry = rng.choice(damaged[rng.choice(entries.KINDS)])
            if isinstance(entry, dict) and entry:
                entry[rng.choice(list(entry))] = rng.choice(VALUES)
        for bare in (False, True):
            inspection = inspect_content(damaged, bare=bare)
            if not inspection.faults:
                again = inspect_content(dict(inspection.content), bare=bare)
                assert not again.faults and not again.repairs, "what was repaired is valid"
