"""Split files: the right images and annotations, whatever the order of the categories."""

import copy
import json

import pytest

from denserc.data.datasets.splits import (
    CLASSES,
    OV_COCO_TRAIN,
    OV_COCO_VAL,
    count,
    lvis_norare_split,
    ov_train_split,
    ov_val_split,
    read_classes,
    split_by_images,
    write_lvis_norare,
)
from denserc.data.datasets.splits import write_ov_coco_splits as write_splits
from denserc.structures import DataError, Vocabulary


@pytest.fixture
def classes(base, novel) -> Vocabulary:
    return Vocabulary((*base, *novel), novel=novel)


def ids(items: list[dict]) -> list[int]:
    return sorted(item["id"] for item in items)


def test_train_keeps_base_annotations_and_their_images(coco, classes):
    split = ov_train_split(coco, classes)
    assert ids(split["annotations"]) == [1, 4, 6]
    assert ids(split["images"]) == [10, 30]  # 20 shows only a novel class, 40 none of the split, 50 nothing


def test_val_keeps_all_classes_of_the_split(coco, classes):
    split = ov_val_split(coco, classes)
    assert ids(split["annotations"]) == [1, 2, 3, 4, 6]
    assert ids(split["images"]) == [10, 20, 30]


def test_both_list_the_same_categories_by_id(coco, classes):
    train, val = ov_train_split(coco, classes), ov_val_split(coco, classes)
    assert train["categories"] == val["categories"]
    assert [c["id"] for c in train["categories"]] == [1, 7, 17, 18, 19]


def test_crowds_stay_and_stay_flagged(coco, classes):
    counts = count(ov_train_split(coco, classes))
    assert (counts.images, counts.annotations, counts.crowds) == (2, 3, 1)
    assert counts.per_class == {"person": 2, "train": 0, "cat": 0, "dog": 0, "horse": 1}


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_order_in_the_file_does_not_matter(coco, classes, key):
    shuffled = copy.deepcopy(coco)
    shuffled[key].reverse()
    for derive in (ov_train_split, ov_val_split):
        first, second = derive(coco, classes), derive(shuffled, classes)
        assert ids(first["images"]) == ids(second["images"])
        assert ids(first["annotations"]) == ids(second["annotations"])
        assert first["categories"] == second["categories"]


def test_names_decide_not_ids(coco, classes):
    """Swapping the names of two categories swaps what is novel."""
    swapped = copy.deepcopy(coco)
    of = {c["name"]: c for c in swapped["categories"]}
    of["cat"]["name"], of["person"]["name"] = "person", "cat"
    assert ids(ov_train_split(swapped, classes)["annotations"]) == [2, 6]


def test_input_is_left_alone(coco, classes):
    before = copy.deepcopy(coco)
    ov_train_split(coco, classes)
    ov_val_split(coco, classes)
    assert coco == before


def test_absent_class_is_named_with_the_closest_one(coco, novel):
    with pytest.raises(DataError, match="'persons' .did you mean 'person'"):
        ov_train_split(coco, Vocabulary(("persons", *novel), novel=novel))


def test_expected_counts_are_asserted_with_both_numbers(coco, classes):
    counts = count(ov_val_split(coco, classes))
    counts.require(images=3, annotations=5)
    with pytest.raises(DataError, match="3 images, but 4,836 were expected"):
        counts.require(images=4836)


def test_files_are_written_with_their_classes(coco, classes, tmp_path):
    source = tmp_path / "instances.json"
    source.write_text(json.dumps(coco))
    counts = write_splits(tmp_path / "out", classes, train_json=source, val_json=source)
    assert counts[OV_COCO_TRAIN] == count(json.loads((tmp_path / "out" / OV_COCO_TRAIN).read_text()))
    assert counts[OV_COCO_VAL].images == 3
    assert read_classes(tmp_path / "out" / CLASSES) == classes
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([OV_COCO_TRAIN, OV_COCO_VAL, CLASSES])


def test_unexpected_counts_write_nothing(coco, classes, tmp_path):
    source = tmp_path / "instances.json"
    source.write_text(json.dumps(coco))
    with pytest.raises(DataError, match="2 images, but 107,761"):
        write_splits(tmp_path / "out", classes, train_json=source, expected_train_images=107_761)
    assert not (tmp_path / "out").exists()


def test_lvis_norare_drops_rare_annotations_alone(coco, tmp_path):
    for category, frequency in zip(coco["categories"], "rfcrfc", strict=True):
        category["frequency"] = frequency  # rare: dog (18) and cat (17)
    split = lvis_norare_split(coco)
    assert ids(split["annotations"]) == [1, 4, 5, 6]
    assert split["images"] == coco["images"] and split["categories"] == coco["categories"]
    source = tmp_path / "lvis.json"
    source.write_text(json.dumps(coco))
    assert write_lvis_norare(tmp_path / "norare.json", source).annotations == 4
    assert json.loads((tmp_path / "norare.json").read_text()) == split


def test_lvis_needs_frequencies(coco):
    with pytest.raises(DataError, match="frequency"):
        lvis_norare_split(coco)


def test_a_list_of_results_is_refused(classes):
    with pytest.raises(DataError, match="annotations"):
        ov_train_split([{"image_id": 1}], classes)


@pytest.mark.parametrize("share, numbers", [(0.4, (3, 2)), (0.01, (4, 1)), (0.99, (1, 4)), (0, (5, 0)), (1, (0, 5))])
def test_images_are_shared_out_with_their_annotations(coco, share, numbers):
    train, val = split_by_images(coco, share, seed=3)
    assert (len(train["images"]), len(val["images"])) == numbers
    assert ids(train["images"] + val["images"]) == ids(coco["images"])
    assert ids(train["annotations"] + val["annotations"]) == ids(coco["annotations"])
    for part in (train, val):
        shown = {image["id"] for image in part["images"]}
        assert {a["image_id"] for a in part["annotations"]} <= shown
        assert part["categories"] == coco["categories"]


def test_the_draw_depends_on_the_seed_alone(coco):
    shuffled = {**coco, "images": coco["images"][::-1]}
    draws = {seed: ids(split_by_images(coco, 0.4, seed=seed)[1]["images"]) for seed in range(8)}
    assert draws[3] == ids(split_by_images(shuffled, 0.4, seed=3)[1]["images"])
    assert len({tuple(draw) for draw in draws.values()}) > 1


def test_impossible_shares_are_refused(coco):
    with pytest.raises(DataError, match="between 0 and 1; got 20"):
        split_by_images(coco, 20)
    with pytest.raises(DataError, match="1 images cannot be split"):
        split_by_images({**coco, "images": coco["images"][:1]}, 0.5)
