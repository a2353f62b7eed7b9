"""The benchmark measures each way, and goes on after a size that fails."""

import json

import pytest

from benchmarks import distillation_step, measure
from tests.paths import ROOT


@pytest.mark.slow
def test_ways_are_measured_apart_and_a_failure_is_a_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(distillation_step, "write", lambda name, report: measure.write(name, report, tmp_path))
    ballast = bytearray(b"x") * 2**30  # a large parent: its size must not hide the child's
    given = ["--quick", "--device", "cpu", "--rounds", "1", "--ways", "ours", "explicit", "--sizes", "64", "65"]
    report = distillation_step.main(given)
    del ballast
    good, bad = report["rows"]
    assert good["errors"] == {} and 0 < good["ours"]["peak_gib"] < 8
    assert good["ours"]["share_of_peak"] > 0 and good["explicit"]["seconds_over_ours"]["median"] > 0
    assert "65 is not a multiple of its patch size" in bad["errors"]["ours"]
    assert json.loads((tmp_path / "distillation_step.json").read_text())["rows"] == report["rows"]
    assert "s a step" in capsys.readouterr().out
