"""DISTILL.SHARDING in whole trainings: the same student, average and state, resumed by whom one likes."""

import shutil
from pathlib import Path

import pytest
import torch

from denserc.distillation.engine import run
from denserc.distillation.trainer import latest_state, read_state
from denserc.structures import ConfigurationError
from tests.distillation.test_processes import output_of, start_processes

CHANGES = ("SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 3, "DISTILL.KEEP_STATES", 2, "DISTILL.EMA.DECAY", 0.5)
CLIPPING = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm")


@pytest.fixture()
def make_run(make_cfg, tmp_path):
    """A configuration and its file, by the name of its folder."""

    def make(name, sharding, state=None):
        cfg = make_cfg("OUTPUT_DIR", str(tmp_path / name), "DISTILL.SHARDING", sharding, *CHANGES, *CLIPPING)
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
        if state is not None:
            (tmp_path / name).mkdir()
            shutil.copy(state, tmp_path / name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(cfg.dump())
        return cfg, path

    return make


def states(cfg) -> list[dict]:
    """After three steps and after six."""
    return [read_state(Path(cfg.OUTPUT_DIR) / f"state_{step:08d}.pt") for step in (3, 6)]


def assert_close(one: dict, two: dict, tolerance: float) -> None:
    """Student, average and moments; the same entries in the files."""
    assert one.keys() == two.keys() and one["step"] == two["step"] and one["images_drawn"] == two["images_drawn"]
    for part in ("student", "average"):
        assert one[part].keys() == two[part].keys()
        for name, value in one[part].items():
            torch.testing.assert_close(value, two[part][name], atol=tolerance, rtol=0)
    first, second = one["optimizer"], two["optimizer"]
    assert first["param_groups"] == second["param_groups"] and first["state"].keys() == second["state"].keys()
    for index, moments in first["state"].items():
        for name, value in moments.items():
            torch.testing.assert_close(value, second["state"][index][name], atol=tolerance, rtol=0)


@pytest.mark.slow
def test_two_processes_that_share_train_as_two_that_do_not(make_run):
    (plain, first), (shared, second) = make_run("plain", "none"), make_run("shared", "zero1")
    output_of(start_processes(f"{first},{second}"))
    for one, two in zip(states(plain), states(shared), strict=True):
        assert_close(one, two, 1e-6)

    (again, third), (over, fourth) = (
        make_run(name, "zero1", Path(cfg.OUTPUT_DIR) / "state_00000003.pt")
        for name, cfg in (("again", shared), ("over", plain))
    )
    alone, _ = make_run("alone", "zero1", Path(shared.OUTPUT_DIR) / "state_00000003.pt")
    process = start_processes(f"{third},{fourth}")
    run(alone, resume=True)  # a single process, which has nothing to share
    output_of(process)
    end = states(shared)[1]
    for resumed in (again, over):
        assert_close(read_state(latest_state(resumed.OUTPUT_DIR)), end, 0.0)
    assert_close({**read_state(latest_state(alone.OUTPUT_DIR)), "generators": None}, {**end, "generators": None}, 1e-5)


def test_unknown_sharding_is_refused(make_cfg):
    with pytest.raises(ConfigurationError, match="DISTILL.SHARDING is 'zero3'; legal are 'none', 'zero1'"):
        run(make_cfg("DISTILL.SHARDING", "zero3"))
