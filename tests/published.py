"""Files in the published formats, small: F-ViT's keys with shrunk shapes, and the tiny EVA-02 CLIP under them."""

import json
import re
from pathlib import Path

import open_clip
import torch
from timm.models import is_model, register_model
from timm.models.eva import Eva

from denserc.encoders import build_clip
from tests.paths import ROOT

_LINE = re.compile(r"^(\S+)\t\(([\d, ]*)\)\t(\w+)", re.MULTILINE)
# Published sizes -> those of the recorded tiny detector: width, MLP, positions, image-text space, pyramid, fc input.
_SHRUNK = {768: 96, 2048: 160, 197: 50, 512: 48, 256: 32, 12544: 1568}
DEPTH = 6


def published_shapes(name: str) -> dict[str, tuple[list[int], torch.dtype]]:
    """Keys of a published detector with shape and dtype; `name` is "b16_ovcoco" or "l14_ovlvis"."""
    text = (ROOT / "tests" / "fixtures" / "fvit" / f"fvit_{name}_keys.txt").read_text()
    return {
        key: ([int(n) for n in shape.split(",") if n.strip()], getattr(torch, dtype))
        for key, shape, dtype in _LINE.findall(text)
    }


def shrunk_detector() -> dict[str, torch.Tensor]:
    """Random weights under the keys of the published OV-COCO B/16 detector, six blocks of width 96."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, (shape, dtype) in published_shapes("b16_ovcoco").items():
        block = re.search(r"visual\.blocks\.(\d+)\.", key)
        if block and int(block[1]) >= DEPTH:
            continue
        shape = [_SHRUNK.get(n, n) for n in shape]
        if key.endswith("detect_temperature"):
            value = torch.tensor(37.5)
        elif dtype is torch.int64:
            value = torch.tensor(1)
        elif key.endswith("running_var") or re.search(r"(bn|norm\w*|ln)\.weight$", key):
            value = torch.rand(shape, generator=generator) + 0.5
        else:
            value = torch.randn(shape, generator=generator) * 0.05
        state[key] = value
    return state


def register_tiny_eva(folder: Path, name: str, spec: dict) -> str:
    """Register a tiny EVA-02 CLIP with timm and open_clip, and return its name.

    Args:
        folder: Folder for open_clip's configuration file.
        spec: Values patch, clip_image_size, width, depth, heads, embed, mlp_ratio; optional rope_reference, text.
    """
    tower = f"{name.replace('-', '_').lower()}_tower"

    def entry(pretrained: bool = False, **kwargs) -> Eva:
        for option in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            kwargs.pop(option, None)
        arguments = {
            "img_size": spec["clip_image_size"],
            "patch_size": spec["patch"],
            "embed_dim": spec["width"],
            "depth": spec["depth"],
            "num_heads": spec["heads"],
            "mlp_ratio": spec["mlp_ratio"],
            "qkv_fused": False,
            "swiglu_mlp": True,
            "scale_mlp": True,
            "scale_attn_inner": True,
            "use_rot_pos_emb": True,
            "ref_feat_shape": (spec.get("rope_reference", 16),) * 2,
            "global_pool": "token",
        }
        return Eva(**{**arguments, **kwargs})

    entry.__name__, entry.__module__ = tower, __name__
    globals()[tower] = entry  # where timm looks for it
    if not is_model(tower):
        register_model(entry)
    vision = {
        "image_size": spec["clip_image_size"],
        "timm_model_name": tower,
        "timm_pool": "token",
        "timm_proj": None,
    }
    text = spec.get("text") or {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": spec["embed"], "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def write_random_clip(path: Path, name: str) -> Path:
    """A CLIP of random weights in open_clip's names."""
    clip = build_clip(name, random_init=True)
    state = {f"visual.{key}": value for key, value in clip.image.visual.state_dict().items()}
    state |= {f"text.{key}": value for key, value in clip.text.text.state_dict().items()}
    torch.save({"state_dict": {**state, "logit_scale": torch.tensor(2.0)}}, path)
    return path


def write_detector_config(path: Path, name: str, spec: dict) -> Path:
    """The configuration of the tiny detector over the CLIP `name`; `spec` is that of the recordings' settings."""
    path.write_text(
        f"_BASE_: {ROOT / 'configs' / 'Base-FViT.yaml'}\n"
        f"MODEL:\n  ENCODER: {{NAME: {name}}}\n  FPN: {{OUT_CHANNELS: {spec['fpn']}}}\n"
        f"  ROI_BOX_HEAD: {{CONV_DIM: {spec['fpn']}}}\n  ROI_MASK_HEAD: {{CONV_DIM: {spec['fpn']}}}\n"
        f"  FVIT:\n    BLOCKS: {spec['out_indices']}\n"
        f"    FUSION: {{TEMPERATURE: {spec['vlm_T']}, BASE: {spec['alpha']}, NOVEL: {spec['beta']}}}\n"
        f"INPUT: {{SIZE: {spec['size']}}}\n"
    )
    return path
