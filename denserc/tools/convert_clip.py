"""Published CLIPSelf and DeCLIP encoders, or any CLIP, as a DenseRC checkpoint (`denserc convert clip`)."""

from pathlib import Path

from ..construction import Construction, DenseEncoder, DenseModel
from ..encoders import PositionResize, build_clip, load_exactly, read_weights, to_open_clip_keys
from ..structures import CheckpointError, choose


def convert_clip(
    file: str | Path, *, encoder: str, construction: str, clip: str = "", position_resize: str = "bicubic"
) -> DenseModel:
    """The dense model of a published file.

    Args:
        file: Weights of an image tower, with or without its text tower.
        encoder: open_clip's model name.
        construction: One of CONSTRUCTIONS without gates.
        clip: File or tag of the CLIP whose text tower is taken; "": the file has its own.
        position_resize: See PositionResize.

    Raises:
        CheckpointError: An unknown format, or no text tower in the file and no `clip`, or both.
        WeightsMismatchError: The weights are another encoder's.
    """
    resize = choose(PositionResize, position_resize, "--position-resize")
    name = Path(file).name
    extra = {"converted_from": name, "encoder_weights": name}
    if clip:
        state = to_open_clip_keys(read_weights(file), name)
        if any(key.startswith("text.") for key in state):
            raise CheckpointError(f"{name} holds a text tower of its own; leave --clip out.")
        model = build_clip(encoder, clip, position_resize=resize)
        visual = {key.removeprefix("visual."): value for key, value in state.items() if key != "logit_scale"}
        load_exactly(model.image.visual, visual, name)
        extra["text_weights"] = Path(clip).name
    else:
        model = build_clip(encoder, str(file), position_resize=resize)
    return DenseModel(DenseEncoder(model.image, Construction.named(construction)), model.text, model.logit_scale, extra)
