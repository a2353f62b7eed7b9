"""Processes that share the optimiser's state take the same steps, and their state is the ordinary one."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from denserc.engine import Sharding, load_whole_state, whole_state
from tests.engine import run_sharding
from tests.paths import ROOT


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What each of two processes ended with."""
    folder = tmp_path_factory.mktemp("sharding")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.run_sharding", port, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def assert_equal(one: dict, two: dict) -> None:
    """Weights and moments, to the bit."""
    assert one["model"].keys() == two["model"].keys()
    assert all(torch.equal(value, two["model"][name]) for name, value in one["model"].items())
    assert one["optimizer"]["param_groups"] == two["optimizer"]["param_groups"]
    assert one["optimizer"]["state"].keys() == two["optimizer"]["state"].keys()
    for index, moments in one["optimizer"]["state"].items():
        assert all(torch.equal(value, two["optimizer"]["state"][index][name]) for name, value in moments.items())


def test_steps_and_state_are_those_without_sharding(ranks):
    """Under clipping, a schedule by group, a tensor without gradient and a step skipped for its overflow."""
    plain, shared = ranks[0]["none"], ranks[0]["zero1"]
    assert_equal(plain, shared)
    assert shared["skipped"] == plain["skipped"] == 1 and shared["norms"][2:] == plain["norms"][2:]
    assert min(plain["norms"]) > 0.5  # so that clipping did something
    for name, value in ranks[0]["zero1"]["model"].items():
        assert torch.equal(value, ranks[1]["zero1"]["model"][name])
    assert 0 not in shared["optimizer"]["state"]  # the tensor without gradient


def test_each_process_keeps_its_part_of_the_moments(ranks):
    whole = ranks[0]["none"]["kept"]
    parts = [results["zero1"]["kept"] for results in ranks]
    assert sum(parts) == whole and max(parts) < 0.75 * whole
    assert [results["none"]["kept"] for results in ranks] == [whole, whole]


def test_a_state_goes_on_whoever_wrote_it(ranks):
    """With and without sharding, to the bit."""
    for name in ("none", "zero1"):
        assert_equal(ranks[0]["zero1"], ranks[0][f"from_{name}"])


def test_a_single_process_takes_over_the_shared_state(ranks):
    """And shares nothing, whatever it is told."""
    module = run_sharding.model()
    optimizer = run_sharding.optimizer(module, Sharding.ZERO1)
    assert type(optimizer) is torch.optim.AdamW
    load_whole_state(optimizer, ranks[0]["zero1"]["optimizer"])
    assert_equal({"model": {}, "optimizer": whole_state(optimizer)}, {**ranks[0]["zero1"], "model": {}})
    # Half the batch in each process, and the whole here: the same steps to rounding.
    alone = run_sharding.train(Sharding.NONE, 0, 1, first=3, state=ranks[0]["zero1"]["half"])
    for name, value in alone["model"].items():
        torch.testing.assert_close(value, ranks[0]["zero1"]["model"][name], atol=1e-6, rtol=1e-5)
