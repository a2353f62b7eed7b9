"""Interleaved timing, ratios, and the tables of the README."""

import types

import pytest
import torch

import benchmarks.__main__
from benchmarks.__main__ import README, with_tables
from benchmarks.growth import largest_in, matrices_gib
from benchmarks.measure import Stopwatch, in_turns, ratio, written


def test_calls_take_turns_and_the_first_rounds_do_not_count():
    order, time = [], iter(range(100))
    seconds = in_turns({n: lambda n=n: order.append(n) for n in "ab"}, repeats=2, warmup=1, clock=lambda: next(time))
    assert order == list("ababab") and seconds == {"a": [1, 1], "b": [1, 1]}


def test_stopwatch_sums_seconds_and_restores_methods(monkeypatch):
    class Box:
        def open(self, what):
            return what + 1

    time, box = iter(range(100)), Box()
    monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: next(time))
    watch = Stopwatch({"open": (box, "open")}, torch.device("cpu"))
    for _ in range(2):
        with watch:
            assert box.open(1) == 2 and box.open(what=2) == 3
    assert watch.laps == [{"open": 2}, {"open": 2}] and "open" not in vars(box)


def test_calls_settle_in_their_turn():
    order, time = [], iter(range(100))
    seconds = in_turns(
        {n: lambda n=n: order.append(n) for n in "ab"}, repeats=1, warmup=1, settle=1, clock=lambda: next(time)
    )
    assert order == list("aabb" * 2) and seconds == {"a": [1], "b": [1]}


def test_a_stopwatch_counts_the_laps_that_turns_count():
    watch = Stopwatch({"open": (None, "")}, torch.device("cpu"))
    watch.laps = [{"open": 9.0}, {"open": 1.0}, {"open": 9.0}, {"open": 3.0}]
    assert watch.mean(settle=1) == {"open": 2.0} and watch.mean() == {"open": 5.5}


def test_ratios_are_taken_round_by_round():
    value = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert value == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert written(value) == "2.00 (1.00 to 3.00)"
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0], [1.0, 2.0])


def test_the_largest_input_follows_from_the_measured_ones():
    def memory(side):
        return 1.0 + 1e-3 * (side / 16) ** 2 + matrices_gib(side, 1)

    points = [{"size": side, "peak_gib": memory(side)} for side in (256, 512, 768)]
    side = largest_in(points, 24.0)
    assert memory(side) <= 24 < memory(side + 16)
    assert largest_in(points[:2], 24.0) is None


def test_tables_go_between_the_marks():
    report = {"machine": "a machine", "torch": "2", "table": "| x |"}
    once = with_tables(README.read_text(), {"growth": report})
    assert "a machine" in once and "| x |" in once and once.startswith("# Benchmarks")
    assert with_tables(once, {"growth": report}) == once


def test_a_claim_measured_alone_leaves_the_others_tables():
    page = "# Title\n<!-- tables -->\nnothing yet\n<!-- end -->\nafter\n"
    first = {"machine": "a machine", "torch": "2", "table": "| x |", "notes": ["A note."]}
    both = with_tables(with_tables(page, {"growth": first}), {"data_path": {**first, "table": "| y |", "notes": []}})
    assert both.index("| y |") < both.index("| x |") < both.index("A note.") < both.index("after")
    assert "nothing yet" not in both
    again = with_tables(both, {"growth": {**first, "table": "| z |"}})
    assert "| y |" in again and "| z |" in again and "| x |" not in again


def test_a_claim_that_fails_loses_no_other(monkeypatch, capsys, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(README.read_text())
    monkeypatch.setattr(benchmarks.__main__, "README", page)

    def run(name):
        def main(given):
            if name == "benchmarks.data_path":
                raise RuntimeError("no images")
            return {"machine": "a machine", "torch": "2", "table": "| measured |"}

        return types.SimpleNamespace(main=main)

    monkeypatch.setattr(benchmarks.__main__.importlib, "import_module", run)
    assert benchmarks.__main__.main(["--only", "data_path", "growth"]) == 1
    assert "| measured |" in page.read_text()
    assert "no images" in (errors := capsys.readouterr().err) and "Not measured: data_path" in errors
