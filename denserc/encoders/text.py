"""open_clip's text tower, and its tokenizers: packaged ones, and those that are fetched at the first text."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable

import open_clip
import torch
from torch import nn
from torch.func import functional_call

from ..structures import ConfigurationError
from .towers.base import TextTower

_PROBE = "a fingerprint of every word: 0 1 2, cat/dog_bird"


class Tokenizer(ABC):
    """Sentences -> token ids, with an identity that the text fingerprint takes in."""

    @abstractmethod
    def __call__(self, prompts: list[str], context_length: int | None = None) -> torch.Tensor:
        """T sentences -> (T, L) int64 token ids; L is `context_length`, or that of the text tower."""

    @property
    def ready(self) -> bool:
        """True if tokenizing needs no download."""
        return True

    def cut(self, prompts: list[str]) -> list[bool]:
        """True for each sentence that is longer than the context length, so that its end is cut off."""
        tokens = self(["", *prompts])
        longer = self(["", *prompts], context_length=2 * tokens.shape[1])
        # The last token may be a class token; the one before it is padding in a text without words.
        padding = longer[0, -2]
        return ((longer != padding).sum(dim=1) > (tokens != padding).sum(dim=1))[1:].tolist()

    @abstractmethod
    def identity(self) -> bytes:
        """Other token ids, other bytes."""


class PackagedTokenizer(Tokenizer):
    """Tokenizer whose vocabulary is available; known by its tokens of a probe.

    Args:
        tokenize: open_clip's tokenizer: sentences and context length, None for its own -> (T, L) token ids.
    """

    def __init__(self, tokenize: Callable[..., torch.Tensor]):
        self._tokenize = tokenize

    def __call__(self, prompts: list[str], context_length: int | None = None) -> torch.Tensor:
        return self._tokenize(prompts, context_length)

    def identity(self) -> bytes:
        return self._tokenize([_PROBE]).numpy().tobytes()


class FetchedTokenizer(Tokenizer):
    """A tokenizer that needs `transformers` and files from the Hugging Face hub (SigLIP's); made when first used.

    Building, distilling and loading a checkpoint encode no text, so they need neither. It is known by what
    open_clip's configuration of it: source, settings and context length.

    Args:
        name: The open_clip model name.
        text_config: The model's "text_cfg".
    """

    def __init__(self, name: str, text_config: dict):
        self._name = name
        self._source = text_config.get("hf_tokenizer_name") or "open_clip's SigLIP vocabularies"
        settings = ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "context_length", "vocab_size")
        self._settings = {key: text_config.get(key) for key in settings}
        self._made = None

    def __call__(self, prompts: list[str], context_length: int | None = None) -> torch.Tensor:
        if self._made is None:
            self._made = self._make()
        return self._made(prompts, context_length)

    @property
    def ready(self) -> bool:
        return self._made is not None

    def identity(self) -> bytes:
        return json.dumps(self._settings, sort_keys=True).encode()

    def _make(self) -> Callable[..., torch.Tensor]:
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


class OpenClipText(TextTower):
    """The text half of an open_clip CustomTextCLIP; frozen unless a model lets some of its weights learn.

    Args:
        name: The open_clip model name.
        text: open_clip's text module, token ids (T, L) -> (T, E).
        tokenizer: Sentences -> token ids (T, L).
        embed_dim: Width E of the embeddings.
    """

    def __init__(self, *, name: str, text: nn.Module, tokenizer: Tokenizer, embed_dim: int):
        super().__init__()
        self.name = name
        self.text = text.requires_grad_(False)
        self.embed_dim = embed_dim
        self._tokenizer = tokenizer

    def train(self, mode: bool = True) -> "OpenClipText":
        """Stays in eval mode: its embeddings are data to everything else."""
        return super().train(False)

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        return self.forward(prompts)

    def forward(self, prompts: list[str]) -> torch.Tensor:
        device = next(self.text.parameters()).device
        tokens = self._tokenizer(list(prompts))
        if not self._looks_back_alone:
            return self.text(tokens.to(device))
        # No token attends to later ones, so those after the text's end are left out: a quarter of 77 in short prompts.
        length = int(tokens.argmax(dim=1).max()) + 1
        mask = self.text.attn_mask[:length, :length]
        return functional_call(self.text, {"attn_mask": mask}, tokens[:, :length].to(device))

    def tokens(self, prompts: list[str]) -> list[tuple[int, ...]] | None:
        return [tuple(row) for row in self._tokenizer(list(prompts)).tolist()] if self._tokenizer.ready else None

    def cut(self, prompts: list[str]) -> list[bool] | None:
        return self._tokenizer.cut(list(prompts)) if self._tokenizer.ready else None

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.text.set_grad_checkpointing(enabled)

    @property
    def _looks_back_alone(self) -> bool:
        """True if the tower is causal and pooled at the end-of-text token, which has the largest id."""
        text = self.text
        return (
            getattr(text, "pool_type", None) == "argmax"
            and getattr(text, "attn_mask", None) is not None
            and getattr(text, "cls_emb", None) is None
        )

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.name.encode())
        digest.update(self._tokenizer.identity())
        for key, tensor in sorted(self.text.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
