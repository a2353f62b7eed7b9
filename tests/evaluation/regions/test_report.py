"""Reports of region classification: their tables and files, and the published protocol rule by rule."""

import csv
import json
import math
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventStorage
from PIL import Image

from denserc.config import get_denserc_config, read_config
from denserc.construction import build_dense_model
from denserc.data.datasets.panoptic import PanopticRegions, register_panoptic_regions
from denserc.evaluation import RegionLimits, RegionReport, check_region_sets, evaluate_dense_model
from denserc.evaluation.regions.inputs import mask_cells
from denserc.evaluation.regions.pooling import AccuracyCounter
from denserc.structures import ConfigurationError, DataError
from tests.evaluation import region_scenes
from tests.evaluation.region_scenes import NAMES, measure, scene
from tests.paths import CONFIGS, ROOT


def counter(*rows) -> AccuracyCounter:
    """Build a counter from rows (label, is a thing, regions, right in top 1, right in top 5)."""
    made = AccuracyCounter(len(NAMES))
    for label, things, *counts in rows:
        made.counts[int(things), label] = torch.tensor(counts)
    return made


@pytest.fixture()
def report():
    boxes = counter((0, True, 4, 1, 2), (1, True, 100, 100, 100), (4, False, 3, 0, 1))
    masks = counter((0, True, 4, 3, 4), (1, True, 100, 50, 100), (4, False, 3, 3, 3))
    is_thing = [True] * 3 + [False] * 4
    return RegionReport(NAMES, {"boxes": boxes, "masks": masks}, {"input_size": 64, "pooled_map": "raw"}, is_thing)


def test_every_class_has_a_row(report):
    rows = report.class_rows()
    assert [row["class"] for row in rows] == list(NAMES)
    assert [row["kind"] for row in rows] == ["thing"] * 3 + ["stuff"] * 4
    assert [row["regions"] for row in rows] == [4, 100, 0, 0, 3, 0, 0]
    first = {"boxes_top1": "25.00", "boxes_top5": "50.00", "masks_top1": "75.00", "masks_top5": "100.00"}
    assert rows[0] == {"class": "red ball", "kind": "thing", "regions": 4, **first}
    assert rows[2]["boxes_top1"] == rows[2]["masks_top5"] == ""


def test_things_and_stuff_are_means_over_classes_with_regions(report):
    """Four and a hundred regions weigh the same; classes without any weigh nothing."""
    assert report.metrics == {
        "boxes_top1": (25 + 100) / 2, "boxes_top5": (50 + 100) / 2,
        "stuff_boxes_top1": 0.0, "stuff_boxes_top5": pytest.approx(100 / 3),
        "thing_masks_top1": (75 + 50) / 2, "thing_masks_top5": 100.0,
        "stuff_masks_top1": 100.0, "stuff_masks_top5": 100.0,
    }  # fmt: skip
    printed = report.summary()
    assert "input size 64, pooled map raw" in printed
    assert [line.split("|")[1:6] for line in printed.splitlines() if "thing boxes" in line] == [
        [" thing boxes     ", "                      2 ", "       104 ", "   62.50 ", "   75.00 "]
    ]
    assert "grey road" in report.class_table()


def test_files_are_whole_and_hold_no_nan(report, tmp_path):
    report.write(tmp_path / "new", "regions")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["regions_classes.csv", "regions_results.json"]
    with (tmp_path / "new" / "regions_classes.csv").open(newline="") as file:
        assert [dict(row) for row in csv.DictReader(file)] == [
            {key: str(value) for key, value in row.items()} for row in report.class_rows()
        ]
    nothing = RegionReport(NAMES, {"boxes": counter()}, {"input_size": 64})
    assert all(math.isnan(value) for value in nothing.metrics.values())
    nothing.write(tmp_path, "none")
    content = json.loads((tmp_path / "none_results.json").read_text())
    assert content == {"protocol": {"input_size": 64}, "metrics": dict.fromkeys(nothing.metrics)}


def test_two_processes_count_what_one_counts(tmp_path):
    """Three images for two processes: none is repeated to make the shares equal."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    root, file = ROOT, tmp_path / "metrics.json"
    processes = [
        subprocess.Popen(
            [sys.executable, region_scenes.__file__, str(rank), "2", port, str(file)],
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    alone = measure([scene(seed) for seed in range(3)])
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    together = json.loads(file.read_text())
    assert together["metrics"] == alone.metrics and together["rows"] == alone.class_rows()
    assert together["images"] == 3 and together["regions"] == 15
    assert 0 < alone.metrics["thing_masks_top1"] < 100  # could differ


# The published protocol, rule by rule.


def test_classes_are_sorted_by_category_id(tmp_path):
    categories = [
        {"id": i, "name": n, "isthing": t} for i, n, t in ((92, "banner", 0), (1, "person", 1), (18, "dog", 1))
    ]
    (tmp_path / "p.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    entries = PanopticRegions(tmp_path / "p.json", tmp_path, tmp_path)
    assert entries.classes == ("person", "dog", "banner") and entries.is_thing == (True, True, False)


def test_areas_of_boxes_are_limited_at_both_ends_inclusively():
    mask = np.ones((2048, 2048), dtype=bool)
    sides = {(8, 8): True, (7.9, 8): False, (4, 16): True, (1024, 1024): True, (512, 2048): True, (1025, 1024): False}
    for (w, h), kept in sides.items():
        thing = {"label": 0, "isthing": True, "bbox": (0, 0, w, h), "mask": mask}
        assert len(RegionLimits().choose([thing])) == kept, (w, h)
    small = np.zeros((64, 64), dtype=bool)
    small[:8, :8] = True
    assert len(RegionLimits().choose([{"label": 0, "isthing": False, "mask": small}])) == 1
    small[:, 7] = False  # the stuff box is 7 x 8 now
    assert not RegionLimits().choose([{"label": 0, "isthing": False, "mask": small}])


def test_a_hundred_segments_are_looked_at_skipped_ones_counted():
    mask = np.ones((16, 16), dtype=bool)
    small, large = ({"label": 0, "isthing": True, "bbox": (0, 0, s, s), "mask": mask} for s in (4, 16))
    assert len(RegionLimits().choose([large] * 120)) == 100
    assert len(RegionLimits().choose([small] * 60 + [large] * 60)) == 40
    assert len(RegionLimits().choose([large | {"iscrowd": True}])) == 1  # crowds stay


def test_boxes_of_things_are_the_files_and_of_stuff_the_masks():
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 5:25] = True
    segment = {"label": 0, "isthing": True, "bbox": (1.5, 2.5, 33.0, 34.0), "mask": mask}
    assert RegionLimits().choose([segment])[0].box == (1.5, 2.5, 33.0, 34.0)
    assert RegionLimits().choose([segment | {"isthing": False}])[0].box == (5.0, 10.0, 25.0, 30.0)


def test_masks_are_pooled_at_the_maps_resolution():
    mask = np.zeros((1, 32, 64), dtype=bool)
    mask[0, 17, 33] = True
    cells = mask_cells(mask, scale=1.0, side=64, grid=(8, 8), coverage=0.0)
    assert cells.shape == (1, 8, 8) and cells.nonzero().tolist() == [[0, 2, 4]]


def test_crops_of_things_are_enlarged_and_cut_at_the_image():
    seen = []

    def teacher(crops):
        seen.append(crops)
        return torch.ones(len(crops), 7)

    entry = scene(0)
    for scale in (1.0, 1.5):
        found = measure([entry], crop_encoder=teacher, crop_size=32, thing_crop_scale=scale)
        assert found.protocol["thing_crop_scale"] == scale
    plain, large = seen
    assert not torch.equal(plain[:3], large[:3]) and torch.equal(plain[3:], large[3:])  # three things, two of stuff


def test_the_pooled_map_is_that_of_the_construction():
    """CLIPSelf pools unit vectors, DeCLIP the raw map; an evaluation pools what its training pooled."""
    clipself, denserc = (read_config(CONFIGS / "distill" / f"{name}_vitb16.yaml") for name in ("clipself", "denserc"))
    assert clipself.MODEL.ENCODER.POOLED_MAP == "normalized" and denserc.MODEL.ENCODER.POOLED_MAP == "raw"
    assert measure([scene(0)], normalize=True).protocol["pooled_map"] == "normalized"
    assert measure([scene(0)], normalize=False).protocol["pooled_map"] == "raw"


@pytest.fixture()
def registered(tmp_path):
    class Entries(list):
        classes, is_thing = NAMES, [True] * 3 + [False] * 4

    DatasetCatalog.register("report_test_set", lambda: Entries(scene(seed) for seed in range(2)))
    yield "report_test_set"
    DatasetCatalog.remove("report_test_set")


def test_evaluations_during_a_training_have_files_of_their_own(registered, tmp_path, caplog):
    cfg = get_denserc_config()
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.ENCODER.NAME", "DenseRC-Miniature", "MODEL.ENCODER.RANDOM_INIT", True]
        + ["DATASETS.TEST", (registered,), "INPUT.SIZE", 64]
        + ["TEST.REGIONS.CROPS", True]
        + ["MODEL.VOCABULARY.TEMPLATES", "plain", "OUTPUT_DIR", str(tmp_path)]
    )
    built = build_dense_model(cfg)
    model = SimpleNamespace(encoder=built.encoder.eval(), text=built.text.eval())
    with EventStorage(49), caplog.at_level("INFO"):
        during = evaluate_dense_model(cfg, model)
    after = evaluate_dense_model(cfg, model)
    assert during.keys() == {"region_classification"}
    assert during["region_classification"] == pytest.approx(after["region_classification"])
    folder = tmp_path / "inference" / registered
    stems = ("region_classification", "region_classification_step0000050")
    assert {p.name for p in folder.iterdir()} == {
        f"{s}_{kind}" for s in stems for kind in ("classes.csv", "results.json")
    }
    content = json.loads((folder / "region_classification_results.json").read_text())
    assert content["protocol"] == {
        "data_set": registered, "templates": "plain", "input_size": 64, "pooled_map": "raw", "classes": 7, "images": 2,
        "regions": 10, "box_area": "8^2..1024^2", "segments_per_image": 100, "mask_coverage": 0.0,
        "crop_size": 64, "thing_crop_scale": 1.5,
    }  # fmt: skip
    header = (folder / "region_classification_classes.csv").read_text().splitlines()[0]
    kinds = ",".join(f"{kind}_top{k}" for kind in ("boxes", "masks", "crops") for k in (1, 5))
    assert header == f"class,kind,regions,{kinds}"
    assert "templates plain" in caplog.text


def test_sets_that_cannot_be_evaluated_are_refused_before(tmp_path, forget_registered):
    cfg = get_denserc_config()
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    cfg.DATASETS.TEST = ("boxes_only",)
    with pytest.raises(ConfigurationError, match="boxes_only of DATASETS.TEST.*it is not registered"):
        check_region_sets(cfg)
    DatasetCatalog.register("boxes_only", lambda: [{"file_name": "a.jpg"}])
    with pytest.raises(ConfigurationError, match="boxes_only.*needs a panoptic set"):
        check_region_sets(cfg)
    file = tmp_path / "panoptic.json"
    file.write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 3}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}],
        "categories": [{"id": 1, "name": "sky"}],
    }))  # fmt: skip
    register_panoptic_regions("boxes_only", file, [tmp_path], tmp_path)
    with pytest.raises(DataError, match="boxes_only.*1 of 1 images do not exist: .*a.jpg"):
        check_region_sets(cfg)
    Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="a.png"):
        check_region_sets(cfg)
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    check_region_sets(cfg)
