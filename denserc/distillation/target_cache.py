"""Cache of the frozen models' outputs, so that runs over the same draws compute them once.

Draws follow only from the seed and their number, so trainings that differ only in the student use the
same crops; for an ablation the teacher and the foundation model are then half of the work saved.
"""

import hashlib
from collections.abc import Callable

import torch


class TargetMemory:
    """Features by the content of the images that they belong to.

    Args:
        limit: Bytes after which nothing more is remembered.
    """

    def __init__(self, limit: int = 2 << 30):
        self.limit = limit
        self.used = 0
        self.hits = 0
        self._features: dict[bytes, torch.Tensor] = {}

    def recall(self, model: str, images: torch.Tensor, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The features of some images, computed when they are new.

        Args:
            model: Key that distinguishes the models and their arithmetic.
            images: uint8, any shape.
            compute: Images -> features; called without arguments.
        """
        digest = hashlib.sha256(f"{model} {tuple(images.shape)}".encode())
        digest.update(images.contiguous().cpu().numpy().tobytes())
        key = digest.digest()
        if key in self._features:
            self.hits += 1
            return self._features[key].to(images.device)
        features = compute()
        size = features.numel() * features.element_size()
        if self.used + size <= self.limit:
            self._features[key] = features.detach().cpu().clone()
            self.used += size
        return features
