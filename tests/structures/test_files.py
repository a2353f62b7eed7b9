"""Files are complete or unchanged, have the permissions of the umask, and are written by one function."""

import json
import re

import numpy as np
import pytest
import torch

from denserc.structures import cached_result, write_atomically
from denserc.structures.files import finite_or_null, whole_lines_size, write_json, write_text
from tests.paths import ROOT

# Files that grow line by line: logs of predictions and answers are resumed, parts of proposals are joined atomically.
STREAMS = {"structures/atomic.py", "evaluation/detection/prediction_log.py", "detection/proposals.py"}
STREAMS |= {"llava/answer_log.py", "llava/trainer.py"}
# A folder that Hugging Face's code writes whole below another name.
STREAMS |= {"llava/engine.py"}
# A data set's pictures, written anew with the rest of a folder that is absent or refused.
STREAMS |= {"miniature/write_world.py"}
BY_ITSELF = re.compile(r"\.write_text\(|\.write_bytes\(|os\.replace|\.open\(\"[wax]|\bopen\([^)]*\"[wax]b?\"|savez")


def test_only_one_module_writes_files():
    found = {}
    for path in sorted((ROOT / "denserc").rglob("*.py")):
        name = path.relative_to(ROOT / "denserc").as_posix()
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if BY_ITSELF.search(line)]
        alone = [line for line in lines if "atomic_path(" not in line and not line.startswith("partial.")]
        if alone and name not in STREAMS:
            found[name] = alone
    assert not found, f"use denserc.structures.atomic_path: {found}"


@pytest.mark.parametrize("line", ['p.write_text("a")', 'with p.open("w") as f:', "os.replace(a, b)", 'open(p, "wb")'])
def test_other_writers_are_found(line):
    assert BY_ITSELF.search(line)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "new"),
        lambda path: write_json(path, {"new": 1}),
        lambda path: write_atomically(path, {"new": torch.ones(1)}),
    ],
)
def test_failed_write_leaves_the_file_before_it(tmp_path, write, monkeypatch):
    path = tmp_path / "deep" / "file.pt"
    write_text(path, "old")
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(path)
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["file.pt"]
    write(path)
    assert path.read_bytes() != b"old" and [p.name for p in path.parent.iterdir()] == ["file.pt"]


def test_json_is_strict(tmp_path):
    content = {"a": float("nan"), 1: (np.float32(1.5), np.float64("inf")), "s": "NaN", "n": None, "b": True}
    assert finite_or_null(content) == {"a": None, "1": [1.5, None], "s": "NaN", "n": None, "b": True}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == finite_or_null(content)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})


def test_a_result_is_computed_once_for_each_settings(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"score": len(calls)}

    file = tmp_path / "deep" / "result.json"
    first = cached_result(file, "a", compute)
    assert first["score"] == 1 and first["seconds"] >= 0
    assert cached_result(file, "a", compute) == first
    assert cached_result(file, "b", compute)["score"] == 2
    assert len(calls) == 2
    assert [path.name for path in file.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    "change",
    [lambda text: text[:-20], lambda text: "", lambda text: "[1]", lambda text: "<html>",
     lambda text: text.replace('"score": 1', '"score": 7'), lambda text: text.replace('"result"', '"other"'),
     lambda text: "[" * 100_000, lambda text: "{}",
     lambda text: json.dumps({**json.loads(text), "result": [1]}),
     lambda text: json.dumps({**json.loads(text), "digest": 3})],
    ids=range(10),
)  # fmt: skip
def test_a_damaged_result_is_computed_again(tmp_path, change, caplog):
    file = tmp_path / "result.json"
    cached_result(file, "a", lambda: {"score": 1})
    file.write_text(change(file.read_text()))
    result = cached_result(file, "a", lambda: {"score": 1})
    assert result["score"] == 1
    assert "not believed" in caplog.text
    caplog.clear()
    assert cached_result(file, "a", dict) == result and not caplog.text


def test_results_of_older_versions_have_no_digest(tmp_path):
    file = tmp_path / "result.json"
    cached_result(file, "a", lambda: {"score": 1})
    found = json.loads(file.read_text())
    del found["digest"]
    file.write_text(json.dumps(found))
    assert cached_result(file, "a", dict)["score"] == 1


@pytest.mark.parametrize(
    "content, size", [(b"", 0), (b"ab", 0), (b"ab\n", 3), (b"ab\ncd", 3), (b"a\n" + b"x" * (3 << 20), 2)]
)
def test_size_up_to_the_last_whole_line(tmp_path, content, size):
    (tmp_path / "a").write_bytes(content)
    assert whole_lines_size(tmp_path / "a") == size
