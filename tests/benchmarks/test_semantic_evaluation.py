"""The comparison of evaluators compares equal figures."""

from benchmarks import semantic_evaluation


def test_both_evaluators_find_the_same(tmp_path, monkeypatch, forget_registered):
    monkeypatch.chdir(tmp_path)
    report = semantic_evaluation.main(["--quick"])
    assert report["largest_difference"] < 1e-9 and 10 < report["figures"]["ours"][0] < 90
    assert set(report["seconds"]) == {"Detectron2", "denserc", "denserc, on disk"}
    assert (tmp_path / "output/benchmarks/semantic_evaluation.json").is_file()
