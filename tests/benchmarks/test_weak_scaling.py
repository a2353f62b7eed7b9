"""Weak scaling: its ratios, and both commands in several processes."""

import json

import pytest

from benchmarks import weak_scaling


def test_efficiency_and_what_joining_costs(monkeypatch, tmp_path):
    """Steps that take 2 s by themselves, 2.5 s side by side and 4 s together."""
    taken = {(1, 1): 2.0, (2, 1): 2.5, (1, 2): 4.0}

    def trained(copies, processes, command, images, steps):
        assert images == 3 and steps == 3 + 7 and "SOLVER.SHARDING" in command
        return {"seconds": taken[copies, processes], "data_seconds": 0.3}

    monkeypatch.setattr(weak_scaling, "trained", trained)
    monkeypatch.setattr(weak_scaling, "learning_parameters", lambda cfg: 1000)
    monkeypatch.setattr(weak_scaling, "start", lambda processes, command: command)
    monkeypatch.setattr(weak_scaling, "finish", lambda command: f'a line of a log\n{{"seconds": {command[-1]}}}')
    monkeypatch.chdir(tmp_path)
    report = weak_scaling.main(["--images", "3", "--steps", "7", "--rounds", "1", "--only", "distillation"])
    row = report["rows"][0]
    assert row["efficiency"]["median"] == 0.5 and row["efficiency_side_by_side"]["median"] == 0.8
    assert row["share_of_joining"]["median"] == pytest.approx(1.5 / 4)
    assert row["gradient_bytes"] == row["sent_bytes"] == row["seconds_of_all_reduce_alone"] == 4000
    assert row["loader_seconds_an_image"] == pytest.approx(0.1)
    assert "0.50 (0.50 to 0.50)" in report["table"]


@pytest.mark.slow
@pytest.mark.parametrize("name", weak_scaling.QUICK)
def test_the_commands_run_in_two_processes(tmp_path, name):
    command = [*weak_scaling.command_of(name, *weak_scaling.QUICK[name]), *weak_scaling.write_data(tmp_path)]
    step = weak_scaling.trained(1, 2, command, 1, 4)
    assert step["seconds"] > step["data_seconds"] > 0


@pytest.mark.slow
def test_an_all_reduce_is_measured_over_buckets():
    output = weak_scaling.finish(weak_scaling.start(2, ["-m", "benchmarks.weak_scaling", "--reduce", str(2**26)]))
    assert json.loads(output.splitlines()[-1])["seconds"] > 0


def test_a_training_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no_such_script.py"):
        weak_scaling.finish(weak_scaling.start(1, ["no_such_script.py"]))
