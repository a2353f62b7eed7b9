"""Test sets that cannot be evaluated are refused before a model is built; states know the data that they are of."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog

from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.data.images.labels import write_labels
from denserc.detection.engine import run
from denserc.evaluation import detection_evaluators
from denserc.openvocab import engine
from denserc.segmentation import run as run_segmenter
from denserc.structures import CheckpointError, ConfigurationError, DataError
from tests.detection.squares import CLASSES, Recorder, squares_config, train, write_squares
from tests.segmentation import squares as semantic

FIRST = "squares_val of DATASETS.TEST cannot be evaluated: "


class ModelBuilt(Exception):
    """Raised in place of building a model: all questions were answered."""


@pytest.fixture
def squares(tmp_path, forget_registered, monkeypatch):
    """squares(edit, evaluator_type=..., **changes) -> a configuration; the test set's file is edited."""
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    monkeypatch.setattr(engine, "build", lambda cfg: (_ for _ in ()).throw(ModelBuilt))

    def make(edit=lambda truth: None, *, segmented=lambda i, label: True, evaluator_type="ov_coco", **changes):
        for split in ("train", "val"):
            file = write_squares(tmp_path / split, segmented=segmented)
            truth = json.loads(file.read_text())
            if split == "val":
                edit(truth)
            file.write_text(json.dumps(truth))
            register_open_vocab_dataset(
                f"squares_{split}", str(file), str(tmp_path / split), base=CLASSES[:2], novel=CLASSES[2:],
                evaluator_type=evaluator_type,
            )  # fmt: skip
        return squares_config(tmp_path, **changes)

    return make


@pytest.fixture
def warnings(monkeypatch, caplog):
    """A function that gives the warnings of DenseRC so far, as one text."""
    monkeypatch.setattr(logging.getLogger("denserc"), "propagate", True)
    return lambda: "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


def attempt(cfg, **options):
    return run(cfg, evaluator_factory=detection_evaluators(cfg), **options)


@pytest.mark.parametrize("options", [{}, {"eval_only": True}])
@pytest.mark.parametrize("changes", [{}, {"MODEL__MASK_ON": True}, {"TEST__BEST": "ov_coco/AP50_novel"}])
def test_a_usual_set_passes_without_a_warning(squares, warnings, changes, options):
    with pytest.raises(ModelBuilt):
        attempt(squares(**changes), **options)
    assert warnings() == ""


def drop(kind: str, field: str):
    def edit(truth):
        for entry in truth[kind]:
            entry.pop(field)

    return edit


def rename(truth):
    truth["categories"][1]["name"] = "yellow square"


@pytest.mark.parametrize(
    "edit, options, words",
    [
        (drop("annotations", "bbox"), {}, "bbox"),
        (lambda truth: truth["annotations"][4].update(bbox=[1, 2, float("nan"), 4]), {}, "bbox"),
        (lambda truth: truth["annotations"][4].update(image_id=99), {}, "99"),
        (lambda truth: truth.pop("categories"), {}, "categories"),
        (lambda truth: [c.update(id=str(c["id"]) + "x") for c in truth["categories"]], {}, "7x"),
        (lambda truth: [image.update(id=f"{image['id']}.png") for image in truth["images"]], {}, "0.png"),
        (rename, {}, "blue square"),
        (lambda truth: truth.update(images=[], annotations=[]), {}, "no images"),
        (lambda truth: [i.update(file_name="x" + i["file_name"]) for i in truth["images"]], {}, "none of its 6 images"),
        (lambda truth: None, {"evaluator_type": "lvis"}, "'ov_coco', 'ov_lvis'"),
        (lambda truth: None, {"evaluator_type": "ov_lvis"}, "frequency"),
        (lambda truth: [c.update(frequency="r") for c in truth["categories"]], {"evaluator_type": "ov_lvis"}, "neg_"),
        (lambda truth: None, {"TEST__LVIS_PROTOCOLS": ["fix"], "evaluator_type": "ov_lvis"}, "'fixed'"),
    ],
)  # fmt: skip
def test_a_set_that_cannot_be_scored_is_refused(squares, edit, options, words):
    cfg = squares(edit, **options)
    for way in ({"eval_only": True}, {}):
        with pytest.raises((ConfigurationError, DataError), match=FIRST + f".*{words}"):
            attempt(cfg, **way)


def test_a_set_that_is_not_registered_is_refused(squares):
    with pytest.raises(DataError, match="squares_vall of DATASETS.TEST.*registered"):
        attempt(squares(DATASETS__TEST=("squares_vall",)))


def test_every_set_is_asked(squares):
    with pytest.raises(DataError, match="squares_vall of DATASETS.TEST"):
        attempt(squares(DATASETS__TEST=("squares_val", "squares_vall")))


def test_some_absent_images_are_counted(squares, warnings):
    cfg = squares(lambda truth: truth["images"][0].update(file_name="absent.png"))
    with pytest.raises(ModelBuilt):
        attempt(cfg)
    assert "1 of 6 images do not exist" in warnings()


@pytest.mark.parametrize(
    "segmented, words", [(lambda i, label: i > 0, "3 of 18 objects"), (lambda i, label: False, "")]
)
def test_objects_without_masks_are_counted_before(squares, warnings, segmented, words):
    bare = {"MODEL__MASK_ON": True}
    with pytest.raises(ModelBuilt):
        attempt(squares(segmented=segmented, **bare), eval_only=True)
    assert (words or "no object of the set has a 'segmentation'") in warnings()


@pytest.mark.parametrize("best", ["ov_coco/AP50_rare", "coco/AP50_all", "AP50", "ov_coco_masks/AP_all"])
def test_a_metric_that_does_not_exist_is_refused_before(squares, best):
    with pytest.raises(ConfigurationError, match=f"TEST.BEST is '{best}'; .*ov_coco/AP50_novel"):
        attempt(squares(TEST__BEST=best))
    with pytest.raises(ModelBuilt):  # a test set of another kind does not need it
        attempt(squares(TEST__BEST=best), eval_only=True)


def test_metrics_are_those_of_an_evaluation(squares):
    cfg = squares(TEST__PROPOSAL_RECALL=True)
    evaluator = detection_evaluators(cfg)("squares_val", cfg.OUTPUT_DIR)
    with pytest.raises(ModelBuilt):
        attempt(squares(TEST__PROPOSAL_RECALL=True, TEST__BEST="proposals/AR@100_novel"))
    truth = evaluator._evaluators[0].ground_truth
    found = [{**a, "score": 1.0, "segmentation": None} for a in truth["annotations"]]
    results = evaluator._evaluators[0].evaluate_detections(found) | evaluator._evaluators[1].evaluate_boxes({})
    names = {f"{task}/{name}" for task, metrics in results.items() for name in metrics}
    assert names == evaluator.metric_names()


@pytest.mark.parametrize("place", ["inference", "inference/squares_val"])
def test_an_output_folder_that_is_a_file_is_refused(squares, place):
    cfg = squares()
    path = Path(cfg.OUTPUT_DIR) / place
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(ConfigurationError, match=FIRST + "its results cannot be written.*OUTPUT_DIR"):
        attempt(cfg)


def test_embeddings_that_lack_a_class_of_a_test_set_are_refused(squares, tmp_path):
    torch.save({name: torch.ones(4) for name in CLASSES[:2]}, tmp_path / "text.pt")
    with pytest.raises(DataError, match=FIRST + ".*green square"):
        attempt(squares(MODEL__VOCABULARY__EMBEDDINGS=str(tmp_path / "text.pt")))


@pytest.mark.parametrize("steps", [0, -1])
def test_a_training_without_steps_is_refused(squares, steps):
    with pytest.raises(ConfigurationError, match=f"SOLVER.MAX_ITER is {steps}: there is no step to train"):
        attempt(squares(SOLVER__MAX_ITER=steps))


def test_a_semantic_set_is_asked_too(tmp_path, forget_registered, monkeypatch):
    monkeypatch.setattr(engine, "build", lambda cfg: (_ for _ in ()).throw(ModelBuilt))
    semantic.register_squares(tmp_path)
    cfg = semantic.squares_config(tmp_path)
    with pytest.raises(ModelBuilt):
        run_segmenter(cfg, evaluator_factory=detection_evaluators(cfg))
    best = semantic.squares_config(tmp_path, TEST__BEST="sem_seg/AP")
    with pytest.raises(ConfigurationError, match="TEST.BEST is 'sem_seg/AP'; .*sem_seg/mIoU"):
        run_segmenter(best, evaluator_factory=detection_evaluators(best))
    evaluator = detection_evaluators(cfg)(semantic.VAL, "")
    first = next(iter(evaluator.label_files.values()))
    write_labels(first, np.full((5, 5), 77, np.uint8))
    with pytest.raises(DataError, match=f"{semantic.VAL} of DATASETS.TEST cannot be evaluated: .*77"):
        run_segmenter(cfg, evaluator_factory=detection_evaluators(cfg))


@pytest.fixture
def trained(tmp_path, forget_registered):
    """A function that trains two steps on squares and gives the configuration and the annotation file."""
    file = write_squares(tmp_path)

    def register(base=CLASSES[:2], novel=CLASSES[2:]):
        for name in ("squares_train", "squares_val"):
            register_open_vocab_dataset(name, str(file), str(tmp_path), base=base, novel=novel)

    register()
    cfg = squares_config(tmp_path, SOLVER__MAX_ITER=2)
    train(cfg)
    return cfg, file, register


def shifted(truth):
    truth["annotations"][0]["bbox"][0] += 1


@pytest.mark.parametrize(
    "edit",
    [lambda truth: truth["images"].pop(2), shifted, lambda truth: truth["images"][0].update(file_name="1.png")],
)
def test_a_resume_on_other_data_is_refused(trained, edit):
    cfg, file, _ = trained
    truth = json.loads(file.read_text())
    edit(truth)
    listed = {image["id"] for image in truth["images"]}
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in listed]
    file.write_text(json.dumps(truth))
    more = cfg.clone()
    more.SOLVER.MAX_ITER = 3
    with pytest.raises(CheckpointError, match="on other data: .*6 images, .*--resume, with its file as MODEL.WEIGHTS"):
        run(more, evaluator_factory=Recorder, resume=True)


def test_a_resume_with_other_classes_is_refused(trained):
    cfg, _, register = trained
    register(base=CLASSES[1:], novel=CLASSES[:1])
    with pytest.raises(CheckpointError, match="on other data"):
        run(cfg, evaluator_factory=Recorder, resume=True)


def test_the_same_data_in_another_folder_are_resumed(trained, tmp_path):
    cfg, file, _ = trained
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path, moved, ignore=shutil.ignore_patterns("moved", "run"))
    for name in ("squares_train", "squares_val"):
        register_open_vocab_dataset(name, str(moved / file.name), str(moved), base=CLASSES[:2], novel=CLASSES[2:])
    more = cfg.clone()
    more.SOLVER.MAX_ITER = 3
    assert run(more, evaluator_factory=Recorder, resume=True)["squares_val"]
    assert MetadataCatalog.get("squares_train").image_root == str(moved)
