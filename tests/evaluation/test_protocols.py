"""LVIS's two protocols, and an evaluator's figures against the reference libraries on the same files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from denserc.evaluation import DetectionEvaluator, LvisProtocol, OvCocoEvaluator, OvLvisEvaluator, build_evaluator
from denserc.evaluation.detection.open_vocabulary import frequency_protocol
from denserc.evaluation.scoring.average_precision import MEASURES, Shape, score_detections
from denserc.structures import ConfigurationError, DataError
from denserc.structures.atomic import partial_files
from tests.evaluation import generated
from tests.evaluation.detection.test_evaluator import NOVEL, run
from tests.evaluation.scoring.test_average_precision import percent, reference
from tests.paths import DATA

LVIS_SAMPLE = DATA / "data/lvis_sample/lvis_val_100.json"
LETTERS = {"rare": "r", "common": "c", "frequent": "f"}


@pytest.fixture
def lvis_reference(monkeypatch, tmp_path):
    """reference(truth, detections, shape, fixed) -> results of the lvis package; fixed: detections kept per class."""
    monkeypatch.setattr(np, "float", float, raising=False)  # the package predates NumPy 2
    from lvis import LVIS, LVISEval, LVISResults

    def evaluate(truth, found, shape, *, fixed=None, max_dets=300):
        (tmp_path / "lvis.json").write_text(json.dumps(truth))
        found = [dict(d) for d in found]
        for detection in found:
            detection.pop("bbox" if shape is Shape.MASKS else "segmentation", None)
        if fixed is not None:  # as Dave et al. do around the package: their limit is not one of its settings
            by_class = {}
            for detection in found:
                by_class.setdefault(detection["category_id"], []).append(detection)
            best = [sorted(d, key=lambda one: one["score"], reverse=True)[:fixed] for d in by_class.values()]
            found, max_dets = [d for part in best for d in part], -1
        api = LVIS(str(tmp_path / "lvis.json"))
        evaluation = LVISEval(api, LVISResults(api, found, max_dets=max_dets), shape.value)
        evaluation.params.max_dets = max_dets
        evaluation.run()
        return evaluation.get_results()

    return evaluate


@pytest.mark.parametrize("fixed", [2, 10_000])
@pytest.mark.parametrize("shape", list(Shape))
def test_fixed_ap_equals_the_lvis_package(lvis_reference, shape, fixed):
    truth = generated.ground_truth(1, federated=True)
    found = generated.detections(truth, 1, masks=True)
    expected = lvis_reference(truth, found, shape, fixed=fixed)
    protocol = frequency_protocol(truth, generated.CATEGORY_IDS, LvisProtocol.FIXED, max_dets_of_class=fixed)
    scores = score_detections(
        truth, found, category_ids=generated.CATEGORY_IDS, shape=shape, max_dets=protocol.max_dets,
        max_dets_of_class=protocol.max_dets_of_class, federated=True,
    )  # fmt: skip
    for measure in MEASURES:
        assert scores.mean(measure) == percent(expected[measure])
    for group, letter in LETTERS.items():
        assert scores.mean("AP", protocol.groups[group]) == percent(expected[f"AP{letter}"])


def test_only_standard_ap_has_a_limit_per_image():
    """One image full of good detections of one class, outscored by another class's false ones."""
    side = 20
    boxes = [[float(x), float(y), 10.0, 10.0] for x in range(0, 400, side) for y in range(0, 400, side)]  # 400
    truth = {
        "images": [{"id": 1, "neg_category_ids": [2], "not_exhaustive_category_ids": []}],
        "annotations": [{"id": i + 1, "image_id": 1, "category_id": 1, "bbox": b} for i, b in enumerate(boxes)],
        "categories": [{"id": 1, "name": "a", "frequency": "f"}, {"id": 2, "name": "b", "frequency": "r"}],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": b, "score": 0.5} for b in boxes]
    found += [{"image_id": 1, "category_id": 2, "bbox": b, "score": 0.9} for b in boxes]

    def ap(kind):
        protocol = frequency_protocol(truth, (1, 2), kind)
        limits = {"max_dets": protocol.max_dets, "max_dets_of_class": protocol.max_dets_of_class}
        return score_detections(truth, found, category_ids=(1, 2), federated=True, **limits).mean("AP")

    assert ap(LvisProtocol.STANDARD) == 0.0
    assert ap(LvisProtocol.FIXED) == pytest.approx(100.0)


def test_both_protocols_are_reported_apart_and_say_their_limits(registered, tmp_path):
    truth = generated.ground_truth(5, images=20, federated=True)
    name = registered(truth, evaluator_type="ov_lvis")
    evaluator = build_evaluator(name, tmp_path, lvis_protocols=["standard", "fixed"])
    results = evaluator.evaluate_detections(generated.detections(truth, 5, masks=True))
    assert list(results) == ["ov_lvis", "ov_lvis_masks", "ov_lvis_fixed", "ov_lvis_fixed_masks"]
    alone = build_evaluator(name).evaluate_detections(generated.detections(truth, 5, masks=True))
    assert list(alone) == ["ov_lvis", "ov_lvis_masks"]
    assert all(alone[task] == pytest.approx(results[task], abs=0, nan_ok=True) for task in alone)
    standard = json.loads((tmp_path / "ov_lvis_results.json").read_text())["settings"]
    fixed = json.loads((tmp_path / "ov_lvis_fixed_masks_results.json").read_text())["settings"]
    assert (standard["max_detections_per_image"], standard["max_detections_per_class"]) == (300, None)
    assert (fixed["max_detections_per_image"], fixed["max_detections_per_class"]) == (None, 10_000)
    assert fixed["detections_that_count"] == "10000 a class" and "fixed" in fixed["protocol"]
    assert fixed["classes_with_fewer_detections_than_the_limit"] == fixed["classes"] == 6
    header, first = (tmp_path / "ov_lvis_fixed_masks_classes.csv").read_text().splitlines()[:2]
    assert header.endswith("protocol,detections_that_count") and first.endswith("ov_lvis_fixed_masks,10000 a class")


def test_dropping_detections_beyond_every_limit_has_no_effect(registered, monkeypatch):
    truth = generated.ground_truth(5, images=20, federated=True)
    found = generated.detections(truth, 5)
    for i, detection in enumerate(found):
        detection["score"] = (i * 37 % 1000) / 1000  # no ties, which the order of images would break
    name = registered(truth, evaluator_type="ov_lvis")

    def evaluator():
        built = build_evaluator(name, lvis_protocols=["standard", "fixed"], max_dets=2)
        standard, fixed = built.protocols
        protocols = (standard, replace(fixed, max_dets_of_class=5))
        return DetectionEvaluator(
            ground_truth=truth, names=built.names, category_ids=built.category_ids, protocols=protocols
        )

    everything = evaluator()
    expected = run(everything, found, truth)
    monkeypatch.setattr("denserc.evaluation.detection.prediction_log.FORGET_FROM", 0)
    sparing = evaluator()
    assert run(sparing, found, truth) == {task: pytest.approx(m, abs=0, nan_ok=True) for task, m in expected.items()}
    held = [len(one._store) for one in (everything, sparing)]
    assert held[0] == len(found) and 30 <= held[1] < 90
    usual = build_evaluator(name)
    run(usual, found, truth)
    assert len(usual._store) == len(found)  # without fixed AP the file holds everything


def test_unknown_or_no_protocols_are_refused(registered):
    name = registered(generated.ground_truth(0, federated=True), evaluator_type="ov_lvis")
    with pytest.raises(ConfigurationError, match="'standard', 'fixed'"):
        OvLvisEvaluator(name, protocols=["fast"])
    with pytest.raises(ConfigurationError, match="empty"):
        OvLvisEvaluator(name, protocols=[])


@pytest.mark.skipif(not LVIS_SAMPLE.is_file(), reason="the LVIS API's sample is not at hand")
@pytest.mark.parametrize("shape", list(Shape))
def test_equals_the_lvis_package_on_its_sample(lvis_reference, shape):
    """100 images and 1,230 categories of LVIS v0.5, most of them absent; detections are shaken ground truth."""
    truth = json.loads(LVIS_SAMPLE.read_text())
    ids = [c["id"] for c in truth["categories"]]
    rng = np.random.default_rng(0)
    size = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    found = []
    for annotation in truth["annotations"]:
        x, y, w, h = np.array(annotation["bbox"]) + rng.normal(0, 0.05, 4) * np.array(annotation["bbox"][2:] * 2)
        box = [float(x), float(y), float(max(w, 1)), float(max(h, 1))]
        category = annotation["category_id"] if rng.random() < 0.8 else int(rng.choice(ids))
        mask = np.zeros(size[annotation["image_id"]], dtype=bool)
        mask[max(int(y), 0) : int(y + h) + 1, max(int(x), 0) : int(x + w) + 1] = True
        found.append(
            {
                "image_id": annotation["image_id"],
                "category_id": category,
                "bbox": box,
                "score": round(float(rng.random()), 2),
                "segmentation": generated.rle(mask),
            }
        )
    for fixed, limits in ((None, {"max_dets": 5}), (3, {"max_dets": None, "max_dets_of_class": 3})):
        expected = lvis_reference(truth, found, shape, fixed=fixed, max_dets=5)
        scores = score_detections(truth, found, category_ids=ids, shape=shape, federated=True, **limits)
        for measure in MEASURES:
            assert scores.mean(measure) == percent(expected[measure]), (fixed, measure)
        assert scores.mean("AP") > 1


@pytest.mark.parametrize("seed", [0, 6])
def test_evaluator_of_boxes_and_masks_equals_pycocotools(registered, tmp_path, seed):
    truth = generated.ground_truth(seed)
    evaluator = OvCocoEvaluator(registered(truth, novel=NOVEL), tmp_path)
    results = run(evaluator, generated.detections(truth, seed), truth, masks=True)
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    for task, shape in (("ov_coco", Shape.BOXES), ("ov_coco_masks", Shape.MASKS)):
        ours = [results[task][f"{measure}_all"] for measure in MEASURES]
        np.testing.assert_allclose(ours, reference(truth, written, shape), rtol=0, atol=1e-9)
        novel = {**truth, "annotations": [a for a in truth["annotations"] if a["category_id"] in (3, 90)]}
        found = [d for d in written if d["category_id"] in (3, 90)]
        ours = [results[task][f"{measure}_novel"] for measure in MEASURES]
        np.testing.assert_allclose(ours, reference(novel, found, shape), rtol=0, atol=1e-9)


def test_a_failure_while_scoring_loses_no_prediction(registered, tmp_path, monkeypatch):
    truth = generated.ground_truth(2)
    name = registered(truth, novel=NOVEL)
    with monkeypatch.context() as broken:
        broken.setattr("denserc.evaluation.detection.evaluator.score_detections", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(OvCocoEvaluator(name, tmp_path), generated.detections(truth, 2), truth)
    again = OvCocoEvaluator(name).evaluate_file(tmp_path / "coco_instances_results.json")
    expected = run(OvCocoEvaluator(name), generated.detections(truth, 2), truth)
    assert again["ov_coco"] == pytest.approx(expected["ov_coco"], abs=1e-9, nan_ok=True)


def test_failure_while_writing_keeps_the_previous_files(registered, tmp_path, monkeypatch):
    truth = generated.ground_truth(2)
    evaluator = OvCocoEvaluator(registered(truth, novel=NOVEL), tmp_path)
    run(evaluator, generated.perfect(truth), truth)
    before = {path.name: path.read_text() for path in tmp_path.glob("*oco_*")}
    assert before.keys() == {"coco_instances_results.json", "ov_coco_classes.csv", "ov_coco_results.json"}
    monkeypatch.setattr("os.replace", lambda *paths: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(evaluator, generated.detections(truth, 2), truth)
    with pytest.raises(ZeroDivisionError):
        evaluator.evaluate_detections([])
    assert {path.name: path.read_text() for path in tmp_path.glob("*oco_*")} == before
    assert not list(partial_files(tmp_path)), "unfinished files stay behind"


@pytest.mark.parametrize(
    "content, said",
    [("{}", "start with '{'"), ("[1]", "entry 0 is no detection"), ("[", "cut short"), (None, "do not exist")],
)
def test_files_that_are_no_predictions_are_refused(registered, tmp_path, content, said):
    path = tmp_path / "predictions.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=said):
        OvCocoEvaluator(registered(generated.ground_truth(0))).evaluate_file(path)
