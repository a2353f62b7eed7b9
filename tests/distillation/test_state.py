"""A checkpoint of a distillation is whole or absent; those of version 0.1 are read, other files refused."""

from copy import deepcopy

import pytest
import torch
from detectron2.engine import HookBase
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from denserc.construction import build_dense_model
from denserc.distillation.build import build_trainer
from denserc.distillation.engine import run
from denserc.distillation.trainer import StudentCheckpointer, latest_state, read_state
from denserc.structures import CheckpointError, weights_digest
from tests.states import assert_same_bits


def test_the_newest_checkpoint_is_found_and_older_ones_go(make_cfg):
    cfg = make_cfg("SOLVER.CHECKPOINT_PERIOD", 2)
    assert latest_state(cfg.OUTPUT_DIR) is None
    run(cfg)
    folder = latest_state(cfg.OUTPUT_DIR).parent
    assert sorted(path.name for path in folder.glob("state_*")) == ["state_0000005.pth", "state_final.pth"]
    assert read_state(latest_state(folder))["iteration"] == 5


def test_a_write_that_fails_leaves_the_old_state(make_cfg, monkeypatch):
    cfg = make_cfg("SOLVER.CHECKPOINT_PERIOD", 2)
    save = torch.save

    def failing(content, file):
        if content["iteration"] == 3:
            file.write(b"half")
            raise OSError("no space left")
        save(content, file)

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(OSError, match="no space"):
        run(cfg)
    assert read_state(latest_state(cfg.OUTPUT_DIR))["iteration"] == 1


def test_other_files_are_refused(tmp_path):
    torch.save({"model": 1}, tmp_path / "state_final.pth")
    (tmp_path / "last_checkpoint").write_text("state_final.pth")
    with pytest.raises(CheckpointError, match="'model' and 'trainer' were expected"):
        read_state(latest_state(tmp_path))
    (tmp_path / "state_final.pth").write_bytes(b"half")
    with pytest.raises(
        CheckpointError, match="names state_final.pth, which is damaged, and the checkpoints of that folder"
    ):
        read_state(latest_state(tmp_path))


def test_a_student_of_another_shape_is_refused(make_cfg):
    cfg = make_cfg("SOLVER.MAX_ITER", 1)
    run(cfg)
    path = latest_state(cfg.OUTPUT_DIR)
    content = torch.load(path, weights_only=True)
    content["model"].popitem()
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="(?s)belongs to another student.*Missing key"):
        run(cfg, resume=True)


class Following(HookBase):
    """Version 0.1's average of the whole student."""

    def __init__(self, average, student):
        self.average, self.student = average, student

    def after_step(self):
        self.average.update_parameters(self.student)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_state_of_version_0_1_resumes_bitwise(make_cfg, tmp_path, decay):
    """The file as that version wrote it: numbered optimizer, an average of the whole student, generators' states."""
    straight = make_cfg("OUTPUT_DIR", str(tmp_path / "straight"), "SOLVER.EMA.DECAY", decay)
    run(straight)
    half = read_state(tmp_path / "straight" / "state_final.pth")
    cfg = make_cfg("OUTPUT_DIR", str(tmp_path / "old"), "SOLVER.EMA.DECAY", decay, "SOLVER.MAX_ITER", 3)
    cfg.SOLVER.WARMUP_ITERS = 6  # the same rates in the first three steps as in a training of six
    straight.SOLVER.WARMUP_ITERS, straight.OUTPUT_DIR = 6, str(tmp_path / "again")
    run(straight)
    expected = read_state(latest_state(straight.OUTPUT_DIR))
    assert expected["trainer"]["teacher"] == half["trainer"]["teacher"]

    torch.manual_seed(3)
    trainer = build_trainer(cfg, build_dense_model(cfg), device=torch.device("cpu"), seed=3)
    average = AveragedModel(deepcopy(trainer.learner), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    trainer.register_hooks([Following(average, trainer.learner)])
    trainer.train(0, 3)
    old = {
        "version": 2,
        "step": 3,
        "student": trainer.learner.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": {},
        "skipped_steps": 0,
        "average": average.state_dict() if decay else None,
        "generators": [{"cpu": torch.get_rng_state()}],
        "seed": 3,
        "images_drawn": 12,
        "teacher": expected["trainer"]["teacher"],
        "unreadable": {},
    }
    (tmp_path / "old").mkdir(exist_ok=True)
    torch.save(old, tmp_path / "old" / "state_00000003.pt")
    cfg.SOLVER.MAX_ITER = 6
    run(cfg, resume=True)
    assert_same_bits(read_state(latest_state(cfg.OUTPUT_DIR)), expected)


def test_checkpoints_without_a_folder_write_nothing(make_cfg, tmp_path):
    cfg = make_cfg()
    trainer = build_trainer(cfg, build_dense_model(cfg), device=torch.device("cpu"), seed=3)
    StudentCheckpointer(trainer).save_model("model")
    assert not list(tmp_path.glob("**/*.pth"))


def test_digest_sees_a_single_bit():
    module = torch.nn.Linear(3, 3)
    before = weights_digest(module)
    with torch.no_grad():
        module.weight[0, 0] = torch.nextafter(module.weight[0, 0], torch.tensor(9.0))
    assert weights_digest(module) != before
