import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from denserc.evaluation.scoring.average_precision import MEASURES, Backend, Shape, score_detections
from denserc.structures import ConfigurationError, DataError
from tests.evaluation import generated
from tests.paths import DATA

SAMPLE = DATA / "data/coco_eval_sample"


def reference(truth, found, shape, max_dets=100):
    """pycocotools as its manual uses it: the six AP figures in percent, and precision per class."""
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = copy.deepcopy(truth)
        api.createIndex()
        found = copy.deepcopy(found)
        for detection in found if shape is Shape.MASKS else ():
            detection.pop("bbox", None)
        evaluation = COCOeval(api, api.loadRes(found), shape.value)
        evaluation.params.maxDets = [1, 10, 100] if max_dets == 100 else [1, max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
        if max_dets != 100:  # summarize() looks for 100
            precision = evaluation.eval["precision"][..., 0, -1]
            return np.array([100 * precision[precision > -1].mean()])
        evaluation.summarize()
    return np.where(evaluation.stats[:6] < 0, np.nan, 100 * evaluation.stats[:6])


def percent(value):
    """The LVIS API's figure as ours: percent, and NaN instead of -1 where there is nothing to find."""
    return pytest.approx(float("nan") if value < 0 else 100 * value, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize("backend", list(Backend))
def test_equals_pycocotools_on_generated_sets(seed, shape, backend):
    truth = generated.ground_truth(seed)
    found = generated.detections(truth, seed, masks=shape is Shape.MASKS)
    scores = score_detections(truth, found, category_ids=generated.CATEGORY_IDS, shape=shape, backend=backend)
    ours = [scores.mean(measure) for measure in MEASURES]
    np.testing.assert_allclose(ours, reference(truth, found, shape), rtol=0, atol=1e-9)
    assert np.isnan(scores.measures[-1]).all()  # the class without instances
    assert 0 < scores.mean("AP") < 100


@pytest.mark.parametrize("shape", list(Shape))
def test_every_class_equals_pycocotools_alone_on_that_class(shape):
    """Class by class and area by area, where a mean could hide a swap; a class without objects of a size is NaN."""
    truth = generated.ground_truth(4, images=9)
    found = generated.detections(truth, 4, masks=shape is Shape.MASKS)
    scores = score_detections(truth, found, category_ids=generated.CATEGORY_IDS, shape=shape)
    for label, category in enumerate(generated.CATEGORY_IDS[:-1]):
        own = {**truth, "annotations": [a for a in truth["annotations"] if a["category_id"] == category]}
        expected = reference(own, [d for d in found if d["category_id"] == category], shape)
        np.testing.assert_allclose(scores.measures[label], expected, rtol=0, atol=1e-9)
    assert np.isnan(scores.measures[:-1]).any() and not np.isnan(scores.measures[:-1, 0]).any()


@pytest.mark.parametrize("backend", list(Backend))
def test_equals_pycocotools_at_another_detection_limit(backend):
    truth = generated.ground_truth(9)
    found = generated.detections(truth, 9)
    scores = score_detections(truth, found, category_ids=generated.CATEGORY_IDS, max_dets=2, backend=backend)
    np.testing.assert_allclose(scores.mean("AP"), reference(truth, found, Shape.BOXES, 2)[0], rtol=0, atol=1e-9)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the COCO API's samples are not at hand")
@pytest.mark.parametrize("backend", list(Backend))
@pytest.mark.parametrize("shape, file", [(Shape.BOXES, "bbox"), (Shape.MASKS, "segm")])
def test_equals_pycocotools_on_the_coco_sample(shape, file, backend):
    truth = json.loads((SAMPLE / "instances_val2014_100.json").read_text())
    found = json.loads((SAMPLE / f"instances_val2014_fake{file}100_results.json").read_text())
    scores = score_detections(
        truth, found, category_ids=[c["id"] for c in truth["categories"]], shape=shape, backend=backend
    )
    ours = [scores.mean(measure) for measure in MEASURES]
    np.testing.assert_allclose(ours, reference(truth, found, shape), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed, max_dets", [(0, 300), (1, 300), (2, 3)])
@pytest.mark.parametrize("shape", list(Shape))
def test_equals_the_lvis_api(seed, max_dets, shape, monkeypatch, tmp_path):
    monkeypatch.setattr(np, "float", float, raising=False)  # the lvis package predates NumPy 2
    from lvis import LVIS, LVISEval, LVISResults

    truth = generated.ground_truth(seed, federated=True)
    found = generated.detections(truth, seed, masks=shape is Shape.MASKS)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    scores = score_detections(
        truth, found, category_ids=generated.CATEGORY_IDS, shape=shape, max_dets=max_dets, federated=True
    )
    for detection in found if shape is Shape.MASKS else ():
        detection.pop("bbox")
    api = LVIS(str(tmp_path / "truth.json"))
    evaluation = LVISEval(api, LVISResults(api, found, max_dets=max_dets), shape.value)
    evaluation.run()
    expected = evaluation.get_results()
    for measure in MEASURES:
        assert scores.mean(measure) == percent(expected[measure])
    letters = np.array([c["frequency"] for c in truth["categories"]])
    for letter in "rcf":
        assert scores.mean("AP", letters == letter) == percent(expected[f"AP{letter}"])


@pytest.mark.parametrize("shape", list(Shape))
def test_perfect_detections_score_100_and_none_score_0(shape):
    truth = generated.ground_truth(3)
    masks = shape is Shape.MASKS
    best = score_detections(truth, generated.perfect(truth, masks), category_ids=generated.CATEGORY_IDS, shape=shape)
    assert best.mean("AP") == pytest.approx(100.0)
    for backend in Backend:
        nothing = score_detections(truth, [], category_ids=generated.CATEGORY_IDS, shape=shape, backend=backend)
        assert nothing.mean("AP") == 0.0 and nothing.detections.sum() == 0


def test_arguments_are_not_changed_and_ids_may_start_at_zero():
    truth = generated.ground_truth(3)
    for annotation in truth["annotations"]:
        annotation["id"] -= 1
    found = generated.perfect(truth)
    before = copy.deepcopy((truth, found))
    scores = score_detections(truth, found, category_ids=generated.CATEGORY_IDS)
    assert (truth, found) == before
    assert scores.mean("AP") == pytest.approx(100.0)


def test_order_of_the_vocabulary_is_kept():
    truth = generated.ground_truth(1)
    found = generated.detections(truth, 1)
    forward = score_detections(truth, found, category_ids=generated.CATEGORY_IDS)
    backward = score_detections(truth, found, category_ids=generated.CATEGORY_IDS[::-1])
    np.testing.assert_array_equal(forward.measures, backward.measures[::-1])
    np.testing.assert_array_equal(forward.instances, backward.instances[::-1])


def test_what_does_not_fit_is_refused():
    truth = generated.ground_truth(1)
    with pytest.raises(DataError, match="images that the ground truth does not hold"):
        stray = {"image_id": 999, "category_id": 7, "bbox": [0, 0, 5, 5], "score": 1.0}
        score_detections(truth, [stray], category_ids=generated.CATEGORY_IDS)
    with pytest.raises(DataError, match=r"\[1234\]"):
        score_detections(truth, [], category_ids=[1234])
    with pytest.raises(DataError, match="segmentation"):
        score_detections(truth, generated.perfect(truth), category_ids=generated.CATEGORY_IDS, shape=Shape.MASKS)
    with pytest.raises(ConfigurationError, match="denserc"):
        score_detections(truth, [], category_ids=[7], backend=Backend.REFERENCE, federated=True)
    with pytest.raises(DataError, match="LVIS"):
        score_detections(truth, [], category_ids=[7], federated=True)
    with pytest.raises(ConfigurationError, match="pycocotools"):
        Backend.named("fast")


def test_objects_without_a_mask_leave_the_others_scores_alone():
    truth = generated.ground_truth(1)
    found = generated.detections(truth, 1, masks=True)
    alone = {(a["image_id"], a["category_id"]) for a in truth["annotations"]}
    added = [{**truth["annotations"][0], "id": 1000, "image_id": 5, "category_id": c} for c in generated.CATEGORY_IDS]
    assert not alone & {(5, c) for c in generated.CATEGORY_IDS}  # image 5 is empty
    found = [d for d in found if d["image_id"] != 5]
    expected = score_detections(truth, found, category_ids=generated.CATEGORY_IDS, shape=Shape.MASKS)
    extra = [{**found[0], "image_id": 5, "category_id": a["category_id"], "score": 2.0} for a in added]
    mixed = {**truth, "annotations": [*truth["annotations"], *({**a, "segmentation": []} for a in added)]}
    given = {"category_ids": generated.CATEGORY_IDS, "shape": Shape.MASKS}
    scores = score_detections(mixed, [*found, *extra], **given)
    np.testing.assert_array_equal(scores.measures, expected.measures)
    np.testing.assert_array_equal(scores.instances, expected.instances)
    for backend in (Backend.FASTER, Backend.REFERENCE):
        with pytest.raises(ConfigurationError, match="needs the backend 'denserc'"):
            score_detections(mixed, found, **given, backend=backend)
    bare = {**truth, "annotations": [{**a, "segmentation": None} for a in truth["annotations"]]}
    with pytest.raises(DataError, match="The data set has no 'segmentation'"):
        score_detections(bare, found, **given)
