"""The benchmark measures, and goes on after a size that fails."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture()
def benchmark():
    spec = importlib.util.spec_from_file_location("step", ROOT / "benchmarks" / "distillation_step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = ["--encoder", "DenseRC-Miniature", "--foundation", "colour_texture_p8", "--crop", "32", "--steps", "1"]


@pytest.mark.slow
def test_sizes_are_measured_apart_and_a_failure_is_a_row(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ballast = bytearray(b"x") * 2**30  # a large parent: its size must not hide the child's
    path = tmp_path / "folder" / "report.json"
    report = benchmark.main([*TINY, "--device", "cpu", "--sizes", "64", "65", "--output", str(path)])
    del ballast
    good, bad = report["rows"]
    assert good["size"] == 64 and good["seconds"] > 0 and 0 < good["peak_gib"] < 8
    assert "65 is not a multiple of its patch size" in bad["error"]
    assert json.loads(path.read_text()) == report
    assert "peak GiB" in capsys.readouterr().out
