"""Tokens of a frozen vision tower, computed once per picture and kept as float16.

Both stages show every picture several times, and the tower would take longer than the language model.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ...data.images.reading import read_rgb
from ...llava.collator import PictureTransform
from ...llava.options import Aspect
from ...structures.files import atomic_path

logger = logging.getLogger(__name__)

_BATCH = 32


class StoredTokens:
    """Tokens of all pictures of one folder.

    Args:
        file: Array (pictures, N, C) float16, in the order of the sorted pictures.
        folder: Folder of the PNG pictures.
    """

    def __init__(self, file: str | Path, folder: str | Path):
        self._array = np.load(file, mmap_mode="r")
        self._rows = {str(path): row for row, path in enumerate(pictures_of(folder))}

    def __call__(self, picture: str) -> torch.Tensor:
        """Path of a picture -> (N, C) float32."""
        return torch.from_numpy(self._array[self._rows[str(picture)]].astype(np.float32))


def pictures_of(folder: str | Path) -> list[Path]:
    """The PNG pictures of a folder, sorted."""
    return sorted(Path(folder).glob("*.png"))


@torch.inference_mode()
def store_tokens(model: LlavaForConditionalGeneration, processor: Any, folder: str | Path, file: str | Path) -> None:
    """Write the tokens of all pictures of a folder, as they enter the projector.

    Args:
        model: LLaVA with its tower.
        processor: Its processor.
        folder: Folder of PNG pictures.
        file: Array to write, for `StoredTokens`.
    """
    transform = PictureTransform(processor.image_processor, Aspect.PAD)
    pictures, tower, parts = pictures_of(folder), model.model.vision_tower, []
    for start in tqdm(range(0, len(pictures), _BATCH), desc=f"tokens/{Path(folder).name}", unit="batch"):
        images = torch.stack([transform(read_rgb(path)) for path in pictures[start : start + _BATCH]])
        parts.append(tower(images).hidden_states[-1].to(torch.float16).numpy())
    with atomic_path(file, durable=False) as partial, partial.open("wb") as opened:
        np.save(opened, np.concatenate(parts))


@contextmanager
def tokens_as_pictures(model: LlavaForConditionalGeneration) -> Iterator[None]:
    """Let the tower hand on `pixel_values` unchanged, which then are stored tokens (B, N, C).

    The tower itself, its weights and its fingerprint remain in the model, so that a saved folder is complete.
    """
    tower = model.model.vision_tower

    def hand_on(pixel_values: torch.Tensor, **ignored) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=pixel_values, hidden_states=(pixel_values,))

    tower.forward = hand_on
    try:
        yield
    finally:
        del tower.forward


def make_stores(
    model: LlavaForConditionalGeneration, processor: Any, pictures: Path, folder: Path, splits: Sequence[str]
) -> None:
    """Tokens of several folders of pictures, as `folder`/SPLIT.npy."""
    for split in splits:
        store_tokens(model, processor, pictures / split, folder / f"{split}.npy")
