"""SOLVER.SHARDING in whole trainings: the same states, scores and product, resumed by any number of processes."""

import shutil
from pathlib import Path

import pytest
import torch

from denserc.construction import load_checkpoint
from denserc.distillation.engine import run
from denserc.distillation.export import PRODUCT_NAME
from denserc.distillation.trainer import latest_state, read_state
from denserc.structures import ConfigurationError
from tests.distillation.test_processes import output_of, start_processes
from tests.states import assert_close

CHANGES = ("SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 3, "DISTILL.KEEP_STATES", 2, "SOLVER.EMA.DECAY", 0.5)
CHANGES += ("SOLVER.ACCUMULATE", 2, "TEST.EVAL_PERIOD", 2, "DISTILL.GRADIENT_CHECKPOINTING", "selective")
CLIPPING = ("SOLVER.CLIP_GRADIENTS.ENABLED", True)


@pytest.fixture()
def make_run(make_cfg, tmp_path):
    """A configuration and its file, by the name of its folder."""

    def make(name, sharding, state=None, **changes):
        cfg = make_cfg("OUTPUT_DIR", str(tmp_path / name), "SOLVER.SHARDING", sharding, *CHANGES, *CLIPPING)
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
        for key, value in changes.items():
            cfg.merge_from_list([key.replace("__", "."), value])
        if state is not None:
            (tmp_path / name).mkdir()
            shutil.copy(state, tmp_path / name)
            (tmp_path / name / "last_checkpoint").write_text(state.name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(cfg.dump())
        return cfg, path

    return make


def states(cfg) -> list[dict]:
    """After three steps and after six."""
    return [read_state(Path(cfg.OUTPUT_DIR) / f"state_{name}.pth") for name in ("0000002", "final")]


def product(cfg) -> dict[str, torch.Tensor]:
    return load_checkpoint(Path(cfg.OUTPUT_DIR) / PRODUCT_NAME).encoder.state_dict()


@pytest.mark.slow
def test_two_processes_that_share_train_as_two_that_do_not(make_run):
    (plain, first), (shared, second) = make_run("plain", "none"), make_run("shared", "fsdp")
    output = output_of(start_processes(f"{first},{second}"))
    for one, two in zip(states(plain), states(shared), strict=True):
        assert_close(one, two, 1e-6)
    assert_close(product(plain), product(shared), 1e-6)
    # Processes evaluate different numbers of images, with whole weights and without waiting for each other.
    scores = [float(line.split()[2]) for line in output.splitlines() if line.startswith("EVALUATED")]
    assert len(scores) == 2 * 2 * 3 and len(set(scores[:6])) == 3
    assert sorted(scores[6:]) == pytest.approx(sorted(scores[:6]), abs=1e-6)

    (again, third), (over, fourth) = (
        make_run(name, "fsdp", Path(cfg.OUTPUT_DIR) / "state_0000002.pth")
        for name, cfg in (("again", shared), ("over", plain))
    )
    alone, _ = make_run("alone", "fsdp", Path(shared.OUTPUT_DIR) / "state_0000002.pth")
    process = start_processes(f"{third},{fourth}")
    run(alone, resume=True)  # a single process, which has nothing to share
    output_of(process)
    end = states(shared)[1]
    assert_close(read_state(latest_state(again.OUTPUT_DIR)), end, 0.0)
    assert_close(read_state(latest_state(over.OUTPUT_DIR)), end, 1e-6)
    assert_close(read_state(latest_state(alone.OUTPUT_DIR)), end, 1e-5)


@pytest.mark.slow
def test_two_processes_resume_what_one_wrote(make_run):
    """With context features, whose forward is another method of the student."""
    context = {"MODEL__CONSTRUCTION__NAME": "declip", "DISTILL__COHERENCE__FEATURES": "context"}
    alone, _ = make_run("alone", "fsdp", **context)
    run(alone)
    state = Path(alone.OUTPUT_DIR) / "state_0000002.pth"
    together, config = make_run("together", "fsdp", state, DISTILL__TRAINABLE="tower", **context)
    output_of(start_processes(config))
    assert_close(read_state(latest_state(together.OUTPUT_DIR)), states(alone)[1], 1e-5)


def test_unknown_sharding_is_refused(make_cfg):
    with pytest.raises(ConfigurationError, match="SOLVER.SHARDING is 'zero3'; legal are 'none', 'fsdp'"):
        run(make_cfg("SOLVER.SHARDING", "zero3"))
