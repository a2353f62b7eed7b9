"""Description of a DenseRC checkpoint (`denserc describe`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from ..construction import DenseEncoder, load_checkpoint, read_metadata
from ..construction.cost import count_multiply_accumulates
from ..data.images.reading import read_rgb
from ..structures import ConfigurationError
from ..visualization import Better, Column, ResultTable, print_table


def parse_size(text: str) -> tuple[int, int]:
    """ "640" -> (640, 640); "768x1024" -> (768, 1024), height first."""
    try:
        height, _, width = text.partition("x")
        return int(height), int(width or height)
    except ValueError:
        raise ConfigurationError(f"A size is a side like 640 or height x width like 768x1024; got {text!r}.") from None


@torch.no_grad()
def mean_gates(encoder: DenseEncoder, images: Sequence[torch.Tensor]) -> torch.Tensor:
    """The gates' mean over images and patches, per block and head.

    Args:
        encoder: Dense encoder with gates.
        images: Normalized, each (3, H, W).

    Returns:
        (k, A): k blocks from the first used to the last.
    """
    sums = torch.zeros(encoder.construction.blocks_used, encoder.tower.num_heads)
    patches = 0

    def look(module, arguments, gates):
        sums[arguments[0]] += gates.sum((0, 2, 3)).cpu()  # (B, A, N, 1) -> (A,)

    handle = encoder.gates.register_forward_hook(look)
    try:
        for image in images:
            h, w = encoder(image[None]).shape[-2:]
            patches += h * w
    finally:
        handle.remove()
    return sums / patches


def describe(checkpoint: str | Path, sizes: Sequence[tuple[int, int]], images: Sequence[str | Path] = ()) -> dict:
    """Everything that the command prints, as plain values.

    Args:
        checkpoint: A DenseRC checkpoint.
        sizes: (H, W) at which to count multiply-accumulates.
        images: Files on which to measure the gates; resized to the tower's native size, and larger sides kept.
    """
    metadata, model = read_metadata(checkpoint), load_checkpoint(checkpoint)
    encoder = model.encoder.eval()
    parts = {"image tower": encoder.tower, "gates": encoder.gates, "text tower": model.text}
    result = {
        "checkpoint": str(checkpoint),
        "encoder": metadata.encoder,
        "construction": metadata.construction,
        "patch size": metadata.patch_size,
        "pixel mean": metadata.pixel_mean,
        "pixel std": metadata.pixel_std,
        "text fingerprint": metadata.text_fingerprint,
        "notes": metadata.extra,
        "parameters": {name: sum(p.numel() for p in part.parameters()) if part else 0 for name, part in parts.items()},
        "multiply-accumulates": {f"{h}x{w}": count_multiply_accumulates(encoder, (h, w))["total"] for h, w in sizes},
    }
    if images and encoder.gates is not None:
        first = encoder.tower.depth - encoder.construction.blocks_used
        means = mean_gates(encoder, [_to_input(path, encoder) for path in images])
        result["mean gates"] = {f"block {first + i}": row.tolist() for i, row in enumerate(means)}
    return result


def _to_input(path: str | Path, encoder: DenseEncoder) -> torch.Tensor:
    """(3, H, W) normalized: the shorter side at the native size, both sides whole patches."""
    pixels = torch.as_tensor(read_rgb(path).copy()).permute(2, 0, 1)[None].float() / 255
    scale = encoder.tower.native_size / min(pixels.shape[-2:])
    size = [max(1, round(side * scale / encoder.patch_size)) * encoder.patch_size for side in pixels.shape[-2:]]
    resized = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    return encoder.tower.pixels.normalize(resized)[0]


def print_description(result: Mapping) -> None:
    """Print what `describe` returns, without the configuration, which is long."""
    for name, value in result.items():
        if name not in ("parameters", "multiply-accumulates", "mean gates"):
            if name == "notes":
                value = {key: note for key, note in value.items() if key != "config"}
            print(f"{name}: {value}")
    for name, count in result["parameters"].items():
        print(f"parameters, {name}: {count:,}")
    for size, count in result["multiply-accumulates"].items():
        print(f"multiply-accumulates at {size}: {count / 1e9:.1f} G")
    if "mean gates" in result:
        heads = range(len(next(iter(result["mean gates"].values()))))
        rows = {
            block: {str(head): gate for head, gate in enumerate(gates)} for block, gates in result["mean gates"].items()
        }
        columns = [Column(str(head), Better.NEITHER, digits=2) for head in heads]
        print_table(ResultTable(columns, rows, corner="mean gate of head"))
