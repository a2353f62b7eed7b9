"""The whole `denserc demo --llava` in small: everything is written, and a second call computes nothing again."""

import json

import pytest

from denserc.miniature.demo.stages import Places
from denserc.miniature.write_world import Sizes
from tests.paths import CONFIGS

pytest.importorskip("transformers", reason="needs denserc[llava]")
pytest.importorskip("accelerate", reason="needs denserc[llava]")

FEW = ["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2]
SMALL = ["MODEL.LLAVA.LLAMA", (32, 2, 2, 48)]


@pytest.mark.slow
def test_the_demo_runs_and_keeps_what_it_has(tmp_path, capsys):
    from denserc.miniature.demo.llava_stages import variants
    from denserc.miniature.demo.run_llava import run_llava_demo
    from denserc.miniature.llava.write_questions import QuestionSizes

    places = Places(tmp_path, CONFIGS)
    options = {
        "features": ["penultimate", "joined"],
        "sizes": Sizes(train=8, val=4, transfer=3, lvis_train=4, lvis_val=2),
        "question_sizes": QuestionSizes(text=6, train=5, test=4),
        "encoder_overrides": [*FEW, "SOLVER.WARMUP_ITERS", 0],
        "llava_overrides": [*FEW, *SMALL],
        "processes": 2,
    }
    table = run_llava_demo(places, **options)
    shown = variants(options["features"])
    assert list(table.rows) == [one.title for one in shown]
    assert all(0 <= row["mme"].mean <= 800 and 0 <= row["gqa"].mean <= 100 for row in table.rows.values())
    results = json.loads((tmp_path / "llava" / "results.json").read_text())
    blind = results["runs"]["0"]["blind"]
    assert "align" not in blind and results["runs"]["0"]["clip_joined"]["align"]["steps"] == 2
    report = (tmp_path / "llava" / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 4

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "seed0").rglob("*")}
    assert run_llava_demo(places, **options).to_json() == table.to_json()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "seed0").rglob("*")} == made
    assert "Report:" in capsys.readouterr().out


def test_features_need_llava(capsys):
    from denserc.commands.demo import main

    with pytest.raises(SystemExit):
        main(["--features", "dense"])
    assert "--features belongs to --llava" in capsys.readouterr().err
