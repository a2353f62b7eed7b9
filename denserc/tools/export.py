"""A detector as one program of torch.export, in a file (`denserc export`)."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..data.vocabulary.text_embeddings import embed_names, save_text_embeddings
from ..detection import load_detector
from ..detection.export import export_detector
from ..openvocab.checkpoint import stored_config
from ..structures import BACKGROUND, Vocabulary, atomic_path


def export(
    detector: str | Path, output: str | Path, *, side: int | None = None, names: Sequence[str] = (), device: str = "cpu"
) -> None:
    """Write a detector as a program, and on request text embeddings for it.

    Args:
        detector: A detector checkpoint.
        output: The program to write, .pt2.
        side: Side of the square input, pixels; the detector's INPUT.SIZE if None.
        names: Classes whose text embeddings are written beside the program; none: no such file.
        device: Device that the program will run on.

    Raises:
        CheckpointError: The file is not a detector's.
    """
    output, model = Path(output), load_detector(detector, device=device)
    side = side or stored_config(model.metadata, detector)["INPUT"]["SIZE"]
    program = export_detector(model, side)
    with atomic_path(output) as partial:
        torch.export.save(program, partial)
    print(f"wrote {output}: image (3, {side}, {side}), size, text embeddings, exponents -> boxes, scores")
    if names:
        all_names = [*Vocabulary(names).names, BACKGROUND]
        beside = output.with_suffix(".text_embeddings.safetensors")
        save_text_embeddings(beside, embed_names(model.text_tower, all_names, model.templates))
        print(f"wrote {beside}: the embeddings of {len(all_names)} names, the background last")
