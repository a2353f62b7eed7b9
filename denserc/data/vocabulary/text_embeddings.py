"""Text embeddings of class names: made with prompt templates, cached on disk, saved and loaded.

Shape letters: C names, T templates, E the width of the image-text space.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import normalize
from tqdm import tqdm

from ...structures import DataError, TextEmbeddings, WriteError
from ...structures.metadata import typed_fields
from ...structures.records import short
from ...structures.tensor_files import (
    TENSORS_DIGEST,
    FileKind,
    TensorFile,
    read_tensor_file,
    require_metadata_digest,
    tensor_file_kind,
    write_tensor_file,
)
from .names import find_names
from .prompts import VerbatimTemplate, build_prompts, check_templates

logger = logging.getLogger(__name__)

_FORMAT = "denserc.text_embeddings.1"
_WHAT = "file of text embeddings"
_UNWRITABLE: set[Path] = set()  # caches that refused a file of this process
_LONG_JOB = 4096  # sentences from which on a progress bar is worth its line


class TextEncoder(Protocol):
    """The part of a text tower that embedding uses."""

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        """Sentences -> (len(prompts), E), not normalized."""

    def fingerprint(self) -> str:
        """A digest of the tower: equal if and only if its embeddings are."""


def embed_names(
    text_tower: TextEncoder,
    names: Sequence[str],
    templates: Sequence[str],
    *,
    cache_dir: str | Path | None = None,
    batch_size: int = 256,
) -> TextEmbeddings:
    """One unit vector per name: the mean over the templates of the unit embeddings, normalized again.

    Args:
        names: C unique names, as in the vocabulary (`build_prompts` rewrites "_" and "/").
        cache_dir: Folder for the result, under a digest of fingerprint, names and templates; None keeps nothing.
        batch_size: Sentences per call of the text tower.

    Raises:
        DataError: No names, a name twice, or a template without {}.
    """
    names, templates = tuple(names), tuple(templates)
    _check_names(names)
    check_templates(templates)
    fingerprint = text_tower.fingerprint()
    cached = None if cache_dir is None else Path(cache_dir) / f"{cache_key(fingerprint, names, templates)}.safetensors"
    if cached is not None and os.path.isfile(cached):  # False, too, in a folder that this user may not read
        try:
            return _read_cached(cached, names, templates, fingerprint)
        except DataError as error:
            logger.warning("Embedding the names again, because the cache is not believed: %s", error)
    vectors = _embed(text_tower, names, templates, batch_size)
    embeddings = TextEmbeddings(names, vectors, fingerprint, templates)
    if cached is not None:
        _keep(cached, embeddings)
    return embeddings


def _keep(cached: Path, embeddings: TextEmbeddings) -> None:
    """Write to the cache; a folder that cannot be written to is logged once, and the embeddings are used without it."""
    if cached.parent in _UNWRITABLE:
        return
    try:
        save_text_embeddings(cached, embeddings)
    except WriteError as error:
        _UNWRITABLE.add(cached.parent)
        logger.warning("The text embeddings are not kept in %s: %s", cached.parent, error)


def cache_key(fingerprint: str, names: Sequence[str], templates: Sequence[str]) -> str:
    """sha256 (hex) of all that the embeddings depend on."""
    verbatim = ["verbatim"] if any(isinstance(template, VerbatimTemplate) for template in templates) else []
    parts = json.dumps([_FORMAT, fingerprint, list(names), list(templates), *verbatim], ensure_ascii=False)
    return hashlib.sha256(parts.encode("utf-8")).hexdigest()


@torch.no_grad()
def _embed(text_tower: TextEncoder, names: Sequence[str], templates: Sequence[str], batch_size: int) -> torch.Tensor:
    prompts = [prompt for name in names for prompt in build_prompts(name, templates)]
    chunks = range(0, len(prompts), batch_size)
    vectors = torch.cat(
        [
            text_tower.encode_text(prompts[start : start + batch_size]).float().cpu()
            for start in tqdm(chunks, desc="text embeddings", disable=len(prompts) < _LONG_JOB)
        ]
    )  # (C * T, E)
    return average_templates(vectors, len(templates))


def average_templates(vectors: torch.Tensor, templates: int) -> torch.Tensor:
    """(C * T, E), the T sentences of a name side by side -> (C, E): the mean of unit vectors, as a unit vector."""
    per_template = normalize(vectors, dim=-1).unflatten(0, (-1, templates))  # (C, T, E)
    return normalize(per_template.mean(dim=1), dim=-1)


def save_text_embeddings(path: str | Path, embeddings: TextEmbeddings) -> None:
    """Write as safetensors with names, templates and fingerprint; a reader never receives half a file."""
    metadata = {
        "format": _FORMAT,
        "names": json.dumps(embeddings.names, ensure_ascii=False),
        "templates": json.dumps(embeddings.templates, ensure_ascii=False),
        "fingerprint": embeddings.fingerprint,
    }
    write_tensor_file(path, {"vectors": embeddings.vectors.contiguous()}, metadata)


def load_text_embeddings(path: str | Path, names: Sequence[str] | None = None) -> TextEmbeddings:
    """Read text embeddings; rows are normalized.

    Formats, told by content: safetensors of `save_text_embeddings`; CLIPSelf's .pt, {name: (E,) vector}; CLIPSelf's
    .npy, (C, E) rows without names, for which `names` gives the rows' order.

    Args:
        names: Names of the rows for .npy; otherwise the names to return, in this order, with blanks and capitals as
            `find_names` allows.

    Raises:
        DataError: The file is absent, of another format, or lacks a name.
    """
    path = Path(path)
    kind = tensor_file_kind(path, _WHAT, error=DataError)
    if kind is FileKind.NUMPY:
        if names is None:
            raise DataError(f"{path} holds rows without names; pass names=, in the order of its rows.")
        return _unit(tuple(names), _read_npy(path), path)
    embeddings = _read_safetensors(path)[0] if kind is FileKind.SAFETENSORS else _read_pt(path)
    if names is None:
        return embeddings
    found = find_names(names, embeddings.names)
    vectors = embeddings.select([found.get(name, name) for name in names])
    return TextEmbeddings(tuple(names), vectors, embeddings.fingerprint, embeddings.templates)


@dataclass(frozen=True)
class _Metadata:
    """Texts beside the vectors."""

    names: list[str]
    templates: list[str]
    fingerprint: str


def _read_cached(path: Path, names: tuple[str, ...], templates: tuple[str, ...], fingerprint: str) -> TextEmbeddings:
    """Embeddings from a cache, if they are those that were asked for and have a digest.

    Raises:
        DataError: They are not.
    """
    found, file = _read_safetensors(path)
    if TENSORS_DIGEST not in file.digests:
        raise DataError(f"{path} has no digest; it was written by an older version.")
    asked = {"names": names, "templates": templates, "fingerprint": fingerprint}
    other = [key for key, value in asked.items() if getattr(found, key) != value]
    if other:
        raise DataError(f"{path} holds embeddings with other {' and '.join(other)}.")
    return found


def _read_safetensors(path: Path) -> tuple[TextEmbeddings, TensorFile]:
    file = read_tensor_file(path, _WHAT, error=DataError)
    if file.metadata.get("format") != _FORMAT:
        raise DataError(f"{path} is not a file of text embeddings ({_FORMAT}); its metadata: {short(file.metadata)}.")
    values = {key: value for key, value in file.metadata.items() if key != "format"}
    for key in values.keys() & {"names", "templates"}:
        try:
            values[key] = json.loads(values[key])
        except (ValueError, RecursionError) as error:
            raise DataError(f"The metadata of {path} are damaged: {key} is not JSON ({error}).") from error
    metadata = typed_fields(_Metadata, values, f"The metadata of {path}", error=DataError)
    _check_names(metadata.names, f"{path}: ")
    vectors = file.content.get("vectors")
    _check_vectors(vectors, len(metadata.names), path)
    require_metadata_digest(path, _WHAT, error=DataError)
    file.require_intact()
    # Rows were normalized when they were made; doing it again would change their last bits.
    embeddings = TextEmbeddings(tuple(metadata.names), vectors, metadata.fingerprint, tuple(metadata.templates))
    return embeddings, file


def _read_pt(path: Path) -> TextEmbeddings:
    file = read_tensor_file(path, _WHAT, error=DataError)
    content = file.content
    if not isinstance(content, dict) or not all(isinstance(vector, torch.Tensor) for vector in content.values()):
        raise DataError(f"{path} must hold {{name: vector}}; got {type(content).__name__}.")
    nameless = [key for key in content if not isinstance(key, str)]
    if nameless:
        raise DataError(f"{path} must hold {{name: vector}}; {short(nameless[0])} is not a name.")
    rows = [vector.flatten() for vector in content.values()]
    if not rows or len({len(row) for row in rows}) != 1:
        raise DataError(f"{path} must hold vectors of one size; got sizes {sorted({len(row) for row in rows})}.")
    other = sorted({str(row.dtype) for row in rows if not row.is_floating_point()})
    if other:
        raise DataError(f"{path} must hold vectors of floating numbers; got {', '.join(other)}.")
    file.require_intact()
    return _unit(tuple(content), torch.stack([row.float() for row in rows]), path)


def _read_npy(path: Path) -> torch.Tensor:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"The text embeddings {path} cannot be read: {error}.") from error
    if rows.dtype.kind not in "fiu":
        raise DataError(f"{path} must hold real numbers; got {rows.dtype}.")
    return torch.from_numpy(rows.astype(np.float32))


def _check_vectors(vectors: torch.Tensor | None, count: int, path: Path) -> None:
    """Refuse anything but one finite vector of floating numbers per name.

    Raises:
        DataError: The message names file and fault.
    """
    if vectors is None or vectors.layout is not torch.strided or vectors.is_meta or not vectors.is_floating_point():
        given = "none" if vectors is None else str(vectors.dtype)
        raise DataError(f"{path} must hold vectors of floating numbers; got {given}.")
    if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1]:
        raise DataError(f"{path} holds {tuple(vectors.shape)} where {count} names need ({count}, E).")
    if not torch.isfinite(vectors.float()).all():
        raise DataError(f"{path} holds vectors that are not finite.")


def _unit(names: tuple[str, ...], vectors: torch.Tensor, path: Path) -> TextEmbeddings:
    _check_names(names, f"{path}: ")
    _check_vectors(vectors, len(names), path)
    units = normalize(vectors.float(), dim=-1)
    wrong = (units.norm(dim=-1) - 1).abs().gt(1e-3).nonzero().flatten().tolist()
    if wrong:
        raise DataError(f"{path} holds a vector of length 0, or too long for float32: {names[wrong[0]]!r}.")
    return TextEmbeddings(names, units)


def _check_names(names: Sequence[str], where: str = "") -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) != len(names) else []
    if not names or twice:
        raise DataError(f"{where}Text embeddings need unique names; got {len(names)}, more than once: {twice}.")
