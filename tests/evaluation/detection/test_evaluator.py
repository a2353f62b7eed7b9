import csv
import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.evaluation import OvCocoEvaluator, build_evaluator
from denserc.evaluation.detection import prediction_store as store_module
from denserc.structures import ConfigurationError, DataError
from tests.evaluation import generated

NOVEL = ("class 3", "class 90")


def as_outputs(found, truth, masks=False):
    """COCO results -> what a Detectron2 model gives, image by image."""
    label = {c: i for i, c in enumerate(generated.CATEGORY_IDS)}
    for image in truth["images"]:
        mine = [d for d in found if d["image_id"] == image["id"]]
        instances = Instances((generated.SIDE, generated.SIDE))
        xywh = torch.tensor([d["bbox"] for d in mine], dtype=torch.float64).reshape(-1, 4)
        instances.pred_boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1).float())
        instances.scores = torch.tensor([d["score"] for d in mine])
        instances.pred_classes = torch.tensor([label[d["category_id"]] for d in mine], dtype=torch.int64)
        if masks:
            drawn = np.stack([generated.box_mask(d["bbox"]) for d in mine]) if mine else np.zeros((0, 160, 160), bool)
            instances.pred_masks = torch.from_numpy(drawn)
        yield {"image_id": image["id"]}, {"instances": instances}


def run(evaluator, found, truth, masks=False):
    evaluator.reset()
    for given, output in as_outputs(found, truth, masks):
        evaluator.process([given], [output])
    return evaluator.evaluate()


def test_perfect_detector_scores_100_in_every_group(registered):
    truth = generated.ground_truth(0)
    results = run(OvCocoEvaluator(registered(truth, novel=NOVEL)), generated.perfect(truth), truth)
    assert list(results) == ["ov_coco"]
    for group in ("novel", "base", "all"):
        assert results["ov_coco"][f"AP50_{group}"] == pytest.approx(100.0)
    assert not any("-" in name for name in results["ov_coco"])


def test_groups_partition_the_classes_and_all_is_the_class_mean(registered):
    truth = generated.ground_truth(0)
    blind = [d for d in generated.perfect(truth) if d["category_id"] not in (3, 90)]
    metrics = run(OvCocoEvaluator(registered(truth, novel=NOVEL)), blind, truth)["ov_coco"]
    assert metrics["AP50_novel"] == 0.0 and metrics["AP50_base"] == pytest.approx(100.0)
    # five classes have instances, two of them novel: the mean over classes, not over the two groups
    assert metrics["AP50_all"] == pytest.approx(60.0)


def test_a_set_without_novel_classes_reports_all_alone(registered):
    truth = generated.ground_truth(0)
    metrics = run(OvCocoEvaluator(registered(truth)), generated.perfect(truth), truth)["coco"]
    assert {name.split("_")[1] for name in metrics} == {"all"}


def test_saved_predictions_give_the_same_results_without_model(registered, tmp_path):
    truth = generated.ground_truth(2)
    evaluator = OvCocoEvaluator(registered(truth, novel=NOVEL), tmp_path / "out")
    first = run(evaluator, generated.detections(truth, 2), truth, masks=True)
    assert set(first) == {"ov_coco", "ov_coco_masks"}
    again = OvCocoEvaluator(registered(truth, novel=NOVEL)).evaluate_file(tmp_path / "out/coco_instances_results.json")
    assert again.keys() == first.keys()
    for task in first:
        assert again[task] == pytest.approx(first[task], nan_ok=True)


def test_label_order_does_not_change_the_figures(registered):
    truth = generated.ground_truth(2)
    found = generated.detections(truth, 2)
    one = OvCocoEvaluator(registered(truth, novel=NOVEL)).evaluate_detections(found)
    other_order = OvCocoEvaluator(registered(truth, novel=NOVEL, order=generated.CATEGORY_IDS[::-1]))
    other = other_order.evaluate_detections(found)
    assert one["ov_coco"] == pytest.approx(other["ov_coco"], abs=1e-9, nan_ok=True)


def test_tables_and_results_are_written(registered, tmp_path):
    truth = generated.ground_truth(2)
    metrics = run(OvCocoEvaluator(registered(truth, novel=NOVEL), tmp_path), generated.perfect(truth), truth)["ov_coco"]
    with (tmp_path / "ov_coco_classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [f"class {c}" for c in generated.CATEGORY_IDS]
    assert [row["class"] for row in rows if row["group"] == "novel"] == list(NOVEL)
    assert rows[-1]["AP"] == "" and rows[-1]["instances"] == "0"
    instances = sum(not a["iscrowd"] for a in truth["annotations"])
    assert sum(int(row["instances"]) for row in rows) == instances
    written = json.loads((tmp_path / "ov_coco_results.json").read_text())
    assert written["metrics"]["AP50_novel"] == pytest.approx(metrics["AP50_novel"])
    assert written["settings"]["classes"] == 6 and written["settings"]["max_detections_per_image"] == 100
    assert "generalized" in written["settings"]["protocol"]


def test_results_file_is_strict_json_when_a_group_is_empty(registered, tmp_path):
    truth = generated.ground_truth(2)
    evaluator = OvCocoEvaluator(registered(truth, novel=("class 5",)), tmp_path)  # without instances
    metrics = run(evaluator, generated.perfect(truth), truth)["ov_coco"]
    assert np.isnan(metrics["AP50_novel"])

    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    written = json.loads((tmp_path / "ov_coco_results.json").read_text(), parse_constant=refuse)
    assert written["metrics"]["AP50_novel"] is None


def test_no_detections_at_all_score_zero(registered):
    truth = generated.ground_truth(2)
    assert run(OvCocoEvaluator(registered(truth, novel=NOVEL)), [], truth)["ov_coco"]["AP_all"] == 0.0


def test_images_of_two_ranks_count_once_and_only_one_returns(registered, monkeypatch):
    truth = generated.ground_truth(4)
    found = generated.detections(truth, 4)
    whole = OvCocoEvaluator(registered(truth, novel=NOVEL))
    expected = run(whole, found, truth)
    parts = [OvCocoEvaluator(registered(truth, novel=NOVEL)) for _ in range(2)]
    for i, (given, output) in enumerate(as_outputs(found, truth)):
        parts[i % 2].process([given], [output])
        if i == 0:
            parts[1].process([given], [output])  # a sampler that pads
    monkeypatch.setattr(store_module.comm, "synchronize", lambda: None)
    monkeypatch.setattr(
        store_module.comm, "gather", lambda data, dst: [part._store._held.predictions() for part in parts]
    )
    assert parts[0].evaluate()["ov_coco"] == pytest.approx(expected["ov_coco"], abs=1e-9, nan_ok=True)
    monkeypatch.setattr(store_module.comm, "is_main_process", lambda: False)
    assert parts[1].evaluate() == {}


def test_a_label_outside_the_vocabulary_is_refused(registered):
    truth = generated.ground_truth(4)
    instances = Instances((10, 10), pred_boxes=Boxes(torch.zeros(1, 4)), scores=torch.ones(1))
    instances.pred_classes = torch.tensor([6])
    with pytest.raises(DataError, match="set_vocabulary|vocabulary"):
        OvCocoEvaluator(registered(truth)).process([{"image_id": 1}], [{"instances": instances}])


def test_images_that_were_not_run_are_said(registered, caplog):
    truth = generated.ground_truth(4)
    evaluator = OvCocoEvaluator(registered(truth))
    given, output = next(as_outputs(generated.perfect(truth), truth))
    evaluator.process([given], [output])
    with caplog.at_level("WARNING"):
        metrics = evaluator.evaluate()["coco"]
    assert "11 of 12 images were not run" in caplog.text
    assert 0 < metrics["AP_all"] < 100


def test_build_chooses_by_metadata(registered):
    coco = build_evaluator(registered(generated.ground_truth(0)), max_dets=50)
    assert coco.protocols[0].task == "coco" and coco.protocols[0].max_dets == 50
    lvis = build_evaluator(registered(generated.ground_truth(0, federated=True), evaluator_type="ov_lvis"))
    assert lvis.protocols[0].task == "ov_lvis" and lvis.protocols[0].max_dets == 300
    with pytest.raises(ConfigurationError, match="ov_coco.*ov_lvis"):
        build_evaluator(registered(generated.ground_truth(0), evaluator_type="coco"))


def test_lvis_reports_rare_common_frequent(registered):
    truth = generated.ground_truth(5, images=20, federated=True)
    evaluator = build_evaluator(registered(truth, evaluator_type="ov_lvis"))
    found = [d for d in generated.perfect(truth, masks=True) if d["category_id"] not in (7, 90)]  # the rare ones
    results = evaluator.evaluate_detections(found)
    for task in ("ov_lvis", "ov_lvis_masks"):
        assert results[task]["AP_rare"] == 0.0
        assert results[task]["AP_common"] == results[task]["AP_frequent"] == pytest.approx(100.0)
        assert results[task]["AP_all"] == pytest.approx(60.0)


def test_a_set_registered_by_name_needs_no_loading_first(tmp_path):
    truth = generated.ground_truth(0)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    base = [c["name"] for c in truth["categories"] if c["name"] not in NOVEL]
    register_open_vocab_dataset("by_name", tmp_path / "truth.json", tmp_path, base=base[::-1], novel=NOVEL)
    try:
        metrics = OvCocoEvaluator("by_name").evaluate_detections(generated.perfect(truth))["ov_coco"]
    finally:
        DatasetCatalog.remove("by_name")
        MetadataCatalog.remove("by_name")
    assert metrics["AP50_novel"] == metrics["AP50_base"] == pytest.approx(100.0)


@pytest.mark.parametrize("damage", ["scores", "pred_boxes", "pred_classes"])
def test_output_that_is_no_detection_is_refused_by_its_image(registered, damage):
    truth = generated.ground_truth(0)
    evaluator = OvCocoEvaluator(registered(truth, novel=NOVEL))
    given, output = next(iter(as_outputs(generated.perfect(truth), truth)))
    if damage == "scores":
        output["instances"].scores[0] = float("nan")
    elif damage == "pred_boxes":
        output["instances"].pred_boxes.tensor[0, 2] = float("inf")
    else:
        output["instances"].pred_classes[0] = -1
    with pytest.raises(DataError, match=f"(?i)image {given['image_id']}"):
        evaluator.process([given], [output])
