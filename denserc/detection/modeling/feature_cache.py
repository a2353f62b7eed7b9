"""Disk cache of the frozen encoder's maps of training views.

A view is an image as the network gets it, after scale, crop, flip and padding. Its name is a digest of its pixels and
padded size. Its folder's name is a digest of all that determines the maps: weights and construction of the encoder, its
blocks, precision, pixel statistics, device and PyTorch version. So a changed file, another augmentation or another
encoder has another name, and nothing stale is ever read.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

import torch
from detectron2.utils import comm
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from ...structures import ConfigurationError, atomic_path, weights_digest

logger = logging.getLogger(__name__)

_SUMS = "checksums"


class CachePrecision(Enum):
    """Precision of the maps on disk."""

    FP32 = "fp32"
    """Exactly."""
    FP16 = "fp16"
    """In half the space: each value within 2^-11 of itself (or 2^-25 below 2^-14); maps beyond 65504 stay float32."""


def _checksums(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """(len(maps),) int64 sums of the maps' bits as 64-bit words: a flipped bit changes them, at the speed of memory."""
    words = [one.contiguous().reshape(-1).view(torch.uint8) for one in maps]
    return torch.stack([F.pad(one, (0, -len(one) % 8)).view(torch.int64).sum() for one in words]).cpu()


def view_digest(image: torch.Tensor, padded: tuple[int, int]) -> str:
    """Compute the name of a view.

    Args:
        image: (3, h, w) uint8, after augmentation.
        padded: (H, W) of the network input that holds it.
    """
    digest = hashlib.sha256(f"{tuple(image.shape)} {image.dtype} {tuple(padded)} ".encode())
    digest.update(image.cpu().contiguous().numpy())
    return digest.hexdigest()


class FeatureCache:
    """Cache of one safetensors file per view, written atomically; several processes and runs may share a folder.

    Args:
        folder: Folder of the cache; made when the first maps are written.
        limit_gb: 10^9 bytes that all files of the folder may take together; each process may fill an equal share of
            what is free. Beyond it maps are computed and not kept.
        precision: See CachePrecision.
        about: Everything that determines the maps, except weights and device.
        encoder: The encoder of the maps; its weights are read at the first request.
    """

    def __init__(
        self, folder: str | Path, *, limit_gb: float, precision: CachePrecision, about: str, encoder: nn.Module
    ):
        if limit_gb <= 0:
            raise ConfigurationError(f"MODEL.FVIT.CACHE.LIMIT_GB must be positive; got {limit_gb}.")
        self.root = Path(folder)
        self.limit = int(limit_gb * 1e9)
        self.precision = precision
        self.about = about
        self.hits = self.misses = 0
        self._encoder = [encoder]  # in a list: the cache must not become the encoder's second parent
        self._folders: dict[str, Path] = {}
        self._free: int | None = None

    def maps(
        self, view: str, device: torch.device, compute: Callable[[], Sequence[torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Read the maps of a view, float32 on the device, or compute and write them.

        Both give the same bits; with CachePrecision.FP16 both are rounded.
        """
        path = self._folder(device) / view[:2] / f"{view}.safetensors"
        kept = self._read(path, device)
        if kept is not None:
            self.hits += 1
            return [one.float() for one in kept]
        self.misses += 1
        maps = [self._rounded(one.float()) for one in compute()]
        self._write(path, maps)
        return [one.float() for one in maps]

    def _rounded(self, one: torch.Tensor) -> torch.Tensor:
        if self.precision is CachePrecision.FP32:
            return one
        half = one.half()
        return half if bool(torch.isfinite(half).all()) else one

    def _folder(self, device: torch.device) -> Path:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        if name not in self._folders:
            key = f"{self.about} {name} {torch.__version__} {self.precision.value} {weights_digest(self._encoder[0])}"
            self._folders[name] = self.root / hashlib.sha256(key.encode()).hexdigest()[:32]
            logger.info("The frozen encoder's maps are kept in %s.", self._folders[name])
        return self._folders[name]

    def _read(self, path: Path, device: torch.device) -> list[torch.Tensor] | None:
        try:
            content = load_file(path, device=str(device))
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            logger.warning("%s cannot be read (%s): computed again.", path, error)
            return None
        sums = content.pop(_SUMS, None)
        names = [f"map{i}" for i in range(len(content))]
        maps = [content[name] for name in names if name in content]
        if sums is None or len(maps) != len(content) or sums.tolist() != _checksums(maps).tolist():
            logger.warning("%s is damaged or of an older version: computed again.", path)
            return None
        return maps

    def _write(self, path: Path, maps: Sequence[torch.Tensor]) -> None:
        if self._free is None:
            used = sum(file.stat().st_size for file in self.root.rglob("*.safetensors")) if self.root.is_dir() else 0
            self._free = max(self.limit - used, 0) // comm.get_world_size()
        size = sum(one.nbytes for one in maps) + 1024  # and the header
        if size > self._free:
            if self._free >= 0:
                logger.warning(
                    "The cache %s is full (MODEL.FVIT.CACHE.LIMIT_GB = %g): further maps are computed each time.",
                    self.root,
                    self.limit / 1e9,
                )
            self._free = -1  # logged once
            return
        try:
            with atomic_path(path, durable=False) as partial:  # a damaged file is computed again
                content = {f"map{i}": one.contiguous() for i, one in enumerate(maps)}
                save_file({**content, _SUMS: _checksums(maps)}, partial)
            self._free -= path.stat().st_size
        except OSError as error:  # a WriteError is one
            logger.warning("The cache %s keeps no further maps: %s", self.root, error)
            self._free = -1
