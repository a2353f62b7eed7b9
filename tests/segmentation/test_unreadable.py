"""A picture that cannot be read: CAT-Seg's training skips it, its evaluation counts all of its pixels as missed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from denserc.data.images.labels import read_labels
from denserc.engine.stream import UNREADABLE
from denserc.evaluation import SegmentationEvaluator
from denserc.segmentation import run
from denserc.structures import DataError
from tests.detection.squares import saved
from tests.segmentation.squares import VAL, SumOfScores, register_squares, squares_config


@pytest.fixture()
def folder(tmp_path, forget_registered):
    register_squares(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["3.png", "labels/3.png"])
def test_a_training_skips_a_damaged_picture_and_damaged_labels(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) * 2 // 3])
    cfg = squares_config(folder, DATASETS__TEST=(), SOLVER__MAX_ITER=6)
    torch.manual_seed(0)
    run(cfg, evaluator_factory=SumOfScores)
    assert list(saved(cfg)["trainer"][UNREADABLE]) == [str(folder / name)]


def test_an_evaluation_counts_its_pixels_as_missed(folder):
    def measures(skipped=()):
        evaluator = SegmentationEvaluator.of_dataset(VAL, distributed=False)
        evaluator.reset()
        for image, file in evaluator.label_files.items():
            if image in skipped:
                evaluator.miss({"image_id": image})
                continue
            perfect = np.minimum(read_labels(file), 2)
            evaluator.process([{"image_id": image}], [{"sem_seg": torch.from_numpy(perfect.astype(np.int64))}])
        return evaluator.evaluate()["sem_seg"]

    assert measures()["mIoU"] == pytest.approx(100) and measures()["pACC"] == 100
    images = list(SegmentationEvaluator.of_dataset(VAL).label_files)
    found = measures(skipped=images[:3])
    assert 35 < found["pACC"] < 65 and 35 < found["mIoU"] < 65  # half of the squares
    assert measures(skipped=images)["mIoU"] == 0


def test_the_engine_says_so(folder):
    (folder / "3.png").write_bytes(b"")
    cfg = squares_config(folder, SOLVER__MAX_ITER=1)
    evaluated = []

    def factory(name, output):
        evaluated.append(SegmentationEvaluator.of_dataset(name, output))
        return evaluated[-1]

    torch.manual_seed(0)
    results = run(cfg, evaluator_factory=factory)[VAL]
    assert results["images"] == {"unreadable": 1.0} and list(evaluated[-1]._missed) == ["3"]
    assert not (Path(cfg.OUTPUT_DIR) / "inference" / VAL / "predictions" / "3.png").exists()


def test_damaged_labels_of_an_evaluation_are_an_error(folder):
    content = (folder / "labels" / "3.png").read_bytes()
    (folder / "labels" / "3.png").write_bytes(content[: len(content) * 2 // 3])
    cfg = squares_config(folder, DATASETS__TRAIN=(), SOLVER__MAX_ITER=1)
    with pytest.raises(DataError, match="labels/3.png"):
        run(cfg, evaluator_factory=SegmentationEvaluator.of_dataset, eval_only=True)
