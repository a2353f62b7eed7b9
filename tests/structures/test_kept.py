"""Results kept on disk."""

from denserc.structures import kept


def test_a_result_is_computed_once_for_each_settings(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"score": len(calls)}

    file = tmp_path / "deep" / "result.json"
    first = kept(file, "a", compute)
    assert first["score"] == 1 and first["seconds"] >= 0
    assert kept(file, "a", compute) == first
    assert kept(file, "b", compute)["score"] == 2
    assert len(calls) == 2
    assert [path.name for path in file.parent.iterdir()] == ["result.json"]
