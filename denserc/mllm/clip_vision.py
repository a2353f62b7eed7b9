"""The tower of an OpenAI-style CLIP as a plain `CLIPVisionModel` of transformers.

LLaVA's own code and others read such a folder without DenseRC. Its `hidden_states[-2]` without the class token is the
feature "penultimate", bitwise identical in float32.
"""

import torch
from open_clip.transformer import QuickGELU
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ..encoders import load_exactly
from ..encoders.key_formats import renamed_by_first
from ..encoders.towers.clip import ClipVitTower
from ..encoders.towers.position import resize_position_embedding
from ..structures import ConfigurationError

# open_clip's names -> transformers', applied to the whole key.
_RENAMES = (
    (r"^class_embedding$", "embeddings.class_embedding"),
    (r"^conv1\.", "embeddings.patch_embedding."),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^ln_pre\.", "pre_layrnorm."),  # so misspelt in the library
    (r"^ln_post\.", "post_layernorm."),
    (r"^transformer\.resblocks\.(\d+)\.ln_([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"encoder.layers.\1.self_attn.in_proj."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"encoder.layers.\1.self_attn.out_proj."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"encoder.layers.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"encoder.layers.\1.mlp.fc2."),
)
_ACTIVATIONS = {QuickGELU: "quick_gelu", nn.GELU: "gelu"}


def reasons_against(tower: nn.Module) -> list[str]:
    """Properties in which an image tower is not a `CLIPVisionModel`; empty if it is one."""
    if not isinstance(tower, ClipVitTower):
        return [f"it is a {type(tower).__name__}, not the ViT of OpenAI's CLIP"]
    block, norms = tower.blocks[0], [m for m in tower.visual.modules() if isinstance(m, nn.LayerNorm)]
    return [
        reason
        for wrong, reason in (
            (not isinstance(block.ls_1, nn.Identity), "its blocks have layer scales"),
            (type(block.mlp.gelu) not in _ACTIVATIONS, f"its activation is {type(block.mlp.gelu).__name__}"),
            (getattr(block.mlp.gelu, "approximate", "none") != "none", "its GELU is an approximation"),
            (not isinstance(tower.visual.ln_pre, nn.LayerNorm), "it has no norm before its blocks"),
            (len({norm.eps for norm in norms}) != 1, "its norms have different epsilons"),
            (tower.visual.conv1.bias is not None, "its patch embedding has a bias"),
        )
        if wrong
    ]


def clip_vision_model(tower: nn.Module, image_size: int) -> CLIPVisionModel:
    """An image tower as transformers' own class, on the CPU, with the same weights.

    Args:
        tower: Image tower with its weights, float32.
        image_size: Side in pixels of the square input; position embeddings are resized to it once.

    Raises:
        ConfigurationError: The tower has parts that the class lacks.
    """
    reasons = reasons_against(tower)
    if reasons:
        raise ConfigurationError(
            f"{tower.name} cannot be written as a plain CLIPVisionModel: {'; '.join(reasons)}. Leave --plain out; the "
            "folder then has the type denserc_vision and is read after `import denserc.mllm`."
        )
    block = tower.blocks[0]
    config = CLIPVisionConfig(
        hidden_size=tower.width,
        intermediate_size=block.mlp.c_fc.out_features,
        projection_dim=tower.embed_dim,
        num_hidden_layers=tower.depth,
        num_attention_heads=tower.num_heads,
        image_size=image_size,
        patch_size=tower.patch_size,
        hidden_act=_ACTIVATIONS[type(block.mlp.gelu)],
        layer_norm_eps=tower.visual.ln_pre.eps,
    )
    with torch.random.fork_rng(devices=[]):
        model = CLIPVisionModel(config).float()
    load_exactly(model, _state(tower, image_size), tower.name)
    return model.eval().requires_grad_(False)


def _state(tower: ClipVitTower, image_size: int) -> dict[str, torch.Tensor]:
    """The image tower's weights in transformers' names, queries, keys and values apart."""
    side = image_size // tower.patch_size
    state = {}
    for key, value in tower.visual.state_dict().items():
        if key == "proj":  # into the image-text space; CLIPVisionModel has none
            continue
        if key == "positional_embedding":
            value = resize_position_embedding(value[None], (side, side), 1, tower.position_resize)[0]
        name = renamed_by_first(key, _RENAMES) or key
        if ".in_proj." in name:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                state[name.replace(".in_proj.", f".{part}_proj.")] = third.clone()
        else:
            state[name] = value
    return state
