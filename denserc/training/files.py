"""Files that are written whole or not at all, and digests of weights."""

import hashlib
import os
from pathlib import Path

import torch
from torch import nn


def weights_digest(module: nn.Module) -> str:
    """A digest of all parameters and buffers: equal if and only if their bits are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_atomically(path: Path, content: dict) -> Path:
    """Writes a file of torch.save whole or not at all, through `<name>.partial` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path
