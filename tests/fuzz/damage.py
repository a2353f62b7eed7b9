"""Strategies of Hypothesis that damage valid content: JSON trees at random places, bytes, text and tensors."""

import copy
import gzip
import json
from typing import Any

import torch
from hypothesis import strategies as st

WRONG_VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    1.5,
    -2.5,
    2**31,
    2**53,
    2**63,
    2**70,
    -(2**70),
    10**400,
    1e300,
    -1e300,
    1e-300,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "0",
    "1",
    "-1",
    "1.5",
    "nan",
    "abc",
    "a" * 3000,
    "\ud800",
    "\ufeff",
    "\0",
    "../../x",
    "/",
    "http://x/y.png",
    "C:\\x.png",
    [],
    {},
    [1],
    [[1]],
    [[]],
    [None],
    ["a"],
    {"a": 1},
    [1, 2, 3],
    [1, 2, 3, 4],
    [1, 2, 3, 4, 5],
    [-5, -5, 2, 2],
    [0, 0, 0, 0],
    [None, None, None, None],
    [float("nan")] * 4,
    ["1", "2", "3", "4"],
    [[1, 2, 3, 4, 5, 6]],
    [[float("nan")] * 6],
    [[1e12] * 8],
    {"size": [2, 2], "counts": [4]},
    {"size": [0, 0], "counts": "0"},
    {"size": [48, 64], "counts": "abc"},
    {"size": [48, 64], "counts": [1, 2]},
    {"size": ["48", "64"], "counts": [3072]},
    {"counts": [3072]},
)


class Content(bytes):
    """Bytes of a file, shown by their beginning."""

    def __repr__(self) -> str:
        return f"{bytes(self[:1500])!r}" + (f"... ({len(self)} bytes)" if len(self) > 1500 else "")


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything inside a tree of dicts and lists; the root is ()."""
    found = [path]
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        found += places(value, (*path, key))
    return found


@st.composite
def damaged_trees(draw, tree: Any) -> Any:
    """A copy of a tree with one to three faults: values replaced, removed, doubled, wrapped, exchanged or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(tree)))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(st.sampled_from(WRONG_VALUES))
            continue
        parent = _at(tree, path[:-1])
        _damage(draw, parent, path[-1])
    return tree


def _damage(draw, parent: dict | list, key) -> None:
    action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "wrap", "exchange", "rename"]))
    if action == "replace":
        parent[key] = copy.deepcopy(draw(st.sampled_from(WRONG_VALUES)))
    elif action == "remove":
        del parent[key]
    elif action == "wrap":
        parent[key] = draw(st.sampled_from([[parent[key]], {"a": parent[key]}, str(parent[key])]))
    elif action == "double" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif action == "exchange":
        other = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else list(range(len(parent)))))
        parent[key], parent[other] = parent[other], parent[key]
    elif isinstance(parent, dict):
        parent[draw(st.sampled_from(["", "x", "id", "\ud800", str(key).upper()]))] = parent.pop(key)


def _at(tree: Any, path: tuple) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def damaged_bytes(content: bytes) -> st.SearchStrategy:
    """Bytes cut short, changed, removed, repeated, compressed, marked, recoded or replaced."""
    return _damaged_bytes(content).map(Content)


@st.composite
def _damaged_bytes(draw, content: bytes) -> bytes:
    action = draw(st.sampled_from(["cut", "change", "change", "remove", "twice", "gzip", "mark", "latin1", "other"]))
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    if action == "cut":
        return content[:place]
    if action == "change":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 8)) if changed else 0):
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    if action == "remove":
        return content[:place] + content[place + draw(st.integers(1, 64)) :]
    if action == "twice":
        return content + content
    if action == "gzip":
        return gzip.compress(content, mtime=0)[: draw(st.sampled_from([None, -3, 12]))]
    if action == "mark":
        return b"\xef\xbb\xbf" + content
    if action == "latin1":
        return content[:place] + b"\xe9" + content[place:]
    return draw(
        st.sampled_from(
            [
                b"",
                b"\0",
                b"{",
                b"[]",
                b"{}",
                b"null",
                b"[" * 100_000,
                b"<!DOCTYPE html><html></html>",
                b"[1, 2",
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
                b"PK\x03\x04",
                b"\x89PNG\r\n\x1a\n",
            ]
        )
    )


def as_json(tree: Any) -> bytes:
    """A JSON file."""
    return Content(json.dumps(tree).encode())


def as_lines(records: list) -> bytes:
    """A JSON Lines file."""
    return Content("".join(json.dumps(line) + "\n" for line in records).encode())


@st.composite
def damaged_json(draw, tree: Any) -> bytes:
    """A JSON file with faults of content (mostly) or of form."""
    if draw(st.integers(0, 4)):
        return as_json(draw(damaged_trees(tree)))
    return draw(damaged_bytes(as_json(tree)))


@st.composite
def damaged_lines(draw, records: list) -> bytes:
    """A JSON Lines file with faults of content (mostly) or of form."""
    if draw(st.integers(0, 4)):
        tree = draw(damaged_trees(records))
        return as_lines(tree if isinstance(tree, list) else [tree])
    return draw(damaged_bytes(as_lines(records)))


@st.composite
def damaged_states(draw, state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Weights with faults: tensors of other dtype, shape or values, renamed, removed or added."""
    state = dict(state)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(state)))
        tensor = state[name]
        if not isinstance(tensor, torch.Tensor):
            continue
        state[name] = draw(st.sampled_from(_other_tensors(tensor)))
        if state[name] is None:
            del state[name]
        if draw(st.integers(0, 5)) == 0:
            state["rope.freqs_cos_1600"] = torch.zeros(4)
        if draw(st.integers(0, 5)) == 0:
            state["x.unknown"] = torch.zeros(2)
    return state


def _other_tensors(tensor: torch.Tensor) -> list:
    return [
        torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor[..., :0],
        tensor.double(),
        tensor.half(),
        tensor.bfloat16(),
        tensor.int(),
        tensor.bool(),
        tensor.to(torch.complex64),
        tensor[None],
        tensor[..., :-1] if tensor.ndim else tensor,
        tensor.flatten(),
        torch.zeros(0),
        torch.tensor(1.0),
        None,
        torch.where(torch.arange(tensor.numel()).reshape(tensor.shape) == 0, torch.inf, tensor.float()),
    ]
