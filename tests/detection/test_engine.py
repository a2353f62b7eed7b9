"""Training, resuming and evaluating from configurations: a random miniature CLIP on drawn squares."""

import json
import logging
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.structures import BoxMode

from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.detection import load_detector
from denserc.detection.data import RecordMapper, evaluation_augmentations, training_mapper
from denserc.detection.engine import MAPPERS, run
from denserc.detection.modeling.options import Resampling
from denserc.engine import StepTrainer
from denserc.engine.stream import PositionSampler, TrainingStream
from denserc.evaluation import DetectionEvaluator, detection_evaluators
from denserc.openvocab import ModelCheckpointer, build_train_loader
from denserc.openvocab.engine import train as train_model
from denserc.openvocab.engine import with_device
from denserc.structures import CheckpointError, ConfigurationError, DataError, WeightsMismatchError
from denserc.tools.evaluate import evaluate as evaluate_files
from tests.detection.squares import CLASSES, Recorder, saved, train
from tests.stopping import assert_same_state, stop_in_step


def test_a_resumed_run_is_the_uninterrupted_run_to_the_bit(config, tmp_path):
    whole = config()
    results = train(whole)
    assert results["squares_val"]["squares"]["images"] == 6

    resumed = config(OUTPUT_DIR=str(tmp_path / "resumed"))
    shutil.copy(os.path.join(whole.OUTPUT_DIR, "model_0000001.pth"), resumed.OUTPUT_DIR)
    with open(os.path.join(resumed.OUTPUT_DIR, "last_checkpoint"), "w") as file:
        file.write("model_0000001.pth")
    assert train(resumed, resume=True) == results
    first, second, start = saved(whole), saved(resumed), saved(whole, "model_0000001")
    for key, value in first["model"].items():
        assert torch.equal(value, second["model"][key]), key
    for key, state in first["trainer"]["optimizer"]["state"].items():
        assert all(
            torch.equal(value, second["trainer"]["optimizer"]["state"][key][name]) for name, value in state.items()
        )
    changed = {key for key, value in first["model"].items() if not torch.equal(value, start["model"][key])}
    assert changed and not any(key.startswith(("backbone.encoder", "text_tower")) for key in changed)
    assert any("tfevents" in name for name in os.listdir(whole.OUTPUT_DIR))


@pytest.fixture()
def trained(config):
    """The configuration of a finished run of two steps, and its results."""
    cfg = config(SOLVER__MAX_ITER=2)
    return cfg, train(cfg)


def test_a_detector_is_usable_by_path_alone(config, trained, tmp_path):
    cfg, results = trained
    path = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    # Neither encoder weights nor RANDOM_INIT: everything comes from the file.
    alone = config(
        MODEL__WEIGHTS=path, MODEL__ENCODER__RANDOM_INIT=False, DATASETS__TRAIN=(), OUTPUT_DIR=str(tmp_path / "alone")
    )
    assert run(alone, evaluator_factory=Recorder, eval_only=True) == results

    model = load_detector(path)
    model.set_vocabulary(["a square", "a ring"])
    state = saved(cfg)["model"]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    found = model([{"image": torch.zeros(3, 40, 64, dtype=torch.uint8)}])[0]["instances"]
    assert found.image_size == (40, 64)


def test_weights_of_another_configuration_are_refused(config, trained):
    cfg, _ = trained
    path = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    with pytest.raises(WeightsMismatchError, match="pyramid"):
        run(config(MODEL__WEIGHTS=path, MODEL__FPN__OUT_CHANNELS=16), evaluator_factory=Recorder, eval_only=True)
    other = build_model(config(MODEL__CONSTRUCTION__NAME="clipself"))
    with pytest.raises(CheckpointError, match="construction"):
        ModelCheckpointer(other).load(path)


def test_evaluation_options_override_those_of_the_checkpoint(config, trained):
    cfg, _ = trained
    weights = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")

    def total(**changes):
        usual = {"MODEL__WEIGHTS": weights, "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0}
        results = run(config(**usual, **changes), evaluator_factory=Recorder, eval_only=True)
        return results["squares_val"]["squares"]["total"]

    totals = {"usual": total()}
    for change in (
        {"MODEL__FVIT__FUSION__BASE": 0.9},
        {"MODEL__FVIT__FUSION__NOVEL": 0.1},
        {"MODEL__FVIT__NMS": "class_agnostic"},
        {"MODEL__FVIT__ONE_LABEL_PER_BOX": True},
        {"TEST__FLIP": True},
        {"TEST__INPUT_SIZE": 48},
    ):
        totals[str(change)] = total(**change)
    assert len(set(totals.values())) == len(totals), totals
    with pytest.raises(ConfigurationError, match="'per_class', 'class_agnostic'"):
        total(MODEL__FVIT__NMS="none")


def test_proposal_recall_is_reported_and_repeated_from_files(config, trained, tmp_path):
    cfg, _ = trained
    weights = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    file = str(tmp_path / "proposals.json")
    asked = config(MODEL__WEIGHTS=weights, TEST__PROPOSAL_RECALL=True, MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0)
    results = run(asked, evaluator_factory=detection_evaluators(asked), eval_only=True)["squares_val"]
    assert list(results) == ["ov_coco", "proposals"] and 0 < results["proposals"]["AR@1000_all"] <= 100

    writing = config(MODEL__WEIGHTS=weights, TEST__PROPOSALS__FILE=file, MODEL__RPN__POST_NMS_TOPK_TEST=200)
    run(writing, evaluator_factory=Recorder, eval_only=True)
    saved = os.path.join(asked.OUTPUT_DIR, "inference", "squares_val", "coco_instances_results.json")
    again = evaluate_files("squares_val", predictions=saved, proposals=file)
    assert again["ov_coco"] == pytest.approx(results["ov_coco"], abs=1e-9, nan_ok=True)
    assert again["proposals"] == pytest.approx(results["proposals"], abs=2.0)  # rounded to 1/100 pixel


def test_files_that_are_no_detectors_are_refused(config, tmp_path):
    with pytest.raises(CheckpointError, match="no model checkpoint"):
        build_model(config(MODEL__WEIGHTS=str(tmp_path / "absent.pth")))
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not a model checkpoint"):
        build_model(config(MODEL__WEIGHTS=str(tmp_path / "other.pth")))


def test_evaluation_restores_the_training_vocabulary(config, squares):
    register_open_vocab_dataset("squares_other", squares / "squares.json", squares, base=CLASSES[::-1])
    model = build_model(config())
    seen = []

    class Spy(Recorder):
        def reset(self):
            seen.append((self.name, model.vocabulary.names, sorted(model.vocabulary.novel)))
            super().reset()

    cfg = config(SOLVER__MAX_ITER=1, DATASETS__TEST=("squares_val", "squares_other"))
    train_model(cfg, model, MAPPERS, Spy)
    assert seen == [("squares_val", CLASSES, ["green square"]), ("squares_other", CLASSES[::-1], [])]
    assert model.vocabulary.names == CLASSES and model.vocabulary.novel == {"green square"}


def test_nothing_to_do_is_said(config):
    with pytest.raises(ConfigurationError, match="DATASETS.TRAIN"):
        run(config(DATASETS__TRAIN=()))
    with pytest.raises(ConfigurationError, match="eval-only"):
        run(config(DATASETS__TEST=()), eval_only=True)


def test_device_auto(config):
    cfg = with_device(config(MODEL__DEVICE="auto"))
    assert cfg.MODEL.DEVICE == ("cuda" if torch.cuda.is_available() else "cpu")


def test_items_of_the_stream_depend_on_seed_and_place_alone():
    def draw(record):
        return record["id"], np.random.rand()

    records = [{"id": i} for i in range(5)]
    stream = TrainingStream(records, draw, seed=3)
    state = np.random.get_state()[1].copy()
    forward = [stream[i] for i in range(10)]
    assert [stream[i] for i in reversed(range(10))] == forward[::-1]
    assert (np.random.get_state()[1] == state).all()
    assert sorted(i for i, _ in forward[:5]) == sorted(i for i, _ in forward[5:]) == list(range(5))
    assert len({value for _, value in forward}) == 10
    assert [TrainingStream(records, draw, seed=4)[i] for i in range(10)] != forward


def test_positions_continue_where_training_stopped():
    def first(start, count):
        iterator = iter(PositionSampler(first=start * 4))
        return [next(iterator) for _ in range(count)]

    assert first(3, 4) == first(0, 16)[12:]


def test_training_never_sees_novel_boxes_nor_crowds(config):
    cfg = config(INPUT__SCALE_JITTER=[1.0, 1.0])
    batches = iter(build_train_loader(cfg, training_mapper(cfg), start=0, seed=0))
    labels = []
    for _ in range(3):
        for one in next(batches):
            labels.append((one["image_id"], sorted(one["instances"].gt_classes.tolist())))
            h, w = one["image"].shape[1:]
            assert one["instances"].image_size == (h, w) and max(h, w) == 32
    assert {tuple(classes) for image, classes in labels if image != 5} == {(0, 1)}
    assert all(classes == [1] for image, classes in labels if image == 5)


@pytest.mark.parametrize("resampling", list(Resampling))
def test_boxes_in_whole_numbers_are_scaled_exactly(squares, resampling):
    record = DatasetCatalog.get("squares_val")[0]
    record["annotations"] = [{"bbox": [3, 5, 18, 18], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}]
    mapper = RecordMapper(evaluation_augmentations(32, resampling), training=True)
    boxes = mapper(record)["instances"].gt_boxes.tensor
    torch.testing.assert_close(boxes, torch.tensor([[1.5, 2.5, 10.5, 11.5]]))


def test_an_image_of_another_size_than_its_record_is_an_error(squares):
    mapper = RecordMapper([], training=False)
    with pytest.raises(DataError, match="64 x 40"):
        mapper({"file_name": str(squares / "0.png"), "height": 40, "width": 64})


def test_evaluation_can_write_proposals_instead(config, trained):
    cfg, _ = trained
    path = os.path.join(cfg.OUTPUT_DIR, "proposals.json")
    weights = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    writing = config(MODEL__WEIGHTS=weights, TEST__PROPOSALS__FILE=path, MODEL__RPN__POST_NMS_TOPK_TEST=7)
    results = run(writing, evaluator_factory=Recorder, eval_only=True)
    entries = json.loads(open(path).read())
    assert results == {"squares_val": {"proposals": {"count": len(entries)}}}
    assert {e["image_id"] for e in entries} == set(range(6)) and len(entries) <= 42
    with pytest.raises(ConfigurationError, match="one set"):
        run(
            config(TEST__PROPOSALS__FILE=path, DATASETS__TEST=("squares_val", "squares_train")),
            evaluator_factory=Recorder,
            eval_only=True,
        )


def test_an_interrupted_evaluation_goes_on_to_the_same_result(config, trained, tmp_path, monkeypatch):
    cfg, _ = trained
    usual = {
        "MODEL__WEIGHTS": os.path.join(cfg.OUTPUT_DIR, "model_final.pth"),
        "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0,
    }

    def evaluate(folder, **changes):
        own = config(**usual, OUTPUT_DIR=str(tmp_path / folder), **changes)
        return run(own, evaluator_factory=detection_evaluators(own), eval_only=True)["squares_val"]

    expected = evaluate("whole")
    process, seen = DetectionEvaluator.process, []

    def failing(self, inputs, outputs):
        process(self, inputs, outputs)
        seen.extend(one["image_id"] for one in inputs)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(DetectionEvaluator, "process", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate("parts")
    first = list(seen)
    with pytest.raises(ConfigurationError, match="other settings"):
        evaluate("parts", TEST__RESUME_PREDICTIONS=True, MODEL__FVIT__FUSION__BASE=0.9)
    assert evaluate("parts", TEST__RESUME_PREDICTIONS=True).keys() == expected.keys()
    assert not set(first) & set(seen[3:])
    results = {name: (tmp_path / name / "inference/squares_val") for name in ("whole", "parts")}
    for path in results["whole"].iterdir():
        assert path.read_bytes() == (results["parts"] / path.name).read_bytes()
    with pytest.raises(ConfigurationError, match="PROPOSAL_RECALL"):
        evaluate("parts", TEST__RESUME_PREDICTIONS=True, TEST__PROPOSAL_RECALL=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_resume_is_exact(config, tmp_path, monkeypatch, caplog, number):
    whole, stopped = config(), config(OUTPUT_DIR=str(tmp_path / "stopped"))
    results = train(whole)
    with caplog.at_level(logging.WARNING, "denserc"):
        stop_in_step(monkeypatch, StepTrainer, "_update_weights", 3, number, lambda: train(stopped, resume=True))
    assert f"Stopped by {number.name} after step 3 of 4." in caplog.text and "--resume continues" in caplog.text
    assert not os.path.exists(os.path.join(stopped.OUTPUT_DIR, "model_final.pth"))
    assert train(stopped, resume=True) == results
    assert_same_state(saved(whole), saved(stopped))


def test_a_signal_in_the_last_step_leaves_the_evaluation(config, tmp_path, monkeypatch):
    whole, stopped = config(), config(OUTPUT_DIR=str(tmp_path / "stopped"))
    results = train(whole)
    stop_in_step(monkeypatch, StepTrainer, "_update_weights", 4, signal.SIGTERM, lambda: train(stopped))
    assert_same_state(saved(whole), saved(stopped))
    assert train(stopped, resume=True) == results


def test_a_signal_in_an_evaluation_saves_the_step_before(config, tmp_path, monkeypatch):
    """The evaluation ends at once, with its averaged weights put back; the state is the trained one."""
    changes = {"TEST__EVAL_PERIOD": 1, "SOLVER__EMA__DECAY": 0.5, "SOLVER__CHECKPOINT_PERIOD": 0}
    whole, stopped = config(**changes), config(**changes, OUTPUT_DIR=str(tmp_path / "stopped"))
    results = train(whole)
    stop_in_step(monkeypatch, Recorder, "process", 3, signal.SIGTERM, lambda: train(stopped))
    assert saved(stopped, "model_0000000")["iteration"] == 0
    assert train(stopped, resume=True) == results
    assert_same_state(saved(whole), saved(stopped))
