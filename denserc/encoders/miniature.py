"""The miniature CLIP: an EVA-02 tower of 1.3 M parameters, built through the same open_clip path as EVA02-B-16.

Importing this module makes timm know `eva02_miniature_patch8_clip_64` and open_clip know "DenseRC-Miniature".
"""

import json
from functools import lru_cache
from importlib import resources
from pathlib import Path

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from timm.models import register_model
from timm.models.eva import Eva
from torch import nn

from .weights import load_exactly, read_weights

MINIATURE = "DenseRC-Miniature"
_ASSETS = Path(str(resources.files(__package__) / "assets"))
MINIATURE_WEIGHTS = _ASSETS / "miniature_clip.safetensors"
MINIATURE_WORDS = _ASSETS / "miniature_words.json"
_BYTES = 512  # SimpleTokenizer's first ids: the 256 bytes, inside a word and at its end


@register_model
def eva02_miniature_patch8_clip_64(pretrained: bool = False, **kwargs) -> Eva:
    """timm's EVA-02 for 64-pixel images: every part of eva02_base_patch16_clip_224, 6 blocks of width 128."""
    if pretrained:
        raise ValueError(
            "timm has no pretrained weights for the miniature tower; use denserc.encoders.miniature.create_miniature()."
        )
    for option in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(option, None)  # timm's factory hands them to every entry point
    arguments = {
        "img_size": 64,
        "patch_size": 8,
        "embed_dim": 128,
        "depth": 6,
        "num_heads": 8,
        "qkv_fused": False,
        "mlp_ratio": 4 * 2 / 3,
        "swiglu_mlp": True,
        "scale_mlp": True,
        "scale_attn_inner": True,
        "use_rot_pos_emb": True,
        "ref_feat_shape": (16, 16),
        "global_pool": "token",
    }
    return Eva(**{**arguments, **kwargs})


open_clip.add_model_config(_ASSETS / f"{MINIATURE}.json")


class MiniatureTokenizer(SimpleTokenizer):
    """CLIP's byte-pair tokens, renumbered so that only the miniature world's own need an embedding.

    Ids: 0 pads; 1..512 are bytes; then the known byte-pair tokens; then start and end of text (the end has
    the largest id, where open_clip pools). A token that is not known is spelled in bytes, so any text works.

    Args:
        tokens: The known byte-pair tokens, in the order of their ids.
        context_length: Length of the token rows.
    """

    def __init__(self, tokens: list[str], context_length: int = 32):
        super().__init__(context_length=context_length)
        known = [*list(self.encoder)[:_BYTES], *tokens]
        if len(set(known)) != len(known) or not set(known) <= set(self.encoder):
            raise ValueError("The tokens must be distinct byte-pair tokens of CLIP's vocabulary, not bytes.")
        starts = ["<start_of_text>", "<end_of_text>"]
        self.encoder = {token: i for i, token in enumerate([*known, *starts], start=1)}
        self.decoder = {i: token for token, i in self.encoder.items()}
        self.vocab_size = len(self.encoder) + 1  # and the padding
        self.all_special_ids = [self.encoder[token] for token in starts]
        self.sot_token_id, self.eot_token_id = self.all_special_ids

    def bpe(self, token: str) -> str:
        """The blank-separated tokens of one word; those not known are spelled in bytes."""
        known = []
        for part in super().bpe(token).split(" "):
            if part in self.encoder:
                known.append(part)
            else:
                end = part.endswith("</w>")
                letters = list(part.removesuffix("</w>"))
                known += [*letters[:-1], letters[-1] + "</w>"] if end else letters
        return " ".join(known)


def miniature_tokens(texts: list[str]) -> list[str]:
    """The byte-pair tokens, sorted, that these texts need beside the bytes: what `miniature_words.json` holds."""
    tokenizer = SimpleTokenizer()
    ids = {i for text in texts for i in tokenizer.encode(text) if i >= _BYTES}
    return [tokenizer.decoder[i] for i in sorted(ids)]


@lru_cache(maxsize=1)
def miniature_tokenizer() -> MiniatureTokenizer:
    """The tokenizer of DenseRC-Miniature."""
    return MiniatureTokenizer(json.loads(MINIATURE_WORDS.read_text(encoding="utf-8")))


def create_miniature(
    weights: str | Path | None = MINIATURE_WEIGHTS, *, seed: int = 0
) -> tuple[nn.Module, MiniatureTokenizer]:
    """The miniature CLIP as open_clip builds it, in evaluation mode on the CPU, and its tokenizer.

    Args:
        weights: A safetensors file; the packaged one by default; None for random weights.
        seed: Seed of the random weights; the global random state is left as it was.

    Raises:
        CheckpointError: The file is absent or unreadable.
        WeightsMismatchError: It holds the weights of another architecture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.create_model(MINIATURE)
    if weights is not None:
        load_exactly(model, read_weights(weights), str(weights))
    return model.eval(), miniature_tokenizer()
