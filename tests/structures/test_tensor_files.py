"""Files of tensors: kind told by content, no code of a file runs, damage told, metadata typed."""

import json
import pickle
import random
import struct
import threading
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from denserc.structures import CheckpointError, DataError
from denserc.structures.tensor_files import (
    FileKind,
    Replaced,
    read_header,
    read_tensor_file,
    require_metadata_digest,
    tensor_file_kind,
    write_tensor_file,
)
from tests.paths import FIXTURES

TENSORS = {"a.weight": torch.arange(12.0).reshape(4, 3), "b": torch.arange(5), "c": torch.tensor(2.5).half()}
PAGE = FIXTURES / "cases" / "44-web-page-as-weights" / "made.pt"


def write(path, kind, content=None):
    """A file of one of the kinds that are read."""
    content = TENSORS if content is None else content
    if kind is FileKind.SAFETENSORS:
        write_tensor_file(path, content, {"about": "a test"})
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind is FileKind.TORCH)
    return path


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin", "w"])
@pytest.mark.parametrize("kind", [FileKind.SAFETENSORS, FileKind.TORCH, FileKind.OLD_TORCH])
def test_the_name_of_a_file_does_not_matter(tmp_path, kind, name):
    path = write(tmp_path / name, kind)
    assert tensor_file_kind(path, "weights file") is kind
    file = read_tensor_file(path, "weights file")
    file.require_intact()
    assert file.content.keys() == TENSORS.keys()
    assert all(torch.equal(file.content[key], value) for key, value in TENSORS.items())
    assert file.metadata == ({"about": "a test"} if kind is FileKind.SAFETENSORS else {})


def zip_of(*names, compression=zipfile.ZIP_STORED):
    def make(path):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name in names:
                archive.writestr(name, "x" * 100)

    return make


def bytes_of(content):
    return lambda path: path.write_bytes(content)


def tensors_cut_at(size):
    def make(path):
        path.write_bytes(write(path, FileKind.TORCH).read_bytes()[:size])

    return make


OTHERS = {
    "a web page": (bytes_of(PAGE.read_bytes()), "a web page or XML, which begins with '<!DOCTYPE html>"),
    "xml": (bytes_of(b"\xef\xbb\xbf\n <?xml version='1.0'?><Error/>"), "a web page or XML"),
    "empty": (bytes_of(b""), "empty"),
    "lfs": (bytes_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"), "Git LFS.*git lfs pull"),
    "json": (bytes_of(b'{"error": "not found"}'), "JSON"),
    "index": (bytes_of(b'{"metadata": {"total_size": 3}, "weight_map": {}}'), "index of weights in several files"),
    "gzip": (bytes_of(b"\x1f\x8b\x08\0" + bytes(20)), "compressed by gzip"),
    "xz": (bytes_of(b"\xfd7zXZ\0" + bytes(20)), "compressed by xz"),
    "tar": (bytes_of(b"data.pkl" + bytes(249) + b"ustar\x0000" + bytes(300)), "tar archive"),
    "text": (bytes_of(b"Quota exceeded"), "text, which begins with 'Quota exceeded'"),
    "picture": (bytes_of(b"\x89PNG\r\n\x1a\n" + bytes(30)), "a picture"),
    "noise": (bytes_of(bytes(range(200, 256))), "not known: it begins with the bytes c8 c9"),
    "zeros": (bytes_of(bytes(5000)), "not known"),
    "pickle": (bytes_of(pickle.dumps({"model": {"a": np.zeros(3)}})), "pickle of Python"),
    "archive": (zip_of("a.txt", "b.txt"), r"a zip archive of a\.txt, b\.txt"),
    "program": (zip_of("m/data.pkl", "m/constants.pkl", "m/code/a.py"), "TorchScript archive, a program"),
    "packed": (zip_of("m/data.pkl", compression=zipfile.ZIP_DEFLATED), "compressed, which torch.save never does"),
    "half": (tensors_cut_at(700), "cut short or damaged"),
    "array": (lambda path: np.save(path.open("wb"), np.zeros(3)), "an array of NumPy"),
    "arrays": (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), r"a zip archive of a\.npy"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("error", [CheckpointError, DataError])
def test_other_files_are_named_for_what_they_are(tmp_path, kind, error):
    make, given = OTHERS[kind]
    path = tmp_path / "made.pt"
    make(path)
    with pytest.raises(error, match=rf"made\.pt is not a weights file: it is .*{given}"):
        read_tensor_file(path, "weights file", error=error)


def test_absent_files_folders_and_impossible_names_are_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no weights file at .*absent\.pt. Say where"):
        read_tensor_file(tmp_path / "absent.pt", "weights file", advice="Say where.")
    with pytest.raises(CheckpointError, match="is a folder, not a weights file"):
        read_tensor_file(tmp_path, "weights file")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_tensor_file("a\0b", "weights file")


@pytest.mark.parametrize(
    "header",
    [b"{", b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}', b'{"a":{"dtype":"Q7","shape":[1],'
     b'"data_offsets":[0,4]}}', b'{"__metadata__":{"a":3}}', b'{"a":[1]}', b'{"a":{"dtype":"F32","shape":[-1],'
     b'"data_offsets":[0,4]}}'],
)  # fmt: skip
def test_damaged_headers_of_safetensors_name_the_file(tmp_path, header):
    (tmp_path / "a.pt").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read as a safetensors file"):
        read_tensor_file(tmp_path / "a.pt", "weights file")


class Runs:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("kind", [FileKind.TORCH, FileKind.OLD_TORCH])
@pytest.mark.parametrize("module", ["builtins", "os"])
def test_code_in_a_file_never_runs(tmp_path, kind, module):
    function = {"builtins": exec, "os": __import__("os").system}[module]
    mark = tmp_path / "ran"
    argument = f"open({str(mark)!r}, 'w')" if module == "builtins" else f"touch {mark}"
    path = write(tmp_path / "evil.pt", kind, {"state_dict": TENSORS, "extra": Runs(function, argument)})
    with pytest.raises(CheckpointError, match=r"evil\.pt holds more than tensors: objects of .*(exec|system)"):
        read_tensor_file(path, "weights file")
    assert not mark.exists()


def test_refused_classes_are_listed_with_the_remedy(tmp_path):
    path = write(tmp_path / "module.pt", FileKind.TORCH, {"state_dict": TENSORS, "model": torch.nn.Linear(1, 1)})
    with pytest.raises(
        CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear.*weights_only=False\)\['state_dict'\]"
    ):
        read_tensor_file(path, "weights file")


@pytest.mark.parametrize("kind", [FileKind.TORCH, FileKind.OLD_TORCH])
@pytest.mark.parametrize(
    "beside",
    [np.float64(0.5), np.float32(2), np.int64(3), np.bool_(True), np.zeros((2, 3)), np.arange(4, dtype=np.uint8),
     np.array(["a", "bc"]), np.random.RandomState(0).get_state(), PAGE, __import__("argparse").Namespace(lr=0.1)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_of_numpy_beside_the_weights_are_left_out(tmp_path, kind, beside):
    path = write(tmp_path / "w.pt", kind, {"state_dict": TENSORS, "optimizer": {"param_groups": [{"lr": beside}]}})
    content = read_tensor_file(path, "weights file").content
    assert torch.equal(content["state_dict"]["a.weight"], TENSORS["a.weight"])
    left = content["optimizer"]["param_groups"][0]["lr"]
    assert isinstance(left, Replaced | tuple) and vars(Replaced()) == {}


def test_pytorchs_list_of_safe_classes_stays_as_it_was(tmp_path):
    path = write(tmp_path / "w.pt", FileKind.TORCH, {"a": TENSORS["b"], "lr": np.float64(0.5)})
    before = torch.serialization.get_safe_globals()
    failures = []

    def read():
        try:
            read_tensor_file(path, "weights file")
        except CheckpointError as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and torch.serialization.get_safe_globals() == before


@pytest.mark.parametrize("kind", [FileKind.SAFETENSORS, FileKind.TORCH])
def test_any_flipped_bit_of_a_tensor_is_told(tmp_path, kind):
    path = write(tmp_path / "w.pt", kind, {"a": torch.rand(300), "b": torch.rand(20).half()})
    data = path.read_bytes()
    start = data.index(read_tensor_file(path, "weights file").content["a"].numpy().tobytes())
    for bit in random.Random(0).sample(range(8 * 1200), 40):
        damaged = bytearray(data)
        damaged[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        file = read_tensor_file(path, "weights file")
        with pytest.raises(CheckpointError, match=r"w\.pt is damaged"):
            file.require_intact()


@pytest.mark.parametrize("kind", [FileKind.SAFETENSORS, FileKind.TORCH])
def test_damage_anywhere_changes_nothing_or_is_told(tmp_path, kind):
    path = write(tmp_path / "w.pt", kind, {"state_dict": TENSORS} if kind is FileKind.TORCH else TENSORS)
    data, rng, told = path.read_bytes(), random.Random(0), 0
    right = read_tensor_file(path, "weights file").content
    for _ in range(300):
        damaged, at = bytearray(data), rng.randrange(len(data))
        if rng.random() < 0.5:
            damaged[at] ^= 1 << rng.randrange(8)
        else:
            damaged[at : at + rng.randrange(40)] = bytes(rng.randrange(30))
        path.write_bytes(damaged)
        try:
            file = read_tensor_file(path, "weights file")
            file.require_intact()
        except CheckpointError as error:
            assert "w.pt" in str(error)
            told += 1
        else:
            assert _same(file.content, right)
    assert told > 100


def _same(a, b):
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in b)
    return torch.equal(a, b)


def test_files_without_a_digest_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "old.safetensors", metadata={"about": "old"})
    file = read_tensor_file(tmp_path / "old.safetensors", "weights file")
    file.require_intact()
    assert file.digests == {} and file.metadata == {"about": "old"}
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "no_crc.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    read_tensor_file(tmp_path / "no_crc.pt", "weights file").require_intact()


def test_changed_metadata_are_told(tmp_path):
    path = write(tmp_path / "w.safetensors", FileKind.SAFETENSORS)
    assert read_header(path, "weights file") == {"about": "a test"}
    require_metadata_digest(path, "weights file")
    path.write_bytes(path.read_bytes().replace(b"a test", b"a tess"))
    with pytest.raises(CheckpointError, match="metadata of .*w.safetensors were changed"):
        require_metadata_digest(path, "weights file")
    with pytest.raises(CheckpointError, match="is no safetensors file but one of torch.save"):
        read_header(write(tmp_path / "w.pt", FileKind.TORCH), "weights file")


def test_digests_depend_on_names_types_and_shapes(tmp_path):
    contents = [{"a": torch.zeros(4)}, {"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4).int()}]
    found = set()
    for i, content in enumerate(contents):
        write_tensor_file(tmp_path / f"{i}.safetensors", content, {})
        found.add(json.dumps(read_tensor_file(tmp_path / f"{i}.safetensors", "weights file").digests))
    assert len(found) == len(contents)


def test_equal_content_is_equal_bytes(tmp_path):
    metadata = {name: f"{name} \u00e9" for name in "abcdefgh"}
    written = set()
    for number in range(5):
        write_tensor_file(tmp_path / f"{number}.safetensors", {"x": torch.ones(3), "y": torch.zeros(2)}, metadata)
        written.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(written) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert metadata.items() <= file.metadata().items() and torch.equal(file.get_tensor("x"), torch.ones(3))
