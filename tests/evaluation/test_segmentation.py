"""The evaluator of semantic segmentation, against recordings and against Detectron2's own."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from denserc.data.images.labels import write_labels
from denserc.evaluation import AbsentClasses, SegmentationEvaluator, build_evaluator
from denserc.evaluation.scoring.confusion import Cells, ConfusionCounter, SegmentationScores, confusion_matrix
from denserc.structures import ConfigurationError, DataError
from tests.evaluation import run_segmentation_ranks as ranks
from tests.paths import FIXTURES, ROOT

BOTH = tuple(AbsentClasses)
RECORDED = json.loads((FIXTURES / "segmentation" / "evaluator.json").read_text())


def made(folder: Path, truth: np.ndarray, names=None, *, suffix=".png", **options) -> SegmentationEvaluator:
    """The evaluator of label maps (N, H, W) written to a folder, with the ids "0", "1", ..."""
    files = {str(i): str(folder / f"{i}{suffix}") for i in range(len(truth))}
    for labels, file in zip(truth, files.values(), strict=True):
        write_labels(file, labels)
    options = {"names": names or [str(i) for i in range(options.pop("classes"))], "ignore_label": 255, **options}
    return SegmentationEvaluator(label_files=files, distributed=False, **options)


def run(evaluator: SegmentationEvaluator, predicted, only=None) -> dict:
    evaluator.reset()
    give(evaluator, predicted, range(len(predicted)) if only is None else only)
    return evaluator.evaluate()


def give(evaluator: SegmentationEvaluator, predicted, images) -> None:
    for i in images:
        evaluator.process([{"image_id": str(i)}], [{"sem_seg": torch.from_numpy(predicted[i].astype(np.int64))}])


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_figures_of_both_protocols(name, tmp_path):
    expected = RECORDED[name]
    with np.load(FIXTURES / "segmentation" / "evaluator.npz") as file:
        predicted, truth, iou, cells = (file[f"{name}:{k}"] for k in ("pred", "gt", "iou", "confusion_nonzero"))
    classes, outputs = expected["T"], expected["outputs"]
    dtype = np.uint16 if expected["label_file"] == "tif" else np.uint8
    evaluator = made(
        tmp_path / "labels",
        truth.astype(dtype),
        classes=classes,
        suffix=f".{expected['label_file']}",
        ignore_label=expected["ignore"],
        prediction_labels=[min(label, classes - 1) for label in range(outputs)],
        protocols=BOTH,
        output_dir=tmp_path / "out",
    )
    results = run(evaluator, predicted)
    for key in ("mIoU", "fwIoU", "mACC", "pACC"):
        assert results["sem_seg"][key] == pytest.approx(expected[key], abs=1e-9)
    assert results["sem_seg_or_predicted"]["mIoU"] == pytest.approx(expected["mIoU_detectron2_v06"], abs=1e-9)
    settings = json.loads((tmp_path / "out/sem_seg_results.json").read_text())["settings"]
    assert settings["classes_with_ground_truth"] == expected["present"]
    assert settings["absent_classes_predicted"] == expected["absent_but_predicted"]
    matrix = confusion_matrix(evaluator._cells.values(), classes)
    found = {(p, t): matrix[p, t] for p, t in zip(*np.nonzero(matrix), strict=True)}
    assert found == {(p, t): count for p, t, count in cells.tolist()}
    np.testing.assert_allclose(SegmentationScores.of(matrix).iou * 100, iou * (100 if np.nanmax(iou) <= 1 else 1))
    assert evaluator.evaluate_folder() == results


def generated(classes: int, ignore: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and truth (3, 40, 50): ignored pixels, absent classes, and classes that are only predicted."""
    draw = np.random.default_rng(seed)
    present = draw.choice(classes, max(2, classes // 3), replace=False)
    truth = draw.choice(present, (3, 40, 50))
    predicted = np.where(draw.random(truth.shape) < 0.6, truth, draw.integers(0, classes, truth.shape))
    truth[draw.random(truth.shape) < 0.1] = ignore
    return predicted, truth


@pytest.mark.parametrize("classes, ignore, suffix", [(4, 255, ".png"), (150, 255, ".png"), (847, 65535, ".tif")])
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_equal_detectron2s(classes, ignore, suffix, seed, tmp_path, forget_registered):
    predicted, truth = generated(classes, ignore, seed)
    dtype = np.uint16 if ignore > 255 else np.uint8
    ours = made(tmp_path, truth.astype(dtype), classes=classes, suffix=suffix, ignore_label=ignore, protocols=BOTH)
    found = run(ours, predicted)
    records = [{"file_name": i, "sem_seg_file_name": file} for i, file in ours.label_files.items()]
    DatasetCatalog.register("generated", lambda: records)
    MetadataCatalog.get("generated").set(stuff_classes=ours.names, ignore_label=ignore)
    theirs = SemSegEvaluator("generated", distributed=False, sem_seg_loading_fn=_read)
    theirs.reset()
    for i, labels in enumerate(predicted):
        scores = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).permute(2, 0, 1).float()
        theirs.process([{"file_name": str(i)}], [{"sem_seg": scores}])
        ours.process([{"image_id": str(i)}], [{"sem_seg": scores}])
    expected = theirs.evaluate()["sem_seg"]
    matrix = theirs._conf_matrix  # has a row for ignored labels, which no prediction has
    for key in ("mIoU", "fwIoU", "mACC", "pACC"):
        assert found["sem_seg"][key] == pytest.approx(expected[key], abs=1e-9)
    assert found["sem_seg_or_predicted"]["mIoU"] == pytest.approx(detectron2_06(matrix), abs=1e-9)
    assert found["sem_seg_or_predicted"]["mIoU"] < found["sem_seg"]["mIoU"]
    assert ours.evaluate() == found  # of scores as of labels


def _read(file: str, dtype) -> np.ndarray:
    """Detectron2's own loader passes copy=False, which NumPy 2 refuses."""
    return np.array(Image.open(file)).astype(dtype)


def detectron2_06(matrix: np.ndarray) -> float:
    """mIoU by the lines of Detectron2 0.6."""
    correct = matrix.diagonal()[:-1].astype(float)
    truth, predicted = matrix[:-1, :-1].sum(0).astype(float), matrix[:-1, :-1].sum(1).astype(float)
    valid, counted = truth > 0, truth + predicted > 0
    return 100 * (correct[valid] / (truth + predicted - correct)[valid]).sum() / counted.sum()


def test_seen_and_unseen_by_hand(tmp_path):
    truth = np.array([[[0, 0, 1, 1], [2, 2, 255, 255]]], dtype=np.uint8)
    predicted = np.array([[[0, 1, 1, 1], [2, 0, 2, 3]]])
    evaluator = made(tmp_path / "l", truth, list("abcd"), novel=["c", "d"], output_dir=tmp_path, protocols=BOTH)
    results = run(evaluator, predicted)
    seen, unseen = 100 * (1 / 3 + 2 / 3) / 2, 100 * (1 / 2)
    assert results["sem_seg"] == pytest.approx(
        {
            "mIoU": 100 * (1 / 3 + 2 / 3 + 1 / 2) / 3,
            "fwIoU": 100 * (1 / 3 + 2 / 3 + 1 / 2) / 3,
            "mACC": 100 * (1 / 2 + 1 + 1 / 2) / 3,
            "pACC": 100 * 4 / 6,
            "mIoU_seen": seen,
            "mIoU_unseen": unseen,
            "hIoU": 2 * seen * unseen / (seen + unseen),
            "mACC_seen": 75.0,
            "mACC_unseen": 50.0,
        }
    )
    rows = list(csv.DictReader((tmp_path / "sem_seg_classes.csv").open()))
    assert [(r["class"], r["group"], r["IoU"], r["protocol"]) for r in rows[1:]] == [
        ("b", "seen", "66.6667", "present"), ("c", "unseen", "50.0000", "present"), ("d", "unseen", "", "present"),
    ]  # fmt: skip
    assert not any("-" in name for task in results.values() for name in task)


def test_predicted_absent_class_counts_zero_by_name(tmp_path):
    truth = np.array([[[0, 0]]], dtype=np.uint8)
    evaluator = made(tmp_path / "l", truth, ["a", "b", "c"], output_dir=tmp_path, protocols=["present_or_predicted"])
    assert run(evaluator, np.array([[[0, 1]]]))["sem_seg_or_predicted"]["mIoU"] == pytest.approx(25.0)
    rows = list(csv.DictReader((tmp_path / "sem_seg_or_predicted_classes.csv").open()))
    assert [r["IoU"] for r in rows] == ["50.0000", "0.0000", ""]


def test_labels_of_the_model_become_scored_classes(tmp_path):
    """A background first in the scored classes is the label after the model's names."""
    truth = np.array([[[0, 1, 2]]], dtype=np.uint8)
    evaluator = made(tmp_path, truth, ["background", "cat", "dog"], prediction_labels=[1, 2, 0])
    assert run(evaluator, np.array([[[2, 0, 1]]]))["sem_seg"]["pACC"] == 100.0
    scores = torch.tensor([[[0.0, 1.0, 0.0]], [[0.1, 0.0, 1.0]]])  # (2, 1, 3): without background
    evaluator.process([{"image_id": "0"}], [{"sem_seg": scores}])
    assert evaluator.evaluate()["sem_seg"]["pACC"] == pytest.approx(200 / 3)


def test_an_image_twice_counts_once(tmp_path):
    predicted, truth = generated(5, 255, 0)
    evaluator = made(tmp_path, truth.astype(np.uint8), classes=5)
    assert run(evaluator, predicted, [0, 1, 2, 1]) == run(evaluator, predicted)


def test_images_not_run_are_told_and_not_scored(tmp_path, caplog):
    predicted, truth = generated(5, 255, 0)
    evaluator = made(tmp_path, truth.astype(np.uint8), classes=5)
    with caplog.at_level("WARNING"):
        part = run(evaluator, predicted, [0])
    assert "2 of 3 images were not run" in caplog.text
    assert part == run(made(tmp_path / "b", truth[:1].astype(np.uint8), classes=5), predicted[:1])


def test_killed_evaluation_resumes_after_what_was_predicted(tmp_path):
    predicted, truth = generated(300, 65535, 0)

    def new() -> SegmentationEvaluator:
        return made(tmp_path / "l", truth.astype(np.uint16), classes=300, ignore_label=65535, output_dir=tmp_path / "o")

    expected = run(new(), predicted)
    first = new()
    first.begin("weights A")
    first.reset()
    assert not list((tmp_path / "o/predictions").glob("*.png"))  # those of the first run are gone
    child = os.fork()
    if not child:
        give(first, predicted, [0, 1])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    second = new()
    with pytest.raises(ConfigurationError, match="other weights"):
        second.begin("weights B", resume=True)
    assert second.begin("weights A", resume=True) == {"0", "1"}
    assert run(second, predicted, [2]) == expected
    assert second.begin("weights B", resume=False) == frozenset()


def test_nothing_to_resume_is_a_new_start(tmp_path):
    predicted, truth = generated(5, 255, 0)
    evaluator = made(tmp_path / "l", truth.astype(np.uint8), classes=5, output_dir=tmp_path / "o")
    assert evaluator.begin("A", resume=True) == frozenset()
    expected = run(evaluator, predicted)
    assert evaluator.begin("A", resume=True) == {"0", "1", "2"}
    assert run(evaluator, predicted, []) == expected


def test_rescoring_needs_predictions_of_the_set(tmp_path):
    evaluator = made(tmp_path, np.zeros((1, 2, 2), np.uint8), classes=2)
    with pytest.raises(DataError, match="no predictions of this set"):
        evaluator.evaluate_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "output, message",
    [
        (torch.zeros(3, 2, 2), "labels up to 2, but the set knows 2"),
        (torch.full((2, 2), 5), "labels up to 5"),
        (torch.full((2, 2), -1), "labels up to"),
        (torch.zeros(2, 2), "must be"),
        (torch.zeros(2, 3, 2), "is .3, 2. .h, w., the label file .2, 2."),
    ],
)
def test_outputs_that_do_not_fit_are_refused(output, message, tmp_path):
    evaluator = made(tmp_path, np.zeros((1, 2, 2), np.uint8), classes=2)
    evaluator.reset()
    with pytest.raises(DataError, match=message):
        evaluator.process([{"image_id": "0"}], [{"sem_seg": output}])


def test_unknown_values_in_a_label_file_are_named(tmp_path):
    evaluator = made(tmp_path, np.array([[[0, 7]]], np.uint8), classes=2)
    with pytest.raises(DataError, match=r"0.png: .* the values \[7\], which are neither a class"):
        run(evaluator, np.zeros((1, 1, 2)))


def test_unknown_images_and_protocols_are_refused(tmp_path):
    evaluator = made(tmp_path, np.zeros((1, 2, 2), np.uint8), classes=2)
    with pytest.raises(DataError, match="not of this set"):
        evaluator.process([{"image_id": "9"}], [{"sem_seg": torch.zeros(2, 2, 2)}])
    with pytest.raises(ConfigurationError, match="'present', 'present_or_predicted'"):
        made(tmp_path, np.zeros((1, 2, 2), np.uint8), classes=2, protocols=["mean"])


def test_ids_of_any_kind_have_files_below_the_folder(tmp_path):
    ids = [7, "bonn/bonn_1", "/data/a b.jpg", "../up"]
    write_labels(tmp_path / "l.png", np.zeros((2, 2), np.uint8))
    evaluator = SegmentationEvaluator(
        label_files=dict.fromkeys(ids, str(tmp_path / "l.png")), names=["a"], ignore_label=255,
        output_dir=tmp_path / "o", distributed=False,
    )  # fmt: skip
    evaluator.reset()
    for image in ids:
        evaluator.process([{"image_id": image}], [{"sem_seg": torch.zeros(2, 2, dtype=torch.int64)}])
    files = {str(p.relative_to(tmp_path / "o/predictions")) for p in (tmp_path / "o").rglob("*.png")}
    assert files == {"7.png", "bonn/bonn_1.png", "data/a b.jpg.png", "up.png"}


def test_cells_sum_to_the_pixels():
    counter = ConfusionCounter(3, 255)
    cells = counter.count(np.array([[0, 1, 2]]), np.array([[0, 2, 255]], dtype=np.uint8))
    assert isinstance(cells, Cells) and cells.count.sum() == 3
    assert confusion_matrix([cells, cells], 3).tolist() == [[2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]


@pytest.mark.parametrize("run_length, classes", [(1, 300), (40, 300), (40, 3), (0, 3)])
def test_runs_and_noise_are_counted_alike(run_length, classes):
    draw = np.random.default_rng(0)
    predicted, truth = (np.repeat(draw.integers(0, classes, 500), run_length)[None] for _ in range(2))
    counted = ConfusionCounter(classes, 65535).count(predicted, truth.astype(np.int32))
    expected = np.bincount(predicted[0] * (classes + 1) + truth[0], minlength=classes * (classes + 1))
    assert (confusion_matrix([counted], classes).reshape(-1) == expected).all()


def test_registered_set_gets_this_evaluator(tmp_path, forget_registered):
    evaluator = build_evaluator(ranks.registered(tmp_path), sem_seg_protocols=["present_or_predicted"])
    assert isinstance(evaluator, SegmentationEvaluator) and evaluator.novel == {"tree"}
    assert evaluator.protocols == (AbsentClasses.PRESENT_OR_PREDICTED,)


def test_two_processes_find_what_one_does(tmp_path, forget_registered):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, str(Path(ranks.__file__)), "2", port, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"results{rank}.json").read_text()) for rank in range(2))
    alone = ranks.evaluate(tmp_path, tmp_path / "alone", 0, 1)
    assert second == [{}, {}] and first == alone
    assert first[0] == first[1]  # resumed
    written = {p.relative_to(tmp_path / "out"): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert written == {p.relative_to(tmp_path / "alone"): p.read_bytes()
                       for p in (tmp_path / "alone").rglob("*") if p.is_file()}  # fmt: skip


@pytest.mark.parametrize(
    "write, words",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "prediction of image 1.*1.png cannot be read.*anew"),
        (lambda path: path.write_bytes(b""), "1.png cannot be read"),
        (lambda path: path.write_text("{}"), "1.png cannot be read"),
        (lambda path: Image.new("RGB", (4, 3)).save(path), "1.png has mode 'RGB'"),
        (lambda path: Image.new("L", (3, 4)).save(path), r"Image 1.*\(4, 3\) .h, w., the label file \(3, 4\)"),
        (lambda path: Image.new("L", (4, 3), 9).save(path), "Image 1.*class 9, of 3"),
        (lambda path: Image.new("I;16", (4, 3), 300).save(path), "Image 1.*class 300, of 3"),
    ],
)
def test_damaged_predictions_are_named(write, words, tmp_path):
    truth = np.zeros((2, 3, 4), np.uint8)
    evaluator = made(tmp_path / "labels", truth, classes=3, output_dir=tmp_path / "out")
    evaluator.begin("x")
    run(evaluator, truth)
    write(tmp_path / "out" / "predictions" / "1.png")
    with pytest.raises(DataError, match=words):
        evaluator.evaluate_folder()
    again = made(tmp_path / "labels", truth, classes=3, output_dir=tmp_path / "out")
    again.begin("x", resume=True)
    again.reset()
    with pytest.raises(DataError, match=words):
        again.evaluate()


@pytest.mark.parametrize("place", ["labels/0.png", "absent", "nothing"])
def test_a_path_without_predictions_is_refused(place, tmp_path):
    evaluator = made(tmp_path / "labels", np.zeros((1, 3, 4), np.uint8), classes=3)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="no predictions of this set"):
        evaluator.evaluate_file(tmp_path / place)


def test_scores_that_are_nan_are_refused(tmp_path):
    evaluator = made(tmp_path, np.zeros((1, 3, 4), np.uint8), classes=3)
    scores = torch.zeros(3, 3, 4)
    evaluator.process([{"image_id": "0"}], [{"sem_seg": scores}])
    scores[1, 2, 3] = float("nan")
    with pytest.raises(DataError, match="Image 0: scores of the model are nan"):
        evaluator.process([{"image_id": "0"}], [{"sem_seg": scores}])
