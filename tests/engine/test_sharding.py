"""Processes that share weights take the same steps, and their files are the ordinary ones."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from denserc.engine import Sharding
from denserc.engine.sharding import load_optimizer, sharded_root, whole_optimizer, whole_weights
from tests.engine import run_sharding
from tests.paths import ROOT
from tests.states import assert_close

STATE = ("model", "optimizer", "average")


@pytest.fixture(scope="module")
def alone() -> dict:
    """Result of a single process, which never shards, whatever the setting."""
    return run_sharding.train(Sharding.FSDP, 0, 1)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, alone) -> list[dict]:
    """Result of each of two processes."""
    folder = tmp_path_factory.mktemp("sharding")
    torch.save(alone["half"], folder / "alone.pt")
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


def state(results: dict) -> dict:
    return {part: results[part] for part in STATE}


def test_steps_and_state_are_those_without_sharding(ranks):
    """With clipping, a schedule by group, accumulation, an average, and steps skipped for an overflow."""
    plain, shared = ranks[0]["none"], ranks[0]["fsdp"]
    assert_close(state(plain), state(shared), 1e-6)
    assert shared["skipped"] == ranks[1]["fsdp"]["skipped"] == plain["skipped"] == 2
    assert shared["norms"][2:] == pytest.approx(plain["norms"][2:])
    assert min(plain["norms"]) > 0.5  # so that clipping did something
    assert shared["model"]["scale"].shape == shared["optimizer"]["state"]["scale"]["exp_avg"].shape == ()
    assert not any(name.startswith(("unused", "frozen")) for name in shared["optimizer"]["state"])
    torch.testing.assert_close(shared["evaluated"], plain["evaluated"], atol=1e-6, rtol=0)
    assert torch.equal(ranks[1]["fsdp"]["evaluated"], shared["evaluated"])


def test_each_process_keeps_its_part(ranks):
    """Weights and moments; the frozen ones whole."""
    for entry in ("kept", "moments"):
        whole = ranks[0]["none"][entry]
        parts = [results["fsdp"][entry] for results in ranks]
        assert sum(parts) == whole and max(parts) < 0.75 * whole
    assert torch.equal(ranks[1]["fsdp"]["trained"]["frozen.weight"], ranks[0]["fsdp"]["model"]["frozen.weight"])
    assert ranks[1]["fsdp"]["model"] == {}  # files are written by the main process


@pytest.mark.parametrize("writer", ["none", "fsdp", "alone"])
def test_two_processes_resume_whoever_wrote_the_state(ranks, alone, writer):
    """Exactly from two processes; the whole batch in one process rounds differently."""
    expected, tolerance = (alone, 1e-6) if writer == "alone" else (ranks[0]["fsdp"], 0.0 if writer == "fsdp" else 1e-6)
    assert_close(state(ranks[0][f"from_{writer}"]), state(expected), tolerance)


def test_one_process_resumes_what_two_wrote(ranks):
    half = ranks[0]["fsdp"]["half"]
    resumed = run_sharding.train(Sharding.FSDP, 0, 1, state=half)
    assert_close(state(resumed), state(ranks[0]["fsdp"]), 1e-6)


def test_one_process_shares_nothing_and_resumes_bitwise(alone):
    assert not Sharding.FSDP.acts and sharded_root(run_sharding.Net()) is None
    assert_close(state(run_sharding.train(Sharding.NONE, 0, 1)), state(alone), 0.0)
    assert_close(state(run_sharding.train(Sharding.NONE, 0, 1, state=alone["half"])), state(alone), 0.0)


def test_a_numbered_optimizer_state_is_taken_over(alone):
    """Files of version 0.1 and Detectron2's have numbers for names."""
    net = run_sharding.Net()
    updates = run_sharding.optimizer(net)
    load_optimizer(net, updates, alone["optimizer"])
    numbered = updates.state_dict()
    assert isinstance(next(iter(numbered["state"])), int)
    again = run_sharding.optimizer(net)
    load_optimizer(net, again, numbered)
    assert_close(whole_optimizer(net, again), alone["optimizer"], 0.0)
    assert whole_weights(net).keys() == net.state_dict().keys()


def test_other_groups_are_refused(alone):
    net = run_sharding.Net()
    other = torch.optim.AdamW(net.head.parameters())
    with pytest.raises(ValueError, match="groups have other parameters"):
        load_optimizer(net, other, alone["optimizer"])
