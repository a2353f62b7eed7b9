"""A disk that fills up during a training, its evaluation or a report: the last good files stay, and the error helps."""

import os
import re
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from denserc.engine import TrainingCheckpointer
from denserc.evaluation import detection_evaluators
from denserc.evaluation.detection.prediction_log import Collector, PredictionLog, read_log
from denserc.evaluation.scoring.tables import Detections
from denserc.structures import DenseRCError, WriteError
from denserc.structures.atomic import partial_files
from tests.detection.squares import train
from tests.engine.kills import assert_same_ends

EVERY = {"SOLVER__CHECKPOINT_PERIOD": 1, "TEST__EVAL_PERIOD": 2, "SEED": 3}


@contextmanager
def limited(size: int):
    """Inside, no file of this process may be larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_training_goes_on_after_a_full_disk(config, tmp_path, monkeypatch):
    cfg = config(**EVERY)
    train(cfg)
    output, whole = Path(cfg.OUTPUT_DIR), tmp_path / "whole"
    output.rename(whole)
    real = TrainingCheckpointer.save

    def save(self, name, **options):
        if name != "model_0000002":
            return real(self, name, **options)
        with limited(200_000):
            return real(self, name, **options)

    with monkeypatch.context() as patch, pytest.raises(WriteError) as caught:
        patch.setattr(TrainingCheckpointer, "save", save)
        train(cfg)
    text = str(caught.value)
    assert f"{output / 'model_0000002.pth'} cannot be written: File too large" in text and "unexpected pos" not in text
    assert re.search(r"about [\d,]+ bytes.*[\d,]+ bytes are free.*--resume continues from the last checkpoint", text)
    assert (output / "last_checkpoint").read_text() == "model_0000001.pth" and not partial_files(output)
    train(cfg, resume=True)
    assert_same_ends(whole, output)


@pytest.mark.parametrize("name", ["ov_coco_results.json", "coco_instances_results.json"])
def test_results_that_do_not_fit_keep_those_before(config, monkeypatch, name):
    cfg = config(TEST__EVAL_PERIOD=0)
    results = train(cfg, evaluator_factory=detection_evaluators(cfg))
    folder = Path(cfg.OUTPUT_DIR) / "inference" / "squares_val"
    if not (folder / name).is_file():
        pytest.skip(f"no {name} among {sorted(path.name for path in folder.iterdir())}")
    before = (folder / name).read_bytes()
    replace = os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(28, os.strerror(28), source)
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(DenseRCError, match=rf"{name} cannot be written: No space left"):
        patch.setattr(os, "replace", full)
        train(cfg, evaluator_factory=detection_evaluators(cfg), resume=True)
    assert (folder / name).read_bytes() == before and not partial_files(folder)
    assert str(train(cfg, evaluator_factory=detection_evaluators(cfg), resume=True)) == str(results)  # some are NaN


def table(image: int) -> Detections:
    return Detections(
        image_ids=np.full(50, image),
        category_ids=np.arange(50),
        boxes=np.random.default_rng(image).random((50, 4)),
        scores=np.linspace(0, 1, 50),
    )


def test_predictions_of_a_full_disk_are_continued(tmp_path):
    log = PredictionLog(tmp_path / "predictions.jsonl", "origin")
    log.begin()
    with limited(20_000), pytest.raises(WriteError, match=r"predictions.jsonl cannot be written: File too large"):
        for image in range(100):
            log.write(image, table(image))
    try:
        log.close()
    except OSError:  # what is still in the buffer
        pass
    again = PredictionLog(tmp_path / "predictions.jsonl", "origin")
    done = again.resume()
    assert 0 < len(done) < 100
    for image in set(range(100)) - set(done):
        again.write(image, table(image))
    again.close()
    collector = Collector()
    read_log(tmp_path / "predictions.jsonl", collector)
    assert collector.predictions().detections.scores.shape == (5000,)


def test_a_vocabulary_is_used_without_its_cache(tiny, tmp_path, caplog):
    model = tiny()
    (tmp_path / "file").touch()
    model.cache_dir = tmp_path / "file" / "text_embeddings"
    model.set_vocabulary(["cat"])
    assert model.vocabulary.names == ("cat",) and str(model.cache_dir) in caplog.text


@pytest.fixture()
def small_disk(tmp_path):
    """mount(folder, bytes) -> unmount: the empty folder is on a file system of that size, or the test is skipped."""
    mounted = []

    def mount(folder: Path, size: int):
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        mounted.append(folder)
        return unmount

    def unmount():
        subprocess.run(["umount", str(mounted.pop())], capture_output=True, check=True)

    yield mount
    if mounted:
        unmount()


def test_a_disk_that_is_full_indeed(config, tmp_path, small_disk):
    """A later file of torch.save finds no space."""
    cfg = config(**EVERY)
    train(cfg)
    output, whole = Path(cfg.OUTPUT_DIR), tmp_path / "whole"
    output.rename(whole)
    output.mkdir()
    unmount = small_disk(output, int(2.6 * max(path.stat().st_size for path in whole.glob("model_0*.pth"))))
    with pytest.raises(WriteError, match=r"No space left on device.*Free some space.*--resume continues"):
        train(cfg)
    assert (output / "last_checkpoint").read_text() == "model_0000001.pth" and not partial_files(output)
    shutil.copytree(output, tmp_path / "copy")
    unmount()
    shutil.copytree(tmp_path / "copy", output, dirs_exist_ok=True)
    train(cfg, resume=True)
    assert_same_ends(whole, output)
