"""A training that was interrupted around its checkpoints and evaluations ends with the files of an undisturbed one."""

import math
import shutil
from pathlib import Path

import pytest

from denserc.engine import TrainingCheckpointer
from denserc.openvocab import engine
from denserc.openvocab.checkpoint import BestCheckpoint
from denserc.structures import ConfigurationError, WriteError
from denserc.structures.locks import LOCK_NAME, locked_folder
from tests.detection.squares import Recorder, train
from tests.engine.kills import assert_same_ends

EVERY = {"SOLVER__CHECKPOINT_PERIOD": 1, "TEST__EVAL_PERIOD": 2, "TEST__BEST": "squares/total", "SEED": 3}


class Killed(BaseException):
    """The end of the process, which no code catches."""


@pytest.fixture()
def undisturbed(config, tmp_path):
    """Folder of an undisturbed training; the configuration is then of an empty folder with its name."""
    cfg = config(**EVERY)
    train(cfg)
    Path(cfg.OUTPUT_DIR).rename(tmp_path / "undisturbed")
    return cfg, tmp_path / "undisturbed"


def killed(monkeypatch, cfg, owner, name, at, *, after=False, **options):
    """Train until call number `at` of owner.name, before or after it."""
    real, count = getattr(owner, name), iter(range(at))

    def dying(*arguments, **keywords):
        last = next(count, None) is None
        if last and not after:
            raise Killed
        result = real(*arguments, **keywords)
        if last:
            raise Killed
        return result

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, dying)
        train(cfg, **options)


@pytest.mark.parametrize(
    "owner, name, at, after",
    [
        (TrainingCheckpointer, "save", 4, False),  # all steps are done, the last checkpoint is model_0000003.pth
        (TrainingCheckpointer, "tag_last_checkpoint", 4, False),  # model_final.pth is written and not named
        (BestCheckpoint, "update", 1, False),  # the last evaluation is done, model_best.pth is of the one before
        (engine, "test", 1, False),  # before the last evaluation
        (TrainingCheckpointer, "save", 1, True),  # between a checkpoint and the evaluation of its step
        (engine, "test", 0, True),  # that evaluation is done, model_best.pth is not written
        (BestCheckpoint, "update", 0, True),  # model_best.pth is written
        (TrainingCheckpointer, "tag_last_checkpoint", 0, False),  # there is a checkpoint, and no last_checkpoint
    ],
)
def test_the_end_is_that_of_an_undisturbed_training(undisturbed, monkeypatch, owner, name, at, after):
    cfg, whole = undisturbed
    killed(monkeypatch, cfg, owner, name, at, after=after)
    train(cfg, resume=True)
    assert_same_ends(whole, Path(cfg.OUTPUT_DIR))


def test_resuming_what_is_complete_changes_nothing(undisturbed):
    cfg, whole = undisturbed
    shutil.copytree(whole, cfg.OUTPUT_DIR)
    times = {path: path.stat().st_mtime_ns for path in Path(cfg.OUTPUT_DIR).glob("*.pth")}
    train(cfg, resume=True)
    assert_same_ends(whole, Path(cfg.OUTPUT_DIR))
    assert times == {path: path.stat().st_mtime_ns for path in Path(cfg.OUTPUT_DIR).glob("*.pth")}


def test_a_damaged_final_checkpoint_is_written_again(undisturbed, caplog):
    cfg, whole = undisturbed
    shutil.copytree(whole, cfg.OUTPUT_DIR)
    final = Path(cfg.OUTPUT_DIR) / "model_final.pth"
    final.write_bytes(final.read_bytes()[:-100])
    train(cfg, resume=True)
    assert "model_final.pth, which is damaged" in caplog.text and "model_0000003.pth" in caplog.text
    assert_same_ends(whole, Path(cfg.OUTPUT_DIR))


def test_a_failure_in_the_last_step_is_not_evaluated(config, monkeypatch):
    """Detectron2 evaluates then, for hours, before it shows the error."""
    cfg, evaluated = config(), []

    class Counted(Recorder):
        def evaluate(self):
            evaluated.append(1)
            return super().evaluate()

    def full(path, content):
        if "final" in str(path):
            raise WriteError(f"{path} cannot be written: No space left on device.")

    monkeypatch.setattr("denserc.engine.checkpoint.write_atomically", full)
    with pytest.raises(WriteError, match="model_final.pth cannot be.*After that, --resume continues from the last"):
        train(cfg, evaluator_factory=Counted)
    assert not evaluated


def test_a_second_training_in_one_folder_is_refused(config):
    cfg = config()
    with (
        locked_folder(cfg.OUTPUT_DIR),
        pytest.raises(ConfigurationError, match="Another training writes to OUTPUT_DIR"),
    ):
        train(cfg)
    with locked_folder(cfg.OUTPUT_DIR):  # an evaluation may run beside it
        assert not math.isnan(train(cfg, eval_only=True)["squares_val"]["squares"]["total"])
    assert not (Path(cfg.OUTPUT_DIR) / LOCK_NAME).exists()


def test_a_cut_line_of_metrics_is_dropped_on_resuming(config):
    cfg = config(TEST__EVAL_PERIOD=0)
    train(cfg)
    metrics = Path(cfg.OUTPUT_DIR) / "metrics.json"
    lines = metrics.read_text()
    metrics.write_text(lines + '{"iteration": 3, "lo')
    train(cfg, resume=True)
    assert metrics.read_text().startswith(lines) and '"lo' not in metrics.read_text().removeprefix(lines)[:30]
