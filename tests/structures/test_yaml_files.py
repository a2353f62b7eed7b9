"""YAML of plain values, or an error that names the file."""

import pytest

from denserc.structures import DataError
from denserc.structures.yaml_files import read_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_plain_values_anchors_and_merges_are_read(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: &one {x: 1, y: [no, 2.5]}\nb: {<<: *one, x: 3}\n")
    assert read_yaml(tmp_path / "a.yaml", "file") == {
        "a": {"x": 1, "y": [False, 2.5]},
        "b": {"x": 3, "y": [False, 2.5]},
    }
    (tmp_path / "a.yaml").write_text("")
    assert read_yaml(tmp_path / "a.yaml", "file") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\na: 2", "'a' is given twice.*line 2"),
        ("a: {b: 1, c: 2, b: 3}", "'b' is given twice"),
        ("a: &a [*a]", "an alias contains itself"),
        ("&a {b: *a}", "an alias contains itself"),
        (LAUGHS, "more than a million values"),
        ("[" * 5000, "nested too deeply|not a readable"),
        ("a: 2026-13-45", "not a readable YAML file of plain values"),
        ("a: !!python/name:os.system", "Python tags are refused"),
        ("a: !!int x", "not a readable"),
        ("a: !!omap 3", "not a readable"),
        ("? [a]\n: 1", "not a readable"),
        ("a: [1, 2", "not a readable"),
        ("a: 1\n--- \nb: 2", "not a readable"),
        ("a: \x00", "not a readable"),
        ("version https://git-lfs.github.com/spec/v1\noid: sha256:1: 2", "pointer of Git LFS"),
        ("<!DOCTYPE html><p>: x: y", "web page"),
        (b"a: caf\xe9", "not UTF-8: byte 6 is 0xe9"),
        (b"\xff\xfea\x00", "not UTF-8"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"(?s)a.yaml is .*({message})"):
        read_yaml(path, "file")
