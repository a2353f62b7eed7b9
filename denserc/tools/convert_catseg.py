"""Published CAT-Seg models as checkpoints of ours (`denserc convert catseg`).

CAT-Seg's own files (over OpenAI's CLIP) and those of DeCLIP's branch (over EVA-CLIP) are told by their keys, their size
by their shapes; both hold the whole CLIP.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..config import read_config
from ..encoders import read_weights
from ..model_zoo import find_config_file
from ..openvocab.checkpoint import write_model
from ..segmentation.convert import convert_model
from ..structures import ConfigurationError

_CLIP = "sem_seg_head.predictor.clip_model.visual."
_DECLIP = ("MODEL.CONSTRUCTION.NAME", "declip_csa", "MODEL.CATSEG.TRAIN.TEXT", "qkv")
# (entry that identifies the family, width of the image tower) -> (our configuration, further settings)
_PUBLISHED = {
    ("class_embedding", 768): ("catseg_openai_vitb16", ()),
    ("class_embedding", 1024): ("catseg_openai_vitl14", ()),
    ("cls_token", 768): ("catseg_vitb16", _DECLIP),
    ("cls_token", 1024): ("catseg_vitl14", _DECLIP),
}


def published_config(state: Mapping[str, torch.Tensor], source: str) -> tuple[str, tuple[str, ...]]:
    """Name of the packaged config of the published model that has these keys and shapes, and further settings.

    Raises:
        ConfigurationError: None has.
    """
    for mark in ("class_embedding", "cls_token"):
        if _CLIP + mark in state:
            width = state[_CLIP + mark].shape[-1]
            if (mark, width) in _PUBLISHED:
                return _PUBLISHED[mark, width]
            raise ConfigurationError(
                f"{source} has an image tower of width {width}; published are 768 and 1024. Name its configuration "
                "with --config."
            )
    raise ConfigurationError(f"{source} has no CLIP below {_CLIP}*. Name its configuration with --config.")


def convert_catseg(file: str | Path, output: str | Path, *, config: str = "", options: Sequence[str] = ()) -> None:
    """Convert a published model, print what was read and write the checkpoint.

    Args:
        file: A published model, .pth.
        output: The checkpoint to write, .pth.
        config: File or packaged name; "" for the published one of these keys and shapes.
        options: Config keys and values in turn.

    Raises:
        CheckpointError: The file is not a CAT-Seg.
        ConfigurationError: No config is known for these shapes.
        WeightsMismatchError: The weights do not fit the configuration.
    """
    state, source = read_weights(file), Path(file).name
    name, settings = (config, ()) if config else published_config(state, source)
    path = find_config_file(name)
    print(f"configuration: {Path(path).name}{'' if config else ', from the keys and shapes'}")
    cfg = read_config(path, [*settings, *options])
    converted = convert_model(state, cfg, source)
    print(
        f"read {len(state)} entries; left out knowingly: {len(converted.dropped)} (shift masks, rotary tables, CLIP's "
        "temperature)"
    )
    write_model(output, converted.model, cfg)
    print(f"wrote {output}: for denserc.load_model and for MODEL.WEIGHTS")
