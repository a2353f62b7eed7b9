"""Predictions are written at once; a resumed evaluation ends with the same figures and files."""

import json
import shutil

import numpy as np
import pytest

from denserc.evaluation import OvCocoEvaluator
from denserc.evaluation.detection import prediction_store as store_module
from denserc.evaluation.detection.prediction_log import Collector, PredictionLog, Predictions, read_log
from denserc.evaluation.scoring.tables import Detections
from denserc.structures import ConfigurationError, DataError
from tests.evaluation import generated
from tests.evaluation.detection.test_evaluator import NOVEL, as_outputs, run
from tests.paths import FIXTURES

MASKS = [False, True]


def interrupted(evaluator, outputs, after: int) -> None:
    """The evaluator as a process leaves it that is killed after some images."""
    evaluator.reset()
    for given, output in outputs[:after]:
        evaluator.process([given], [output])


@pytest.mark.parametrize("masks", MASKS)
def test_predictions_before_a_crash_are_kept(registered, tmp_path, masks):
    truth = generated.ground_truth(2)
    name = registered(truth, novel=NOVEL)
    found = generated.detections(truth, 2)
    expected = run(OvCocoEvaluator(name, tmp_path / "whole"), found, truth, masks=masks)
    outputs = list(as_outputs(found, truth, masks))

    broken = OvCocoEvaluator(name, tmp_path / "parts")
    assert broken.begin("detector a") == frozenset()
    interrupted(broken, outputs, after=5)
    log = tmp_path / "parts/predictions_0.jsonl"
    with log.open("a") as file:
        file.write('{"image_id": 6, "category_')  # the crash came in the middle of a line

    evaluator = OvCocoEvaluator(name, tmp_path / "parts")
    finished = evaluator.begin("detector a", resume=True)
    assert finished == {given["image_id"] for given, _ in outputs[:5]}
    evaluator.reset()  # as Detectron2's loop does
    for given, output in outputs:
        if given["image_id"] not in finished:
            evaluator.process([given], [output])
    results = evaluator.evaluate()
    assert results == {task: pytest.approx(metrics, abs=0, nan_ok=True) for task, metrics in expected.items()}
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()
    assert not log.exists()  # the results file holds everything


def test_nothing_left_to_do_is_an_evaluation_too(registered, tmp_path):
    truth = generated.ground_truth(2)
    name = registered(truth, novel=NOVEL)
    found = generated.detections(truth, 2)
    outputs = list(as_outputs(found, truth))
    interrupted(OvCocoEvaluator(name, tmp_path), outputs, after=len(outputs))
    evaluator = OvCocoEvaluator(name, tmp_path)
    assert len(evaluator.begin("", resume=True)) == len(outputs)
    evaluator.reset()
    assert evaluator.evaluate() == {
        task: pytest.approx(metrics, abs=0, nan_ok=True)
        for task, metrics in run(OvCocoEvaluator(name), found, truth).items()
    }


def test_only_predictions_of_the_same_detector_are_continued(registered, tmp_path):
    truth = generated.ground_truth(2)
    name = registered(truth, novel=NOVEL)
    outputs = list(as_outputs(generated.detections(truth, 2), truth))
    first = OvCocoEvaluator(name, tmp_path)
    first.begin("detector a")
    interrupted(first, outputs, after=4)
    with pytest.raises(ConfigurationError, match="'detector a' made them.*RESUME_PREDICTIONS"):
        OvCocoEvaluator(name, tmp_path).begin("detector b", resume=True)
    anew = OvCocoEvaluator(name, tmp_path)
    assert anew.begin("detector b") == frozenset()
    results = run(anew, [], truth)  # every image, and nothing found
    assert results["ov_coco"]["AP_all"] == 0.0


def test_a_second_evaluation_forgets_the_first(registered, tmp_path):
    truth = generated.ground_truth(2)
    name = registered(truth, novel=NOVEL)
    evaluator = OvCocoEvaluator(name, tmp_path)
    evaluator.begin("", resume=True)
    first = run(evaluator, generated.perfect(truth), truth)
    assert first["ov_coco"]["AP_all"] == pytest.approx(100.0)
    assert run(evaluator, [], truth)["ov_coco"]["AP_all"] == 0.0


def test_failure_while_writing_results_keeps_the_log(registered, tmp_path, monkeypatch):
    truth = generated.ground_truth(2)
    name = registered(truth, novel=NOVEL)
    evaluator = OvCocoEvaluator(name, tmp_path)
    evaluator.begin("x")
    with monkeypatch.context() as broken:
        broken.setattr("os.replace", lambda *paths: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(evaluator, generated.perfect(truth), truth)
    again = OvCocoEvaluator(name, tmp_path)
    assert len(again.begin("x", resume=True)) == len(truth["images"])
    again.reset()
    assert again.evaluate()["ov_coco"]["AP_all"] == pytest.approx(100.0)


def test_fewer_processes_take_over_the_logs_of_more(registered, tmp_path, monkeypatch):
    truth = generated.ground_truth(4)
    name = registered(truth, novel=NOVEL)
    found = generated.detections(truth, 4)
    expected = run(OvCocoEvaluator(name), found, truth)
    outputs = list(as_outputs(found, truth))
    for rank in range(3):
        with monkeypatch.context() as other:
            other.setattr(store_module.comm, "get_rank", lambda rank=rank: rank)
            part = OvCocoEvaluator(name, tmp_path)
            part.begin("x")
            interrupted(part, outputs[rank::4], after=99)
    alone = OvCocoEvaluator(name, tmp_path)
    finished = alone.begin("x", resume=True)
    assert len(finished) == 9
    alone.reset()
    for given, output in outputs[3::4]:
        alone.process([given], [output])
    assert alone.evaluate()["ov_coco"] == pytest.approx(expected["ov_coco"], abs=0, nan_ok=True)
    assert not list(tmp_path.glob("*.jsonl"))


def table(image, *scores):
    results = [{"image_id": image, "category_id": 7, "bbox": [0.1, 0, 1 / 3, 1], "score": s} for s in scores]
    return Detections.from_results(results)


def test_a_log_gives_back_every_number_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    log, kept = PredictionLog(tmp_path / "log", "x"), Collector()
    log.begin()
    scores = rng.random((50, 3)).astype(np.float32).astype(float)
    for image, row in enumerate(scores):
        log.write(image, table(image, *row))
    log.write(77, Detections.joined([]))
    log.close()
    read_log(log.path, kept)
    predictions = kept.predictions()
    np.testing.assert_array_equal(predictions.detections.scores, scores.reshape(-1))
    assert (predictions.detections.boxes == [0.1, 0, 1 / 3, 1]).all()
    assert predictions.image_ids.tolist() == [*range(50), 77]


LINE = {"image_id": 3, "category_id": [7], "bbox": [[1, 2, 3, 4]], "score": [0.5]}


@pytest.mark.parametrize(
    "line",
    [
        '{"image_id"',
        "[3]",
        "null",
        "3",
        "[" * 100_000,
        {key: value for key, value in LINE.items() if key != "image_id"},
        {key: value for key, value in LINE.items() if key != "score"},
        {"category_id": [], "bbox": [], "score": []},
        *({**LINE, "image_id": value} for value in (None, "3", 1.5, True, [3], 2**63)),
        *({**LINE, "category_id": value} for value in (None, 7, [7, 7], ["7"], [None], [1.5], [2**53], {"7": 7})),
        *({**LINE, "bbox": value} for value in (None, [], [[1, 2, 3]], [[1, 2, 3, "4"]], [[1, 2, 3, float("nan")]])),
        *({**LINE, "score": value} for value in (0.5, [], [float("nan")], [float("inf")], ["0.5"], [True], [10**400])),
        *({**LINE, "segmentation": value} for value in ([], {}, [[[1, 2, 3, 4, 5, 6]]], [{"size": [0, 4]}])),
    ],
    ids=lambda line: str(line)[:60],
)  # fmt: skip
def test_a_damaged_line_is_named_when_the_log_is_resumed(tmp_path, line):
    log = PredictionLog(tmp_path / "log.jsonl", "x")
    log.begin()
    log.close()
    text = line if isinstance(line, str) else json.dumps(line)
    with log.path.open("a") as file:
        file.write(json.dumps(LINE) + "\n" + text + "\n" + json.dumps(LINE) + "\n")
    for attempt in (log.resume, lambda: read_log(log.path, Collector())):
        with pytest.raises(DataError, match=r"log.jsonl, line 3: .*RESUME_PREDICTIONS to False, or delete the file"):
            attempt()
    log.path.write_text(log.path.read_text().replace(text + "\n", json.dumps(LINE) + "\n"))
    assert log.resume() == [3, 3, 3]


@pytest.mark.parametrize("first", ["[]", '{"origin": 3}', "{}", "x", "null"])
def test_a_log_that_does_not_name_its_origin_is_refused(tmp_path, first):
    (tmp_path / "log").write_text(first + "\n" + json.dumps(LINE) + "\n")
    with pytest.raises((DataError, ConfigurationError), match="RESUME_PREDICTIONS"):
        PredictionLog(tmp_path / "log", "x").resume()


def test_an_image_in_two_parts_counts_once():
    def part(*tables):
        ids = [int(t.image_ids[0]) for t in tables]
        return Predictions(np.array(ids), Detections.joined(list(tables)))

    both = Predictions.merged([part(table(3, 0.1), table(1, 0.2, 0.3)), part(table(2, 0.4), table(1, 0.2, 0.3))])
    assert both.image_ids.tolist() == [1, 2, 3]
    assert both.detections.image_ids.tolist() == [1, 1, 2, 3]
    assert both.detections.scores.tolist() == [0.2, 0.3, 0.4, 0.1]


def test_the_log_of_a_case_is_refused_when_it_is_resumed(registered, tmp_path):
    name = registered(generated.ground_truth(2), novel=NOVEL)
    shutil.copy(FIXTURES / "cases" / "fuzz-34-log-line-without-image" / "predictions_0.jsonl", tmp_path)
    with pytest.raises(DataError, match=r"predictions_0.jsonl, line 2: its 'image_id' is None.*RESUME_PREDICTIONS"):
        OvCocoEvaluator(name, tmp_path).begin("x", resume=True)
