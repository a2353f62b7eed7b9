"""Generated sets have the given sizes, and all compared evaluators find the same figures on them."""

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks import detection_postprocess, evaluation_scale
from benchmarks.generated_sets import SETS, write_set
from tests.paths import ROOT


@pytest.mark.parametrize("name, share", [("coco_val", 0.004), ("lvis_val", 0.001)])
def test_a_share_of_a_set_has_its_classes_and_its_detections(tmp_path, name, share):
    size = SETS[name]
    write_set(tmp_path, size, share=share)
    truth, found = (json.loads((tmp_path / f"{file}.json").read_text()) for file in ("truth", "results"))
    assert len(truth["images"]) == round(size.images * share) and len(truth["categories"]) == size.classes
    assert set(Counter(d["image_id"] for d in found).values()) == {size.detections}
    for image in truth["images"] if size.federated else ():
        present = {a["category_id"] for a in truth["annotations"] if a["image_id"] == image["id"]}
        assert not present & set(image["neg_category_ids"])
        assert set(image["not_exhaustive_category_ids"]) <= present


@pytest.mark.parametrize("name, share, shape", [("coco_val", 0.004, "bbox"), ("lvis_val", 0.001, "bbox")])
def test_all_ways_find_the_same_figures(tmp_path, monkeypatch, name, share, shape):
    monkeypatch.setattr(np, "float", float, raising=False)
    write_set(tmp_path, SETS[name], share=share)
    figures = {way: run(tmp_path, SETS[name].federated, shape) for way, run in evaluation_scale.WAYS.items()}
    for way, values in figures.items():
        np.testing.assert_allclose(values, figures["denserc"], rtol=0, atol=1e-9, err_msg=way)
    assert 5 < figures["denserc"][0] < 95


@pytest.mark.slow
def test_masks_too(tmp_path):
    write_set(tmp_path, SETS["coco_val"], share=0.002, masks=True)
    figures = [run(tmp_path, False, "segm") for run in evaluation_scale.WAYS.values()]
    np.testing.assert_allclose(figures[1:], [figures[0]] * 2, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_both_scripts_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / "configs/ovlvis_vitb16.yaml")
    report = detection_postprocess.main(["--quick", "--classes", "30", "--config-file", config, "--device", "cpu"])
    assert 0 < report["share"]["median"] < 1
    report = evaluation_scale.main(["--sets", "coco_val", "--share", "0.002", "--repeats", "1"])
    ours, theirs = report["rows"]
    assert theirs["largest_difference"] < 1e-9 and theirs["ratio"]["median"] > 0 and ours["peak_gib"] > 0
    assert json.loads((tmp_path / "output/benchmarks/evaluation_scale.json").read_text()) == report
