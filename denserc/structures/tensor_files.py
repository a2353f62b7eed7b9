"""Files of tensors: kind told by content, read without running code in them, and damage found before they are used.

Two kinds are read. safetensors files of DenseRC have two digests in their metadata, of the metadata and of the tensors.
Archives of torch.save have a CRC-32 per record, which PyTorch itself does not check.
"""

import hashlib
import json
import os
import re
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import CheckpointError, DenseRCError
from .files import atomic_path
from .records import first_of, short

METADATA_DIGEST = "sha256.metadata"
TENSORS_DIGEST = "sha256.tensors"


class FileKind(Enum):
    """Kind of a file that holds tensors."""

    SAFETENSORS = "safetensors"
    TORCH = "torch.save"
    OLD_TORCH = "torch.save before PyTorch 1.6"
    NUMPY = "numpy.save"


@dataclass(frozen=True)
class TensorFile:
    """Content of a file of tensors, on the CPU.

    Args:
        path: Path of the file.
        what: Name of the content, for messages.
        kind: SAFETENSORS or TORCH or OLD_TORCH.
        content: Tensors by name; for a file of torch.save whatever it holds.
        metadata: Texts beside the tensors of a safetensors file, without digests; empty for other kinds.
        digests: Digests in a safetensors file.
        error: Class of the errors.
    """

    path: Path
    what: str
    kind: FileKind
    content: Any
    metadata: dict[str, str]
    digests: dict[str, str]
    error: type[DenseRCError]

    def require_intact(self) -> None:
        """Compare the tensors with the digest in the file, if it has one, and the records of torch.save with theirs.

        Call it after the checks of shapes and values, whose errors are more precise.

        Raises:
            DenseRCError: A bit of the file was changed.
        """
        if self.kind is FileKind.TORCH:
            _require_records(self.path, self.what, self.error, tensors=True)
        elif TENSORS_DIGEST in self.digests and self.digests[TENSORS_DIGEST] != tensors_digest(self.content):
            raise self.error(_damaged(self.path, self.what, "its tensors are not those that were written (SHA-256)"))


# --- The kind of a file -----------------------------------------------------------------------------------------------

_HEAD = 512
_MAX_HEADER = 100_000_000  # bytes, as in the safetensors library
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_NUMPY = b"\x93NUMPY"
_OTHERS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself. Run `git lfs pull`"),
    (b"\x1f\x8b", "compressed by gzip. Unpack it first"),
    (b"BZh", "compressed by bzip2. Unpack it first"),
    (b"\xfd7zXZ", "compressed by xz. Unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd. Unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive. Unpack it first"),
    (b"Rar!", "a RAR archive. Unpack it first"),
    (b"GGUF", "a GGUF file of llama.cpp. Give the PyTorch weights of the model"),
    (b"\x89HDF", "an HDF5 file. Give the PyTorch weights of the model"),
    (b"\x89PNG", "a picture (PNG). Correct the path"),
    (b"\xff\xd8\xff", "a picture (JPEG). Correct the path"),
    (b"%PDF", "a PDF document. Correct the path"),
    (b"\x80", "a pickle of Python, which may run code, and not a file of torch.save. Save its tensors by torch.save"),
)


def tensor_file_kind(
    path: str | Path, what: str, *, advice: str = "Correct its path.", error: type[DenseRCError] = CheckpointError
) -> FileKind:
    """Find the kind of a file by its content; its name does not matter.

    Args:
        path: Path of the file.
        what: Name of the expected content, for messages: "weights file".
        advice: Remedy if the file is absent.
        error: Class of the errors.

    Raises:
        DenseRCError: The file is absent, unreadable, or of another kind, which is named.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise error(f"{path} is a folder, not a {what}. Name a file in it.")
        with path.open("rb") as file:
            head = file.read(_HEAD)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise error(f"There is no {what} at {path}. {advice}") from None
    except (OSError, ValueError) as problem:  # ValueError: a null character in the path
        raise error(f"The {what} {path} cannot be read: {problem}.") from problem
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER:
        return FileKind.SAFETENSORS
    if head.startswith(_OLD_TORCH):
        return FileKind.OLD_TORCH
    if head.startswith(_NUMPY):
        return FileKind.NUMPY
    given = _zip_content(path) if head.startswith(b"PK") else _other_content(head, size)
    if given:
        raise error(f"{path} is not a {what}: it is {given}.")
    return FileKind.TORCH


def _zip_content(path: Path) -> str:
    """Description of a zip archive; "" for one of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as problem:
        return f"cut short or damaged ({problem}). Copy or download it again"
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript archive, a program and not weights alone (OpenAI's own CLIP files are such). Give "
            "open_clip's tag 'openai' as MODEL.ENCODER.WEIGHTS, or the weights as a state dict"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        return f"a zip archive of {first_of(names) or 'nothing'} and not one of torch.save. Unpack it first"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "compressed, which torch.save never does. Load it where it was made and save it again"
    return ""


def _other_content(head: bytes, size: int) -> str:
    """Description of a file that holds no tensors, and the remedy."""
    if not size:
        return "empty. Copy or download it again"
    for mark, given in _OTHERS:
        if head.startswith(mark):
            return given
    if head[257:262] == b"ustar":
        return "a tar archive. Unpack it first"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if "\0" in text or "\ufffd" in text[:-1]:
        return f"of a kind that is not known: it begins with the bytes {head[:8].hex(' ')}. Copy or download it again"
    if text.startswith("<"):
        return f"a web page or XML, which begins with {short(text[:40])}. Download the file itself"
    if text.startswith(("{", "[")):
        index = "weight_map" in text or "total_size" in text
        return "the index of weights in several files. Give one file" if index else "JSON. Correct the path"
    return f"text, which begins with {short(text[:40])}. Correct the path"


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_tensor_file(
    path: str | Path,
    what: str,
    *,
    advice: str = "Correct its path.",
    error: type[DenseRCError] = CheckpointError,
) -> TensorFile:
    """Read a file of tensors, safetensors or torch.save, without running any code in it.

    Scalars and arrays of NumPy and the settings of a training in a file of torch.save are replaced by empty objects.

    Args:
        path: Path of the file.
        what: Name of the expected content, for messages: "weights file".
        advice: Remedy if the file is absent.
        error: Class of the errors.

    Returns:
        The content; `require_intact` compares it with the digests in the file. Tensors of torch.save are read from disk
        where they are first used.

    Raises:
        DenseRCError: The file is absent, damaged, of another kind, or holds other objects.
    """
    kind = tensor_file_kind(path, what, advice=advice, error=error)
    if kind is FileKind.NUMPY:
        raise error(f"{path} is not a {what}: it is an array of NumPy. Correct the path.")
    if kind is FileKind.SAFETENSORS:
        metadata, digests, tensors = _read_safetensors(path, what, error, with_tensors=True)
        return TensorFile(Path(path), what, kind, tensors, metadata, digests, error)
    if kind is FileKind.TORCH:
        _require_records(Path(path), what, error, tensors=False)
    content = _read_torch(Path(path), what, error)
    return TensorFile(Path(path), what, kind, content, {}, {}, error)


def read_header(
    path: str | Path, what: str, *, advice: str = "Correct its path.", error: type[DenseRCError] = CheckpointError
) -> dict[str, str]:
    """The metadata of a safetensors file, without its digests and without reading tensors.

    Raises:
        DenseRCError: The file is absent, damaged, or of another kind.
    """
    kind = tensor_file_kind(path, what, advice=advice, error=error)
    if kind is not FileKind.SAFETENSORS:
        raise error(f"{path} is no safetensors file but one of {kind.value}; a {what} was expected.")
    return _read_safetensors(path, what, error, with_tensors=False)[0]


def _read_safetensors(
    path: str | Path, what: str, error: type[DenseRCError], *, with_tensors: bool
) -> tuple[dict[str, str], dict[str, str], dict[str, torch.Tensor]]:
    """Metadata, digests and tensors of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as problem:
        raise error(
            f"{path} cannot be read as a safetensors file: {problem}. Copy or download the {what} again."
        ) from problem
    digests = {key: metadata.pop(key) for key in (METADATA_DIGEST, TENSORS_DIGEST) if key in metadata}
    return metadata, digests, tensors


# Classes whose objects are replaced by empty ones: NumPy's scalars, which schedules leave in optimizers, its arrays,
# and the arguments of a training. NumPy's own functions are not called: its dtypes trust a file's view of memory.
_REPLACED = (
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct", "_frombuffer")
    ),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    "argparse.Namespace",
    *(f"pathlib{module}.{name}" for module in ("", "._local") for name in ("PosixPath", "WindowsPath")),
    *(f"pathlib{module}.Pure{name}" for module in ("", "._local") for name in ("PosixPath", "WindowsPath")),
)


class Replaced:
    """Empty object in place of one whose class is not needed."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_LOCK = threading.Lock()  # of PyTorch's list of safe classes, which all threads share


def _read_torch(path: Path, what: str, error: type[DenseRCError]) -> Any:
    allowed = [(Replaced, name) for name in _REPLACED]
    with _LOCK, torch.serialization.safe_globals(allowed):
        try:
            if path.name.endswith(".safetensors"):  # PyTorch 2.14 would believe the name
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            # Not mapped: a file that is written while its tensors are mapped ends the process (SIGBUS).
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as problem:  # a damaged pickle meets the reader with errors of any type
            refused = _refused_classes(path, problem)
            if not refused:
                raise error(_damaged(path, what, f"{type(problem).__name__}: {_first_line(problem)}")) from problem
    raise error(
        f"{path} holds more than tensors: objects of {refused}. Files are read without running code in them "
        "(weights_only=True). Where you trust the file, save its tensors alone, such as torch.save(torch.load("
        f"'{path.name}', weights_only=False)['state_dict'], 'weights.pt')."
    )


def _refused_classes(path: Path, problem: Exception) -> str:
    """Names of the classes and functions that PyTorch refused; "" if it failed for another reason."""
    named = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", str(problem))
    if not named:
        return ""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not an archive, or damaged behind the class
        found = []
    return first_of(found or [named[1]], 5)


def _first_line(problem: Exception) -> str:
    return str(problem).strip().split("\n")[0][:200]


def _damaged(path: str | Path, what: str, why: str) -> str:
    return f"The {what} {path} is damaged: {why}. Copy or download it again."


# --- Digests ----------------------------------------------------------------------------------------------------------


def write_tensor_file(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, with digests of its tensors and its metadata.

    Args:
        path: Path of the file.
        tensors: Contiguous tensors on the CPU that share no memory.
        metadata: Texts that describe them.
    """
    digests = {METADATA_DIGEST: metadata_digest(metadata), TENSORS_DIGEST: tensors_digest(tensors)}
    with atomic_path(path) as partial:
        save_file(dict(tensors), partial, metadata={**metadata, **digests})
        _sort_metadata(partial)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, so that equal content is equal bytes; the library's order is random."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def require_metadata_digest(path: str | Path, what: str, *, error: type[DenseRCError] = CheckpointError) -> None:
    """Compare the metadata of a safetensors file with their digest, if there is one.

    Call it after the metadata were checked field by field, whose errors are more precise.

    Raises:
        DenseRCError: They differ.
    """
    metadata, digests, _ = _read_safetensors(path, what, error, with_tensors=False)
    if digests.get(METADATA_DIGEST, metadata_digest(metadata)) != metadata_digest(metadata):
        raise error(
            f"The metadata of {path} were changed after it was written (SHA-256). Copy or download it again; after an "
            f"edit on purpose leave the entry {METADATA_DIGEST!r} out."
        )


def metadata_digest(metadata: Mapping[str, str]) -> str:
    """SHA-256 (hex) of texts by name."""
    return hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode()).hexdigest()


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of the names, dtypes, shapes and bits of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _require_records(path: Path, what: str, error: type[DenseRCError], *, tensors: bool) -> None:
    """Compare the records of an archive of torch.save with their CRC-32: those of its tensors, or all others."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.CRC and ("/data/" in entry.filename) == tensors:  # 0: written without
                    with archive.open(entry) as record:
                        while record.read(1 << 20):
                            pass
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError, RuntimeError) as problem:
        raise error(_damaged(path, what, str(problem))) from problem
