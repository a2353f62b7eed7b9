"""A detector as one program whose text embeddings are an input, for torch.export's runtimes:

    python -m denserc.tools.export model_final.pth detector.pt2 --side 640
    python -m denserc.tools.export model_final.pth detector.pt2 --names "red cup, ball"  # and its text embeddings

docs/EXPORT.md says what goes in and comes out. The program needs torch and torchvision, neither Detectron2 nor DenseRC.
"""

import argparse
from pathlib import Path

import torch
import yaml

from ..data.vocabulary.text_embeddings import embed_names, save_text_embeddings
from ..detection import load_detector
from ..detection.export import export_detector
from ..structures import BACKGROUND, Vocabulary, written_whole
from .show_detections import listed


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", help="a detector checkpoint")
    parser.add_argument("output", type=Path, help="the program to write, .pt2")
    parser.add_argument("--side", type=int, help="of the square input; by default the detector's INPUT.SIZE")
    parser.add_argument("--names", default="", help="also write the text embeddings of these, with commas")
    parser.add_argument("--device", default="cpu", help="that the program is to run on")
    args = parser.parse_args(arguments)
    model = load_detector(args.detector, device=args.device)
    side = args.side or yaml.safe_load(model.metadata["config"])["INPUT"]["SIZE"]
    program = export_detector(model, side)
    with written_whole(args.output) as partial:
        torch.export.save(program, partial)
    print(f"wrote {args.output}: image (3, {side}, {side}), size, text embeddings, exponents -> boxes, scores")
    if args.names:
        names = [*Vocabulary(listed(args.names)).names, BACKGROUND]
        beside = args.output.with_suffix(".text_embeddings.safetensors")
        save_text_embeddings(beside, embed_names(model.text_tower, names, model.templates))
        print(f"wrote {beside}: the embeddings of {len(names)} names, the background last")


if __name__ == "__main__":
    main()
