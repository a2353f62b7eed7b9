"""Published CLIPSelf and DeCLIP encoders, or any CLIP, as a DenseRC checkpoint, exactly or not at all:

    python -m denserc.tools.convert_clip eva_vitb16_coco_clipself_proposals.pt clipself.safetensors \\
        --encoder EVA02-B-16 --construction clipself

Every format that MODEL.ENCODER.WEIGHTS takes is read. A file with an image tower alone takes its text tower from
--clip, the CLIP that it was distilled from. Gated constructions have weights of their own that no such file holds;
projects/Distillation/train_net.py makes those.
"""

import argparse
from pathlib import Path

from ..construction import Construction, DenseEncoder, DenseModel, save_checkpoint
from ..encoders import PositionResize, build_clip, load_exactly, read_weights, to_open_clip_keys
from ..structures import CheckpointError, choose
from .convert_fvit import UNGATED


def convert_clip(
    file: str | Path, *, encoder: str, construction: str, clip: str = "", position_resize: str = "bicubic"
) -> DenseModel:
    """The dense model of a published file.

    Args:
        file: weights of an image tower, with or without its text tower.
        encoder: open_clip's model name.
        construction: one of CONSTRUCTIONS without gates.
        clip: file or tag of the CLIP whose text tower is taken; "": the file has its own.
        position_resize: see PositionResize.

    Raises:
        CheckpointError: an unknown format, or no text tower in the file and no `clip`, or both.
        WeightsMismatchError: the weights are another encoder's.
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


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="published weights")
    parser.add_argument("output", help="the checkpoint to write, .safetensors")
    parser.add_argument("--encoder", required=True, help="open_clip's name, e.g. EVA02-B-16 or EVA02-L-14-336")
    parser.add_argument("--construction", required=True, choices=UNGATED, help="of the dense features")
    parser.add_argument("--clip", default="", help="file or tag to take the text tower from, where the file has none")
    parser.add_argument(
        "--position-resize", default=PositionResize.BICUBIC.value, choices=[resize.value for resize in PositionResize]
    )
    args = parser.parse_args(arguments)
    model = convert_clip(
        args.file,
        encoder=args.encoder,
        construction=args.construction,
        clip=args.clip,
        position_resize=args.position_resize,
    )
    save_checkpoint(args.output, model)
    print(f"wrote {args.output}: for MODEL.ENCODER.CHECKPOINT; text fingerprint {model.text.fingerprint()}")


if __name__ == "__main__":
    main()
