"""The whole demo at a small size: every stage runs and writes its files, and a second call recomputes nothing."""

import json

import pytest

from denserc.miniature.demo.run import run_demo
from denserc.miniature.demo.stages import CONTENDERS, Places
from denserc.miniature.write_world import Sizes
from tests.paths import CONFIGS

SIZES = Sizes(train=8, val=4, transfer=3, lvis_train=4, lvis_val=2)
FEW = ["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 0]


@pytest.mark.slow
def test_the_demo_runs_and_keeps_what_it_has(tmp_path, capsys):
    places = Places(tmp_path, CONFIGS)
    options = {
        "names": ["solid blue ring", "emerald hoop"],
        "sizes": SIZES,
        "encoder_overrides": FEW,
        "detector_overrides": [*FEW, "SOLVER.STEPS", ()],
        "segmenter_overrides": FEW,
        "processes": 2,
    }
    table = run_demo(places, **options)
    assert set(table.rows) == {c.title for c in CONTENDERS}
    for name in ("boxes", "things", "stuff", "novel", "base", "all", "transfer"):
        assert all(0 <= table.rows[c.title][name].mean <= 100 for c in CONTENDERS), name
    report = (tmp_path / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 13
    assert all((tmp_path / f"segmentation_{domain}.png").is_file() for domain in ("main", "transfer"))
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["asked"]["found"]) == 6 and len(results["table"]) == 3
    assert [row["row"] for row in results["segmentation_table"]] == list(table.rows)
    for name in ("seen", "unseen", "transfer", "training_free", "training_free_unseen"):
        assert all(0 <= row[name]["mean"] <= 100 for row in results["segmentation_table"]), name

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "seed0").rglob("*")}
    again = run_demo(places, **options)
    assert again.to_json() == table.to_json()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "seed0").rglob("*")} == made
    assert "Report:" in capsys.readouterr().out
