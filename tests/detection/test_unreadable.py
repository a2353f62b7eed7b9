"""One damaged image of six: a detector's training and evaluation skip it and report it."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog

from denserc.data.datasets.registration import register_from_yaml, register_open_vocab_dataset
from denserc.detection import load_detector
from denserc.detection.data import test_mapper as make_test_mapper
from denserc.detection.data import training_mapper
from denserc.detection.engine import run
from denserc.engine.stream import UNREADABLE
from denserc.evaluation import detection_evaluators
from denserc.openvocab.loader import build_test_loader, build_train_loader
from denserc.structures import DataError
from tests.detection.squares import CLASSES, assert_same_weights, saved, squares_config, train, write_squares
from tests.paths import FIXTURES

TRAIN, VAL = "damaged_train", "damaged_val"


@pytest.fixture()
def folder(tmp_path, forget_registered):
    """Squares as two registered sets; the image of id 2 is cut short."""
    root = tmp_path / "squares"
    root.mkdir()
    file = write_squares(root)
    for name, training in ((TRAIN, True), (VAL, False)):
        register_open_vocab_dataset(name, file, root, base=CLASSES[:2], novel=CLASSES[2:], training=training)
    content = (root / "2.png").read_bytes()
    (root / "2.png").write_bytes(content[: len(content) // 2])
    return root


def configured(folder, **changes):
    return squares_config(folder.parent, DATASETS__TRAIN=(TRAIN,), DATASETS__TEST=(VAL,), **changes)


def test_batches_stay_whole_and_in_order_with_workers(folder):
    def batches(workers):
        cfg = configured(folder, DATALOADER__NUM_WORKERS=workers)
        loader = iter(build_train_loader(cfg, training_mapper(cfg), start=0, seed=0))
        return [next(loader) for _ in range(6)]

    alone, shared = batches(0), batches(2)
    for one, other in zip(alone, shared, strict=True):
        assert [item["image_id"] for item in one] == [item["image_id"] for item in other]
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(one, other, strict=True))
    items = [item for batch in alone for item in batch]
    assert [len(batch) for batch in alone] == [2] * 6 and all(item["image_id"] != 2 for item in items)
    named = [item[UNREADABLE] for item in items if UNREADABLE in item]
    assert len(named) == 2 and all(Path(path).name == "2.png" for ((path, _),) in named)


def test_a_training_skips_resumes_to_the_bit_and_evaluates(folder, caplog):
    cfg = configured(folder, SOLVER__MAX_ITER=6, SOLVER__CHECKPOINT_PERIOD=3)
    with caplog.at_level(logging.WARNING, "denserc"):
        results = train(cfg)
    found = [record.getMessage() for record in caplog.records if "unreadable image" in record.getMessage()]
    assert len(found) == 2 and all("2.png cannot be read" in one for one in found)  # in training and in evaluation
    assert results[VAL]["squares"]["images"] == 5 and results[VAL]["images"] == {"unreadable": 1.0}
    whole = saved(cfg)
    assert [Path(path).name for path in whole["trainer"][UNREADABLE]] == ["2.png"]

    resumed = configured(folder, SOLVER__MAX_ITER=6, SOLVER__CHECKPOINT_PERIOD=3, OUTPUT_DIR=f"{folder}/resumed")
    shutil.copy(Path(cfg.OUTPUT_DIR) / "model_0000002.pth", resumed.OUTPUT_DIR)
    (Path(resumed.OUTPUT_DIR) / "last_checkpoint").write_text("model_0000002.pth")
    assert train(resumed, resume=True) == results
    assert_same_weights(whole["model"], saved(resumed)["model"])
    assert whole["trainer"][UNREADABLE] == saved(resumed)["trainer"][UNREADABLE]


def test_more_than_the_share_end_the_training(folder):
    with pytest.raises(DataError, match=r"1 of 6 images cannot be read, more than the 0\.0% that DATALOADER"):
        train(configured(folder, DATALOADER__MAX_UNREADABLE=0.0))
    (folder / "4.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 6 images cannot be read"):
        train(configured(folder))
    train(configured(folder, DATALOADER__MAX_UNREADABLE=0.34, SOLVER__MAX_ITER=2))


def test_no_readable_image_is_an_error(folder):
    for file in folder.glob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="none of its 6 images exists"):
        train(configured(folder))


@pytest.mark.parametrize(("workers", "at_once"), [(0, 1), (0, 4), (2, 2)])
def test_an_evaluation_leaves_the_image_out_and_counts_it(folder, workers, at_once):
    cfg = configured(folder, DATALOADER__NUM_WORKERS=workers, TEST__IMS_PER_PROCESS=at_once)
    missed = []
    loader = build_test_loader(cfg, make_test_mapper(cfg), VAL, missed=missed.append)
    assert [one["image_id"] for batch in loader for one in batch] == [0, 1, 3, 4, 5]
    assert [record["image_id"] for record in missed] == [2]
    assert [Path(path).name for path in loader.monitor.reasons] == ["2.png"]
    strict = configured(folder, DATALOADER__MAX_UNREADABLE=0.0)
    with pytest.raises(DataError, match="1 of 6 images"):
        list(build_test_loader(strict, make_test_mapper(strict), VAL))


def test_the_result_says_what_was_skipped(folder):
    cfg = configured(folder, SOLVER__MAX_ITER=2, MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.0)
    results = train(cfg, evaluator_factory=detection_evaluators(cfg))[VAL]
    assert list(results) == ["ov_coco", "images"] and results["images"] == {"unreadable": 1.0}
    detected = json.loads((Path(cfg.OUTPUT_DIR) / "inference" / VAL / "coco_instances_results.json").read_text())
    assert {entry["image_id"] for entry in detected} == {0, 1, 3, 4, 5}
    again = configured(folder, MODEL__WEIGHTS=f"{cfg.OUTPUT_DIR}/model_final.pth", OUTPUT_DIR=f"{folder}/again")
    assert run(again, evaluator_factory=detection_evaluators(again), eval_only=True)[VAL]["images"]["unreadable"] == 1
    load_detector(f"{cfg.OUTPUT_DIR}/model_final.pth")


def test_the_truncated_photograph_of_a_user(tmp_path, forget_registered):
    """A set of two images of which one is cut: the training ends well on the other."""
    cases = shutil.copytree(FIXTURES / "cases", tmp_path / "cases")
    names = register_from_yaml(cases / "39-one-truncated-photograph" / "my.yaml")
    assert len(DatasetCatalog.get(names[0])) == 2
    cfg = squares_config(tmp_path, DATASETS__TRAIN=(names[0],), DATASETS__TEST=())
    train(cfg)
    assert [Path(path).name for path in saved(cfg)["trainer"][UNREADABLE]] == ["cut.jpg"]
