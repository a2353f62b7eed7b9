"""Conversion of a CLIP's tensor names to open_clip's: named formats, each recognized by a characteristic key.

Files hold only tensors. What they do not hold (the activation, the norms' epsilons, the pixel statistics) comes
from the model's name.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import torch
from open_clip.model import convert_to_custom_text_state_dict

from ..structures import CheckpointError
from .weights import StateDict

# Entries that some files repeat although they follow from the architecture. The rotary tables of EVA-CLIP's files
# are float16 on disk: trusting them would change every feature, so they are recomputed. CLIPSelf's and F-ViT's code
# registers further tables, such as rope.freqs_cos_1600, for every number of tokens that it meets.
DERIVED = re.compile(
    r"(^|\.)rope\.(freqs_(cos|sin)(_\d+)?|flag|freqs|bands|periods|pos_embed)$"
    r"|(^|\.)rotary_(pos_)?emb\.inv_freq$"
    r"|(^|\.)(attn_mask|causal_mask|position_ids|relative_position_index|relative_coords_table)$"
    r"|^(input_resolution|context_length|vocab_size)$"
)
"""Names of buffers that are computed from the architecture; conversions drop them."""
_SAMPLE = 8  # keys shown of an unknown file


class KeyFormat(Enum):
    """Naming scheme of a CLIP's tensors in a file."""

    OPEN_CLIP = "open_clip"  # "visual.*", "text.*"
    ROOT_TEXT = "open_clip, text tower at the root"  # OpenAI's layout: "visual.*", "transformer.*", "text_projection"
    EVA_CLIP = "EVA-CLIP"  # BAAI's own, also what CLIPSelf and DeCLIP save: "visual.blocks.N.attn.q_bias"
    HUGGING_FACE_CLIP = "transformers CLIPModel"  # "vision_model.encoder.layers.N.self_attn.q_proj"
    HUGGING_FACE_SIGLIP = "transformers SiglipModel"  # the same, and "vision_model.head.probe"
    IMAGE_TOWER = "an image tower alone"  # timm, DINO, EVA's pre-training: "blocks.N" at the root


# The first that is found decides. EVA-CLIP's blocks precede the root text tower, as its older models have one.
_MARKS = (
    (KeyFormat.HUGGING_FACE_SIGLIP, "vision_model.head.probe"),
    (KeyFormat.HUGGING_FACE_CLIP, "vision_model.embeddings.class_embedding"),
    (KeyFormat.EVA_CLIP, "visual.blocks.0.norm1.weight"),
    (KeyFormat.ROOT_TEXT, "text_projection"),
    (KeyFormat.OPEN_CLIP, "visual."),
    (KeyFormat.IMAGE_TOWER, "blocks.0.norm1.weight"),
)


def key_format(state: Mapping[str, torch.Tensor], source: str = "these weights") -> KeyFormat:
    """The format of a file's names.

    Raises:
        CheckpointError: None that is known; the message shows some of the names.
    """
    for kind, mark in _MARKS:
        if mark in state or (mark.endswith(".") and any(key.startswith(mark) for key in state)):
            return kind
    known = "; ".join(kind.value for kind in KeyFormat if kind is not KeyFormat.IMAGE_TOWER)
    raise CheckpointError(
        f"The {len(state)} names in {source} are those of no CLIP file that DenseRC reads ({known}). "
        f"The first are {sorted(state)[:_SAMPLE]}."
    )


def to_open_clip_keys(state: Mapping[str, torch.Tensor], source: str = "these weights") -> StateDict:
    """Weights in open_clip's names with a text tower of its own; derived entries are dropped.

    Names that a format does not know are kept, so that loading exactly reports them.

    Raises:
        CheckpointError: An unknown format, or a file that holds no tower of a CLIP.
    """
    state = {key: value for key, value in state.items() if not DERIVED.search(key)}
    kind = key_format(state, source)
    if kind is KeyFormat.IMAGE_TOWER:
        raise CheckpointError(
            f"{source} holds an image tower alone, without a text tower and its shared space ('blocks.*' at the root, "
            "as timm and self-supervised pre-training save it). Names cannot be compared with its features: give the "
            "whole CLIP as MODEL.ENCODER.WEIGHTS."
        )
    return _CONVERSIONS[kind](state)


def require_both_towers(state: Mapping[str, torch.Tensor], source: str) -> None:
    """CheckpointError where weights in open_clip's names lack one of the two towers."""
    for prefix, lacking, found in (("text.", "text", "image"), ("visual.", "image", "text")):
        if not any(key.startswith(prefix) for key in state):
            raise CheckpointError(
                f"{source} holds a CLIP's {found} tower, but not its {lacking} tower, so there is no space that both "
                "share. Give a file with the whole CLIP as MODEL.ENCODER.WEIGHTS."
            )


def _root_text(state: StateDict) -> StateDict:
    return convert_to_custom_text_state_dict(state)


# EVA-CLIP's own names -> timm's, inside open_clip's `visual.trunk`.
_EVA_RENAMES = (
    (re.compile(r"^visual\."), "visual.trunk."),
    (re.compile(r"\.attn\.inner_attn_ln\."), ".attn.norm."),
    (re.compile(r"\.mlp\.ffn_ln\."), ".mlp.norm."),
    (re.compile(r"\.mlp\.w1\."), ".mlp.fc1_g."),
    (re.compile(r"\.mlp\.w2\."), ".mlp.fc1_x."),
    (re.compile(r"\.mlp\.w3\."), ".mlp.fc2."),
)
_SEPARATE_BIAS = re.compile(r"\.attn\.([qv])_bias$")


def _eva_clip(state: StateDict) -> StateDict:
    state = _root_text(state) if "text_projection" in state else state
    separate = "visual.blocks.0.attn.q_proj.weight" in state  # q, k, v apart; EVA-01 has them fused
    renamed = {}
    for key, value in state.items():
        if key.startswith("visual."):
            for pattern, replacement in _EVA_RENAMES:
                key = pattern.sub(replacement, key)
            if separate:
                key = _SEPARATE_BIAS.sub(r".attn.\1_proj.bias", key)
        renamed[key] = value
    return renamed


Renames = Sequence[tuple[str, str]]

# Hugging Face's transformer layers -> open_clip's residual blocks (both text towers, and CLIP's image tower) ...
_TO_RESBLOCKS: Renames = (
    (r"\.encoder\.layers\.", ".transformer.resblocks."),
    (r"\.layer_norm1\.", ".ln_1."),
    (r"\.layer_norm2\.", ".ln_2."),
    (r"\.self_attn\.in_proj\.", ".attn.in_proj_"),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)
_TEXT: Renames = (
    *((rf"^(text_model\b.*){old}", rf"\1{new}") for old, new in _TO_RESBLOCKS),
    (r"^text_model\.embeddings\.token_embedding\.", "text.token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text.positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "text.ln_final."),
    (r"^text_model\.head\.", "text.text_projection."),
    (r"^text_projection\.weight$", "text.text_projection"),
    (r"^text_model\.", "text."),
)
_CLIP_IMAGE: Renames = (
    *((rf"^(vision_model\b.*){old}", rf"\1{new}") for old, new in _TO_RESBLOCKS),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),  # so misspelt in the library
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^vision_model\.", "visual."),
)
# ... and to timm's blocks (SigLIP's image tower).
_SIGLIP_IMAGE: Renames = (
    (r"^vision_model\.encoder\.layers\.(\d+)\.layer_norm", r"visual.trunk.blocks.\1.norm"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.in_proj\.", r"visual.trunk.blocks.\1.attn.qkv."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"visual.trunk.blocks.\1.attn.proj."),
    (r"^vision_model\.encoder\.layers\.", "visual.trunk.blocks."),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.trunk.patch_embed.proj."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.trunk.pos_embed"),
    (r"^vision_model\.post_layernorm\.", "visual.trunk.norm."),
    (r"^vision_model\.head\.probe$", "visual.trunk.attn_pool.latent"),
    (r"^vision_model\.head\.attention\.out_proj\.", "visual.trunk.attn_pool.proj."),
    (r"^vision_model\.head\.layernorm\.", "visual.trunk.attn_pool.norm."),
    (r"^vision_model\.head\.mlp\.", "visual.trunk.attn_pool.mlp."),
)
_APART = re.compile(r"^(.*\.self_attn)\.q_proj\.(weight|bias)$")
_POOLING_INPUT = re.compile(r"^vision_model\.head\.attention\.in_proj_(weight|bias)$")


def _hugging_face_clip(state: StateDict) -> StateDict:
    renamed = _rename(_fuse_queries_keys_values(state), (*_TEXT, *_CLIP_IMAGE))
    for key in ("visual.proj", "text.text_projection"):  # a linear layer's weight there, a matrix on the right here
        if key in renamed:
            renamed[key] = renamed[key].T.contiguous()
    return renamed


def _hugging_face_siglip(state: StateDict) -> StateDict:
    split = {}
    for key, value in _fuse_queries_keys_values(state).items():
        part = _POOLING_INPUT.match(key)
        if part:  # (3 D, ...): the query's third apart from the keys' and values'
            width = len(value) // 3
            split[f"visual.trunk.attn_pool.q.{part[1]}"] = value[:width].clone()
            split[f"visual.trunk.attn_pool.kv.{part[1]}"] = value[width:].clone()
        else:
            split[key] = value
    renamed = _rename(split, (*_TEXT, *_SIGLIP_IMAGE))
    renamed["visual.trunk.pos_embed"] = renamed["visual.trunk.pos_embed"][None]  # (N, D) -> (1, N, D)
    for key in ("logit_scale", "logit_bias"):
        if key in renamed:
            renamed[key] = renamed[key].reshape(())
    return renamed


def _fuse_queries_keys_values(state: StateDict) -> StateDict:
    """q_proj, k_proj and v_proj as one in_proj, in this order."""
    fused = dict(state)
    for key in state:
        found = _APART.match(key)
        if found:
            parts = [f"{found[1]}.{part}_proj.{found[2]}" for part in "qkv"]
            if all(part in state for part in parts):
                fused[f"{found[1]}.in_proj.{found[2]}"] = torch.cat([fused.pop(part) for part in parts])
    return fused


def renamed_by_first(key: str, rules: Renames) -> str | None:
    """The key after the first rule whose pattern it contains; None if no rule applies."""
    for pattern, replacement in rules:
        new, count = re.subn(pattern, replacement, key)
        if count:
            return new
    return None


def _rename(state: StateDict, rules: Renames) -> StateDict:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


_CONVERSIONS: dict[KeyFormat, Callable[[StateDict], StateDict]] = {
    KeyFormat.OPEN_CLIP: dict,
    KeyFormat.ROOT_TEXT: _root_text,
    KeyFormat.EVA_CLIP: _eva_clip,
    KeyFormat.HUGGING_FACE_CLIP: _hugging_face_clip,
    KeyFormat.HUGGING_FACE_SIGLIP: _hugging_face_siglip,
}
