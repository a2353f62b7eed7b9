"""Tokenizers: open_clip's own at once, fetched ones when a text is first encoded."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable

import open_clip
import torch

from ..structures import ConfigurationError

_PROBE = "a fingerprint of every word: 0 1 2, cat/dog_bird"


class Tokenizer(ABC):
    """Sentences -> token ids, with an identity that the text fingerprint takes in."""

    @abstractmethod
    def __call__(self, prompts: list[str]) -> torch.Tensor:
        """T sentences -> (T, L) int64 token ids."""

    @abstractmethod
    def identity(self) -> bytes:
        """Other token ids, other bytes."""


class PackagedTokenizer(Tokenizer):
    """A tokenizer whose vocabulary is at hand; known by what it makes of a probe.

    Args:
        tokenize: sentences -> (T, L) token ids.
    """

    def __init__(self, tokenize: Callable[[list[str]], torch.Tensor]):
        self._tokenize = tokenize

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        return self._tokenize(prompts)

    def identity(self) -> bytes:
        return self._tokenize([_PROBE]).numpy().tobytes()


class FetchedTokenizer(Tokenizer):
    """A tokenizer that needs `transformers` and files from the Hugging Face hub (SigLIP's); made when first used.

    Building, distilling and loading a checkpoint encode no text, so they need neither. It is known by what
    open_clip's configuration says of it: source, settings and context length.

    Args:
        name: the open_clip model name.
        text_config: its "text_cfg".
    """

    def __init__(self, name: str, text_config: dict):
        self._name = name
        self._source = text_config.get("hf_tokenizer_name") or "open_clip's SigLIP vocabularies"
        settings = ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "context_length", "vocab_size")
        self._settings = {key: text_config.get(key) for key in settings}
        self._made = None

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        if self._made is None:
            self._made = self._make()
        return self._made(prompts)

    def identity(self) -> bytes:
        return json.dumps(self._settings, sort_keys=True).encode()

    def _make(self) -> Callable[[list[str]], torch.Tensor]:
        try:
            import transformers  # noqa: F401  open_clip imports it where it makes the tokenizer
        except ImportError as error:
            raise ConfigurationError(
                f"The tokenizer of {self._name} ({self._source}) needs the package transformers: "
                f"pip install 'denserc[siglip]'."
            ) from error
        try:
            return open_clip.get_tokenizer(self._name)
        except (ImportError, OSError, ValueError) as error:  # absent parts; no network, or offline and not cached
            raise ConfigurationError(
                f"The tokenizer of {self._name} could not be made from {self._source}: {error}\n"
                f"Its files come from the Hugging Face hub once and then from its cache (HF_HUB_OFFLINE=1 uses the "
                f"cache alone): fetch them there once ('hf download {self._source}'). It also needs the packages of "
                f"pip install 'denserc[siglip]'."
            ) from error


def open_clip_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of one of open_clip's models."""
    text_config = open_clip.get_model_config(name)["text_cfg"]
    if text_config.get("hf_tokenizer_name") or "siglip" in name.lower():  # open_clip's own rule
        return FetchedTokenizer(name, text_config)
    return PackagedTokenizer(open_clip.get_tokenizer(name))
