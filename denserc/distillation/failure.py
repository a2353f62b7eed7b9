"""What remains of a step that went wrong: its batches and losses in a file."""

from collections.abc import Sequence
from pathlib import Path

from .batch import DistillationBatch
from .state import write_atomically


def save_failed_step(
    folder: str | Path,
    *,
    step: int,
    rank: int,
    world_size: int,
    seed: int,
    images_drawn: int,
    batches: Sequence[DistillationBatch],
    losses: Sequence[dict[str, float]],
) -> Path:
    """Writes nan_batch_step<N>_rank<R>.pt, which torch.load(..., weights_only=True) reads.

    Its entries are the arguments, with "batches" as dictionaries: `DistillationBatch(**content["batches"][0])` is the
    batch again, images and crops as uint8, files by name. "draws" has the number of each image's draw, by which
    `DistillationDataset` finds the same image and regions.

    Args:
        folder: where to.
        step: number of the step in progress, from 1.
        rank, world_size: of this process.
        seed: of the data.
        images_drawn: images used before this step, over all processes.
        batches: this process's batches of the step, on the CPU.
        losses: their losses, by name.
    """
    first, draws = images_drawn + rank, []
    for batch in batches:
        draws.append([first + world_size * position for position in range(len(batch.images))])
        first += world_size * len(batch.images)
    content = {
        "step": step,
        "rank": rank,
        "world_size": world_size,
        "seed": seed,
        "images_drawn": images_drawn,
        "batches": [dict(vars(batch)) for batch in batches],
        "losses": list(losses),
        "draws": draws,
    }
    return write_atomically(Path(folder) / f"nan_batch_step{step}_rank{rank}.pt", content)
