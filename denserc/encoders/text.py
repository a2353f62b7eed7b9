"""open_clip's text tower with its tokenizer."""

import hashlib

import torch
from torch import nn
from torch.func import functional_call

from .contract import TextTower
from .tokenizers import Tokenizer


class OpenClipText(TextTower):
    """The text half of an open_clip CustomTextCLIP; frozen, it is never trained here.

    Args:
        name: the open_clip model name.
        text: open_clip's text module, token ids (T, L) -> (T, E).
        tokenizer: sentences -> token ids (T, L).
        embed_dim: E.
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
        device = next(self.text.parameters()).device
        tokens = self._tokenizer(list(prompts))
        if not self._looks_back_alone:
            return self.text(tokens.to(device))
        # Nothing before the end of a text sees what stands behind it: short prompts cost a quarter of 77 tokens.
        length = int(tokens.argmax(dim=1).max()) + 1
        mask = self.text.attn_mask[:length, :length]
        return functional_call(self.text, {"attn_mask": mask}, tokens[:, :length].to(device))

    @property
    def _looks_back_alone(self) -> bool:
        """Whether the tower is causal and pooled at the end-of-text token, which has the largest id."""
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
