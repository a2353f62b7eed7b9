import json

import pytest

from denserc.structures import ConfigurationError, DataError
from denserc.tools.region_entries import entries_with_regions, segments_of


def test_instances_of_detection_records_become_segments():
    record = {
        "file_name": "a.jpg",
        "height": 10,
        "width": 20,
        "annotations": [
            {"bbox": [2, 3, 4, 5], "category_id": 1},
            {"bbox": [0, 0, 10, 10], "category_id": 2, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
        ],
    }
    box, polygon = segments_of(record)
    assert box["mask"].sum() == 20 and box["mask"][3:8, 2:6].all() and box["bbox"] == (2, 3, 6, 8)
    assert polygon["mask"].shape == (10, 20) and polygon["mask"].sum() == 100 and polygon["label"] == 2
    with pytest.raises(DataError, match="regions are needed"):
        segments_of({"file_name": "a.jpg"})


def test_images_are_spread_evenly_over_their_set(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 8} for i in range(10)]
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 3, "name": "cat"}]}))
    some = entries_with_regions("", str(tmp_path), str(file), 3)
    assert [entry["image_id"] for entry in some] == [0, 3, 6]
    assert len(entries_with_regions("", str(tmp_path), str(file), 0)) == 10
    assert len(entries_with_regions("", str(tmp_path), str(file), 99)) == 10


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(ConfigurationError, match="coco_2017_panoptic_val_regions"):
        entries_with_regions("coco_2017_panoptic_val", "", "", 1)
