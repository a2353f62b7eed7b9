"""Label conversions, against the tables recorded from CAT-Seg's scripts and by hand."""

import json

import numpy as np
import pytest

from denserc.data.datasets import label_maps
from denserc.data.vocabulary.published import ade20k_full_ids, vocabulary
from denserc.structures import DataError
from tests.paths import FIXTURES

TABLES = json.loads((FIXTURES / "segmentation" / "label_conversions.json").read_text())

# Conversion, recorded table, and the values that official files have.
RECORDED = [
    ("coco_stuff", "coco_stuff", [*range(182), 255]),
    ("ade20k_150", "ade150", range(151)),
    ("voc_20", "voc20", [*range(21), 255]),
    ("voc_20_background", "voc20b", [*range(21), 255]),
]


@pytest.mark.parametrize("name, table, values", RECORDED)
def test_conversions_equal_the_recorded_tables(name, table, values):
    labels = np.array([list(values)], dtype=np.uint8)
    converted = getattr(label_maps, name)(labels)
    assert converted.dtype == np.uint8
    assert converted[0].tolist() == [TABLES[table][value] for value in values]


def test_pascal_context_59_equals_the_recorded_table():
    ids = [0] + [i for i, label in enumerate(TABLES["pc59"]) if label != 255]
    assert label_maps.context_59(np.array([ids]))[0].tolist() == [TABLES["pc59"][i] for i in ids]
    assert label_maps.context_60(np.array([ids]))[0].tolist() == list(range(60))


def test_context_labels_mean_their_names():
    names, all_names = vocabulary("pascal_context_59").names, vocabulary("pascal_context_459").names
    for category in (2, 284, 397, 458):
        label = int(label_maps.context_59(np.array([[category]]))[0, 0])
        assert names[label] == {"table": "diningtable"}.get(all_names[category - 1], all_names[category - 1])
        assert label_maps.context_459(np.array([[category]]))[0, 0] == category - 1


def test_ade20k_847_from_red_and_green():
    assert list(ade20k_full_ids()) == TABLES["ade847_ids_in_class_order"]
    ids = [2978, 312, 3148, 1]  # wall, building, the last, one that is not a class
    rgb = np.array([[[i // 256 * 10 + 3, i % 256, 77] for i in ids]], dtype=np.uint8)
    converted = label_maps.ade20k_847(rgb)
    assert converted.dtype == np.uint16 and converted[0].tolist() == [0, 1, 846, 65535]


def test_coco_object_counts_unlabeled_pixels_as_background():
    values = [0, 89, 11, 91, 181, 255]  # person, toothbrush, nothing, banner, wood, unlabeled
    assert label_maps.coco_object(np.array([values]))[0].tolist() == [1, 80, 0, 0, 0, 0]


def test_stuff_labels_mean_their_names():
    names = vocabulary("coco_stuff").names
    converted = label_maps.coco_stuff(np.array([[0, 89, 91, 181]]))[0]
    assert [names[i] for i in converted] == ["person", "toothbrush", "banner", "wood"]


def test_voc_21_keeps_its_values():
    assert label_maps.voc_21(np.array([[0, 20, 255]]))[0].tolist() == [0, 20, 255]


def test_cityscapes_keeps_19_of_34_ids():
    converted = label_maps.cityscapes(np.arange(34)[None])[0]
    assert sorted(converted[converted != 255].tolist()) == list(range(19))
    names = vocabulary("cityscapes").names
    assert [names[converted[i]] for i in (7, 19, 24, 33)] == ["road", "traffic light", "person", "bicycle"]
    assert (converted[[0, 9, 14, 15, 16, 29, 30]] == 255).all()


@pytest.mark.parametrize(
    "name, value",
    [("ade20k_150", 255), ("voc_20", 21), ("voc_21", 100), ("coco_stuff", 200), ("context_59", 1), ("context_60", 460),
     ("context_459", 0), ("cityscapes", 255), ("coco_object", 183)],
)  # fmt: skip
def test_values_that_official_files_lack_are_refused(name, value):
    with pytest.raises(DataError, match=rf"values \[{value}\] do not occur"):
        getattr(label_maps, name)(np.array([[value]]))
