"""Text embeddings of class names: made with prompt templates, cached on disk, saved and loaded.

Shape letters: C names, T templates, E the width of the image-text space.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.functional import normalize
from tqdm import tqdm

from ...structures import DataError, TextEmbeddings, atomic_path
from .names import find_names
from .prompts import VerbatimTemplate, build_prompts, check_templates

logger = logging.getLogger(__name__)

_FORMAT = "denserc.text_embeddings.1"
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
    if cached is not None and cached.is_file():
        try:
            return load_text_embeddings(cached)
        except DataError as error:
            logger.warning("Embedding the names again, because the cache is damaged: %s", error)
    vectors = _embed(text_tower, names, templates, batch_size)
    embeddings = TextEmbeddings(names, vectors, fingerprint, templates)
    if cached is not None:
        save_text_embeddings(cached, embeddings)
    return embeddings


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
    with atomic_path(path) as partial:
        save_file({"vectors": embeddings.vectors.contiguous()}, partial, metadata=metadata)


def load_text_embeddings(path: str | Path, names: Sequence[str] | None = None) -> TextEmbeddings:
    """Read text embeddings; rows are normalized.

    Formats: .safetensors of `save_text_embeddings`; CLIPSelf's .pt, {name: (E,) vector}; CLIPSelf's .npy,
    (C, E) rows without names, for which `names` gives the rows' order.

    Args:
        names: Names of the rows for .npy; otherwise the names to return, in this order, with blanks and capitals as
            `find_names` allows.

    Raises:
        DataError: The file is absent, of another format, or lacks a name.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"The text embeddings {path} do not exist.")
    readers = {".safetensors": _read_safetensors, ".pt": _read_pt, ".pth": _read_pt}
    if path.suffix == ".npy":
        if names is None:
            raise DataError(f"{path} holds rows without names; pass names=, in the order of its rows.")
        return _unit(tuple(names), torch.from_numpy(_read_npy(path)), path)
    if path.suffix not in readers:
        raise DataError(f"Text embeddings are .safetensors, .pt or .npy files; got {path}.")
    embeddings = readers[path.suffix](path)
    if names is None:
        return embeddings
    found = find_names(names, embeddings.names)
    vectors = embeddings.select([found.get(name, name) for name in names])
    return TextEmbeddings(tuple(names), vectors, embeddings.fingerprint, embeddings.templates)


def _read_safetensors(path: Path) -> TextEmbeddings:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise DataError(f"{path} is not a file of text embeddings ({_FORMAT}); its metadata: {metadata}.")
            vectors = file.get_tensor("vectors")
    except (SafetensorError, OSError) as error:
        raise DataError(f"The text embeddings {path} cannot be read: {error}.") from error
    names, templates = json.loads(metadata["names"]), json.loads(metadata["templates"])
    # Rows were normalized when they were made; doing it again would change their last bits.
    return TextEmbeddings(tuple(names), vectors, metadata["fingerprint"], tuple(templates))


def _read_pt(path: Path) -> TextEmbeddings:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"The text embeddings {path} cannot be read: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(vector, torch.Tensor) for vector in content.values()):
        raise DataError(f"{path} must hold {{name: vector}}; got {type(content).__name__}.")
    rows = [vector.flatten() for vector in content.values()]
    if not rows or len({len(row) for row in rows}) != 1:
        raise DataError(f"{path} must hold vectors of one size; got sizes {sorted({len(row) for row in rows})}.")
    return _unit(tuple(content), torch.stack(rows), path)


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"The text embeddings {path} cannot be read: {error}.") from error


def _unit(names: tuple[str, ...], vectors: torch.Tensor, path: Path) -> TextEmbeddings:
    _check_names(names)
    vectors = vectors.float()
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise DataError(f"{path} holds {tuple(vectors.shape)} where {len(names)} names need ({len(names)}, E).")
    if not vectors.norm(dim=-1).gt(0).all():
        raise DataError(f"{path} holds a zero vector: {names[int(vectors.norm(dim=-1).argmin())]!r}.")
    return TextEmbeddings(names, normalize(vectors, dim=-1))


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) != len(names) else []
    if not names or twice:
        raise DataError(f"Text embeddings need unique names; got {len(names)}, more than once: {twice}.")
